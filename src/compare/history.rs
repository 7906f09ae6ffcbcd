//! Many nights of one experiment: the series of each cell, and the night since which it is another. Cells of one stack
//! share an engine, so they are searched together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::circumstances::stack;
use super::gate::Rules;
use super::replicates::{Level, Nested, ordinary};
use super::side::{Side, SideCell, SideRun};
use crate::stats::step::{self, Series};

/// What changed over the nights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    pub name: String,
    /// Oldest first.
    pub runs: Vec<Night>,
    /// Series that were searched: cells times metrics.
    pub series: usize,
    pub steps: Vec<Stepped>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Night {
    pub run: String,
    pub commit: Option<String>,
    pub dirty: Option<bool>,
}

/// A step of one metric, in one cell or in several of a stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stepped {
    pub metric: String,
    pub stack: String,
    /// The last run of the old level, and the first of the new.
    pub before: Night,
    pub after: Night,
    /// Geometric mean over the cells, as a share.
    pub change: f64,
    pub cells: Vec<CellStep>,
    /// By permutation of the nights.
    pub p: f64,
    /// What is known to be different since that night: `engine version: 0.26 → 0.27`.
    pub differences: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellStep {
    pub cell: String,
    pub change: f64,
}

/// Searches the nights of a side, at most the last `nights`.
pub fn history(side: &Side, nights: usize, rules: &Rules) -> History {
    let runs = &side.runs[side.runs.len().saturating_sub(nights)..];
    let mut stacks: BTreeMap<(String, String), Vec<&SideCell>> = BTreeMap::new();
    for cell in &side.cells {
        let model = cell.cell.get("model").map(ToString::to_string).unwrap_or_default();
        stacks.entry((model, stack(cell))).or_default().push(cell);
    }
    let mut steps = Vec::new();
    let mut searched = 0;
    for measure in &rules.measures {
        for cells in stacks.values() {
            let series: Vec<Series> = cells.iter().map(|c| series(c, &measure.metric, runs)).collect();
            searched += series.iter().filter(|s| s.iter().flatten().count() >= step::NIGHTS).count();
            let found = step::steps(&series);
            steps.extend(found.into_iter().filter_map(|s| stepped(&measure.metric, cells, runs, s)));
        }
    }
    steps.sort_by(|a: &Stepped, b| a.after.run.cmp(&b.after.run));
    History { name: side.name.clone(), runs: runs.iter().map(Night::of).collect(), series: searched, steps }
}

impl Night {
    fn of(run: &SideRun) -> Night {
        Night { run: run.run.clone(), commit: run.commit.clone(), dirty: run.dirty }
    }

    /// The run and the commit of its experiment.
    pub fn text(&self) -> String {
        match &self.commit {
            Some(commit) => {
                let short: String = commit.chars().take(10).collect();
                format!("{} ({short}{})", self.run, if self.dirty == Some(true) { ", with changes" } else { "" })
            }
            None => self.run.clone(),
        }
    }
}

/// The mean of each night, on the log scale.
fn series(cell: &SideCell, metric: &str, runs: &[SideRun]) -> Series {
    let mut by_run: BTreeMap<&str, Vec<&super::SideSample>> = BTreeMap::new();
    for sample in ordinary(cell) {
        by_run.entry(sample.run.as_str()).or_default().push(sample);
    }
    runs.iter()
        .map(|run| {
            let samples = by_run.get(run.run.as_str())?;
            Nested::of(samples.iter().copied(), metric)?.values(Level::Nights).first().copied()
        })
        .collect()
}

fn stepped(metric: &str, cells: &[&SideCell], runs: &[SideRun], step: step::Step) -> Option<Stepped> {
    let change = step.changes.iter().map(|(_, c)| c).sum::<f64>() / step.changes.len() as f64;
    let moved: Vec<&SideCell> = step.changes.iter().map(|(i, _)| cells[*i]).collect();
    Some(Stepped {
        metric: metric.to_string(),
        stack: stack(moved.first()?),
        before: Night::of(runs.get(step.night.checked_sub(1)?)?),
        after: Night::of(runs.get(step.night)?),
        change: change.exp_m1(),
        cells: step
            .changes
            .iter()
            .map(|(i, c)| CellStep { cell: cells[*i].name.clone(), change: c.exp_m1() })
            .collect(),
        p: step.p,
        differences: differences(&moved, &runs[step.night - 1].run, &runs[step.night].run),
    })
}

/// Circumstances of the cells that are not the same in the two runs.
fn differences(cells: &[&SideCell], before: &str, after: &str) -> Vec<String> {
    let of = |run: &str| {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for sample in cells.iter().flat_map(|c| &c.samples).filter(|s| s.run == run) {
            for (field, value) in &sample.circumstances {
                all.entry(field).or_default().insert(value);
            }
        }
        all
    };
    let (old, new) = (of(before), of(after));
    let joined = |values: &BTreeSet<&str>| values.iter().copied().collect::<Vec<_>>().join(", ");
    new.iter()
        .filter_map(|(field, values)| {
            let was = old.get(field).filter(|was| *was != values)?;
            Some(format!("{}: {} → {}", field.replace('_', " "), joined(was), joined(values)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::gate::Measure;
    use crate::compare::testing::cell;

    #[test]
    fn the_night_and_the_commit_of_a_step() {
        let names: Vec<String> = (0..30).map(|i| format!("202611{:02}T020000Z-n", i + 1)).collect();
        let value = |i: usize, k: usize| {
            100.0 * (1.0 + 0.002 * ((i * 7 + k * 3) % 5) as f64) * if i >= 18 { 1.06 } else { 1.0 }
        };
        let mut cells: Vec<SideCell> = (0..3)
            .map(|k| {
                let samples: Vec<(&str, u32, f64)> =
                    names.iter().enumerate().map(|(i, n)| (n.as_str(), 1, value(i, k))).collect();
                cell("vllm", k as i64 + 1, &samples)
            })
            .collect();
        for (i, sample) in cells.iter_mut().flat_map(|c| c.samples.iter_mut().enumerate()) {
            let version = if i >= 18 { "0.27" } else { "0.26" };
            sample.circumstances.insert("engine_version".into(), version.into());
        }
        let runs = names.iter().enumerate().map(|(i, n)| SideRun {
            run: n.clone(),
            commit: Some(format!("{i:040}")),
            ..SideRun::default()
        });
        let side = Side { name: "n".into(), cells, runs: runs.collect(), ..Side::default() };
        let rules = Rules { measures: vec![Measure::parse("ttft", "+5%").unwrap()], ..Rules::default() };
        let history = history(&side, 60, &rules);
        assert_eq!((history.series, history.steps.len()), (3, 1), "{history:?}");
        let step = &history.steps[0];
        assert_eq!((step.after.run.as_str(), step.before.run.as_str()), (names[18].as_str(), names[17].as_str()));
        assert!((step.change - 0.06).abs() < 0.01 && step.cells.len() == 3);
        assert_eq!(step.differences, ["engine version: 0.26 → 0.27"]);
        assert!(step.after.text().starts_with("20261119T020000Z-n (0000000000"));
        assert!(super::history(&side, 5, &rules).steps.is_empty());
    }
}
