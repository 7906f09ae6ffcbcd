//! Statistics of a sample: requests in, a summary out. The definitions are in `docs/metrics.md`.

pub mod block;
pub mod csv;
pub mod dist;
pub mod histogram;
pub mod interval;
pub mod moderated;
pub mod multiple;
pub mod null;
pub mod objective;
pub mod permutation;
pub mod power;
pub mod record;
pub mod sanity;
mod server;
pub mod special;
pub mod steady;
pub mod step;
pub mod summary;
pub mod validity;

pub use csv::{RequestsError, read_requests_csv, write_requests_csv};
pub use histogram::Histogram;
pub use record::{Gaps, LoadShape, RequestRecord, SampleData, Status};
pub use sanity::{Sanity, Sense};
pub use server::{Gauge, ServerLoad, ServerMeans, WatchCost};
pub use summary::{goodput, summarize};
pub use validity::{Invalid, SampleContext, validity};

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A distribution over requests (or gaps, for ITL), in milliseconds unless the field says otherwise. `n = 0` leaves every
/// figure `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dist {
    pub n: u64,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// Where the output token counts came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenSource {
    Usage,
    Tokenizer,
    Events,
}

/// What one sample measured. Field names are the CSV columns where there is one; distributions spread to
/// `{mean,std,p50,p90,p95,p99}_{name}_ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub n_sent: u64,
    pub n_ok: u64,
    pub n_error: u64,
    pub n_cancelled: u64,
    pub error_rate: f64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub isl_actual_mean: Option<f64>,
    pub osl_actual_mean: Option<f64>,
    pub output_tokens_source: Option<TokenSource>,
    pub cached_input_tokens: Option<u64>,
    /// First `start` to last `last_token` of the measured requests, seconds; the makespan where no token was seen.
    pub duration_s: f64,
    /// A job of fixed size: from its submission to its last answer, seconds.
    #[serde(default)]
    pub makespan_s: Option<f64>,
    pub request_throughput: Option<f64>,
    pub output_throughput: Option<f64>,
    pub total_token_throughput: Option<f64>,
    pub output_throughput_steady: Option<f64>,
    pub steady_reached: bool,
    pub ttft: Dist,
    /// Time to the first visible (non-reasoning) text.
    pub ttfo: Dist,
    pub tpot: Dist,
    pub itl: Dist,
    pub e2el: Dist,
    pub e2el_intended: Dist,
    pub queue_delay: Dist,
    /// Failed requests taken as infinite; a percentile that falls on one is `None`.
    pub ttft_adj: Dist,
    pub e2el_adj: Dist,
    /// Time to open a connection; never part of TTFT.
    pub connect: Dist,
    pub tokens_per_event: Option<f64>,
    /// Requests per second that met every per-request SLO; `None` without SLOs.
    pub request_goodput: Option<f64>,
    pub output_throughput_per_gpu: Option<f64>,
    /// Mean over requests of 1 / TPOT, tokens per second.
    pub output_tokens_per_user: Option<f64>,
    pub queue_delay_p99_ms: Option<f64>,
    pub recv_lag_p99_ms: Option<f64>,
    pub client_cpu_fraction: Option<f64>,
    /// Requests that returned another number of tokens than was asked for.
    pub wrong_output_length: u64,
    /// The commonest error messages with their counts, at most ten.
    pub errors: Vec<(String, u64)>,
}

/// Counters that the load generator moves and a display reads a few times a second.
#[derive(Debug, Default)]
pub struct Progress {
    pub sent: AtomicU64,
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub output_tokens: AtomicU64,
    /// Sum and count of TTFT over finished requests, microseconds.
    pub ttft_us_sum: AtomicU64,
    pub ttft_count: AtomicU64,
    /// Requests that this sample will send, 0 when only a duration bounds it.
    pub planned: AtomicU64,
    /// Planned length in milliseconds, 0 when only a count bounds it.
    pub planned_ms: AtomicU64,
}

impl Progress {
    /// Mean TTFT so far, milliseconds.
    pub fn mean_ttft_ms(&self) -> Option<f64> {
        let n = self.ttft_count.load(Ordering::Relaxed);
        (n > 0).then(|| self.ttft_us_sum.load(Ordering::Relaxed) as f64 / n as f64 / 1e3)
    }
}
