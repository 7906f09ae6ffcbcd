//! What happens in a run. One type feeds the terminal, the JSON lines, the journal and every later reader.

use serde::{Deserialize, Serialize};

use crate::digest::{DeployId, UnitId};

/// One line of `journal.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 0 within a run, without gaps.
    pub seq: u64,
    /// UTC, RFC 3339 with milliseconds.
    pub at: String,
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened. Serialized as `{"event": "sample_finished", …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    RunStarted {
        run: String,
        experiment: String,
        units: u64,
        /// Units that need no work.
        cached: u64,
        /// Samples that this run means to measure.
        samples: u64,
        /// Engine starts that this run means to make.
        starts: u64,
        simulated: bool,
    },
    DeploymentStarting {
        deploy_id: DeployId,
        container: String,
        start: u32,
        units: u64,
    },
    /// A stage of a deployment that takes a while: pull, load, ready.
    DeploymentProgress {
        deploy_id: DeployId,
        stage: Stage,
        message: String,
        fraction: Option<f64>,
    },
    DeploymentReady {
        deploy_id: DeployId,
        start: u32,
        seconds: f64,
        engine_version: Option<String>,
    },
    DeploymentFailed {
        deploy_id: DeployId,
        start: u32,
        stage: Stage,
        class: FailureClass,
        cause: String,
    },
    DeploymentStopped {
        deploy_id: DeployId,
        start: u32,
    },
    SampleStarted {
        unit_id: UnitId,
        sample: u32,
        attempt: u32,
        round: u32,
        name: String,
    },
    SampleFinished {
        unit_id: UnitId,
        sample: u32,
        valid: bool,
        reason: Option<String>,
        seconds: f64,
        ttft_ms: Option<f64>,
        tpot_ms: Option<f64>,
        output_throughput: Option<f64>,
    },
    AttemptFailed {
        unit_id: UnitId,
        sample: u32,
        attempt: u32,
        stage: Stage,
        class: FailureClass,
        cause: String,
    },
    /// The unit's deployment failed, so it could not be measured.
    UnitBlocked {
        unit_id: UnitId,
        cause: String,
    },
    /// Another run holds the unit; it is looked at again at the end.
    UnitTaken {
        unit_id: UnitId,
    },
    Notice {
        message: String,
    },
    RunFinished {
        counts: Counts,
        exit_code: i32,
    },
}

/// How the units of a run ended. Every unit is in exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub cached: u64,
    pub measured: u64,
    pub invalid: u64,
    pub failed: u64,
    pub blocked: u64,
    pub unsupported: u64,
    /// Left for another time: budget, fail-fast, interrupt.
    pub not_run: u64,
}

/// Where in its life a deployment or a sample was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Pull,
    Create,
    Start,
    Ready,
    Probe,
    Warmup,
    Measure,
    Commit,
    Stop,
}

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Runs again next time, and is retried within `attempts`.
    Infrastructure,
    /// The same inputs fail the same way; only `--retry-failed` tries again.
    Deterministic,
    /// The client could not measure it; runs again.
    Invalid,
}
