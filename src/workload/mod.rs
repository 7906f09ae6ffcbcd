//! What one unit asks of a server: how long its prompts and answers are, when requests start, how many there are.
//! Everything here is a pure function of the workload and a seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::Api;

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
    /// Turns of a conversation.
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
