//! Bytes of the weights as they are served.

use super::ask::Ask;
use crate::model::ModelShape;

/// Weights, one copy.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub total: f64,
    pub per_gpu: f64,
    /// In words.
    pub are: String,
    pub notes: Vec<String>,
}

/// Bytes per weight: the bits, with the scales of the usual group sizes.
const FORMATS: &[(&str, f64)] = &[
    // A scale of a byte for 32 weights.
    ("mxfp4", 0.53125),
    ("mxfp8", 1.03125),
    // A scale of a byte for 16 weights.
    ("fp4", 0.5625),
    // A scale of four bytes for 64 weights.
    ("bitsandbytes", 0.5625),
    ("bnb", 0.5625),
    ("nf4", 0.5625),
    // A scale of two bytes and a zero point of half a byte for 128 weights.
    ("awq", 0.51953125),
    ("gptq", 0.51953125),
    ("int4", 0.51953125),
    ("w4a", 0.51953125),
    // A scale for a tensor, a channel or a block of 128 × 128 weights.
    ("fp8", 1.0),
    ("int8", 1.0),
    ("w8a", 1.0),
];
/// Formats that an engine makes of plain weights when it loads them; the others have to be in the checkpoint.
const AT_LOAD: &[&str] = &["fp8", "bitsandbytes", "bnb", "int8_per_channel_weight_only", "nvfp4_online"];

/// Below this share of its parameters' bytes a checkpoint is quantized, whatever its configuration says.
const PLAIN: f64 = 0.9;

impl Ask {
    /// The checkpoint is quantized: nothing is made of it at load.
    pub fn quantized(&self) -> bool {
        let (shape, bytes) = (&self.model.shape, self.model.weight_bytes);
        let plain =
            |parameters: u64, bytes: u64| bytes as f64 >= PLAIN * parameters as f64 * self.types().1.bytes() as f64;
        let small = |parameters: u64| bytes.is_some_and(|bytes| !plain(parameters, bytes));
        shape.as_ref().is_some_and(|s| s.quantized.is_some() || small(s.parameters))
    }

    /// The engine can make other weights of those of the checkpoint.
    pub fn quantizes(&self) -> bool {
        !matches!(self.engine.as_str(), "trtllm" | "python")
    }

    pub fn weights(&self) -> Weights {
        let (served, stored) = self.types();
        let shape = self.model.shape.as_ref();
        let counted = shape.map(|s| counted(s, stored.bytes() as f64));
        let bytes = self.model.weight_bytes.map(|b| b as f64).or(counted).unwrap_or_default();
        let weights = bytes / stored.bytes() as f64;
        let mut notes = Vec::new();
        let wanted = self.quantization.as_deref().filter(|q| *q != "none");
        let (total, are) = if self.quantized() {
            let method = shape.and_then(|s| s.quantized.as_deref()).unwrap_or("quantized");
            (bytes, format!("{method}, as the checkpoint is"))
        } else {
            let plain = (weights * served.bytes() as f64, served.as_str().to_string());
            match wanted.map(|q| (q, format(q))) {
                None => plain,
                Some((q, _)) if !self.quantizes() => {
                    notes.push(format!(
                        "{} serves what the checkpoint is, {}: `quantization = \"{q}\"` changes no weight",
                        self.engine,
                        stored.as_str()
                    ));
                    plain
                }
                Some((q, None)) => {
                    notes
                        .push(format!("how large `{q}` makes the weights is not known here: taken as they are stored"));
                    plain
                }
                Some((q, Some(each))) => {
                    if !AT_LOAD.iter().any(|f| q.contains(f)) {
                        let is = stored.as_str();
                        notes.push(format!(
                            "`{q}` has to be in the checkpoint, and this one is {is}: name one that is so"
                        ));
                    }
                    // The embedding and the output head stay as they are.
                    let plain = shape.map_or(0.0, |s| s.embedding_parameters as f64).min(weights);
                    ((weights - plain) * each + plain * served.bytes() as f64, q.to_string())
                }
            }
        };
        Weights { total, per_gpu: total * self.stage() * self.part(), are, notes }
    }

    /// The part of a layer's weights that one GPU has. Experts spread further than the rest where attention is
    /// data-parallel, and over all copies in vLLM.
    fn part(&self) -> f64 {
        let shape = self.model.shape.as_ref().filter(|s| s.parameters > 0);
        let experts = shape.map_or(0.0, |s| s.expert_parameters as f64 / s.parameters as f64).min(1.0);
        let (attention, copies) = self.groups();
        let over_copies = if self.engine == "vllm" { attention.saturating_mul(copies) } else { 1 };
        let spread = self.tensor.max(self.expert).max(over_copies);
        (1.0 - experts) / attention as f64 + experts / spread as f64
    }
}

/// Bytes of a checkpoint whose files are not here, by its configuration. `mxfp4` is a format of experts, the others are
/// one of everything but the embedding and the output head.
fn counted(shape: &ModelShape, stored: f64) -> f64 {
    let all = shape.parameters as f64;
    let method = shape.quantized.as_deref();
    let quantized = match method {
        Some("mxfp4") if shape.expert_parameters > 0 => shape.expert_parameters as f64,
        _ => all - shape.embedding_parameters as f64,
    };
    let each = method.and_then(format).unwrap_or(stored);
    quantized * each + (all - quantized) * stored
}

/// Bytes per weight of a format.
fn format(word: &str) -> Option<f64> {
    FORMATS.iter().find(|(f, _)| word.contains(f)).map(|(_, bytes)| *bytes)
}
