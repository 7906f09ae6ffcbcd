//! Typed access to a JSON object of another tool, with messages that name the field.

use serde_json::{Map, Value as Json};

use super::FormatError;

/// An object and the tool that it is expected to be of.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub tool: &'static str,
    pub object: &'a Map<String, Json>,
}

impl<'a> Fields<'a> {
    pub fn of(tool: &'static str, json: &'a Json) -> Result<Fields<'a>, FormatError> {
        let problem = || format!("it is {}, not an object", kind(json));
        let object = json.as_object().ok_or_else(|| FormatError::Not { tool, problem: problem() })?;
        Ok(Fields { tool, object })
    }

    /// A value that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Json> {
        self.object.get(name).filter(|v| !v.is_null())
    }

    /// A field without which the file is none of this tool.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, FormatError> {
        value.ok_or_else(|| FormatError::Not { tool: self.tool, problem: format!("`{name}` is missing") })
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, FormatError> {
        self.typed(name, "a number", |v| v.as_f64().filter(|f| f.is_finite()))
    }

    /// A count; `16.0` is one.
    pub fn count(&self, name: &str) -> Result<Option<u64>, FormatError> {
        self.typed(name, "a whole number", whole)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, FormatError> {
        self.typed(name, "a string", Json::as_str)
    }

    pub fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let problem = || format!("it takes {wanted}, not {} ({})", kind(value), short(value));
        read(value).map(Some).ok_or_else(|| self.wrong(name, problem()))
    }

    pub fn wrong(&self, name: &str, problem: String) -> FormatError {
        FormatError::Field { tool: self.tool, field: name.to_string(), problem }
    }
}

fn whole(value: &Json) -> Option<u64> {
    value.as_u64().or_else(|| {
        let f = value.as_f64()?;
        // Beyond this a float no longer counts by ones.
        (f >= 0.0 && f.fract() == 0.0 && f < 9e15).then_some(f as u64)
    })
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
