//! What one unit asks of a server: how long its prompts and answers are, when requests start, how many there are.
//! Everything here is a pure function of the workload and a seed.

pub mod arrival;
pub mod dataset;
pub mod lengths;
pub mod profile;
pub mod prompts;
mod seeded;
pub mod tokenizer;
pub mod trace;
mod vocabulary;
mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::Api;
use profile::Profile;

/// The unit-scope parameters of a cell, typed. Lengths are in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    pub api: Api,
    pub tokens: TokenLengths,
    /// Closed loop: requests in flight. Together with `rate`: a cap.
    pub concurrency: Option<u32>,
    /// Open loop: requests per second.
    pub rate: Option<f64>,
    pub arrival: Arrival,
    /// Shape of the gamma arrival process; 1 is Poisson, larger is more regular.
    pub burstiness: f64,
    /// Measured requests; with `duration`, whichever ends first.
    pub requests: Option<u64>,
    pub duration: Option<Duration>,
    /// Requests sent before the measurement and discarded.
    pub warmup: u64,
    pub seed: u64,
    pub dataset: Option<Dataset>,
    pub temperature: f64,
    pub ignore_eos: bool,
    /// Load that changes over time. Its peak is in `rate` or `concurrency`.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// How much faster a trace is replayed than it was recorded.
    #[serde(default = "one")]
    pub replay_speed: f64,
    /// Clients that go away before their answer is complete.
    #[serde(default)]
    pub cancel: Option<Cancellation>,
}

/// Streams of a job that has no cap of its own: all of its requests at once, up to what the client is known to measure well
/// (docs/performance.md) and what engines take into a batch at most by default.
pub fn job_streams(requests: u64) -> u32 {
    u32::try_from(requests).unwrap_or(u32::MAX).clamp(1, 1024)
}

fn one() -> f64 {
    1.0
}

/// A share of requests is given up by the client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Share of requests, 0 to 1.
    pub share: f64,
    pub after: CancelAfter,
}

/// When a request is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelAfter {
    /// When this many token events have arrived.
    Tokens(u32),
    /// This long after it was sent.
    Time(Duration),
}

/// Lengths of prompts and answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLengths {
    /// Mean prompt length (ISL); `None` with a data set.
    pub input: Option<u32>,
    /// Mean answer length (OSL); `None` takes the data set's.
    pub output: Option<u32>,
    /// Standard deviation of a normal distribution around the mean.
    pub input_stddev: f64,
    pub output_stddev: f64,
    /// Uniform lengths between both ends, inclusive, instead of the mean.
    pub input_range: Option<(u32, u32)>,
    /// Tokens at the start of `input` that requests of one group share.
    pub shared_prefix: u32,
    /// Number of distinct shared prefixes.
    pub prefix_groups: u32,
    /// Turns of a conversation: each is a request with all that was said before it.
    pub turns: u32,
}

/// A file of prompts. The content is handed in by whoever may read files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// As written in the experiment.
    pub path: String,
    pub format: Option<String>,
}

/// When open-loop requests start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    Constant,
    Poisson,
    Gamma,
}

