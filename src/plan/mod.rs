//! From a validated spec to a plan: expansion, documents, ids, statuses and reasons. No clock, no network, no files.

pub mod build;
pub mod catalog;
mod expand;
pub mod fit;
pub mod identity;
pub mod lock;
pub mod names;
pub mod paths;
pub mod search;
mod shape;
pub mod status;
#[cfg(test)]
mod tests;
mod words;
mod work;

use std::sync::Arc;

pub use identity::MODEL_ROOT;
pub use work::ASSET_ROOT;

use serde::{Deserialize, Serialize};

use crate::digest::{DeployId, Digest, UnitId};
use crate::spec::policy::{Cost, Gate, RunPolicy, Slo};
use crate::template::spec::DeploySpec;
use crate::units::{self, Objective};
use crate::value::Value;
use crate::wire::Api;
use crate::workload::profile::{Level, Profile};
use crate::workload::{Arrival, Dataset, TokenLengths, Workload};

/// Raised only when numbers measured before are no longer comparable with numbers measured now.
pub const PROTOCOL: i64 = 1;

/// A cell: dotted parameter path → value, sorted by path. Defaults are not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell(pub Vec<(Arc<str>, Value)>);

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `name` of the experiment.
    pub experiment: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// Hardware class and where it came from (`file`, `lock`, `detected`).
    pub hardware: Vec<(String, String)>,
    pub units: Vec<Unit>,
    pub deployments: Vec<Deployment>,
    pub unsupported: Vec<Unsupported>,
    pub searches: Vec<Search>,
    /// What the deployments refer to, and whether the lock says what it means.
    pub references: Vec<(lock::Reference, bool)>,
    /// By block: the parameters that are axes there.
    pub axes: Vec<Vec<Arc<str>>>,
    pub warnings: Vec<String>,
    /// The experiment's `[run]`, `[slo]`, `[cost]`, `[gate]`.
    pub policy: RunPolicy,
    pub slo: Slo,
    pub cost: Cost,
    pub gate: Gate,
    pub simulated: bool,
}

/// A run unit.
#[derive(Clone, Debug)]
pub struct Unit {
    pub id: UnitId,
    /// Index into [`Plan::deployments`].
    pub deployment: usize,
    pub cell: Cell,
    /// Labelled axes: (axis, label).
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Index into [`Plan::axes`].
    pub block: u32,
    /// Content of the data set.
    pub dataset: Option<Digest>,
    /// Overridden policies, where an `[[override]]` changed them for this unit.
    pub policy: Option<Arc<RunPolicy>>,
    pub slo: Option<Arc<Slo>>,
    pub status: Status,
    pub reasons: Vec<Reason>,
    /// A sentence that says more about the status.
    pub note: Option<String>,
    /// Valid samples that the artifacts have.
    pub valid_samples: u32,
    /// Mean length of a sample of this unit so far.
    pub history_seconds: Option<f64>,
}

/// What one engine start needs. Serializable: any process that reaches the artifacts can execute it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeployId,
    /// `{model}-{method}-{engine}`, sanitized.
    pub container: String,
    /// `{model}_{method}_{engine}`, sanitized: the directory under the artifacts.
    pub directory: String,
    /// The document the id is made from.
    pub document: Value,
    pub spec: DeploySpec,
    pub model: String,
    pub served_model: Option<String>,
    pub method: String,
    pub engine: String,
    pub hardware: String,
    pub gpus: u32,
    /// Assets: (name, path relative to the experiment or URL), as written.
    #[serde(default)]
    pub assets: Vec<(String, String)>,
    /// Method `external`.
    pub endpoint: Option<String>,
    pub headers: Vec<(String, String)>,
    pub tls: TlsOptions,
    /// `{method}-{engine}` of the simulated engine, when the run is simulated or the method is `sim`.
    pub flavor: Option<String>,
}

/// How TLS connections are made. Paths as written in the experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TlsOptions {
    pub ca: Option<String>,
    pub cert: Option<String>,
    pub key: Option<String>,
    pub insecure: bool,
}

/// Where a unit stands against the artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Cached,
    Partial,
    New,
    Changed,
    Expired,
    Failed,
    Invalid,
    Unsupported,
}

/// A field that differs from what was measured before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    pub field: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// A cell that no stack here can honour.
#[derive(Clone, Debug)]
pub struct Unsupported {
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    pub cell: Cell,
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    pub reason: String,
}

/// A search: the cells that differ in the searched parameter only, and what is looked for among them.
#[derive(Clone, Debug)]
pub struct Search {
    /// Without the searched parameter.
    pub cell: Cell,
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Index into [`Plan::deployments`]; the same for every probe.
    pub deployment: usize,
    pub parameter: String,
    pub from: f64,
    pub to: f64,
    pub until: Objective,
    /// Relative width at which the search ends.
    pub within: f64,
    /// The units that may be asked for, by ascending value: ordinary ones, the same as a sweep with these values has.
    pub probes: Vec<Probe>,
    /// Probes that are needed at most.
    pub max_probes: u32,
}

impl Deployment {
    /// What the lock says the image is: a digest, or the id of an image built locally.
    pub fn locked_image(&self) -> Option<&str> {
        self.locked("image")?.as_str()
    }

