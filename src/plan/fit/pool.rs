//! The share of memory that an engine takes. Each counts it in its own way.

use serde::Serialize;

/// What a share is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Of {
    /// vLLM: of all memory, for everything.
    #[serde(rename = "all memory")]
    All,
    /// SGLang: of all memory, for weights and KV cache; the rest is for everything else.
    #[serde(rename = "all memory, for weights and KV cache")]
    Static,
    /// TensorRT-LLM: of what weights and activations leave free, for the KV cache.
    #[serde(rename = "what the weights leave free")]
    Free,
    /// No pool: the cache grows as it is needed.
    #[serde(rename = "all memory, as needed")]
    Grown,
}

/// A share, and whether it is an assumption about the engine's default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    pub value: f64,
    pub of: Of,
    pub assumed: bool,
}

/// SGLang computes its default from the GPU, batch sizes and parallelism; on large GPUs it comes out near this.
const SGLANG: f64 = 0.87;
/// Default of vLLM up to the images of the templates, and of TensorRT-LLM.
const COMMON: f64 = 0.9;

impl Share {
    /// `given` is what the experiment sets.
    pub fn of(engine: &str, given: Option<f64>) -> Share {
        let (of, default) = match engine {
            "sglang" => (Of::Static, SGLANG),
            "trtllm" => (Of::Free, COMMON),
            "python" => return Share { value: 1.0, of: Of::Grown, assumed: false },
            _ => (Of::All, COMMON),
        };
        Share { value: given.unwrap_or(default), of, assumed: given.is_none() }
    }

    /// Bytes of `memory` that the weights and the KV cache can be in at most.
    pub fn budget(self, memory: f64) -> f64 {
        match self.of {
            Of::All | Of::Static => memory * self.value,
            Of::Free | Of::Grown => memory,
        }
    }

    /// Bytes that are left for the KV cache; negative where there is no room for the weights.
    pub fn room(self, memory: f64, weights: f64, overhead: f64) -> f64 {
        let free = memory - weights - overhead;
        match self.of {
            Of::All => memory * self.value - weights - overhead,
            // The rest of the memory has to hold the overhead.
            Of::Static => (memory * self.value - weights).min(free),
            Of::Free if free > 0.0 => free * self.value,
            Of::Free | Of::Grown => free,
        }
    }
}
