//! What a model's `config.json` says of its size: parameters counted from the shapes of its tensors, and what a token takes
//! in the KV cache. Formulas, sources and worked examples: `docs/memory.md`.

mod attention;
mod dtype;
mod family;
mod feed_forward;
mod fields;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use attention::Attention;
pub use dtype::Dtype;
use family::Family;
use feed_forward::FeedForward;
use fields::Fields;
pub use fields::ShapeError;
pub use window::Window;

/// The size of a model's language part. The lock keeps it, so that memory is estimated without the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// `model_type` of the configuration.
    pub architecture: String,
    /// The architecture is not known here; its fields are those of a decoder of the usual shape, and it is taken as one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
    /// All weights of the language part, without modules for speculative decoding.
    pub parameters: u64,
    /// Weights that one token meets: all but those of the experts it is not routed to.
    pub active_parameters: u64,
    /// Of `parameters`, those of experts that tokens are routed to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expert_parameters: u64,
    /// Of `parameters`, those of the embedding and the output head, which engines leave as they are when they quantize.
    pub embedding_parameters: u64,
    pub layers: u64,
    pub hidden_size: u64,
    pub vocab_size: u64,
    /// Key-value heads; 1 where attention keeps one latent vector for all of them.
    pub kv_heads: u64,
    /// Elements that a head keeps of a token in a layer: its key and its value, or the latent vector.
    pub kv_head_width: u64,
    /// The longest context the model was made for, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_position: Option<u64>,
    /// Type of unquantized weights; where the configuration does not say, two bytes are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// How the checkpoint is quantized, in the configuration's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<String>,
    /// Layers that look back over a window only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// What a token takes in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub layers: u64,
    /// As [`ModelShape::kv_heads`].
    pub heads: u64,
    /// As [`ModelShape::kv_head_width`].
    pub width: u64,
    pub dtype: Option<Dtype>,
}

impl ModelShape {
    /// Reads a `config.json`.
    pub fn read(config: &Value) -> Result<ModelShape, ShapeError> {
        let fields = Fields::of(config);
        let family = Family::of(&fields)?;
        let layers = fields.layers()?;
        let hidden = fields.need("hidden_size")?;
        let vocab = family.number(&fields, "vocab_size")?;
        let attention = Attention::read(&fields, family.kind)?;
        let feed_forward = FeedForward::read(&fields, family.kind, layers)?;
        let tied = fields.flag("tie_word_embeddings").unwrap_or(family.kind.tied);
        let embedding = u128::from(vocab) * u128::from(hidden) * if tied { 1 } else { 2 };
        let norms = u128::from(family.kind.norms * layers + 1) * u128::from(hidden);
        let layered = u128::from(layers) * attention.parameters;
        let parameters = embedding + norms + layered + feed_forward.parameters;
        let counted = |n: u128| u64::try_from(n).ok().filter(|n| *n <= i64::MAX as u64).ok_or(ShapeError::TooLarge);
        Ok(ModelShape {
            architecture: family.name,
            assumed: family.assumed,
            parameters: counted(parameters)?,
            active_parameters: counted(parameters - feed_forward.idle)?,
            expert_parameters: counted(feed_forward.experts)?,
            embedding_parameters: counted(embedding)?,
            layers,
            hidden_size: hidden,
            vocab_size: vocab,
            kv_heads: attention.kv_heads,
            kv_head_width: attention.kv_head_width,
            max_position: fields.number("max_position_embeddings")?,
            dtype: Dtype::of(&fields),
            quantized: fields.quantization(),
            window: Window::read(&fields, family.kind, layers)?,
        })
    }

    pub fn kv(&self) -> KvShape {
        KvShape { layers: self.layers, heads: self.kv_heads, width: self.kv_head_width, dtype: self.dtype }
    }
}

impl KvShape {
    /// Reads the fields that the KV cache depends on; those of the feed-forward layers may be missing.
    pub fn read(config: &Value) -> Result<KvShape, ShapeError> {
        let fields = Fields::of(config);
        let kind = Family::for_cache(&fields)?.kind;
        let attention = Attention::read(&fields, kind)?;
        let layers = fields.layers()?;
        Window::read(&fields, kind, layers)?;
        Ok(KvShape { layers, heads: attention.kv_heads, width: attention.kv_head_width, dtype: Dtype::of(&fields) })
    }

    /// Bytes per token over all layers and heads, in the type of the weights: `layers × heads × width × bytes`.
    pub fn bytes_per_token(&self) -> Option<u64> {
        let bytes = self.dtype.map_or(2, Dtype::bytes);
        [self.layers, self.heads, self.width, bytes].into_iter().try_fold(1u64, u64::checked_mul)
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
