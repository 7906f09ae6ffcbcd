//! The files of a unit and of a run as types. Each carries its schema number; readers accept the numbers they know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::seal::FileSeals;
use crate::digest::{DeployId, UnitId};
use crate::event::search::SearchResult;
use crate::event::{Counts, FailureClass, Outcome, Stage};
use crate::plan::Status;
use crate::spec::policy::{Cost, Gate, Slo};
use crate::stats::{Sanity, ServerLoad, ServerMeans, Summary, WatchCost};
use crate::value::Value;

/// Schema number of `unit.json`, `result.json` and `plan.json`. Files of schema 1 had no checksum.
pub const SCHEMA: u32 = 2;

/// Dotted parameter path → value: a cell as it stands in files.
pub type CellRecord = BTreeMap<String, Value>;

/// `unit.json`: what the unit is. Both ids can be recomputed from the documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    pub schema: u32,
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    /// The canonical document that `unit_id` is made from.
    pub unit: Value,
    /// The canonical document that `deploy_id` is made from.
    pub deploy: Value,
    /// Whether the samples come from the simulated engine in place of a real one.
    pub simulated: bool,
    /// What result rows say of the unit; taken from the first experiment that planned it.
    pub facts: UnitFacts,
}

/// What a result row says of a unit: derived from the cell, the deployment and the workload, kept so that a row can be
/// written without planning again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitFacts {
    /// Experiment that the unit was first measured for.
    pub experiment: String,
    pub labels: Vec<(String, String)>,
    pub cell: CellRecord,
    pub model: String,
    pub revision: Option<String>,
    pub method: String,
    pub engine: String,
    pub image: Option<String>,
    pub hardware: String,
    pub gpus: u32,
    pub tensor_parallel: Option<u32>,
    pub pipeline_parallel: Option<u32>,
    pub data_parallel: Option<u32>,
    pub dtype: Option<String>,
    pub quantization: Option<String>,
    pub api: Option<String>,
    /// Asked-for mean lengths, tokens.
    pub isl: Option<u32>,
    pub osl: Option<u32>,
    pub concurrency: Option<u32>,
    /// Requests per second; `None` is a closed loop.
    pub request_rate: Option<f64>,
    pub arrival: Option<String>,
    pub requests: Option<u64>,
    pub seed: Option<u64>,
}

/// `result.json`: what was measured. The truth; everything else can be made from it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitResult {
    pub schema: u32,
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    /// By number, upwards. Numbers are never used twice.
    pub samples: Vec<SampleRecord>,
    /// Failed attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// The highest number that a sample ever had here, where its record is no longer among the samples.
    #[serde(default)]
    pub last_number: u32,
}

/// One repeat of a unit's measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Counts from 1 within the unit, upwards for ever. Its files are in `sample-{sample}/`.
    pub sample: u32,
    /// `{timestamp}-{experiment}` of the run that measured it.
    pub run: String,
    /// Tries it took in that run, from 1.
    pub attempt: u32,
    /// Engine start of the deployment in that run, from 1.
    pub start: u32,
    /// Round within the engine start, from 1.
    pub round: u32,
    /// RFC 3339 with milliseconds, UTC.
    pub started_at: String,
    pub finished_at: String,
    /// Monotonic length from `started_at` to `finished_at`, warm-up included.
    pub seconds: f64,
    pub valid: bool,
    pub invalid_reason: Option<String>,
    pub simulated: bool,
    pub summary: Summary,
    #[serde(default)]
    pub resources: Resources,
    /// What the engine answered to a fixed question when it had started; `None` where it was not asked or did not answer.
    #[serde(default)]
    pub sanity: Option<Sanity>,
    /// Something for a later deployment was downloaded at the same time.
    #[serde(default)]
    pub prefetching: bool,
    /// What the server itself measured in the window.
    #[serde(default)]
    pub server: ServerMeans,
    /// How loaded the server was in the window, by its own metrics.
    #[serde(default)]
    pub load: ServerLoad,
    /// What it took to watch it.
    #[serde(default)]
    pub watch: WatchCost,
    /// How the engine came up that the sample was measured on.
    #[serde(default)]
    pub startup: StartRecord,
    /// US dollars for the measured window at the price of the run's `[cost]`.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// The client's own error on this host, from its calibration; never subtracted.
    #[serde(default)]
    pub client_error_ttft_ms: Option<f64>,
    #[serde(default)]
    pub client_error_itl_ms: Option<f64>,
    pub provenance: Provenance,
    /// What the files in the sample's directory were when it was committed, by name.
    #[serde(default)]
    pub files: FileSeals,
}

