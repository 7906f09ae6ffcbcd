//! Types of weights and of cached keys and values.

use serde::{Deserialize, Serialize};

use super::fields::Fields;

/// A type, by the word that configurations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    Float32,
    Bfloat16,
    Float16,
    Float8,
}

impl Dtype {
    /// Reads a word as it stands in a `config.json` or an experiment.
    pub fn parse(word: &str) -> Option<Dtype> {
        Some(match word.trim_start_matches("torch.") {
            "float32" | "float" | "fp32" => Dtype::Float32,
            "bfloat16" | "bf16" => Dtype::Bfloat16,
            "float16" | "half" | "fp16" => Dtype::Float16,
            word if word.starts_with("float8") || word.starts_with("fp8") => Dtype::Float8,
            _ => return None,
        })
    }

    /// What the configuration says of unquantized weights.
    pub(super) fn of(fields: &Fields) -> Option<Dtype> {
        fields.text("torch_dtype").or_else(|| fields.text("dtype")).and_then(Dtype::parse)
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Float32 => 4,
            Dtype::Bfloat16 | Dtype::Float16 => 2,
            Dtype::Float8 => 1,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Dtype::Float32 => "float32",
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float16 => "float16",
            Dtype::Float8 => "float8",
        }
    }
}
