//! Typed reading of JSON request bodies, with the name of the field in every complaint.

use serde_json::{Map, Value};

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    pub field: String,
    pub message: String,
}

fn wrong(field: &str, message: impl Into<String>) -> Wrong {
    Wrong { field: field.into(), message: message.into() }
}

/// A JSON object, read field by field. A field that is null counts as absent.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    pub fn boolean(self, name: &str) -> Result<Option<bool>, Wrong> {
        self.typed(name, "Input should be a valid boolean", Value::as_bool)
    }

    pub fn text(self, name: &str) -> Result<Option<&'a str>, Wrong> {
        self.typed(name, "Input should be a valid string", Value::as_str)
    }

    pub fn float(self, name: &str) -> Result<Option<f64>, Wrong> {
        self.typed(name, "Input should be a valid number", Value::as_f64)
    }

    pub fn integer(self, name: &str) -> Result<Option<i64>, Wrong> {
        self.typed(name, "Input should be a valid integer", Value::as_i64)
    }

    /// An integer that counts something.
    pub fn count(self, name: &str) -> Result<Option<u32>, Wrong> {
        match self.integer(name)? {
            None => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| wrong(name, "Input should be a count below 2^32")),
        }
    }

    fn typed<T>(self, name: &str, message: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Wrong> {
        match self.get(name) {
            None => Ok(None),
            Some(v) => read(v).map(Some).ok_or_else(|| wrong(name, message)),
        }
    }
}

/// Appends a text as a JSON string.
pub fn push_json_str(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text is always JSON");
}
