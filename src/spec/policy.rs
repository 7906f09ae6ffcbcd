//! The parts of an experiment that are never hashed: how to run, what to judge by, what it costs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::cost::{Cost, Market};
use crate::value::Value;

/// Which images and models are removed when no later deployment of a run needs them.
/// Written as `false`, `true` or `"all"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evict {
    #[default]
    No,
    /// Those that the run itself downloaded.
    Own,
    /// Those that were there before, too.
    All,
}

impl Evict {
    /// `true`, `false` or `"all"`.
    pub fn read(value: &Value) -> Option<Evict> {
        match (value.as_bool(), value.as_str()) {
            (Some(false), _) => Some(Evict::No),
            (Some(true), _) => Some(Evict::Own),
            (None, Some("all")) => Some(Evict::All),
            _ => None,
        }
    }
}

impl Serialize for Evict {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Evict::No => s.serialize_bool(false),
            Evict::Own => s.serialize_bool(true),
            Evict::All => s.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Evict {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Evict, D::Error> {
        let value = Value::deserialize(d)?;
        Evict::read(&value).ok_or_else(|| serde::de::Error::custom("`evict` is true, false or \"all\""))
    }
}

/// What becomes of an engine that answers a fixed question with nonsense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SanityCheck {
    /// It is not asked.
    Off,
    /// That is said, and it is measured all the same.
    Warn,
    /// It is not measured, and its units are invalid.
    #[default]
    Require,
}

impl SanityCheck {
    /// The words, in the order of their strictness.
    pub const WORDS: [&str; 3] = ["off", "warn", "require"];

    pub fn parse(word: &str) -> Option<SanityCheck> {
        Some(match word {
            "off" => SanityCheck::Off,
            "warn" => SanityCheck::Warn,
            "require" => SanityCheck::Require,
            _ => return None,
        })
    }
}

/// `[run]`, after defaults, overrides and flags. An `[[override]]` may change it for the cells it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPolicy {
    /// Valid samples that make a unit cached.
    pub repeats: u32,
    /// Engine starts that the repeats are spread over.
    pub starts: u32,
    /// Tries at each sample before the unit counts as failed.
    pub attempts: u32,
    /// From the start of the engine to its first token.
    pub ready_timeout: Duration,
    /// A single request.
    pub request_timeout: Duration,
    /// One sample, warm-up included.
    pub measure_timeout: Duration,
    /// Pause between two samples.
    pub settle: Duration,
    /// Share of failed requests above which a sample is invalid.
    pub max_error_rate: f64,
    /// A larger plan needs `--yes`.
    pub max_units: u64,
    pub max_age: Option<Duration>,
    pub budget: Option<Duration>,
    pub fail_fast: bool,
    pub retry_failed: bool,
    pub force: bool,
    pub offline: bool,
    pub simulate: bool,
    pub gate: Option<String>,
    pub sanity: SanityCheck,
    pub parallel: u32,
    pub devices: Vec<String>,
    pub evict: Evict,
    /// What the next deployment needs is downloaded while one is measured.
    pub prefetch: bool,
    pub float: Vec<String>,
    /// Seed of the order within a round.
    pub seed: u64,
    /// Between two looks at the engine's metrics, the GPUs and the host; zero is only before and after a sample.
    pub scrape_interval: Duration,
    /// URL of a DCGM exporter that tells of the GPUs, in place of this host's own library.
    pub dcgm: Option<String>,
    /// URL that is told when a run ends; `${NAME}` is read from the environment.
    pub webhook: Option<String>,
}

impl std::default::Default for RunPolicy {
    fn default() -> Self {
        RunPolicy {
            repeats: 1,
            starts: 1,
            attempts: 2,
            ready_timeout: Duration::from_secs(20 * 60),
            request_timeout: Duration::from_secs(10 * 60),
            measure_timeout: Duration::from_secs(60 * 60),
            settle: Duration::ZERO,
            max_error_rate: 0.01,
            max_units: 500,
            max_age: None,
            budget: None,
            fail_fast: false,
            retry_failed: false,
            force: false,
            offline: false,
            simulate: false,
            gate: None,
            sanity: SanityCheck::default(),
            parallel: 1,
            devices: Vec::new(),
            evict: Evict::No,
            prefetch: true,
            float: Vec::new(),
            seed: 0,
            scrape_interval: Duration::from_secs(1),
            dcgm: None,
            webhook: None,
        }
    }
}

/// `[slo]`: limits by metric. `ttft`, `ttfo`, `tpot`, `itl`, `e2el` are per request (goodput); with a prefix `mean_`,
/// `p50_` … `p99_` they are aggregate (search).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slo(pub BTreeMap<String, Duration>);

impl Slo {
    /// Whether any limit is per request, so that there is a goodput.
    pub fn judges_requests(&self) -> bool {
        self.0.keys().any(|key| super::sections::REQUEST_METRICS.contains(&key.as_str()))
    }
}

/// `[gate]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// A baseline name, or the coordinates of another layer to compare with.
    pub against: Option<Value>,
    /// The cell that is measured first and last, to tell drift from regression.
    pub control: Option<Value>,
    /// Share of the regressions reported that may be false.
    pub fdr: f64,
    /// What repeats within one engine start are taken for.
    pub error: ErrorTerm,
    /// Metric → allowed change or limit, as written (`+10%`, `-5%`, `500ms`).
    pub limits: BTreeMap<String, String>,
}

/// Which repeats say how much a number scatters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorTerm {
    /// Engine starts, or nights: what a new start changes is part of the error.
    #[default]
    Starts,
    /// Samples, whatever start they are of. Right only where starts do not differ.
    Samples,
}

impl Default for Gate {
    fn default() -> Self {
        let fdr = super::gate::DEFAULT_FDR;
        Gate { against: None, control: None, fdr, error: ErrorTerm::default(), limits: BTreeMap::new() }
    }
}
