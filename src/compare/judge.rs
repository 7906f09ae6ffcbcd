//! From pairs of cells to verdicts. All metrics of all pairs are one family of tests: each is tested with the noise that
//! cells of its kind have, and what is called worse is called so at a false-discovery rate over the family, and only from
//! the smallest change that matters on. `docs/statistics.md` says how, and what it was found to be worth.

use serde::Serialize;

use super::circumstances::{self, Difference};
use super::control::{self, Drift};
use super::gate::{Outcome, Rules, outcome};
use super::pair::{Differs, Pair, Pairs};
use super::replicates::Level;
use super::side::{Side, SideCell, SideRun, SideSample};
use super::trial::Trials;
use crate::spec::gate::Limit;
use crate::stats::null::Nulls;
use crate::store::record::CellRecord;

/// What is said of one metric of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Worse,
    Better,
    Same,
    Undecided,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Worse => "worse",
            Verdict::Better => "better",
            Verdict::Same => "same",
            Verdict::Undecided => "undecided",
        }
    }
}

/// Two sides, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub a: Named,
    pub b: Named,
    pub simulated: Option<bool>,
    /// What differs around the numbers.
    pub differences: Vec<Difference>,
    pub fdr: f64,
    /// Tests that were made together.
    pub family: usize,
    pub cells: Vec<Compared>,
    /// Names of cells that only one side has.
    pub only_a: Vec<String>,
    pub only_b: Vec<String>,
    /// What the control of the run says, metric by metric.
    pub drift: Vec<Drift>,
    /// Why the control says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_problem: Option<String>,
    /// The verdict over all; only of a gate.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A side's name and runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Named {
    pub name: String,
    pub described: String,
    pub runs: Vec<String>,
}

/// A pair of cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub name: String,
    pub cell: CellRecord,
    /// Parameters that are not the same on both sides.
    pub differs: Vec<Differs>,
    pub findings: Vec<Finding>,
}

/// One metric of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub metric: String,
    pub unit: &'static str,
    pub better: &'static str,
    pub a: Option<Measured>,
    pub b: Option<Measured>,
    /// (b − a) / a.
    pub change: Option<f64>,
    /// 95 % interval of the change.
    pub interval: Option<[f64; 2]>,
    /// What scattered to make it: `nights`, `starts`, `samples`, or only what is within one: `within_start`,
    /// `within_sample`.
    pub interval_of: Option<&'static str>,
    /// `moderated_t`, `permutation`, `identical`, `limit` or `none`.
    pub test: &'static str,
    /// One-sided, in the direction of the change; `q` is adjusted over the family.
    pub p: Option<f64>,
    pub q: Option<f64>,
    pub limit: String,
    pub verdict: Verdict,
    pub reason: Option<String>,
    /// What would decide, where nothing is decided.
    pub needed: Option<Needed>,
}

/// A side's number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The geometric mean of what was repeated; the plain one where a limit is absolute.
    pub mean: f64,
    pub samples: usize,
    pub starts: usize,
    pub nights: usize,
}

/// How much more would decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Needed {
    pub unit: Level,
    pub per_side: u64,
}

/// The values of a sample's requests for a latency, in the order of their start; `None` where they are not kept.
pub type Requests<'f> = dyn Fn(&SideSample, &str) -> Option<Vec<f64>> + 'f;

/// Compares the cells of two sides that are paired.
pub fn compare(a: &Side, b: &Side, pairs: &Pairs, rules: &Rules, requests: &Requests<'_>) -> Comparison {
    let is_control = |cell: &SideCell| cell.samples.iter().any(|s| s.control.is_some());
    let judged: Vec<&Pair> = pairs.pairs.iter().filter(|p| !is_control(&b.cells[p.b])).collect();
    let cells: Vec<(&SideCell, &SideCell)> = judged.iter().map(|p| (&a.cells[p.a], &b.cells[p.b])).collect();
    let mut nulls = Nulls::default();
    let mut trials = Trials::new(&cells, rules);
    trials.test(&mut nulls);
    let family = trials.adjust(rules.fdr);
    let mut compared: Vec<Compared> = judged
        .iter()
        .map(|p| Compared {
            name: b.cells[p.b].name.clone(),
            cell: b.cells[p.b].cell.clone(),
            differs: p.differs.clone(),
            findings: Vec::new(),
        })
        .collect();
    for trial in &trials.all {
        let (x, y) = cells[trial.pair];
        compared[trial.pair].findings.extend(trial.finding(x, y, family, requests));
    }
    let names = |side: &Side, which: &[usize]| which.iter().map(|i| side.cells[*i].name.clone()).collect();
    let (drift, control_problem) = control::drift(a, b, rules, &mut nulls);
    let mut comparison = Comparison {
        a: Named::of(a),
        b: Named::of(b),
        simulated: b.simulated.or(a.simulated),
        differences: circumstances::differences(&cells),
        fdr: rules.fdr,
        family: family.tests,
        cells: compared,
        only_a: names(a, &pairs.only_a),
        only_b: names(b, &pairs.only_b),
        drift,
        control_problem,
        outcome: None,
    };
    comparison.outcome = rules.gate.then(|| outcome(&comparison));
    comparison
}

impl Named {
    fn of(side: &Side) -> Named {
        let runs = side.runs.iter().map(|r: &SideRun| r.run.clone()).collect();
        Named { name: side.name.clone(), described: side.described(), runs }
    }
}

impl Finding {
    /// No test was possible, for want of repeats.
    pub fn untested(&self) -> bool {
        self.verdict == Verdict::Undecided && self.test == "none"
    }

    /// The change as it was measured is worse than the limit allows, whatever a test would say.
    pub fn beyond_limit(&self) -> bool {
        let Ok(Limit::Change(allowed)) = Limit::parse(&self.metric, &self.limit) else { return false };
        let worse = if self.better == "lower" { 1.0 } else { -1.0 };
        self.change.is_some_and(|change| worse * change >= allowed)
    }
}
