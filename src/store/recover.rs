//! What the next start does about runs that died: leftovers are removed, their results files completed from the units they
//! committed, their `plan.json` filled in. There is nothing for a person to repair or unlock.

use std::path::Path;

use jiff::Timestamp;

use super::csv_file::{ResultsCsv, row_key};
use super::json::read_json;
use super::lock::TryLock;
use super::record::{RunRecord, RunUnit, SCHEMA, UnitResult};
use super::row::{Measured, Row, RowSource};
use super::run_dir::{RunFiles, write_plan};
use super::run_seal::SEAL_FILE;
use super::{Store, StoreError, aside, atomic, read_dir_names};
use crate::event::Outcome;

/// A dead run that was completed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    pub run: String,
    /// Samples that it had committed.
    pub samples: u64,
    /// Rows that were missing in its results files.
    pub rows_added: u64,
    /// Why it could not be completed, when it could not: it is left as it is, and does not stand in the way.
    pub problem: Option<String>,
}

impl Store {
    /// Completes every run that died. Runs of live processes are left alone. A run died if its lock's file is there and
    /// nobody holds it, or if it never came to its end.
    pub fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.finish_removals()?;
        let locks = read_dir_names(&self.locks_dir());
        let mut runs: Vec<String> = locks.iter().filter_map(|n| n.strip_prefix("run-")).map(str::to_string).collect();
        runs.extend(self.run_dirs().into_iter().filter(|run| !self.run_files(run).dir().join(SEAL_FILE).exists()));
        runs.sort();
        runs.dedup();
        let mut recovered = Vec::new();
        for run in &runs {
            let TryLock::Held(lock) = self.try_lock(&self.run_lock_path(run))? else { continue };
            let had_lock = locks.iter().any(|n| n.strip_prefix("run-") == Some(run));
            match self.recover_run(run, had_lock) {
                Ok(done) => {
                    recovered.extend(done);
                    lock.remove()?;
                }
                // The lock's file stays, so that a start that can will complete it.
                Err(e) => {
                    let problem = Some(e.to_string());
                    recovered.push(Recovered { run: run.clone(), problem, ..Recovered::default() });
                }
            }
        }
        Ok(recovered)
    }

    /// `had_lock`: its process was killed. Without, somebody removed the lock's file, or the seal of a run that is over.
    fn recover_run(&self, run: &str, had_lock: bool) -> Result<Option<Recovered>, StoreError> {
        let files: RunFiles = self.run_files(run);
        self.refuse_links(files.dir())?;
        let mut record = match read_json::<RunRecord>(&files.plan())? {
            Some(Ok(record)) => record,
            Some(Err(reason)) => return self.abandon(run, &format!("plan.json cannot be read: {reason}")).map(Some),
            // Killed before it had said what it would do: nothing can depend on it.
            None if read_dir_names(files.dir()).iter().all(|n| n.starts_with(atomic::TEMP)) => {
                return atomic::remove(files.dir()).map(|()| None);
            }
            None => return self.abandon(run, "plan.json is missing").map(Some),
        };
        for name in read_dir_names(files.dir()).iter().filter(|n| n.starts_with(atomic::TEMP)) {
            atomic::remove(&files.dir().join(name))?;
        }
        if record.finished_at.is_some() {
            // Killed between its end and its seal.
            return if had_lock { self.seal_run(&record).map(|()| None) } else { Ok(None) };
        }
        let mut recovered = Recovered { run: run.to_string(), ..Recovered::default() };
        for unit in &record.units {
            self.sweep_unit(&unit.directory, &unit.unit_id)?;
        }
        let results = self.results_of(&record)?;
        recovered.rows_added = self.complete_csv(&record, &results)?;
        for (unit, result) in record.units.iter_mut().zip(&results) {
            recovered.samples += result.samples.iter().filter(|s| s.run == run).count() as u64;
            fill_in(unit, result, run);
        }
        record.died = true;
        record.schema = SCHEMA;
        record.finished_at =
            Some(crate::clock::rfc3339(last_change(&results, run).unwrap_or_else(|| started(&record))));
        write_plan(files.dir(), &record)?;
        self.seal_run(&record)?;
        Ok(Some(recovered))
    }

    /// A run that says no more what it meant to do: its directory is set aside, its samples stay with their units.
    fn abandon(&self, run: &str, reason: &str) -> Result<Recovered, StoreError> {
        aside::set_file_aside(&self.runs_dir(), run, false)?;
        let problem = format!("{reason}. Its directory is set aside; its samples are kept with their units");
        Ok(Recovered { run: run.to_string(), problem: Some(problem), ..Recovered::default() })
    }

    /// Appends the rows that the run committed to its units but not to its results files.
    fn complete_csv(&self, record: &RunRecord, results: &[UnitResult]) -> Result<u64, StoreError> {
        let mut added = 0;
        for path in self.results_files(record) {
            let rows = self.rows_for(record, results, &path);
            if rows.is_empty() && !path.exists() {
                continue;
            }
            self.refuse_links(&path)?;
            if let Some(stack) = path.parent() {
                self.make_dir(stack)?;
            }
            let Some((mut csv, there)) = ResultsCsv::reopen(&path)? else { continue };
            for (_, row) in rows.iter().filter(|(_, row)| !there.contains(&row_key(row))) {
                csv.append(row)?;
                added += 1;
            }
            csv.finish()?;
        }
        Ok(added)
    }

    /// The rows of one of a run's results files, in the order in which they were measured, each with its end.
    pub(super) fn rows_for(&self, record: &RunRecord, results: &[UnitResult], path: &Path) -> Vec<(String, Row)> {
        let units = record.units.iter().zip(results);
        let units = units.filter(|(u, _)| self.csv_path(&u.directory, &record.timestamp) == path);
        let mut rows: Vec<(String, Row)> = units.flat_map(|(u, r)| rows_of(u, r, &record.run)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// Rows of what a run measured of a unit, each with its end.
pub(super) fn rows_of(unit: &RunUnit, result: &UnitResult, run: &str) -> Vec<(String, Row)> {
    let row = |measured| {
        let (unit_id, deploy_id) = (Some(unit.unit_id), Some(unit.deploy_id));
        Row::new(&RowSource { unit_id, deploy_id, facts: &unit.facts, measured })
    };
    let samples = result.samples.iter().filter(|s| s.run == run);
    let attempts = result.attempts.iter().filter(|a| a.run == run);
    samples
        .map(|s| (s.finished_at.clone(), row(Measured::Sample(s))))
        .chain(attempts.map(|a| (a.finished_at.clone(), row(Measured::Attempt(a)))))
        .collect()
}

/// The samples that a unit of a dead run stands on: what it had, and what the run committed before it died.
fn fill_in(unit: &mut RunUnit, result: &UnitResult, run: &str) {
    let own = result.samples.iter().filter(|s| s.run == run);
    unit.invalid_samples = own.clone().filter(|s| !s.valid).map(|s| s.sample).collect();
    unit.samples.extend(own.filter(|s| s.valid).map(|s| s.sample));
    unit.samples.sort_unstable();
    unit.samples.dedup();
    if unit.outcome.is_none() {
        let measured = unit.samples.len() >= unit.repeats as usize;
        unit.outcome =
            Some(if measured { Outcome::Measured } else { Outcome::NotRun { reason: "the run was killed".into() } });
    }
}

fn last_change(results: &[UnitResult], run: &str) -> Option<Timestamp> {
    let samples = results.iter().flat_map(|r| &r.samples).filter(|s| s.run == run);
    samples.filter_map(|s| s.finished_at.parse().ok()).max()
}

fn started(record: &RunRecord) -> Timestamp {
    record.started_at.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}
