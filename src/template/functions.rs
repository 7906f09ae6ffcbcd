//! The functions and filters that templates may use.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Starts the detail of an error that means "this stack cannot honour this cell".
pub const UNSUPPORTED: &str = "unsupported:";

pub fn register(env: &mut Environment<'static>) {
    env.add_function("flag", flag);
    env.add_function("flags", flags);
    env.add_function("merge", merge);
    env.add_function("unsupported", unsupported);
    env.add_function("snake", snake);
    env.add_filter("compact", compact);
    env.add_filter("shell", to_shell);
    env.add_filter("toml", to_toml);
    env.add_filter("json", to_json);
}

fn unsupported(reason: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{UNSUPPORTED}{reason}")))
}

fn flag(name: String, value: Value) -> Result<Vec<String>, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => vec![],
        ValueKind::Bool if value.is_true() => vec![name],
        ValueKind::Bool => vec![],
        ValueKind::Map => vec![name, to_json(value)?],
        // A list repeats its words after the flag, as argparse's `nargs="+"` takes it.
        ValueKind::Seq | ValueKind::Iterable => {
            let mut out = vec![name];
            for item in value.try_iter()? {
                out.push(if item.kind() == ValueKind::Map { to_json(item)? } else { item.to_string() });
            }
            out
        }
        _ => vec![name, value.to_string()],
    })
}

/// With `off`, an entry that is false is `--{off}NAME`: for engines whose switches are pairs such as `--x` and `--no-x`.
fn flags(table: Value, off: Option<String>) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    if matches!(table.kind(), ValueKind::None | ValueKind::Undefined) {
        return Ok(out);
    }
    for key in table.try_iter()? {
        let value = table.get_item(&key)?;
        let name = key.to_string().replace('_', "-");
        match &off {
            Some(off) if value.kind() == ValueKind::Bool && !value.is_true() => out.push(format!("--{off}{name}")),
            _ => out.extend(flag(format!("--{name}"), value)?),
        }
    }
    Ok(out)
}

/// Top-level names with `-` written as `_`, as Python arguments and YAML keys want them. Names below are data.
fn snake(table: Value) -> Result<Value, Error> {
    let mut out = serde_json::Map::new();
    if !matches!(table.kind(), ValueKind::None | ValueKind::Undefined) {
        for key in table.try_iter()? {
            let value = serde_json::to_value(table.get_item(&key)?)
                .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
            out.insert(key.to_string().replace('-', "_"), value);
        }
    }
    Ok(Value::from(minijinja::value::Serde(out)))
}

/// Without the entries that are none, at every depth.
fn compact(value: Value) -> Result<Value, Error> {
    let json = serde_json::to_value(&value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Value::from(minijinja::value::Serde(without_nulls(json))))
}

/// A list of words as one line that a POSIX shell (or Python's `shlex`) splits into the same words.
fn to_shell(words: Value) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    let mut out = String::new();
    for word in words.try_iter()? {
        let word = word.to_string();
        if !out.is_empty() {
            out.push(' ');
        }
        if !word.is_empty() && word.chars().all(plain) {
            out.push_str(&word);
        } else {
            out.push('\'');
            out.push_str(&word.replace('\'', "'\\''"));
            out.push('\'');
        }
    }
    Ok(out)
}

fn merge(tables: Rest<Value>) -> Result<Value, Error> {
    let mut out = serde_json::Map::new();
    for table in tables.0 {
        match serde_json::to_value(&table) {
            Ok(serde_json::Value::Null) => {}
            Ok(serde_json::Value::Object(map)) => merge_into(&mut out, map),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("merge takes tables, not {}", table.kind()),
                ));
            }
        }
    }
    Ok(Value::from(minijinja::value::Serde(out)))
}

fn merge_into(into: &mut serde_json::Map<String, serde_json::Value>, from: serde_json::Map<String, serde_json::Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(serde_json::Value::Object(old)), serde_json::Value::Object(new)) => merge_into(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn to_json(value: Value) -> Result<String, Error> {
    serde_json::to_string(&value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// TOML has no null: entries that are none are left out.
fn to_toml(value: Value) -> Result<String, Error> {
    let bad = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    if value.is_none() || value.is_undefined() {
        return Err(bad(&"none has no TOML form; give it a default, or leave the line out"));
    }
    let json = without_nulls(serde_json::to_value(&value).map_err(|e| bad(&e))?);
    let mut out = String::new();
    serde::Serialize::serialize(&json, toml::ser::ValueSerializer::new(&mut out)).map_err(|e| bad(&e))?;
    Ok(out)
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Array(items) => Json::Array(items.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect()),
        Json::Object(map) => {
            Json::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect())
        }
        other => other,
    }
}
