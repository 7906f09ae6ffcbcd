//! The value of `stages`: a list of `{ rate, to, duration }` or `{ concurrency, to, duration }`, checked and brought to its
//! one normal form.

use crate::diag::did_you_mean;
use crate::units;
use crate::value::{Table, Value};

const KEYS: [&str; 4] = ["rate", "concurrency", "to", "duration"];
const HELP: &str = "for example stages = [{ rate = 2, duration = \"30s\" }, { rate = 2, to = 8, duration = \"1m\" }]; in a \
                    [[matrix]] block a value that is itself a list is written [[…]]";

/// A message and, where it has one, advice.
pub type StageError = (String, Option<String>);

/// The normal form: durations as their shortest text, `to` only where it differs.
pub fn check(path: &str, value: Value) -> Result<Value, StageError> {
    let wrong = |message: String| (message, Some(HELP.to_string()));
    let stages = value.as_list().filter(|l| !l.is_empty());
    let stages = stages.ok_or_else(|| wrong(format!("`{path}` takes a list of stages, not {}", value.type_name())))?;
    let mut level = None;
    let mut highest: f64 = 0.0;
    let mut out = Vec::with_capacity(stages.len());
    for (i, stage) in stages.iter().enumerate() {
        let of = format!("stage {} of `{path}`", i + 1);
        let table = stage.as_map().ok_or_else(|| wrong(format!("{of} is {}, not a table", stage.type_name())))?;
        if let Some(key) = table.keys().find(|k| !KEYS.contains(&&***k)) {
            let help = did_you_mean(key, KEYS)
                .unwrap_or_else(|| "a stage has `rate` or `concurrency`, `to` and `duration`".into());
            return Err((format!("`{key}` is not a key of {of}"), Some(help)));
        }
        let (name, from) = match (table.get("rate"), table.get("concurrency")) {
            (Some(rate), None) => ("rate", rate),
            (None, Some(concurrency)) => ("concurrency", concurrency),
            _ => return Err(wrong(format!("{of} needs either `rate` or `concurrency`"))),
        };
        if *level.get_or_insert(name) != name {
            return Err(wrong(format!("`{path}` mixes stages of `rate` and of `concurrency`")));
        }
        let mut normal = Table::new();
        let from = number(&of, name, from)?;
        normal.insert(name.into(), from.clone());
        highest = highest.max(from.as_f64().unwrap_or(0.0));
        if let Some(to) = table.get("to") {
            let to = number(&of, "to", to)?;
            highest = highest.max(to.as_f64().unwrap_or(0.0));
            if to != from {
                normal.insert("to".into(), to);
            }
        }
        let text =
            table.get("duration").and_then(Value::as_str).ok_or_else(|| wrong(format!("{of} needs a `duration`")))?;
        let duration = units::parse_duration(text).map_err(|e| wrong(format!("{of}: {e}")))?;
        if duration.is_zero() {
            return Err(wrong(format!("{of} must be longer than zero")));
        }
        normal.insert("duration".into(), units::format_duration(duration).into());
        out.push(Value::map(normal));
    }
    if highest <= 0.0 {
        return Err(wrong(format!("no stage of `{path}` has any load")));
    }
    Ok(Value::list(out))
}

fn number(of: &str, key: &str, value: &Value) -> Result<Value, StageError> {
    match value.as_f64() {
        Some(x) if (0.0..=1e6).contains(&x) => Ok(value.clone()),
        Some(_) => Err((format!("`{key}` of {of} is {value}; it must be from 0 to 1000000"), None)),
        None => Err((format!("`{key}` of {of} takes a number, not {}", value.type_name()), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, StageError> {
        let table: toml::Table = toml::from_str(&format!("v = {text}")).unwrap();
        check("stages", serde_json::from_value(serde_json::to_value(&table["v"]).unwrap()).unwrap())
    }

    #[test]
    fn stages_have_one_normal_form() {
        let normal =
            read("[{ rate = 2, to = 2.0, duration = \"90s\" }, { rate = 2, to = 8, duration = \"1m\" }]").unwrap();
        assert_eq!(
            normal,
            read("[{ rate = 2.0, duration = \"1m30s\" }, { duration = \"60s\", to = 8, rate = 2 }]").unwrap()
        );
    }

    #[test]
    fn what_is_no_stage_is_refused() {
        for (text, expected) in [
            ("5", "takes a list of stages, not"),
            ("[]", "takes a list of stages"),
            ("[3]", "stage 1 of `stages` is"),
            ("[{ rate = 1, duration = \"1s\" }, { concurrency = 1, duration = \"1s\" }]", "mixes stages"),
            ("[{ duration = \"1s\" }]", "either `rate` or `concurrency`"),
            ("[{ rate = 1, concurrency = 2, duration = \"1s\" }]", "either `rate` or `concurrency`"),
            ("[{ rate = 1 }]", "needs a `duration`"),
            ("[{ rate = 1, duration = \"0s\" }]", "longer than zero"),
            ("[{ rate = -1, duration = \"1s\" }]", "from 0 to 1000000"),
            ("[{ rate = 0, duration = \"1s\" }]", "has any load"),
            ("[{ rate = 1, length = \"1s\" }]", "`length` is not a key of stage 1"),
        ] {
            let (message, _) = read(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
