//! A close look at everything: every file of the tree is read and held against what it was when it was written. Nothing is
//! changed.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::aside::{DAMAGED, UNCOMMITTED, damaged_samples};
use super::csv_file::{row_key, row_keys};
use super::journal;
use super::record::RunRecord;
use super::run_seal::SEAL_FILE;
use super::seal::Look;
use super::unit::{RESULT_FILE, Stored, UNIT_FILE, read};
use super::{Store, StoreError, UNITS, atomic, read_dir_names};
use crate::digest::UnitId;

/// What a close look found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    pub units: u64,
    pub samples: u64,
    pub runs: u64,
    /// Set aside by earlier runs.
    pub set_aside: u64,
    pub problems: Vec<Problem>,
}

/// A file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    pub path: PathBuf,
    pub problem: String,
}

impl Store {
    /// Looks at everything. Units and runs that live processes are at work on may show what is only half done.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let mut out = Verification::default();
        let places: Vec<PathBuf> = self
            .stacks()
            .into_iter()
            .flat_map(|stack| {
                let units = self.stack_dir(&stack).join(UNITS);
                read_dir_names(&units).into_iter().map(move |unit| units.join(unit))
            })
            .collect();
        let looked: Vec<Unit> = places.par_iter().map(|dir| look_at_unit(dir)).collect::<Result<_, _>>()?;
        for unit in looked {
            out.units += 1;
            out.samples += unit.samples;
            out.set_aside += unit.set_aside;
            out.problems.extend(unit.problems);
        }
        for run in self.run_dirs() {
            out.runs += 1;
            out.problems.extend(self.look_at_run(&run)?);
        }
        out.problems.sort();
        Ok(out)
    }

    fn look_at_run(&self, run: &str) -> Result<Vec<Problem>, StoreError> {
        let files = self.run_files(run);
        let sealed_once = files.dir().join(SEAL_FILE).exists();
        let sealed = self.run_problems(run, Look::Close)?;
        let mut out: Vec<Problem> =
            sealed.into_iter().map(|(name, problem)| Problem { path: self.root.join(name), problem }).collect();
        let seen = |out: &[Problem], path: &Path| out.iter().any(|p| p.path == path);
        if self.is_live(run)? {
            return Ok(out);
        }
        let record = self.read_run(run);
        // The last line of a run that died may be torn, or the journal not begun: that is how it died.
        let died = record.as_ref().is_ok_and(|r| r.died || r.finished_at.is_none());
        if !died
            && files.journal().exists()
            && !seen(&out, &files.journal())
            && let Some(stop) = journal::read(&files.journal())?.stopped
        {
            let problem = format!("line {} is not whole: {}", stop.line, stop.reason);
            out.push(Problem { path: files.journal(), problem });
        }
        match record {
            Ok(record) => out.extend(self.look_at_rows(&record)?),
            // A plan that was found damaged is no longer there, and has been said.
            Err(e) if !seen(&out, &files.plan()) && (files.plan().exists() || !sealed_once) => {
                out.push(Problem { path: files.plan(), problem: e.to_string() })
            }
            Err(_) => {}
        }
        Ok(out)
    }

    /// Whether the results files of a run that is over have a row for each of its samples and failures that is there.
    fn look_at_rows(&self, record: &RunRecord) -> Result<Vec<Problem>, StoreError> {
        if record.finished_at.is_none() {
            let path = self.run_files(&record.run).plan();
            return Ok(vec![Problem {
                path,
                problem: "the run has not come to its end; the next start completes it".into(),
            }]);
        }
        let results = self.results_of(record)?;
        let mut out = Vec::new();
        for path in self.results_files(record) {
            let rows = self.rows_for(record, &results, &path);
            let there = row_keys(&fs::read(&path).unwrap_or_default());
            let missing = rows.iter().filter(|(_, row)| !there.contains(&row_key(row))).count();
            if missing > 0 {
                out.push(Problem { path, problem: format!("lacks {missing} of {} rows", rows.len()) });
            }
        }
        Ok(out)
    }
}

#[derive(Default)]
struct Unit {
    samples: u64,
    set_aside: u64,
    problems: Vec<Problem>,
}

fn look_at_unit(dir: &Path) -> Result<Unit, StoreError> {
    let mut out = Unit::default();
    let problem = |name: &str, problem: String| Problem { path: dir.join(name), problem };
    let names = read_dir_names(dir);
    out.set_aside = names.iter().filter(|n| n.starts_with(DAMAGED)).count() as u64;
    for name in names.iter().filter(|n| n.starts_with(atomic::TEMP)) {
        out.problems.push(problem(name, "was left half-written; the next run removes it".into()));
    }
    let Some(unit_id) = id_of(dir) else {
        // A new unit whose first sample is under way has neither file yet.
        if names.iter().any(|n| n == UNIT_FILE || n == RESULT_FILE) {
            out.problems.push(problem(UNIT_FILE, "does not say which unit this is".into()));
        }
        return Ok(out);
    };
    match read(dir, &unit_id)? {
        Stored::Absent => {}
        Stored::Damaged(reason) => out.problems.push(problem("", reason)),
        Stored::Present { result, .. } => {
            out.samples = result.samples.len() as u64;
            let damaged = damaged_samples(dir, &result, Look::Close);
            out.problems.extend(damaged.into_iter().map(|(_, reason)| problem("", reason)));
            let orphan = |name: &&String| {
                let number = name.strip_prefix("sample-").and_then(|n| n.parse().ok());
                number.is_some_and(|n| result.sample(n).is_none()) && !dir.join(name).join(UNCOMMITTED).exists()
            };
            let orphans = names.iter().filter(orphan);
            out.problems.extend(orphans.map(|n| problem(n, format!("has no record in {RESULT_FILE}"))));
        }
    }
    Ok(out)
}

/// The id that either file of a unit says, where the directory's name agrees.
fn id_of(dir: &Path) -> Option<UnitId> {
    let name = dir.file_name()?.to_str()?;
    let said = |file: &str| {
        let json: serde_json::Value = serde_json::from_slice(&fs::read(dir.join(file)).ok()?).ok()?;
        json.get("unit_id")?.as_str()?.parse::<UnitId>().ok()
    };
    [UNIT_FILE, RESULT_FILE].into_iter().filter_map(said).find(|id| id.short(16) == name)
}