/// What the sample used, where it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub gpu_power_mean_w: Option<f64>,
    pub energy_j: Option<f64>,
    pub gpu_memory_peak_mib: Option<f64>,
    /// Share of the KV cache, 0 to 1.
    pub kv_cache_usage_peak: Option<f64>,
    /// Share of time in which a kernel ran, 0 to 1; mean over GPUs and looks.
    pub gpu_utilization_mean: Option<f64>,
    pub gpu_temperature_peak_c: Option<f64>,
    pub gpu_sm_clock_mean_mhz: Option<f64>,
    /// Share of looks at which the power limit held the clocks down.
    pub gpu_power_capped: Option<f64>,
    /// Share of the host's processors in use, 0 to 1.
    pub host_cpu_mean: Option<f64>,
    pub host_memory_peak_mib: Option<f64>,
    /// Cores that the container used.
    pub container_cpu_cores_mean: Option<f64>,
    pub container_memory_peak_mib: Option<f64>,
    /// Seconds that its CPU limit held the container back.
    pub container_throttled_s: Option<f64>,
}

/// How an engine came up. `None` where its log does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartRecord {
    /// Image and model got, devices waited for.
    pub prepare_s: Option<f64>,
    /// From there to the first token.
    pub ready_s: Option<f64>,
    pub weights_s: Option<f64>,
    pub compile_s: Option<f64>,
    pub graphs_s: Option<f64>,
    /// Room in the KV cache.
    pub kv_cache_tokens: Option<u64>,
    /// What the weights take of GPU memory.
    pub weights_gib: Option<f64>,
    /// All caches that it was given held something.
    pub warm_caches: Option<bool>,
    pub milestones: Vec<MilestoneRecord>,
}

/// Something that an engine's log told on its way up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MilestoneRecord {
    pub name: String,
    pub value: String,
    /// Since the container was started.
    pub seconds: f64,
}

/// A try that gave no sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The number that the sample would have had.
    pub sample: u32,
    pub run: String,
    pub attempt: u32,
    /// Engine start, from 1.
    pub start: u32,
    pub started_at: String,
    pub finished_at: String,
    pub stage: Stage,
    pub class: FailureClass,
    pub cause: String,
    /// The deployment failed, not this unit.
    pub blocked: bool,
    pub simulated: bool,
    /// The end of the engine's log, redacted.
    pub log_tail: Option<String>,
    pub provenance: Provenance,
}

/// Where numbers come from. Recorded and compared, never part of an id. A field that does not apply, or that could not
/// be learnt, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    pub tool_version: String,
    pub tool_commit: Option<String>,
    /// Commit of the experiment's repository, and whether it had uncommitted changes.
    pub experiment_commit: Option<String>,
    pub experiment_dirty: Option<bool>,
    pub image_digest: Option<String>,
    /// As the engine reports itself.
    pub engine_version: Option<String>,
    pub model_commit: Option<String>,
    pub host: Option<String>,
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    /// Logical CPUs.
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub gpus: Vec<GpuRecord>,
    pub driver: Option<String>,
    pub docker_version: Option<String>,
    /// Labels of the image that ran.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub image_labels: BTreeMap<String, String>,
    /// How requests reached the engine, such as `loopback` or `https://host`.
    pub network_path: Option<String>,
    /// The template as rendered, as TOML.
    pub template: Option<String>,
}

/// A GPU of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuRecord {
    pub name: String,
    pub uuid: Option<String>,
}

