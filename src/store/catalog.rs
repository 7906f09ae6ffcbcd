//! The planner's view of the artifacts. Units are read in parallel and only as much of each as a status needs: requests
//! of ten thousand units are answered in well under a second.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use jiff::Timestamp;
use rayon::prelude::*;
use serde::Deserialize;

use super::json::{SEALED, Versioned, read_json};
use super::record::UnitRecord;
use super::seal::{FileSeals, Look, first_problem};
use super::unit::{RESULT_FILE, UNIT_FILE, check_ids, sample_dir_name};
use super::{Store, UNITS, read_dir_names};
use crate::digest::UnitId;
use crate::event::{FailureClass, Stage};
use crate::plan::catalog::{Catalog, LastFailure, StoredUnit, UnitState};

/// The part of `result.json` that decides a status; the rest is skipped without being built.
#[derive(Deserialize)]
struct ResultHead {
    schema: u32,
    unit_id: UnitId,
    samples: Vec<SampleHead>,
    attempts: Vec<AttemptHead>,
}

#[derive(Deserialize)]
struct SampleHead {
    sample: u32,
    finished_at: String,
    seconds: f64,
    valid: bool,
    invalid_reason: Option<String>,
    #[serde(default)]
    files: FileSeals,
}

#[derive(Deserialize)]
struct AttemptHead {
    sample: u32,
    stage: Stage,
    class: FailureClass,
    cause: String,
}

impl Versioned for ResultHead {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Catalog for Store {
    fn states(&self, wanted: &[(&str, UnitId)]) -> Vec<Option<UnitState>> {
        // One listing per stack tells which units are there at all: most of a large new plan is not.
        let stacks: HashSet<&str> = wanted.iter().map(|(directory, _)| *directory).collect();
        let present: HashMap<&str, HashSet<String>> = stacks
            .into_iter()
            .map(|s| (s, read_dir_names(&self.stack_dir(s).join(UNITS)).into_iter().collect()))
            .collect();
        wanted
            .par_iter()
            .map(|(directory, unit_id)| {
                let there = present[directory].contains(&unit_id.short(16));
                if there { self.state(directory, unit_id) } else { None }
            })
            .collect()
    }

    fn documents(&self) -> Vec<StoredUnit> {
        let places: Vec<(String, String)> = self
            .stacks()
            .into_iter()
            .flat_map(|stack| {
                let units = read_dir_names(&self.stack_dir(&stack).join(UNITS));
                units.into_iter().map(move |unit| (stack.clone(), unit))
            })
            .collect();
        places.into_par_iter().filter_map(|(stack, unit)| self.document(stack, &unit)).collect()
    }
}

impl Store {
    /// What is damaged does not count; what is whole beside it does.
    fn state(&self, directory: &str, unit_id: &UnitId) -> Option<UnitState> {
        let dir = self.unit_dir(directory, unit_id);
        let damaged = |reason: String| Some(UnitState { damaged: Some(reason), ..UnitState::default() });
        let unit = match read_json::<UnitRecord>(&dir.join(UNIT_FILE)) {
            Ok(unit) => unit,
            Err(e) => return damaged(e.to_string()),
        };
        let result = match read_json::<ResultHead>(&dir.join(RESULT_FILE)) {
            Ok(result) => result,
            Err(e) => return damaged(e.to_string()),
        };
        if unit.is_none() && result.is_none() {
            return None;
        }
        let problem = match unit {
            None => Some(format!("{UNIT_FILE} is missing")),
            Some(Err(e)) => Some(format!("{UNIT_FILE} cannot be read: {e}")),
            Some(Ok(unit)) => check_ids(&unit, unit_id).err(),
        };
        match result {
            None => Some(UnitState { damaged: problem, ..UnitState::default() }),
            Some(Err(e)) => damaged(format!("{RESULT_FILE} cannot be read: {e}")),
            Some(Ok(result)) if result.unit_id != *unit_id => {
                damaged(format!("{RESULT_FILE} belongs to unit {}", result.unit_id.short(16)))
            }
            // A result that does not vouch for itself needs its `unit.json`.
            Some(Ok(result)) if result.schema < SEALED && problem.is_some() => damaged(problem.unwrap_or_default()),
            Some(Ok(result)) => Some(summarize(result, &dir, problem)),
        }
    }

    fn document(&self, directory: String, unit: &str) -> Option<StoredUnit> {
        let path = self.stack_dir(&directory).join(UNITS).join(unit).join(UNIT_FILE);
        let record: UnitRecord = read_json(&path).ok()??.ok()?;
        let UnitRecord { unit_id, deploy_id, unit, deploy, facts, .. } = record;
        Some(StoredUnit { unit_id, deploy_id, directory, unit, deploy, labels: facts.labels })
    }
}

fn summarize(result: ResultHead, dir: &Path, problem: Option<String>) -> UnitState {
    let mut samples = result.samples;
    samples.sort_by_key(|s| s.sample);
    let last = samples.last().map_or(0, |s| s.sample);
    let mut problems: Vec<String> = problem.into_iter().collect();
    samples.retain(|s| {
        let name = sample_dir_name(s.sample);
        let found = first_problem(&dir.join(&name), &s.files, Look::Glance);
        problems.extend(found.iter().map(|problem| format!("{name}/{problem}")));
        found.is_none()
    });
    let last_failure = result.attempts.into_iter().rev().find(|a| a.sample > last);
    let seconds: f64 = samples.iter().map(|s| s.seconds).sum();
    UnitState {
        valid_samples: samples.iter().filter(|s| s.valid).map(|s| (s.sample, end(s))).collect(),
        invalid: samples.iter().filter(|s| !s.valid).count().try_into().unwrap_or(u32::MAX),
        mean_sample_seconds: (!samples.is_empty()).then(|| seconds / samples.len() as f64),
        last_invalid: samples.last().filter(|s| !s.valid).map(|s| s.invalid_reason.clone().unwrap_or_default()),
        last_failure: last_failure.map(|a| LastFailure { class: a.class, stage: a.stage, cause: a.cause }),
        damaged: (!problems.is_empty()).then(|| problems.join("; ")),
    }
}

/// A time that cannot be read is long ago, so that `--max-age` measures anew.
fn end(sample: &SampleHead) -> Timestamp {
    sample.finished_at.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}
