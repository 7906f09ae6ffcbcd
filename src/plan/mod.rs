//! From a validated spec to a plan: expansion, documents, ids, statuses and reasons. No clock, no network, no files.

pub mod catalog;
mod expand;
pub mod paths;
mod work;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{DeployId, UnitId};
use crate::spec::policy::{Cost, Gate, RunPolicy, Slo};
use crate::template::spec::DeploySpec;
use crate::value::Value;

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
    /// Overridden policies, where an `[[override]]` changed them for this unit.
    pub policy: Option<Arc<RunPolicy>>,
    pub slo: Option<Arc<Slo>>,
    pub status: Status,
    pub reasons: Vec<Reason>,
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
    pub cell: Cell,
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    pub reason: String,
}

/// A search axis of one cell: the largest value that meets the aggregate SLOs.
#[derive(Clone, Debug)]
pub struct Search {
    pub cell: Cell,
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    pub parameter: String,
    pub from: f64,
    pub to: f64,
    pub until: String,
    /// Relative width at which the search ends.
    pub within: f64,
    pub max_probes: u32,
}
