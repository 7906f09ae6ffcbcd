//! Drift: a run may name a control, a cell that it measures first and last. If that cell moved within the night, or
//! against the baseline, the machine did, and no verdict about the night's other cells means what it says.

use std::collections::BTreeMap;

use serde::Serialize;

use super::finding::smallest;
use super::gate::{Measure, Rules};
use super::metric;
use super::pair::{Reach, pair};
use super::replicates::{Level, NIGHTS, Nested, groups, level};
use super::side::{Position, Side, SideCell, SideSample};
use crate::spec::gate::{Limit, better};
use crate::stats::moderated::{Groups, Noise, Tested};
use crate::stats::null::Nulls;

/// One metric of the control.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    pub cell: String,
    pub metric: String,
    /// What it moved between: `first and last` of the run, or `baseline and run`.
    pub between: &'static str,
    /// Relative change.
    pub change: f64,
    pub interval: Option<[f64; 2]>,
    pub p: Option<f64>,
    pub limit: String,
    pub moved: bool,
}

/// Level at which a control has moved, over its metrics.
const LEVEL: f64 = 0.01;

/// What the controls of side b say, and why they say nothing where they should.
pub fn drift(a: &Side, b: &Side, rules: &Rules, nulls: &mut Nulls) -> (Vec<Drift>, Option<String>) {
    let mut out = Vec::new();
    let mut problem = b.control_problem.clone();
    let measures: Vec<&Measure> = rules.measures.iter().filter(|m| matches!(m.limit, Limit::Change(_))).collect();
    let level = LEVEL / (2 * measures.len()).max(1) as f64;
    for cell in b.cells.iter().filter(|c| c.samples.iter().any(|s| s.control.is_some())) {
        let has = |position| cell.samples.iter().any(|s| s.control == Some(position));
        if !(has(Position::First) && has(Position::Last)) {
            let when = if has(Position::First) { "last" } else { "first" };
            problem = Some(format!("the control {} was not measured {when}, so drift cannot be told", cell.name));
            continue;
        }
        let base = partner(a, cell);
        for measure in &measures {
            out.extend(within_night(cell, base, measure, level, nulls));
            out.extend(base.and_then(|base| against_base(base, cell, measure, (level, rules), nulls)));
        }
    }
    (out, problem)
}

/// The same cell on the other side, as far as it was a control there.
fn partner<'s>(a: &'s Side, cell: &SideCell) -> Option<&'s SideCell> {
    let controls: Vec<SideCell> =
        a.cells.iter().filter(|c| c.samples.iter().any(|s| s.control.is_some())).cloned().collect();
    let pairs = pair(&controls, std::slice::from_ref(cell), Reach::Stack);
    let name = pairs.pairs.first().map(|p| controls[p.a].cell.clone())?;
    a.cells.iter().find(|c| c.cell == name)
}

/// First against last. How much the two differ by themselves is known from nights of the baseline, from five on; else the
/// repeats within each are all there is, and the smallest change that matters stands for what starts differ by.
fn within_night(
    cell: &SideCell,
    base: Option<&SideCell>,
    measure: &Measure,
    level: f64,
    nulls: &mut Nulls,
) -> Option<Drift> {
    let of = |position| move |s: &&SideSample| s.control == Some(position);
    let first = Nested::of(cell.samples.iter().filter(of(Position::First)), &measure.metric)?;
    let last = Nested::of(cell.samples.iter().filter(of(Position::Last)), &measure.metric)?;
    let change = |first: &[f64], last: &[f64]| mean(last) - mean(first);
    let nights: Vec<f64> = base.map(|b| nightly(b, &measure.metric)).unwrap_or_default();
    let (x, y) = (first.values(Level::Samples), last.values(Level::Samples));
    if x.is_empty() || y.is_empty() {
        return None;
    }
    let groups = match nights.len() >= NIGHTS {
        true => Groups { a: nights, b: vec![change(&x, &y)], extra: 0.0 },
        false => Groups { a: x.clone(), b: y.clone(), extra: 0.0 },
    };
    let tested = Noise::of(std::slice::from_ref(&groups), nulls).and_then(|n| n.test(&groups, nulls));
    Some(said(cell, measure, "first and last", change(&x, &y), tested, level))
}

/// The change from first to last of each night of a control.
fn nightly(cell: &SideCell, metric: &str) -> Vec<f64> {
    let mut nights: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    for sample in &cell.samples {
        let (Some(position), Some(value)) = (sample.control, sample.values.get(metric).filter(|v| **v > 0.0)) else {
            continue;
        };
        nights.entry(sample.run.as_str()).or_default()[usize::from(position == Position::Last)].push(value.ln());
    }
    let both = nights.into_values().filter(|[first, last]| !first.is_empty() && !last.is_empty());
    both.map(|[first, last]| mean(&last) - mean(&first)).collect()
}

