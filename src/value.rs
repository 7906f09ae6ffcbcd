//! The one dynamically typed value of the product: what a parameter, a field of a canonical document or a piece of a
//! rendered template can be. Numbers are normalised on the way in (`1.0` is `1`), so equal values have equal bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A table of values, keys sorted.
pub type Table = BTreeMap<Arc<str>, Value>;

/// A value. Cloning is cheap: text, lists and tables are shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    /// Never integral within ±2⁵³ (such a number is an [`Value::Int`]), never NaN or infinite.
    Float(f64),
    Str(Arc<str>),
    List(Arc<[Value]>),
    Map(Arc<Table>),
}

/// Integers up to this magnitude are exact as a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Value {
    /// A number from a float; `None` when it is NaN or infinite.
    ///
    /// ```
    /// use llmatrix::value::Value;
    /// assert_eq!(Value::number(1.0), Some(Value::Int(1)));
    /// assert_eq!(Value::number(f64::NAN), None);
    /// ```
    pub fn number(f: f64) -> Option<Value> {
        if !f.is_finite() {
            None
        } else if f.fract() == 0.0 && f.abs() <= EXACT {
            Some(Value::Int(f as i64))
        } else {
            Some(Value::Float(f))
        }
    }

    pub fn str(s: impl AsRef<str>) -> Value {
        Value::Str(Arc::from(s.as_ref()))
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(items.into())
    }

    pub fn map(table: Table) -> Value {
        Value::Map(Arc::new(table))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        self.as_i64().and_then(|i| u64::try_from(i).ok())
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(l) => Some(l),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Table> {
        match self {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }

    /// What the type is called in messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a table",
        }
    }

    /// Appends the canonical encoding: JSON with sorted keys, no spaces and each number in its shortest exact text.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
            Value::Int(i) => write_display(out, i),
            Value::Float(f) => write_float(out, *f),
            Value::Str(s) => write_json_str(out, s),
            Value::List(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Value::Map(table) => write_table(out, table.iter().map(|(k, v)| (&**k, v))),
        }
    }
}

/// Writes `{"k":v,…}` of pairs that are already sorted by key.
pub fn write_table<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
    out.push(b'{');
    for (i, (key, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json_str(out, key);
        out.push(b':');
        value.write_canonical(out);
    }
    out.push(b'}');
}

/// Writes `s` as a JSON string.
pub fn write_json_str(out: &mut Vec<u8>, s: &str) {
    out.push(b'"');
    for c in s.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if (c as u32) < 0x20 => {
                use std::io::Write;
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let mut buf = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut buf).as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn write_display(out: &mut Vec<u8>, v: &dyn fmt::Display) {
    use std::io::Write;
    let _ = write!(out, "{v}");
}

/// Rust prints the shortest decimal text that reads back as the same float; very large and small magnitudes take the
/// exponent form, which keeps the text short and is JSON too.
fn write_float(out: &mut Vec<u8>, f: f64) {
    use std::io::Write;
    let _ = if (1e-5..1e17).contains(&f.abs()) { write!(out, "{f}") } else { write!(out, "{f:e}") };
}

/// As a person writes it in the file, without quotes around text.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(s) => f.write_str(s),
            other => {
                let mut out = Vec::new();
                other.write_canonical(&mut out);
                f.write_str(&String::from_utf8_lossy(&out))
            }
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Value::Int(i)
    }
}

impl From<u32> for Value {
    fn from(i: u32) -> Self {
        Value::Int(i64::from(i))
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::str(s)
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Str(Arc::from(s))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Bool(b) => s.serialize_bool(*b),
            Value::Int(i) => s.serialize_i64(*i),
            Value::Float(f) => s.serialize_f64(*f),
            Value::Str(t) => s.serialize_str(t),
            Value::List(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                for item in items.iter() {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Value::Map(table) => {
                let mut map = s.serialize_map(Some(table.len()))?;
                for (k, v) in table.iter() {
                    map.serialize_entry(&**k, v)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a boolean, number, string, list or table")
            }
            fn visit_bool<E: de::Error>(self, b: bool) -> Result<Value, E> {
                Ok(Value::Bool(b))
            }
            fn visit_i64<E: de::Error>(self, i: i64) -> Result<Value, E> {
                Ok(Value::Int(i))
            }
            fn visit_u64<E: de::Error>(self, u: u64) -> Result<Value, E> {
                i64::try_from(u).map(Value::Int).map_err(|_| E::custom("the integer is too large"))
            }
            fn visit_f64<E: de::Error>(self, f: f64) -> Result<Value, E> {
                Value::number(f).ok_or_else(|| E::custom("NaN and infinity are not values"))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Value, E> {
                Ok(Value::str(s))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut a: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = a.next_element()? {
                    items.push(item);
                }
                Ok(Value::list(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> Result<Value, A::Error> {
                let mut table = Table::new();
                while let Some((k, v)) = a.next_entry::<String, Value>()? {
                    table.insert(Arc::from(k), v);
                }
                Ok(Value::map(table))
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(v: &Value) -> String {
        let mut out = Vec::new();
        v.write_canonical(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_is_one_point_zero() {
        assert_eq!(Value::number(1.0), Some(Value::Int(1)));
        assert_eq!(Value::number(-0.0), Some(Value::Int(0)));
        assert_eq!(Value::number(f64::NAN), None);
        assert_eq!(canonical(&Value::number(0.1).unwrap()), "0.1");
        assert_eq!(canonical(&Value::number(1e300).unwrap()), "1e300");
        assert_eq!(canonical(&Value::number(1.5e-7).unwrap()), "1.5e-7");
    }

    #[test]
    fn canonical_text_is_json_that_reads_back_equal() {
        let text = r#"{"b":[1,2.5,"x\u0001\"\\é"],"a":{"t":true}}"#;
        let v: Value = serde_json::from_str(text).unwrap();
        let out = canonical(&v);
        assert_eq!(out, r#"{"a":{"t":true},"b":[1,2.5,"x\u0001\"\\é"]}"#);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), v);
    }
}