/// `plan.json` of a run: what it meant to do, which samples it stands on, and how it ended. Written when the run starts and
/// replaced when it ends; `finished_at` is `None` while it runs, and for one that died until the next start completes
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub schema: u32,
    /// `{timestamp}-{experiment}`.
    pub run: String,
    /// The timestamp in the names of the run's files.
    pub timestamp: String,
    pub experiment: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub simulated: bool,
    pub started_at: String,
    pub finished_at: Option<String>,
    /// The run was killed; its units were read back by a later one.
    pub died: bool,
    /// Hardware classes and where each came from.
    pub hardware: Vec<(String, String)>,
    /// As planned, then those that only a search asked for, in the order in which it did.
    pub units: Vec<RunUnit>,
    /// What the searches came to, as they ended.
    #[serde(default)]
    pub searches: Vec<SearchResult>,
    pub unsupported: Vec<RunUnsupported>,
    pub slo: Slo,
    pub cost: Cost,
    pub gate: Gate,
    /// The cell that was measured first and last, to tell drift from regression.
    #[serde(default)]
    pub control: Option<ControlRecord>,
    pub warnings: Vec<String>,
    pub counts: Option<Counts>,
    pub exit_code: Option<i32>,
    pub provenance: Provenance,
}

/// The control of a run: the samples of one of its units that were measured before all others, and after them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlRecord {
    pub unit_id: UnitId,
    /// Samples by number, the valid ones.
    pub first: Vec<u32>,
    pub last: Vec<u32>,
}

/// A unit in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunUnit {
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    /// `{model}_{method}_{engine}`: with the id, where its files are.
    pub directory: String,
    pub container: String,
    /// What people call it: container and the parameters that vary.
    pub name: String,
    /// What its rows say, under this experiment's name and labels.
    pub facts: UnitFacts,
    /// Overridden SLOs, where they are not the run's.
    pub slo: Option<Slo>,
    /// Valid samples that were asked for.
    pub repeats: u32,
    /// Where the unit stood before the run.
    pub status: Status,
    /// Valid samples that the run stands on, by number: its own and cached ones.
    pub samples: Vec<u32>,
    /// Samples that this run measured and that do not count.
    pub invalid_samples: Vec<u32>,
    /// Only a search asked for it: that it fails is an answer, not a fault.
    #[serde(default)]
    pub probe: bool,
    pub outcome: Option<Outcome>,
}

/// A cell that no stack could honour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunUnsupported {
    pub cell: CellRecord,
    pub labels: Vec<(String, String)>,
    pub reason: String,
}

impl UnitResult {
    pub fn empty(unit_id: UnitId, deploy_id: DeployId) -> UnitResult {
        UnitResult { schema: SCHEMA, unit_id, deploy_id, samples: Vec::new(), attempts: Vec::new(), last_number: 0 }
    }

    /// It carries a checksum of its own, so that it needs no other file to be believed.
    pub fn is_sealed(&self) -> bool {
        self.schema >= super::json::SEALED
    }

    /// The highest sample number in use, 0 without samples.
    pub fn last_sample(&self) -> u32 {
        self.samples.iter().map(|s| s.sample).max().unwrap_or(0).max(self.last_number)
    }

    /// The sample of a number.
    pub fn sample(&self, number: u32) -> Option<&SampleRecord> {
        self.samples.iter().find(|s| s.sample == number)
    }
}

/// Reads the bytes of a `unit.json`, a `result.json` or a run's `plan.json`, checksum included. The error says what is wrong.
pub fn read_bytes<T: Record>(bytes: &[u8]) -> Result<T, String> {
    super::json::parse::<T>(bytes).map_err(|e| match e {
        super::json::Unread::Newer(schema) => format!("it has schema {schema}, and this tool reads up to {SCHEMA}"),
        super::json::Unread::Damaged(reason) => reason,
    })
}

/// The bytes that [`read_bytes`] reads.
pub fn to_bytes(record: &impl Record) -> Vec<u8> {
    super::json::to_json(record)
}

/// What stands in a file of its own.
pub trait Record: super::json::Versioned + Serialize {}

impl Record for UnitRecord {}
impl Record for UnitResult {}
impl Record for RunRecord {}
