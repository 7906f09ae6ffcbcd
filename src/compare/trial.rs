//! The tests of a comparison, made together: each metric of each pair, with the noise of all cells of its kind.

use std::collections::{BTreeMap, BTreeSet};

use super::gate::{Measure, Rules};
use super::replicates::{Level, Nested, groups, level, ordinary};
use super::side::SideCell;
use crate::spec::gate::{Better, Limit, better};
use crate::stats::moderated::{Groups, Noise, Tested};
use crate::stats::multiple::adjusted;
use crate::stats::null::Nulls;
use crate::stats::permutation;

/// How many tests there were, and how strict they had to be.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub tests: usize,
    /// Share of rejections that may be false.
    pub fdr: f64,
    /// The level at which a single one was rejected.
    pub level: f64,
}

/// All tests of a comparison.
pub struct Trials<'r> {
    pub all: Vec<Trial<'r>>,
}

/// One metric of one pair.
pub struct Trial<'r> {
    pub pair: usize,
    pub(super) measure: &'r Measure,
    pub(super) state: State,
}

pub(super) enum State {
    /// A side has no value of the metric.
    Missing,
    /// Every sample of b is one of a, or has the same values.
    Identical {
        reason: &'static str,
    },
    /// Held against a limit, not against a.
    Absolute,
    /// A value of 0 has no change in percent.
    NoRatio,
    /// Nothing was repeated that a test could rest on.
    Untested {
        a: Nested,
        b: Nested,
        within: Option<Tested>,
    },
    Tested(Box<TestedPair>),
}

pub(super) struct TestedPair {
    pub a: Nested,
    pub b: Nested,
    pub level: Level,
    pub groups: Groups,
    pub tested: Option<Tested>,
    pub test: &'static str,
    /// One-sided, for the worse and for the better; each as it is and adjusted over the family.
    pub worse: (f64, f64),
    pub better: (f64, f64),
}

impl<'r> Trials<'r> {
    pub fn new(cells: &[(&SideCell, &SideCell)], rules: &'r Rules) -> Trials<'r> {
        let mut all = Vec::with_capacity(cells.len() * rules.measures.len());
        for (pair, (a, b)) in cells.iter().enumerate() {
            for measure in &rules.measures {
                all.push(Trial { pair, measure, state: State::of(a, b, measure, rules) });
            }
        }
        Trials { all }
    }

    /// Tests what can be: per metric and level with the noise of all cells.
    pub fn test(&mut self, nulls: &mut Nulls) {
        let mut families: BTreeMap<(String, Level), Vec<usize>> = BTreeMap::new();
        let mut within: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, trial) in self.all.iter().enumerate() {
            match &trial.state {
                State::Tested(t) => families.entry((trial.measure.metric.clone(), t.level)).or_default().push(i),
                State::Untested { .. } => within.entry(trial.measure.metric.clone()).or_default().push(i),
                _ => {}
            }
        }
        for members in families.into_values() {
            self.test_family(&members, nulls);
        }
        for members in within.into_values() {
            self.test_within(&members, nulls);
        }
    }

    fn test_family(&mut self, members: &[usize], nulls: &mut Nulls) {
        let groups: Vec<Groups> =
            members.iter().filter_map(|i| self.all[*i].tested_pair().map(|t| t.groups.clone())).collect();
        let noise = Noise::of(&groups, nulls);
        let permuted = permutation::test(&groups);
        for (i, permuted) in members.iter().zip(permuted) {
            let worse_is_above = better(&self.all[*i].measure.metric) == Better::Lower;
            let State::Tested(t) = &mut self.all[*i].state else { continue };
            t.tested = noise.as_ref().and_then(|n| n.test(&t.groups, nulls));
            let moderated = t.tested.as_ref().map(|x| (x.p_above, x.p_below));
            let Some((above, below)) = permuted.map(|p| (p.above, p.below)).or(moderated) else { continue };
            t.test = if permuted.is_some() { "permutation" } else { "moderated_t" };
            let (worse, good) = if worse_is_above { (above, below) } else { (below, above) };
            (t.worse, t.better) = ((worse, 1.0), (good, 1.0));
        }
    }

