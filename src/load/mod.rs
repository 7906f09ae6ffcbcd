//! The load generator: sends the requests of a workload over its own HTTP/1.1 connections and stamps what comes back.
//!
//! Streams are spread over workers, each a thread with an event loop of its own (`reactor`). A stream lives in a slot: a
//! state machine around one connection, with its buffers and its results. A token costs its share of one wait, one read
//! and one look at the clock; between its arrival and the end of its handling there is no lock, no channel, no log line
//! and, for an ordinary token, no allocation. Results are merged once, when the sample is over.
//!
//! May open sockets and threads; reads no files but those of the TLS configuration; prints nothing.

mod ask;
mod batch;
mod calibrate;
mod connection;
mod conversation;
mod desk;
mod endpoint;
mod feed;
mod http;
mod job;
mod link;
mod marks;
pub mod null_server;
mod pace;
mod probe;
mod reactor;
mod sample;
mod scheduler;
mod slot;
mod stop;
mod timer;
mod tls;
mod verdict;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use ask::ask;
pub use calibrate::{Calibration, Capability, calibrate, capability};
pub use job::is_handed_over;
pub use probe::{ProbeOutcome, calibrate_text, control_client, discover_model, one_token, served_models};
pub use sample::run_sample;
pub use tls::TlsConfig;

use crate::wire::ApiSpec;
use crate::wire::request::RequestError;
use crate::workload::prompts::TextCalibration;
use crate::workload::tokenizer::TokenText;
use crate::workload::{Workload, WorkloadError};

/// A server to measure.
#[derive(Clone)]
pub struct Target {
    /// `http://HOST:PORT`, with a path where the API is not at the root.
    pub base_url: String,
    pub api: ApiSpec,
    /// Name of the model as served.
    pub model: String,
    /// Sent with every request. Values may be secrets and are never shown.
    pub headers: Vec<(String, String)>,
    pub tls: TlsConfig,
    /// Content of the workload's data set.
    pub dataset: Option<Arc<[u8]>>,
    /// The model's tokenizer, for prompts that are sent as text.
    pub tokenizer: Option<Tokenizer>,
}

/// A tokenizer that text of exact lengths is made with.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    pub text: TokenText,
    /// It must be the server's: a server that counts otherwise is an error. Else prompts are then made of as many words
    /// as the server's own counts say.
    pub required: bool,
}

/// Whether synthetic prompts of a workload go over the wire as text, so that a tokenizer is of use.
pub fn sends_text(api: &ApiSpec, workload: &Workload) -> bool {
    workload.is_synthetic() && !sample::sends_token_ids(api, workload)
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Target")
            .field("base_url", &self.base_url)
            .field("api", &self.api)
            .field("model", &self.model)
            .field("headers", &headers)
            .field("tls", &self.tls)
            .field("dataset_bytes", &self.dataset.as_ref().map(|d| d.len()))
            .field("tokenizer", &self.tokenizer.is_some())
            .finish()
    }
}

/// Called once per sample, on a load thread, when the warm-up is over and before the measured part begins. It may block:
/// the workers wait for it.
#[derive(Clone)]
pub struct BeforeStart(pub Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for BeforeStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeStart")
    }
}

/// How one sample is taken.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Tells the prompts of this unit from those of any other; the bytes of its id.
    pub salt: Vec<u8>,
    /// Number of the sample: each has its own prompts.
    pub sample: u32,
    pub request_timeout: Duration,
    /// How long requests may run on after the duration is over.
    pub drain_timeout: Duration,
    /// Load threads; by the number of streams when unset.
    pub workers: Option<usize>,
    /// A text calibration measured before; measured at the start of the sample when unset and needed.
    pub calibration: Option<TextCalibration>,
    /// Keep the gaps of every request apart, four bytes each, beside the histogram of all.
    pub keep_gaps: bool,
    pub before_start: Option<BeforeStart>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            salt: Vec::new(),
            sample: 0,
            request_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            workers: None,
            calibration: None,
            keep_gaps: false,
            before_start: None,
        }
    }
}

/// Why a sample could not be taken. Requests that fail are data, not errors.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("`{url}` is not a base URL: {message}")]
    Url { url: String, message: String },
    #[error("header `{name}` {message}")]
    Header { name: String, message: &'static str },
    #[error("TLS: {0}")]
    Tls(String),
    #[error("cannot reach {url}: {message}")]
    Unreachable { url: String, message: String },
    #[error("all {n} warm-up requests to {url} failed: {message}")]
    Warmup { url: String, n: u64, message: String },
    #[error(
        "{url} counts {counted} input tokens where the tokenizer makes {made}: it is not the tokenizer of the model that \
         is served. Set `tokenizer` to that one, or leave it out and lengths are calibrated by the server's counts"
    )]
    Tokenizer { url: String, made: u32, counted: u64 },
    #[error("the batch API of {url} is of no use: {message}")]
    Batch {
        url: String,
        message: String,
        /// It was understood, and would be refused again.
        refused: bool,
    },
    #[error(
        "the job's file has more than {bytes} bytes after {written} of {asked} requests, and it is made in memory: ask for \
         fewer or shorter requests"
    )]
    JobSize { bytes: usize, written: u64, asked: u64 },
    #[error("the models of {url} cannot be listed: {message}")]
    Models { url: String, message: String },
    #[error("{url} does not answer a question: {message}")]
    Question { url: String, message: String },
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("a load worker cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("the null server of the calibration cannot be started")]
    NullServer(#[source] std::io::Error),
    #[error("the calibration measured nothing")]
    NoCalibration,
    #[error("waiting for the sockets failed")]
    Poll(#[source] std::io::Error),
    #[error("a load worker ended unexpectedly")]
    Worker,
    #[error("the measurement was cancelled")]
    Cancelled,
}

impl LoadError {
    /// The same inputs fail the same way: trying again does not help.
    pub fn is_deterministic(&self) -> bool {
        match self {
            LoadError::Url { .. }
            | LoadError::Header { .. }
            | LoadError::Tls(_)
            | LoadError::Tokenizer { .. }
            | LoadError::JobSize { .. }
            | LoadError::Workload(_)
            | LoadError::Request(_) => true,
            LoadError::Batch { refused, .. } => *refused,
            LoadError::Unreachable { .. }
            | LoadError::Warmup { .. }
            | LoadError::Models { .. }
            | LoadError::Question { .. }
            | LoadError::Thread(_)
            | LoadError::Poll(_)
            | LoadError::NullServer(_)
            | LoadError::NoCalibration
            | LoadError::Worker
            | LoadError::Cancelled => false,
        }
    }
}