/// Why a workload cannot be generated.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum WorkloadError {
    #[error("tokens.turns = {0} asks for conversations, which go over the chat API: set api = \"chat\"")]
    Turns(u32),
    #[error("tokens.input or tokens.input_range is needed where there is no data set")]
    NoInput,
    #[error("tokens.output is needed where there is no data set")]
    NoOutput,
    #[error(
        "tokens.input_range = [{0}, {1}] is not a range: the first length must be at least 1 and at most the second"
    )]
    Range(u32, u32),
    #[error("tokens.shared_prefix = {prefix} must be smaller than the input, which can be as short as {input} tokens")]
    Prefix { prefix: u32, input: u32 },
    #[error("{name} = {value} is not possible: {need}")]
    Number { name: &'static str, value: f64, need: &'static str },
    #[error("{name} is ignored with a data set, which has its own prompts: remove it")]
    WithDataset { name: &'static str },
    #[error(
        "data set {path}, prompt {row} does not tell its output length: give every row `output_tokens`, or set tokens.output"
    )]
    RowOutput { path: String, row: usize },
    #[error(
        "api = \"batch\" is a job of fixed size, measured from its submission to its last answer: {name} cannot be set"
    )]
    Job { name: &'static str },
    #[error("the content of data set {0} was not handed in")]
    NoContent(String),
    #[error(transparent)]
    Dataset(#[from] dataset::DatasetError),
}

impl Workload {
    /// Refuses what cannot be generated. Checked before a sample starts.
    pub fn check(&self) -> Result<(), WorkloadError> {
        let tokens = &self.tokens;
        if tokens.turns > 1 && self.api != Api::Chat {
            return Err(WorkloadError::Turns(tokens.turns));
        }
        self.check_job()?;
        let positive = |name, value: f64| {
            let need = "it must be a finite number above 0";
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(WorkloadError::Number { name, value, need }) }
        };
        if let Some(rate) = self.rate {
            positive("rate", rate)?;
            positive("burstiness", self.burstiness)?;
        }
        positive("replay_speed", self.replay_speed)?;
        for (name, value) in [
            ("tokens.input_stddev", tokens.input_stddev),
            ("tokens.output_stddev", tokens.output_stddev),
            ("temperature", self.temperature),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(WorkloadError::Number { name, value, need: "it must be a finite number, 0 or more" });
            }
        }
        match self.dataset.is_some() {
            true => self.check_with_dataset(),
            false => self.check_synthetic(),
        }
    }

    /// A job has a size and nothing that says when its requests start or end.
    fn check_job(&self) -> Result<(), WorkloadError> {
        let shaped = [
            ("rate", self.rate.is_some()),
            ("duration", self.duration.is_some()),
            ("stages", self.profile.is_some()),
            ("cancel_rate", self.cancel.is_some()),
            ("a trace", self.replays()),
        ];
        match shaped.into_iter().find(|(_, set)| *set && self.api == Api::Batch) {
            Some((name, _)) => Err(WorkloadError::Job { name }),
            None => Ok(()),
        }
    }

    fn check_with_dataset(&self) -> Result<(), WorkloadError> {
        let tokens = &self.tokens;
        for (name, set) in [
            ("tokens.input", tokens.input.is_some()),
            ("tokens.input_range", tokens.input_range.is_some()),
            ("tokens.input_stddev", tokens.input_stddev != 0.0),
            ("tokens.shared_prefix", tokens.shared_prefix > 0),
            ("tokens.turns", tokens.turns > 1),
        ] {
            if set {
                return Err(WorkloadError::WithDataset { name });
            }
        }
        Ok(())
    }

    fn check_synthetic(&self) -> Result<(), WorkloadError> {
        let tokens = &self.tokens;
        let shortest = match (tokens.input_range, tokens.input) {
            (Some((from, to)), _) if from == 0 || from > to => return Err(WorkloadError::Range(from, to)),
            (Some((from, _)), _) => from,
            (None, Some(input)) => input,
            (None, None) => return Err(WorkloadError::NoInput),
        };
        if tokens.shared_prefix > 0 && tokens.shared_prefix >= shortest {
            return Err(WorkloadError::Prefix { prefix: tokens.shared_prefix, input: shortest });
        }
        if tokens.output.is_none() { Err(WorkloadError::NoOutput) } else { Ok(()) }
    }

    /// The format of its trace, where its data set is one.
    pub fn trace(&self) -> Option<dataset::Format> {
        let set = self.dataset.as_ref()?;
        dataset::Format::of(set.format.as_deref(), &set.path).ok().filter(|f| f.is_trace())
    }

    /// Requests start when the trace says.
    pub fn replays(&self) -> bool {
        self.trace().is_some() && self.rate.is_none() && self.profile.is_none()
    }

    /// Requests start by a schedule, whatever became of those before.
    pub fn is_open_loop(&self) -> bool {
        self.rate.is_some() || self.replays()
    }

    /// Prompts are made, not read.
    pub fn is_synthetic(&self) -> bool {
        self.dataset.is_none() || self.trace().is_some()
    }

    /// The requests of a job over an online API: all at once, up to the cap.
    pub fn saturating(&self, api: Api) -> Workload {
        let all = self.request_limit().unwrap_or(1);
        Workload { api, concurrency: Some(self.concurrency.unwrap_or_else(|| job_streams(all))), ..self.clone() }
    }

    /// Requests of the measured part, where a count bounds it: 10 × concurrency, at least 100, when nothing is set.
    pub fn request_limit(&self) -> Option<u64> {
        match (self.requests, self.duration) {
            (Some(n), _) => Some(n),
            (None, Some(_)) => None,
            // A trace ends by itself.
            (None, None) if self.replays() => None,
            (None, None) => Some((10 * u64::from(self.concurrency.unwrap_or(1))).max(100)),
        }
    }
}
