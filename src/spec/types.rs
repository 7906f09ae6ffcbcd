//! Checking a value against a parameter's type, and bringing it to its one normal form.

use crate::diag::did_you_mean;
use crate::spec::params::{Kind, Param};
use crate::units;
use crate::value::{Table, Value};

/// The methods and engines that exist: built-in ones and those that `templates/` adds.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    pub methods: Vec<String>,
    pub engines: Vec<String>,
}

/// A value that a parameter cannot have.
#[derive(Debug, PartialEq)]
pub struct TypeError {
    /// `wrong_type`, `unknown_value` or `out_of_range`.
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
}

impl TypeError {
    fn new(code: &'static str, message: String) -> TypeError {
        TypeError { code, message, help: None }
    }
}

/// The normal form of `value` as a value of `param`; `path` is where it is set, which is below `param.name` for an open
/// parameter.
pub fn check(param: &Param, path: &str, value: Value, words: &Vocabulary) -> Result<Value, TypeError> {
    let wrong = |wanted: &str, value: &Value| {
        Err(TypeError::new("wrong_type", format!("`{path}` takes {wanted}, not {}", value.type_name())))
    };
    match (param.kind, value) {
        (Kind::Str, Value::Str(s)) if s.is_empty() => {
            Err(TypeError::new("out_of_range", format!("`{path}` is empty; leave it out instead")))
        }
        (Kind::Str, Value::Str(s)) => Ok(Value::Str(s)),
        (Kind::Str, other) => wrong("a string", &other),
        (Kind::Bool, Value::Bool(b)) => Ok(Value::Bool(b)),
        (Kind::Bool, other) => wrong("true or false", &other),
        (Kind::Int { min, max }, Value::Int(i)) => in_range(path, i as f64, min as f64, max as f64, Value::Int(i)),
        (Kind::Int { .. }, other) => wrong("a whole number", &other),
        (Kind::Float { min, max }, v @ (Value::Int(_) | Value::Float(_))) => {
            in_range(path, v.as_f64().unwrap_or_default(), min, max, v)
        }
        (Kind::Float { .. }, other) => wrong("a number", &other),
        (Kind::Word(known), Value::Str(s)) => one_of(path, s, known.iter().copied()),
        (Kind::Method, Value::Str(s)) => one_of(path, s, words.methods.iter().map(String::as_str)),
        (Kind::Engine, Value::Str(s)) => one_of(path, s, words.engines.iter().map(String::as_str)),
        (Kind::Word(_) | Kind::Method | Kind::Engine, other) => wrong("a word", &other),
        (Kind::Duration, Value::Str(s)) => match units::parse_duration(&s) {
            Ok(d) if !d.is_zero() => Ok(units::format_duration(d).into()),
            Ok(_) => Err(TypeError::new("out_of_range", format!("`{path}` must be longer than zero"))),
            Err(e) => Err(TypeError::new("wrong_type", format!("`{path}`: {e}"))),
        },
        (Kind::Duration, other) => wrong("a duration such as \"30s\"", &other),
        (Kind::Pair, value) => pair(path, value),
        (Kind::Stages, value) => {
            super::stages::check(path, value).map_err(|(message, help)| TypeError { code: "wrong_type", message, help })
        }
        (Kind::TokensOrTime, Value::Int(i)) => in_range(path, i as f64, 1.0, 16e6, Value::Int(i)),
        (Kind::TokensOrTime, Value::Str(s)) => match units::parse_duration(&s) {
            Ok(d) if !d.is_zero() => Ok(units::format_duration(d).into()),
            Ok(_) => Err(TypeError::new("out_of_range", format!("`{path}` must be longer than zero"))),
            Err(e) => Err(TypeError::new("wrong_type", format!("`{path}`: {e}"))),
        },
        (Kind::TokensOrTime, other) => wrong("a number of tokens, or a duration such as \"2s\"", &other),
        (Kind::Open, value) if path == param.name => wrong("a table", &value),
        (Kind::Open, value) => Ok(value),
        (Kind::Strings, value) => text(param, path, value),
    }
}

