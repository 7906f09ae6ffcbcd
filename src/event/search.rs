//! What a search came to.

use serde::{Deserialize, Serialize};

use crate::digest::{DeployId, UnitId};
use crate::stats::objective::Margin;
use crate::units::Objective;

/// The result of a search, as in its last event and in the run's `plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// What people call it.
    pub search: String,
    pub deploy_id: DeployId,
    /// `rate` or `concurrency`.
    pub parameter: String,
    pub until: Objective,
    pub from: f64,
    pub to: f64,
    /// Relative distance of neighbouring values.
    pub within: f64,
    /// The largest value that met the SLOs, or the knee; `None` when no value did, or none could be measured.
    pub best: Option<f64>,
    /// The measured values next to `best`. Until the SLO: `best` itself and the smallest value that failed, which is
    /// `None` when even `to` met them.
    pub bracket: (Option<f64>, Option<f64>),
    /// How probes were judged.
    pub rule: String,
    /// In the order in which they were asked for.
    pub probes: Vec<ProbeResult>,
    /// Why it ended before its end; `best` is then the best so far.
    pub unfinished: Option<String>,
}

/// One probe of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    pub value: f64,
    pub unit_id: UnitId,
    /// Valid samples that it was judged by.
    pub samples: u32,
    /// Meets the SLOs; for a knee, was measured.
    pub passed: bool,
    /// Where its figures stand against the limits; empty for a knee.
    pub margins: Vec<Margin>,
    /// What a knee is found by: requests per second over seconds of E2EL.
    pub power: Option<f64>,
    /// Why it has no figures that count: it failed, or its samples are invalid. Such a value does not pass.
    pub problem: Option<String>,
}

impl SearchResult {
    /// The result in one line.
    pub fn text(&self) -> String {
        let (name, from, to) = (&self.parameter, self.from, self.to);
        let found = match (self.until, self.best) {
            (Objective::Slo, Some(best)) if best == self.to => {
                format!("{name} = {to} meets the SLOs, the end of the range")
            }
            (Objective::Slo, Some(best)) => match self.bracket.1 {
                Some(fails) => format!("largest {name} within the SLOs is {} ({} fails)", best, fails),
                None => format!("{name} = {} meets the SLOs", best),
            },
            (Objective::Slo, None) => format!("no {name} from {from} on meets the SLOs"),
            (Objective::Knee, Some(best)) => format!("the knee is at {name} = {}", best),
            (Objective::Knee, None) => format!("no {name} from {from} to {to} could be measured"),
        };
        let probes = match self.probes.len() {
            1 => "1 probe".to_string(),
            n => format!("{n} probes"),
        };
        match &self.unfinished {
            Some(reason) if self.probes.is_empty() => format!("not run: {reason}"),
            Some(reason) => format!("unfinished after {probes} ({reason}); so far: {found}"),
            None => format!("{found}; {probes}"),
        }
    }
}
