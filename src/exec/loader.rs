//! The seam to the load generator: what the executor asks of it, and what it gets back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::tokenizers::TokenizerPath;
use crate::deploy::Endpoint;
use crate::digest::UnitId;
use crate::spec::policy::Slo;
use crate::stats::{Invalid, Progress, Sanity, Summary};
use crate::telemetry::Seen;
use crate::telemetry::gpu::GpuOptions;
use crate::wire::ApiSpec;
use crate::workload::Workload;

/// One sample to be measured.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub endpoint: &'a Endpoint,
    pub api: &'a ApiSpec,
    pub workload: &'a Workload,
    pub dataset: Option<&'a Path>,
    /// Read only where prompts are sent as text.
    pub tokenizer: Option<&'a TokenizerPath>,
    pub slo: &'a Slo,
    pub gpus: u32,
    pub request_timeout: Duration,
    pub max_error_rate: f64,
    /// Tells the prompts of this unit from those of any other.
    pub unit: UnitId,
    /// Number of the sample: each has its own prompts.
    pub sample: u32,
    pub progress: Arc<Progress>,
    /// Ends the measurement early; it then returns an error.
    pub cancel: CancellationToken,
    pub watch: Watch,
    /// Where `requests.csv` is written; `None` for a measurement that is discarded.
    pub files: Option<&'a Path>,
}

/// What is looked at while a sample is measured.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub gpus: GpuOptions,
    /// Between two looks; zero is only before and after.
    pub interval: Duration,
}

/// What a sample measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub summary: Summary,
    /// What the engine, the GPUs and the host said meanwhile.
    pub seen: Seen,
    /// Why it does not count.
    pub invalid: Option<Invalid>,
    /// What the client's own figures are off by on this host, where that was found out.
    pub client_error: Option<ClientError>,
}

/// What figures are off by because of the client, milliseconds: published beside them, never subtracted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientError {
    pub ttft_ms: f64,
    pub itl_ms: f64,
}

/// Why a sample could not be measured at all. A server that answers with errors is measured; this is the client's or
/// the disk's.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LoaderError {
    pub cause: String,
    /// The same inputs fail the same way.
    pub deterministic: bool,
}

/// Measures.
pub trait Loader: Send + Sync {
    /// Sends a one-token request, as readiness asks for. The error says what came back instead.
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, api: &'a ApiSpec) -> BoxFuture<'a, Result<(), LoaderError>>;

    /// Asks the fixed question. The error says why there is no answer.
    fn sanity<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        api: &'a ApiSpec,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Sanity, LoaderError>>;

    /// Warms up and measures one sample.
    fn measure<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Measurement, LoaderError>>;
}
