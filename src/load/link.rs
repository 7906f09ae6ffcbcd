//! What all streams of a sample have in common, read-only: the endpoint, the dialect, and how a request is written out.

use super::Target;
use super::endpoint::Endpoint;
use crate::wire::request::{self, RequestError, RequestSpec};
use crate::wire::{Api, ApiSpec};
use crate::workload::CancelAfter;
use crate::workload::prompts::PlannedRequest;

/// Read-only, shared by all workers of a sample.
pub struct Link {
    pub endpoint: Endpoint,
    pub api: ApiSpec,
    which: Api,
    model: String,
    temperature: f64,
    ignore_eos: bool,
    head: Vec<u8>,
    /// A whole request that costs the engine nothing, where its API has one.
    pub touch: Option<Vec<u8>>,
    /// Answers are kept until the next request of their slot.
    pub keeps_answers: bool,
}

/// A request, written out.
#[derive(Debug, Default)]
pub struct Loaded {
    pub index: u64,
    /// Prompt length asked for.
    pub input: Option<u32>,
    /// Answer length asked for.
    pub output: u32,
    /// The client gives it up then.
    pub cancel: Option<CancelAfter>,
    /// Everything that goes over the wire.
    pub bytes: Vec<u8>,
}

impl Link {
    pub fn new(endpoint: Endpoint, target: &Target, which: Api, temperature: f64, ignore_eos: bool) -> Link {
        let head = endpoint.post_head(&request::path(&target.api, which, &target.model, true));
        // Not the health path: SGLang generates a token for it.
        let free = target.api.version.as_deref().or(target.api.models.as_deref());
        let touch = free.map(|path| endpoint.get(path));
        let (api, model) = (target.api.clone(), target.model.clone());
        Link { endpoint, api, which, model, temperature, ignore_eos, head, touch, keeps_answers: false }
    }

    /// Writes a whole HTTP request, into a buffer that is used again.
    pub fn load(&self, index: u64, planned: &PlannedRequest, buffer: Vec<u8>) -> Result<Loaded, RequestError> {
        let spec = RequestSpec {
            model: &self.model,
            prompt: &planned.prompt,
            max_tokens: planned.output_tokens,
            temperature: self.temperature,
            seed: planned.seed,
            ignore_eos: self.ignore_eos,
            stream: true,
        };
        let body = request::build(&self.api, self.which, &spec)?.body;
        let mut bytes = buffer;
        bytes.clear();
        bytes.reserve(self.head.len() + body.len() + 16);
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        Ok(Loaded { index, input: planned.input_tokens, output: planned.output_tokens, cancel: planned.cancel, bytes })
    }
}