    /// What the lock says the model is: a commit of the hub, or the content of a local directory.
    pub fn locked_model(&self) -> Option<&str> {
        self.locked("model")?.as_str()
    }

    /// What the lock says an asset is; as written in the experiment where it says nothing.
    pub fn locked_asset(&self, name: &str) -> Option<&str> {
        self.locked("assets")?.as_map()?.get(name)?.as_str()
    }

    /// The model's revision as written.
    pub fn revision(&self) -> Option<&str> {
        self.document.as_map()?.get("params")?.as_map()?.get("revision")?.as_str()
    }

    fn locked(&self, what: &str) -> Option<&Value> {
        self.document.as_map()?.get("locked")?.as_map()?.get(what)
    }
}

/// One value of a search.
#[derive(Clone, Debug)]
pub struct Probe {
    pub value: f64,
    pub unit: Unit,
}

impl Cell {
    /// The value of a parameter, its fixed default where it is not set.
    pub fn get(&self, path: &str) -> Option<Value> {
        identity::get(&self.0, path).cloned().or_else(|| identity::default_of(path))
    }

    fn integer(&self, path: &str) -> Option<i64> {
        self.get(path).and_then(|v| v.as_i64())
    }

    fn number(&self, path: &str) -> Option<f64> {
        self.get(path).and_then(|v| v.as_f64())
    }

    fn text(&self, path: &str) -> Option<String> {
        self.get(path).and_then(|v| v.as_str().map(str::to_string))
    }
}

impl Plan {
    /// The canonical document that the unit's id is made from.
    pub fn unit_document(&self, unit: &Unit) -> Value {
        let (_, pairs) = identity::split(&unit.cell.0);
        let hashed = build::hashed(pairs, &self.deployments[unit.deployment].spec.api);
        let bytes = identity::unit_document(&self.deployments[unit.deployment].id, &hashed, unit.dataset.as_ref());
        serde_json::from_slice(&bytes).expect("a canonical document is JSON")
    }

    /// What the unit asks of the server.
    pub fn workload(&self, unit: &Unit) -> Workload {
        let c = &unit.cell;
        let small = |path: &str| c.integer(path).and_then(|i| u32::try_from(i).ok());
        let large = |path: &str| c.integer(path).and_then(|i| u64::try_from(i).ok());
        let range = c.get("tokens.input_range").and_then(|v| {
            let ends: Vec<u32> = v.as_list()?.iter().filter_map(|e| u32::try_from(e.as_i64()?).ok()).collect();
            Some((*ends.first()?, *ends.get(1)?))
        });
        let profile = shape::profile(c);
        let peak = |level| profile.as_ref().filter(|p| p.level == level).map(|p| p.peak());
        let staged = c.get("stages").is_some();
        Workload {
            api: match c.text("api").as_deref() {
                Some("chat") => Api::Chat,
                Some("generate") => Api::Generate,
                Some("batch") => Api::Batch,
                _ => Api::Completions,
            },
            tokens: TokenLengths {
                input: small("tokens.input"),
                output: small("tokens.output"),
                input_stddev: c.number("tokens.input_stddev").unwrap_or(0.0),
                output_stddev: c.number("tokens.output_stddev").unwrap_or(0.0),
                input_range: range,
                shared_prefix: small("tokens.shared_prefix").unwrap_or(0),
                prefix_groups: small("tokens.prefix_groups").unwrap_or(1),
                turns: small("tokens.turns").unwrap_or(1),
            },
            concurrency: small("concurrency").or_else(|| peak(Level::Concurrency).map(|n| n.ceil() as u32)),
            rate: c.number("rate").or_else(|| peak(Level::Rate)),
            arrival: match c.text("arrival").as_deref() {
                Some("constant") => Arrival::Constant,
                Some("gamma") => Arrival::Gamma,
                _ => Arrival::Poisson,
            },
            burstiness: c.number("burstiness").unwrap_or(1.0),
            requests: large("requests"),
            duration: match staged {
                true => profile.as_ref().map(Profile::length),
                false => c.text("duration").and_then(|d| units::parse_duration(&d).ok()),
            },
            warmup: large("warmup").unwrap_or(0),
            seed: large("seed").unwrap_or(0),
            dataset: c.text("dataset").map(|path| Dataset { path, format: c.text("format") }),
            temperature: c.number("temperature").unwrap_or(0.0),
            ignore_eos: c.get("ignore_eos").and_then(|v| v.as_bool()).unwrap_or(true),
            replay_speed: c.number("replay_speed").unwrap_or(1.0),
            cancel: shape::cancellation(c),
            profile,
        }
    }

    /// The policy that holds for a unit: what overrides made of it, else the experiment's.
    pub fn policy_of<'p>(&'p self, unit: &'p Unit) -> &'p RunPolicy {
        unit.policy.as_deref().unwrap_or(&self.policy)
    }

    /// The limits that hold for a unit.
    pub fn slo_of<'p>(&'p self, unit: &'p Unit) -> &'p Slo {
        unit.slo.as_deref().unwrap_or(&self.slo)
    }
}
