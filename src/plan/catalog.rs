//! What the planner asks of the artifacts: which samples a unit has, and which documents are there to compare with.
//! The store implements it; tests hand in a table.

use jiff::Timestamp;

use crate::digest::{DeployId, UnitId};
use crate::event::{FailureClass, Stage};
use crate::value::Value;

/// What the artifacts hold of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitState {
    /// Number and end of each valid sample, by number.
    pub valid_samples: Vec<(u32, Timestamp)>,
    /// Samples that do not count.
    pub invalid: u32,
    /// Why the newest sample does not count; `None` when the newest is valid.
    pub last_invalid: Option<String>,
    /// The last failed attempt; `None` when a sample was committed after it.
    pub last_failure: Option<LastFailure>,
    /// Mean length of a sample, warm-up included.
    pub mean_sample_seconds: Option<f64>,
    /// What was found damaged, and does not count. The samples above are whole.
    pub damaged: Option<String>,
}

/// How a unit failed.
#[derive(Clone, Debug, PartialEq)]
pub struct LastFailure {
    pub class: FailureClass,
    pub stage: Stage,
    pub cause: String,
}

/// A unit that was planned for measurement once: its `unit.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredUnit {
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    /// `{model}_{method}_{engine}`.
    pub directory: String,
    /// The document that `unit_id` is made from.
    pub unit: Value,
    /// The document that `deploy_id` is made from.
    pub deploy: Value,
    pub labels: Vec<(String, String)>,
}

/// The artifacts, as the planner sees them.
pub trait Catalog {
    /// The state of each wanted unit, in that order; `None` for one that is not there. A unit is wanted by its
    /// directory (`{model}_{method}_{engine}`) and id.
    fn states(&self, wanted: &[(&str, UnitId)]) -> Vec<Option<UnitState>>;

    /// Every readable unit, in no particular order.
    fn documents(&self) -> Vec<StoredUnit>;
}

/// No artifacts at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyCatalog;

impl Catalog for EmptyCatalog {
    fn states(&self, wanted: &[(&str, UnitId)]) -> Vec<Option<UnitState>> {
        vec![None; wanted.len()]
    }

    fn documents(&self) -> Vec<StoredUnit> {
        Vec::new()
    }
}
