//! The API dialects: what a request looks like on the wire and what its answer means. Pure bytes to bytes: used by the
//! load generator, the readiness probe and (as the other end) the simulated engine.

pub mod answer;
pub mod batch;
pub mod events;
pub mod rejection;
pub mod request;
pub mod sse;

use serde::{Deserialize, Serialize};

/// How a server is spoken to. Comes from the `[api]` table of a rendered template, or from `measure`'s flags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSpec {
    pub dialect: Dialect,
    /// The API that is used when the cell does not set `api`.
    pub default: Api,
    /// `/v1/completions` takes a list of token ids as its prompt.
    #[serde(default)]
    pub token_ids: bool,
    /// `stream_options.include_usage` is understood (OpenAI dialect).
    #[serde(default = "yes")]
    pub usage: bool,
    /// `min_tokens` is understood.
    #[serde(default = "yes")]
    pub min_tokens: bool,
    /// `ignore_eos` is understood.
    #[serde(default = "yes")]
    pub ignore_eos: bool,
    /// `seed` is understood.
    #[serde(default = "yes")]
    pub seed: bool,
    /// Path that answers 200 when the engine is ready.
    #[serde(default)]
    pub health: Option<String>,
    /// Path that lists the served models (OpenAI shape).
    #[serde(default)]
    pub models: Option<String>,
    /// Path that tells the engine's version.
    #[serde(default)]
    pub version: Option<String>,
    /// Path of the Prometheus metrics; with `metrics_port` when they are on a port of their own.
    #[serde(default)]
    pub metrics: Option<String>,
    #[serde(default)]
    pub metrics_port: Option<u16>,
    /// Path of OpenAI's batch jobs, where the server has them: `/v1/batches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Path of the files of those jobs; `/v1/files` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}

impl ApiSpec {
    /// The API that the requests of a job go over, one by one: a batch is made of requests of the default one.
    pub fn online(&self, api: Api) -> Api {
        match (api, self.default, self.dialect) {
            (Api::Batch, Api::Batch, Dialect::Openai) => Api::Completions,
            (Api::Batch, Api::Batch, _) => Api::Generate,
            (Api::Batch, default, _) => default,
            (api, ..) => api,
        }
    }
}

fn yes() -> bool {
    true
}

/// A family of request and response shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `/v1/chat/completions` and `/v1/completions` with server-sent events and `[DONE]`.
    Openai,
    /// Triton's generate extension over the vLLM backend: delta text, per-event token counts that are deltas.
    TritonVllm,
    /// Triton's generate extension over our Python model: delta text, cumulative token counts.
    TritonPython,
    /// Triton's generate extension over TensorRT-LLM's LLM API: cumulative text.
    TritonTrtllm,
}

/// Which API of the server a unit is measured over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    Chat,
    Completions,
    Generate,
    Batch,
}

impl Api {
    pub fn as_str(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Completions => "completions",
            Api::Generate => "generate",
            Api::Batch => "batch",
        }
    }
}
