//! Result files of other tools, as types that are both written and read: what `export` writes, `compare` can read back.
//!
//! Each format has a file with its type, `of` (from our records), `Serialize`, and `parse`; [`Measurement`] is what any of
//! them says in our own terms. Where a format has no field for something that we know, it goes into an object named
//! `llmatrix`, which other readers skip.

pub mod aiperf;
mod fields;
pub mod vllm;

use serde::{Deserialize, Serialize};

use crate::digest::{DeployId, UnitId};
use crate::stats::Summary;
use crate::store::record::{SampleRecord, UnitFacts};

/// Why a file of another tool cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FormatError {
    #[error("this is not a result of {tool}: {problem}")]
    Not { tool: &'static str, problem: String },
    #[error("this is a result of {tool} in version {found} of its format; llmatrix reads {known}")]
    Version { tool: &'static str, found: String, known: &'static str },
    #[error("`{field}` of this {tool} result cannot be read: {problem}")]
    Field { tool: &'static str, field: String, problem: String },
}

/// A sample of ours and the unit that it is of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    pub facts: &'a UnitFacts,
    pub sample: &'a SampleRecord,
}

/// One measurement as a file of another tool has it, in our terms. What the file does not say is `None`, 0 or empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Who wrote it, with the version where the file says so.
    pub tool: String,
    pub facts: UnitFacts,
    pub summary: Summary,
    /// As the file has it.
    pub started_at: String,
    /// What the file kept of ours, when it is one that we exported.
    pub origin: Option<Origin>,
}

/// What a format has no field for: where an exported measurement comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub schema: u32,
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    pub run: String,
    pub sample: u32,
    /// Engine start within the run.
    #[serde(default)]
    pub start: Option<u32>,
    pub valid: bool,
    pub invalid_reason: Option<String>,
    pub simulated: bool,
    pub facts: UnitFacts,
    pub n_cancelled: u64,
    pub steady_reached: bool,
    pub output_throughput_steady: Option<f64>,
    pub client_error_ttft_ms: Option<f64>,
    pub client_error_itl_ms: Option<f64>,
}

/// Name of the object in which an [`Origin`] stands.
pub const ORIGIN: &str = "llmatrix";

impl Origin {
    fn of(subject: &Subject<'_>) -> Origin {
        let Subject { unit_id, deploy_id, facts, sample } = *subject;
        Origin {
            schema: 1,
            unit_id,
            deploy_id,
            run: sample.run.clone(),
            sample: sample.sample,
            start: Some(sample.start),
            valid: sample.valid,
            invalid_reason: sample.invalid_reason.clone(),
            simulated: sample.simulated,
            facts: facts.clone(),
            n_cancelled: sample.summary.n_cancelled,
            steady_reached: sample.summary.steady_reached,
            output_throughput_steady: sample.summary.output_throughput_steady,
            client_error_ttft_ms: sample.client_error_ttft_ms,
            client_error_itl_ms: sample.client_error_itl_ms,
        }
    }
}

/// A summary in which nothing was measured, for readers to fill in.
fn nothing() -> Summary {
    crate::stats::summarize(
        &crate::stats::SampleData {
            shape: crate::stats::LoadShape::Closed { concurrency: 1 },
            requests: Vec::new(),
            gaps: Default::default(),
            connect_ns: Vec::new(),
            started_wall_ns: 0,
            exact_output: false,
            client_cpu_fraction: None,
            recv_lag: Default::default(),
            answers: Vec::new(),
            stopped_early: None,
            makespan_ns: None,
        },
        &Default::default(),
        0,
    )
}

/// What both formats can say of a measurement, and what follows from it.
struct Known {
    n_ok: u64,
    n_error: u64,
    n_cancelled: u64,
    input_tokens: u64,
    output_tokens: u64,
    duration_s: f64,
    gpus: u32,
}

impl Known {
    /// The summary with everything that is a matter of counting.
    fn summary(&self) -> Summary {
        let Known { n_ok, n_error, n_cancelled, input_tokens, output_tokens, duration_s, gpus } = *self;
        let ended = n_ok + n_error;
        let mean = |tokens: u64| (n_ok > 0).then(|| tokens as f64 / n_ok as f64);
        let per_second = |n: u64| (duration_s > 0.0).then(|| n as f64 / duration_s);
        let output_throughput = per_second(output_tokens);
        Summary {
            n_sent: ended + n_cancelled,
            n_ok,
            n_error,
            n_cancelled,
            error_rate: if ended > 0 { n_error as f64 / ended as f64 } else { 0.0 },
            input_tokens,
            output_tokens,
            isl_actual_mean: mean(input_tokens),
            osl_actual_mean: mean(output_tokens),
            duration_s,
            request_throughput: per_second(n_ok),
            output_throughput,
            total_token_throughput: per_second(input_tokens + output_tokens),
            output_throughput_per_gpu: output_throughput.filter(|_| gpus > 0).map(|t| t / f64::from(gpus)),
            ..nothing()
        }
    }
}
