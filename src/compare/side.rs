//! What was measured under one name, whatever it was read from.

use std::collections::{BTreeMap, BTreeSet};

use super::metric;
use crate::digest::UnitId;
use crate::store::record::{CellRecord, Provenance, RunRecord, RunUnit, SampleRecord, UnitResult};

/// Everything that is known under a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// As it was asked for: `last-good`, a baseline's name, a file.
    pub name: String,
    /// Whose results they are, where they are not ours: `vLLM bench`.
    pub tool: Option<String>,
    /// Whether samples come from the simulated engine; `None` where the source does not say.
    pub simulated: Option<bool>,
    /// Oldest first.
    pub runs: Vec<SideRun>,
    pub cells: Vec<SideCell>,
    /// Why the newest run's control tells nothing, where one was asked for.
    pub control_problem: Option<String>,
}

/// A run, as far as a comparison speaks of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideRun {
    pub run: String,
    pub started_at: Option<String>,
    pub experiment: Option<String>,
    /// Commit of the experiment's repository.
    pub commit: Option<String>,
    pub dirty: Option<bool>,
}

/// A cell with its samples, in the order in which they were measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideCell {
    pub name: String,
    /// Declared coordinates: dotted parameter → value.
    pub cell: CellRecord,
    pub labels: Vec<(String, String)>,
    pub samples: Vec<SideSample>,
}

/// One sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideSample {
    /// What tells it from every other: unit and number.
    pub key: Option<(String, u32)>,
    /// The run that measured it.
    pub run: String,
    /// Engine start in that run; `None` where the source does not say.
    pub start: Option<u32>,
    /// Whether it was taken as the run's control.
    pub control: Option<Position>,
    /// Full metric name → value.
    pub values: BTreeMap<String, f64>,
    /// Where it was measured: host, driver, versions.
    pub circumstances: BTreeMap<String, String>,
    /// Where its requests lie, for an interval from within it: directory of the stack, unit, number.
    pub requests: Option<(String, UnitId, u32)>,
}

/// When in its run a control was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    First,
    Last,
}

impl Position {
    pub fn as_str(self) -> &'static str {
        match self {
            Position::First => "first",
            Position::Last => "last",
        }
    }

    pub fn parse(text: &str) -> Option<Position> {
        [Position::First, Position::Last].into_iter().find(|p| p.as_str() == text)
    }
}

impl Side {
    /// The side of some runs of one artifact tree, oldest first: each with the samples that it stands on. A sample on
    /// which several stand is there once, under the run that measured it. `result` gives a unit's `result.json`.
    pub fn of_runs(name: &str, runs: &[RunRecord], mut result: impl FnMut(&str, UnitId) -> Option<UnitResult>) -> Side {
        let mut cells: Vec<SideCell> = Vec::new();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut read: BTreeMap<UnitId, Option<UnitResult>> = BTreeMap::new();
        let mut seen: BTreeSet<(UnitId, u32)> = BTreeSet::new();
        for run in runs {
            for unit in run.units.iter().filter(|u| !u.probe) {
                let result = read.entry(unit.unit_id).or_insert_with(|| result(&unit.directory, unit.unit_id));
                let Some(result) = result else { continue };
                let wanted = |s: &&SampleRecord| s.valid && numbers(run, unit).contains(&s.sample);
                let fresh = result.samples.iter().filter(wanted).filter(|s| seen.insert((unit.unit_id, s.sample)));
                let samples: Vec<SideSample> = fresh.map(|s| sample(run, unit, s)).collect();
                let place = *index.entry(coordinates(&unit.facts.cell)).or_insert_with(|| {
                    cells.push(SideCell {
                        name: unit.name.clone(),
                        cell: unit.facts.cell.clone(),
                        labels: unit.facts.labels.clone(),
                        samples: Vec::new(),
                    });
                    cells.len() - 1
                });
                cells[place].samples.extend(samples);
            }
        }
        Side {
            name: name.to_string(),
            tool: None,
            simulated: runs.first().map(|r| r.simulated),
            runs: runs.iter().map(SideRun::of).collect(),
            cells,
            control_problem: runs.last().and_then(control_problem),
        }
    }

    /// Takes in what another file says: cells of the same coordinates are the same, and their samples repeats.
    pub fn join(&mut self, other: Side) {
        for run in other.runs {
            if self.runs.iter().all(|r| r.run != run.run) {
                self.runs.push(run);
            }
        }
        for cell in other.cells {
            match self.cells.iter_mut().find(|c| coordinates(&c.cell) == coordinates(&cell.cell)) {
                Some(same) => same.samples.extend(cell.samples),
                None => self.cells.push(cell),
            }
        }
    }

