//! Bytes of the KV cache on one GPU.

use super::ask::Ask;

/// What a token takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cache {
    pub dtype: String,
    /// Over all layers and heads.
    pub whole: f64,
    /// On one GPU: the layers of its stage, and its heads, of which there is at least one.
    pub per_gpu: f64,
    /// Part of `per_gpu` in layers that look back over a window only, and the window.
    window: Option<(f64, u64)>,
    /// The type is not known here.
    pub unknown: Option<String>,
}

impl Ask {
    /// `None` where the lock does not say.
    pub fn cache(&self) -> Option<Cache> {
        let own = self.types().0;
        let wanted = self.kv_dtype.as_deref();
        let bytes = wanted.and_then(element);
        let unknown = wanted.filter(|_| bytes.is_none()).map(str::to_string);
        let dtype = wanted.filter(|_| bytes.is_some()).unwrap_or(own.as_str()).to_string();
        let (attention, _) = self.groups();
        if let Some(shape) = &self.model.shape {
            let each = bytes.unwrap_or(own.bytes() as f64);
            let head = shape.kv_head_width as f64 * each;
            let whole = (shape.layers as f64) * shape.kv_heads as f64 * head;
            let heads = shape.kv_heads.div_ceil(attention).max(1);
            let per_gpu = shape.layers as f64 * self.stage() * heads as f64 * head;
            let layers = shape.layers.max(1) as f64;
            let window = shape.window.map(|w| (per_gpu * (w.layers as f64 / layers).min(1.0), w.tokens));
            return Some(Cache { dtype, whole, per_gpu, window, unknown });
        }
        // The bytes are those of the model's own type, which is of two bytes in all but few.
        let whole = self.model.kv_bytes_per_token? as f64 * bytes.map_or(1.0, |b| b / 2.0);
        let per_gpu = whole * self.stage() / attention as f64;
        let dtype = if bytes.is_some() { dtype } else { "auto".into() };
        Some(Cache { dtype, whole, per_gpu, window: None, unknown })
    }
}

impl Cache {
    /// One sequence on one GPU, in an engine that keeps no more than a window where a layer sees no more.
    pub fn sequence(&self, tokens: u64) -> f64 {
        let full = tokens as f64 * self.per_gpu;
        match self.window {
            Some((part, window)) => full - part * tokens.saturating_sub(window) as f64,
            None => full,
        }
    }
}

/// Bytes of an element, with the scales of formats that have them for each block.
fn element(word: &str) -> Option<f64> {
    Some(match word {
        // 512 elements of a byte with 16 bytes of scales, and 64 of two: 656 bytes for 576 elements.
        "fp8_ds_mla" => 656.0 / 576.0,
        w if ["fp8", "float8", "int8", "mxfp8"].iter().any(|p| w.starts_with(p)) => 1.0,
        w if ["nvfp4", "fp4"].iter().any(|p| w.starts_with(p)) => 0.5625,
        "bfloat16" | "bf16" | "float16" | "fp16" | "half" => 2.0,
        "float32" | "float" | "fp32" => 4.0,
        _ => return None,
    })
}
