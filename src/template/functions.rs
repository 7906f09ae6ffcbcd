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

/// Most values in what a function takes: repeated lists take no room until somebody goes through them.
const MAX_VALUES: usize = 100_000;
/// Longest text that a function makes.
const MAX_TEXT: usize = 1 << 20;

fn too_large(what: &str, limit: usize) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("more than {limit} {what} are more than a deployment has"))
}

/// The value as JSON, within limits.
fn json(value: &Value) -> Result<serde_json::Value, Error> {
    within_limits(value)?;
    serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

fn within_limits(value: &Value) -> Result<(), Error> {
    fn count(value: &Value, seen: &mut usize) -> Result<(), Error> {
        *seen += 1;
        if *seen > MAX_VALUES {
            return Err(too_large("values", MAX_VALUES));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| count(&item, seen)),
            ValueKind::Map => value.try_iter()?.try_for_each(|key| count(&value.get_item(&key)?, seen)),
            _ => Ok(()),
        }
    }
    count(value, &mut 0)
}

/// Goes through the items of a list, within limits.
fn items(value: &Value) -> Result<impl Iterator<Item = Result<Value, Error>>, Error> {
    let items = value.try_iter()?.enumerate();
    Ok(items.map(|(i, item)| if i < MAX_VALUES { Ok(item) } else { Err(too_large("values", MAX_VALUES)) }))
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
            for item in items(&value)? {
                let item = item?;
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
            out.insert(key.to_string().replace('-', "_"), json(&table.get_item(&key)?)?);
        }
    }
    Ok(Value::from(minijinja::value::Serde(out)))
}

/// Without the entries that are none, at every depth.
fn compact(value: Value) -> Result<Value, Error> {
    Ok(Value::from(minijinja::value::Serde(without_nulls(json(&value)?))))
}

/// A list of words as one line that a POSIX shell (or Python's `shlex`) splits into the same words.
fn to_shell(words: Value) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    let mut out = String::new();
    for word in items(&words)? {
        let word = word?.to_string();
        if out.len() + word.len() > MAX_TEXT {
            return Err(too_large("bytes", MAX_TEXT));
        }
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
        match json(&table)? {
            serde_json::Value::Null => {}
            serde_json::Value::Object(map) => merge_into(&mut out, map),
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
    within_limits(&value)?;
    // Directly, so that keys keep their order.
    serde_json::to_string(&value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// TOML has no null: entries that are none are left out.
fn to_toml(value: Value) -> Result<String, Error> {
    let bad = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    if value.is_none() || value.is_undefined() {
        return Err(bad(&"none has no TOML form; give it a default, or leave the line out"));
    }
    let json = without_nulls(json(&value)?);
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