    /// Intervals from repeats within one start: they are shown as what they are, and decide nothing.
    fn test_within(&mut self, members: &[usize], nulls: &mut Nulls) {
        let of = |state: &State| match state {
            State::Untested { a, b, .. } => Some(groups(a, b, Level::Samples)),
            _ => None,
        };
        let all: Vec<Groups> = members.iter().filter_map(|i| of(&self.all[*i].state)).collect();
        let Some(noise) = Noise::of(&all, nulls) else { return };
        for (i, groups) in members.iter().zip(all) {
            let repeated = groups.sizes().degrees() > 0;
            if let State::Untested { within, .. } = &mut self.all[*i].state {
                *within = noise.test(&groups, nulls).filter(|_| repeated);
            }
        }
    }

    /// Adjusts both directions over everything that was tested.
    pub fn adjust(&mut self, fdr: f64) -> Family {
        let tested: Vec<usize> =
            (0..self.all.len()).filter(|i| self.all[*i].tested_pair().is_some_and(|t| t.tested.is_some())).collect();
        let p = |all: &[Trial<'_>], of: fn(&TestedPair) -> f64| -> Vec<f64> {
            tested.iter().filter_map(|i| all[*i].tested_pair().map(of)).collect()
        };
        let worse = adjusted(&p(&self.all, |t| t.worse.0));
        let good = adjusted(&p(&self.all, |t| t.better.0));
        let rejected = worse.iter().filter(|q| **q <= fdr).count().max(1);
        for ((i, worse), good) in tested.iter().zip(worse).zip(good) {
            if let State::Tested(t) = &mut self.all[*i].state {
                (t.worse.1, t.better.1) = (worse, good);
            }
        }
        let tests = tested.len();
        Family { tests, fdr, level: fdr * rejected as f64 / tests.max(1) as f64 }
    }
}

impl State {
    fn of(a: &SideCell, b: &SideCell, measure: &Measure, rules: &Rules) -> State {
        if matches!(measure.limit, Limit::Absolute(_)) {
            return State::Absolute;
        }
        let keys =
            |cell: &SideCell| -> BTreeSet<(String, u32)> { ordinary(cell).filter_map(|s| s.key.clone()).collect() };
        let (in_a, in_b) = (keys(a), keys(b));
        if same_values(a, b, &measure.metric) {
            return State::Identical { reason: IDENTICAL };
        }
        let all_known = ordinary(b).all(|s| s.key.is_some());
        let (whole, other) = (Nested::of(ordinary(a), &measure.metric), Nested::of(ordinary(b), &measure.metric));
        let (Some(whole), Some(nested_b)) = (whole, other) else { return State::NoRatio };
        if whole.samples() == 0 || nested_b.samples() == 0 {
            return State::Missing;
        }
        if all_known && in_b.is_subset(&in_a) {
            return State::Identical { reason: SAME_SAMPLES };
        }
        // A sample on which both sides stand says nothing about their difference.
        let own = ordinary(a).filter(|s| s.key.as_ref().is_none_or(|k| !in_b.contains(k)));
        let (Some(a), b) = (Nested::of(own, &measure.metric), nested_b) else { return State::NoRatio };
        match level(&a, &b, rules.error) {
            None => State::Untested { a, b, within: None },
            Some(level) => {
                let groups = groups(&a, &b, level);
                let nothing = (1.0, 1.0);
                let (worse, better) = (nothing, nothing);
                State::Tested(Box::new(TestedPair { a, b, level, groups, tested: None, test: "none", worse, better }))
            }
        }
    }
}

/// Why two sides are the same without a test.
pub(super) const IDENTICAL: &str = "the values are identical";
const SAME_SAMPLES: &str = "nothing was measured anew: the samples are those of side a";

/// The same numbers on both sides, in whatever order; or nothing but zeros on both.
fn same_values(a: &SideCell, b: &SideCell, metric: &str) -> bool {
    let sorted = |cell: &SideCell| {
        let mut values: Vec<f64> = ordinary(cell).filter_map(|s| s.values.get(metric)).copied().collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let (a, b) = (sorted(a), sorted(b));
    let zero = |values: &[f64]| !values.is_empty() && values.iter().all(|v| *v == 0.0);
    (!a.is_empty() && a == b) || (zero(&a) && zero(&b))
}

impl Trial<'_> {
    fn tested_pair(&self) -> Option<&TestedPair> {
        match &self.state {
            State::Tested(t) => Some(t),
            _ => None,
        }
    }
}