fn against_base(
    base: &SideCell,
    cell: &SideCell,
    measure: &Measure,
    (alpha, rules): (f64, &Rules),
    nulls: &mut Nulls,
) -> Option<Drift> {
    let control = |cell: &SideCell| cell.samples.iter().filter(|s| s.control.is_some()).cloned().collect::<Vec<_>>();
    let (a, b) = (Nested::of(&control(base), &measure.metric)?, Nested::of(&control(cell), &measure.metric)?);
    let groups = groups(&a, &b, level(&a, &b, rules.error)?);
    let tested = Noise::of(std::slice::from_ref(&groups), nulls)?.test(&groups, nulls)?;
    let change = tested.difference;
    Some(said(cell, measure, "baseline and run", change, Some(tested), alpha))
}

fn said(
    cell: &SideCell,
    measure: &Measure,
    between: &'static str,
    change: f64,
    tested: Option<Tested>,
    level: f64,
) -> Drift {
    let (_, smallest) = smallest(better(&measure.metric), measure.limit);
    let p = tested.as_ref().map(|t| (2.0 * t.p_above.min(t.p_below)).min(1.0));
    // Without repeats the size alone has to tell.
    let significant = p.is_none_or(|p| p <= level);
    Drift {
        cell: cell.name.clone(),
        metric: measure.metric.clone(),
        between,
        change: change.exp_m1(),
        interval: tested.filter(|t| t.difference == change).map(|t| [t.low.exp_m1(), t.high.exp_m1()]),
        p,
        limit: measure.limit.text(&measure.metric),
        moved: significant && change.abs() >= smallest,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Drift {
    /// In one sentence.
    pub fn text(&self) -> String {
        format!(
            "the control {} moved by {:+.1}% in {} between {} (limit {})",
            self.cell,
            self.change * 100.0,
            metric::title(&self.metric),
            self.between,
            self.limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::cell;

    fn controlled(nights: &[(&str, f64, f64)]) -> SideCell {
        let samples: Vec<(&str, u32, f64)> = nights
            .iter()
            .flat_map(|(run, first, last)| {
                let near = |x: f64| [x, x * 1.002, x * 0.998];
                let first = near(*first).map(|x| (*run, 1, x));
                first.into_iter().chain(near(*last).map(|x| (*run, 2, x)))
            })
            .collect();
        let mut cell = cell("vllm", 1, &samples);
        for sample in &mut cell.samples {
            sample.control = Some(if sample.start == Some(1) { Position::First } else { Position::Last });
        }
        cell
    }

    fn moved(a: Option<SideCell>, b: SideCell) -> Vec<(&'static str, bool)> {
        let side = |cells: Vec<SideCell>| Side { cells, ..Side::default() };
        let rules = Rules { measures: vec![Measure::parse("ttft", "+5%").unwrap()], ..Rules::default() };
        let (drift, problem) = drift(&side(a.into_iter().collect()), &side(vec![b]), &rules, &mut Nulls::default());
        assert_eq!(problem, None);
        drift.into_iter().map(|d| (d.between, d.moved)).collect()
    }

    #[test]
    fn a_machine_that_slows_down_over_the_night() {
        assert_eq!(moved(None, controlled(&[("r", 100.0, 101.0)])), [("first and last", false)]);
        assert_eq!(moved(None, controlled(&[("r", 100.0, 108.0)])), [("first and last", true)]);
        let nights: Vec<(String, f64)> = (0..6).map(|i| (format!("n{i}"), 100.0 + f64::from(i % 3))).collect();
        let base: Vec<(&str, f64, f64)> = nights.iter().map(|(n, x)| (n.as_str(), *x, *x + 0.5)).collect();
        let have = moved(Some(controlled(&base)), controlled(&[("r", 100.0, 118.0)]));
        assert_eq!(have, [("first and last", true), ("baseline and run", true)]);
        let have = moved(Some(controlled(&base)), controlled(&[("r", 110.0, 110.0)]));
        assert_eq!(have, [("first and last", false), ("baseline and run", true)]);
    }

    #[test]
    fn a_control_without_its_end_tells_nothing() {
        let mut half = controlled(&[("r", 100.0, 100.0)]);
        half.samples.retain(|s| s.control == Some(Position::First));
        let side = Side { cells: vec![half], ..Side::default() };
        let (drift, problem) = drift(&Side::default(), &side, &Rules::default(), &mut Nulls::default());
        assert!(drift.is_empty() && problem.unwrap().contains("not measured last"));
    }
}
