//! What happens in a run. One type feeds the terminal, the JSON lines, the journal and every later reader; [`fold`] turns
//! events into the state of the run, [`live`] is what a display may read between two events, and [`search`] is what a
//! search came to.

pub mod fold;
pub mod live;
pub mod search;

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
        /// Which try at this start it was, from 1.
        attempt: u32,
        /// Another try follows.
        retry: bool,
        /// The host lacks what any deployment of this kind needs: no container engine, no GPU, no disk.
        environment: bool,
        /// The end of the engine's log, redacted.
        log_tail: Option<String>,
    },
    DeploymentStopped {
        deploy_id: DeployId,
        start: u32,
    },
    SampleStarted {
        unit_id: UnitId,
        /// The number that the sample gets when it is committed.
        sample: u32,
        attempt: u32,
        round: u32,
        /// What people call the unit: its container and the parameters that vary.
        name: String,
    },
    /// A sample is committed: what it measured is in `result.json`.
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
        /// Another try follows in this run.
        retry: bool,
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
    /// Nothing more happens to the unit in this run. Every unit of the plan has exactly one of these.
    UnitFinished {
        unit_id: UnitId,
        outcome: Outcome,
    },
    SearchStarted {
        /// What people call it: the container, the parameters that vary, and what is searched.
        search: String,
        deploy_id: DeployId,
        parameter: String,
        from: f64,
        to: f64,
        /// Probes that it needs at most.
        max_probes: u32,
    },
    /// A search asks for this unit.
    ProbeChosen {
        search: String,
        unit_id: UnitId,
        value: f64,
        /// The unit was none of the plan's so far and is one from now on.
        joins: bool,
    },
    /// Every search of the plan has exactly one of these.
    SearchFinished {
        #[serde(flatten)]
        result: search::SearchResult,
    },
    Notice {
        message: String,
    },
    /// The last event. Serialized flat: `{"event": "run_finished", "cached": 3, …, "exit_code": 0}`.
    RunFinished {
        #[serde(flatten)]
        counts: Counts,
        exit_code: i32,
    },
}

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Outcome {
    /// It had its samples before, or another run measured them meanwhile.
    Cached,
    /// It has as many valid samples as were asked for.
    Measured,
    /// The last sample does not count, for this reason.
    Invalid {
        reason: String,
    },
    /// The attempts are used up, or there is no point in another.
    Failed {
        stage: Stage,
        class: FailureClass,
        cause: String,
    },
    /// Its deployment failed, for this cause.
    Blocked {
        cause: String,
    },
    Unsupported {
        reason: String,
    },
    /// Left for another time: budget, fail-fast, interrupt.
    NotRun {
        reason: String,
    },
}

impl Outcome {
    /// The word in the `status` column and in counts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Cached => "cached",
            Outcome::Measured => "measured",
            Outcome::Invalid { .. } => "invalid",
            Outcome::Failed { .. } => "failed",
            Outcome::Blocked { .. } => "blocked",
            Outcome::Unsupported { .. } => "unsupported",
            Outcome::NotRun { .. } => "not_run",
        }
    }
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

impl Counts {
    /// Counts one unit.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Cached => self.cached += 1,
            Outcome::Measured => self.measured += 1,
            Outcome::Invalid { .. } => self.invalid += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Blocked { .. } => self.blocked += 1,
            Outcome::Unsupported { .. } => self.unsupported += 1,
            Outcome::NotRun { .. } => self.not_run += 1,
        }
    }

    /// Units that a run has an outcome for.
    pub fn total(&self) -> u64 {
        let Counts { cached, measured, invalid, failed, blocked, unsupported, not_run } = *self;
        cached + measured + invalid + failed + blocked + unsupported + not_run
    }
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
    /// The fixed question that every engine is asked.
    Sanity,
    Warmup,
    Measure,
    Commit,
    Stop,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Pull => "pull",
            Stage::Create => "create",
            Stage::Start => "start",
            Stage::Ready => "ready",
            Stage::Probe => "probe",
            Stage::Sanity => "sanity",
            Stage::Warmup => "warmup",
            Stage::Measure => "measure",
            Stage::Commit => "commit",
            Stage::Stop => "stop",
        }
    }
}

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Runs again next time, and is retried within `attempts`.
    Infrastructure,
    /// The same inputs fail the same way; only `--retry-failed` tries again.
    Deterministic,
    /// What could be measured would not count: the client could not, or the engine answers with nonsense. Runs again.
    Invalid,
}

impl FailureClass {
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Infrastructure => "infrastructure",
            FailureClass::Deterministic => "deterministic",
            FailureClass::Invalid => "invalid",
        }
    }
}

/// A cause without the name of its container, for a line that has begun with that name.
pub fn without_name<'c>(cause: &'c str, container: &str) -> &'c str {
    let rest = cause.strip_prefix("cannot start ").unwrap_or(cause);
    let Some(rest) = rest.strip_prefix(container).filter(|_| !container.is_empty()) else { return cause };
    // With the suffix that a container has beside another of its name.
    let suffix = |r: &str| r.get(..8).is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
    let rest = rest.strip_prefix('-').filter(|r| suffix(r)).map_or(rest, |r| &r[8..]);
    match rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' ')) {
        Some(rest) if !rest.is_empty() => rest,
        _ => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_once() {
        for (cause, expected) in [
            ("cannot start m-hf-vllm: it needs 2 GPUs", "it needs 2 GPUs"),
            ("m-hf-vllm: it ended with exit code 1", "it ended with exit code 1"),
            ("m-hf-vllm-0123abcd: it ended", "it ended"),
            ("m-hf-vllm is not ready after 3s", "is not ready after 3s"),
            ("m-hf-vllm-other: it ended", "m-hf-vllm-other: it ended"),
            ("CUDA out of memory", "CUDA out of memory"),
            ("m-hf-vllm", "m-hf-vllm"),
        ] {
            assert_eq!(without_name(cause, "m-hf-vllm"), expected);
        }
    }

    #[test]
    fn the_last_line_of_a_run_is_flat() {
        let entry = Entry {
            seq: 7,
            at: "2026-11-24T06:15:00.000Z".into(),
            event: Event::RunFinished { counts: Counts { cached: 3, failed: 1, ..Counts::default() }, exit_code: 5 },
        };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"seq":7,"at":"2026-11-24T06:15:00.000Z","event":"run_finished","cached":3,"measured":0,"invalid":0,"failed":1,"blocked":0,"unsupported":0,"not_run":0,"exit_code":5}"#
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}