fn in_range(path: &str, x: f64, min: f64, max: f64, value: Value) -> Result<Value, TypeError> {
    if (min..=max).contains(&x) {
        return Ok(value);
    }
    let bound = match () {
        () if x > max => format!("at most {}", Value::number(max).expect("bounds are finite")),
        () if min == f64::MIN_POSITIVE => "more than 0".to_string(),
        () => format!("at least {}", Value::number(min).expect("bounds are finite")),
    };
    Err(TypeError::new("out_of_range", format!("`{path}` is {value}; it must be {bound}")))
}

fn one_of<'a>(
    path: &str,
    word: std::sync::Arc<str>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<Value, TypeError> {
    if known.clone().any(|k| k == &*word) {
        return Ok(Value::Str(word));
    }
    let list = known.clone().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    let mut e = TypeError::new("unknown_value", format!("`{word}` is not a value of `{path}`"));
    e.help = Some(
        did_you_mean(&word, known).map_or_else(|| format!("one of {list}"), |s| format!("{s} The values are {list}")),
    );
    Err(e)
}

fn pair(path: &str, value: Value) -> Result<Value, TypeError> {
    let ends = value.as_list().map(|l| l.iter().map(Value::as_u64).collect::<Vec<_>>());
    match ends.as_deref() {
        Some([Some(low), Some(high)]) if low <= high && *low > 0 => Ok(value),
        _ => {
            let mut e = TypeError::new("wrong_type", format!("`{path}` takes two whole numbers, the smaller first"));
            e.help = Some("in a [[matrix]] block a value that is itself a list is written [[low, high]]".into());
            Err(e)
        }
    }
}

/// Text under a name; numbers and booleans are taken as their text.
fn text(param: &Param, path: &str, value: Value) -> Result<Value, TypeError> {
    match value {
        _ if path == param.name => {
            Err(TypeError::new("wrong_type", format!("`{path}` takes a table of strings, not {}", value.type_name())))
        }
        Value::Str(s) => Ok(Value::Str(s)),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) if param.name == "env" => Ok(value.to_string().into()),
        other => Err(TypeError::new("wrong_type", format!("`{path}` takes a string, not {}", other.type_name()))),
    }
}

/// Puts a dotted path into nested tables.
pub fn insert_nested(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.into(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head.into()).or_insert_with(|| Value::map(Table::new()));
            if !matches!(inner, Value::Map(_)) {
                *inner = Value::map(Table::new());
            }
            if let Value::Map(map) = inner {
                insert_nested(std::sync::Arc::make_mut(map), rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::params::{Lookup, lookup};

    fn normal(path: &str, value: Value) -> Result<Value, TypeError> {
        let Lookup::Param(param) = lookup(path) else { panic!("{path}") };
        let words = Vocabulary { methods: vec!["hf".into()], engines: vec!["vllm".into(), "sglang".into()] };
        check(param, path, value, &words)
    }

    #[test]
    fn values_are_checked_and_normalised() {
        assert_eq!(normal("duration", "90s".into()).unwrap(), Value::str("1m30s"));
        assert_eq!(normal("env.X", Value::Int(1)).unwrap(), Value::str("1"));
        assert_eq!(normal("concurrency", Value::str("4")).unwrap_err().code, "wrong_type");
        assert_eq!(
            normal("concurrency", Value::Int(0)).unwrap_err().message,
            "`concurrency` is 0; it must be at least 1"
        );
        assert_eq!(normal("rate", Value::Int(0)).unwrap_err().message, "`rate` is 0; it must be more than 0");
        let e = normal("engine", "vlm".into()).unwrap_err();
        assert_eq!((e.code, e.help.unwrap().contains("did you mean `vllm`?")), ("unknown_value", true));
        assert!(
            normal(
                "tokens.input_range",
                Value::list(vec![2.into(), 1.into()].into_iter().map(|i: i64| Value::Int(i)).collect())
            )
            .is_err()
        );
    }
}
