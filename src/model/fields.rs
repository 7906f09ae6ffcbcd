//! The fields of a `config.json`. That of a model with several parts has those of its language part in `text_config`.

use serde_json::{Map, Value};

/// No size in a configuration is larger: products of a few of them stay far from overflow.
const LARGEST: u64 = 1 << 26;
/// No model has more layers.
const MOST_LAYERS: u64 = 1 << 14;

/// Why a configuration gives no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("its architecture `{architecture}` is not known here, and {because}")]
    Unknown { architecture: String, because: String },
    #[error("its config.json has no `{0}`")]
    Missing(&'static str),
    #[error("`{name}` in its config.json is {value}, not a whole number up to {LARGEST}")]
    NotANumber { name: &'static str, value: String },
    #[error("`{name}` in its config.json cannot be: {because}")]
    Impossible { name: &'static str, because: String },
    #[error("the sizes in its config.json make more parameters than any model has")]
    TooLarge,
}

/// The fields of the language part, and those of the whole.
pub(super) struct Fields<'c> {
    part: Option<&'c Map<String, Value>>,
    whole: Option<&'c Map<String, Value>>,
}

impl<'c> Fields<'c> {
    pub fn of(config: &'c Value) -> Fields<'c> {
        let whole = config.as_object();
        Fields { part: whole.and_then(|w| w.get("text_config")?.as_object()).or(whole), whole }
    }

    /// A field of the language part that is there and not `null`.
    pub fn get(&self, name: &str) -> Option<&'c Value> {
        self.part?.get(name).filter(|v| !v.is_null())
    }

    /// Names of the fields that the language part has.
    pub fn names(&self) -> impl Iterator<Item = &'c str> {
        self.part.into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str())
    }

    /// A number, zero included.
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, ShapeError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().filter(|n| *n <= LARGEST) {
            Some(n) => Ok(Some(n)),
            None => Err(ShapeError::NotANumber { name, value: value.to_string().chars().take(40).collect() }),
        }
    }

    /// A number above zero.
    pub fn need(&self, name: &'static str) -> Result<u64, ShapeError> {
        self.number(name)?.filter(|n| *n > 0).ok_or(ShapeError::Missing(name))
    }

    /// Hidden layers, at least one.
    pub fn layers(&self) -> Result<u64, ShapeError> {
        Some(self.need("num_hidden_layers")?).filter(|n| *n <= MOST_LAYERS).ok_or(ShapeError::TooLarge)
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        self.either(name)?.as_bool()
    }

    /// Text of the language part, else of the whole.
    pub fn text(&self, name: &str) -> Option<&'c str> {
        self.either(name)?.as_str()
    }

    pub fn list(&self, name: &str) -> Option<&'c [Value]> {
        self.get(name)?.as_array().map(Vec::as_slice)
    }

    /// `quant_method` of a checkpoint that is quantized.
    pub fn quantization(&self) -> Option<String> {
        let config = self.either("quantization_config").or_else(|| self.either("compression_config"))?;
        let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        Some(method.chars().take(64).collect())
    }

    /// A field of the language part, else of the whole.
    pub fn either(&self, name: &str) -> Option<&'c Value> {
        self.get(name).or_else(|| self.whole?.get(name)).filter(|v| !v.is_null())
    }
}