    /// Keeps the cells that `wanted` accepts.
    pub fn retain(&mut self, wanted: impl FnMut(&SideCell) -> bool) {
        self.cells.retain(wanted);
    }

    /// What the side is, in a few words.
    pub fn described(&self) -> String {
        match (&self.tool, self.runs.as_slice()) {
            (Some(tool), _) => format!("{} ({tool})", self.name),
            (None, [only]) if only.run != self.name => format!("{} ({})", self.name, only.run),
            (None, runs) if runs.len() > 1 => format!("{} ({} nights)", self.name, runs.len()),
            _ => self.name.clone(),
        }
    }
}

/// Coordinates as one text, by which cells are the same.
pub fn coordinates(cell: &CellRecord) -> String {
    cell.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

impl SideRun {
    fn of(run: &RunRecord) -> SideRun {
        SideRun {
            run: run.run.clone(),
            started_at: Some(run.started_at.clone()),
            experiment: Some(run.experiment.clone()),
            commit: run.provenance.experiment_commit.clone(),
            dirty: run.provenance.experiment_dirty,
        }
    }
}

/// The samples that a run stands on for a unit: those of its plan, and those of its control.
fn numbers(run: &RunRecord, unit: &RunUnit) -> Vec<u32> {
    let mut numbers = unit.samples.clone();
    if let Some(control) = run.control.as_ref().filter(|c| c.unit_id == unit.unit_id) {
        numbers.extend(control.first.iter().chain(&control.last));
    }
    numbers
}

fn control_problem(run: &RunRecord) -> Option<String> {
    run.gate.control.as_ref()?;
    let missing = match &run.control {
        None => "at all",
        Some(c) if c.first.is_empty() => "first",
        Some(c) if c.last.is_empty() => "last",
        Some(_) => return None,
    };
    Some(format!("the control was not measured {missing}, so drift cannot be told"))
}

fn sample(run: &RunRecord, unit: &RunUnit, s: &SampleRecord) -> SideSample {
    let control = run.control.as_ref().filter(|c| c.unit_id == unit.unit_id);
    let position = control.and_then(|c| match () {
        () if c.first.contains(&s.sample) => Some(Position::First),
        () if c.last.contains(&s.sample) => Some(Position::Last),
        () => None,
    });
    let mut circumstances = circumstances(&s.provenance);
    let mut add = |name: &str, value: Option<String>| {
        value.filter(|v| !v.is_empty()).map(|v| circumstances.insert(name.to_string(), v));
    };
    add("hardware", Some(unit.facts.hardware.clone()));
    add("image", unit.facts.image.clone());
    SideSample {
        key: Some((unit.unit_id.to_string(), s.sample)),
        run: s.run.clone(),
        start: Some(s.start),
        control: position,
        values: metric::values(s).into_iter().collect(),
        circumstances,
        requests: Some((unit.directory.clone(), unit.unit_id, s.sample)),
    }
}

/// What is known of where a sample was measured.
fn circumstances(p: &Provenance) -> BTreeMap<String, String> {
    let mut gpus: Vec<&str> = p.gpus.iter().map(|g| g.name.as_str()).collect();
    gpus.dedup();
    let known = [
        ("engine_version", p.engine_version.clone()),
        ("image_digest", p.image_digest.clone()),
        ("model_commit", p.model_commit.clone()),
        ("host", p.host.clone()),
        ("kernel", p.kernel.clone()),
        ("cpu", p.cpu.clone()),
        ("gpus", (!gpus.is_empty()).then(|| format!("{} × {}", p.gpus.len(), gpus.join(", ")))),
        ("driver", p.driver.clone()),
        ("docker_version", p.docker_version.clone()),
        ("network_path", p.network_path.clone()),
        ("llmatrix", Some(p.tool_version.clone()).filter(|v| !v.is_empty())),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing;

    #[test]
    fn a_sample_on_which_two_runs_stand_is_there_once() {
        let (runs, result) = testing::two_runs_on_one_sample();
        let side = Side::of_runs("x", &runs, |_, _| Some(result.clone()));
        assert_eq!(side.cells.len(), 1);
        let samples: Vec<(&str, Option<u32>)> =
            side.cells[0].samples.iter().map(|s| (s.run.as_str(), s.start)).collect();
        assert_eq!(samples, [("20261101T020000Z-n", Some(1)), ("20261102T020000Z-n", Some(2))]);
        assert_eq!(side.described(), "x (2 nights)");
    }
}
