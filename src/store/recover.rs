//! What the next start does about runs that died: leftovers are removed, their results files completed from the units they
//! committed, their `plan.json` filled in. There is nothing for a person to repair or unlock.

use jiff::Timestamp;

use super::csv_file::{ResultsCsv, row_key};
use super::lock::{Lock, TryLock};
use super::record::{RunRecord, RunUnit, UnitResult};
use super::row::{Measured, Row, RowSource};
use super::run_dir::{RunFiles, write_plan};
use super::unit::{Stored, read_json};
use super::{Store, StoreError, atomic, read_dir_names};
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
    /// Completes every run that died. Runs of live processes are left alone.
    pub fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let mut names = read_dir_names(&self.locks_dir());
        names.sort();
        let mut recovered = Vec::new();
        for run in names.iter().filter_map(|n| n.strip_prefix("run-")) {
            let TryLock::Held(lock) = Lock::attempt(&self.run_lock_path(run))? else { continue };
            match self.recover_run(run) {
                Ok(done) => {
                    recovered.extend(done);
                    lock.remove()?;
                }
                // The lock's file stays, so that a start that can will complete it.
                Err(e) => {
                    let problem = Some(e.to_string());
                    recovered.push(Recovered { run: run.to_string(), problem, ..Recovered::default() });
                }
            }
        }
        Ok(recovered)
    }

    fn recover_run(&self, run: &str) -> Result<Option<Recovered>, StoreError> {
        let files: RunFiles = self.run_files(run);
        let mut record = match read_json::<RunRecord>(&files.plan())? {
            Some(Ok(record)) => record,
            Some(Err(reason)) => return Err(StoreError::Unreadable { path: files.plan(), reason }),
            // Killed before it had said what it would do: nothing can depend on it.
            None => return atomic::remove(files.dir()).map(|()| None),
        };
        if record.finished_at.is_some() {
            return Ok(None);
        }
        let mut recovered = Recovered { run: run.to_string(), ..Recovered::default() };
        let mut results = Vec::with_capacity(record.units.len());
        for unit in &record.units {
            self.sweep_unit(&unit.directory, &unit.unit_id)?;
            results.push(match self.read_unit(&unit.directory, &unit.unit_id)? {
                Stored::Present { result, .. } => *result,
                Stored::Absent | Stored::Damaged(_) => UnitResult::empty(unit.unit_id, unit.deploy_id),
            });
        }
        recovered.rows_added = self.complete_csv(&record, &results)?;
        for (unit, result) in record.units.iter_mut().zip(&results) {
            recovered.samples += result.samples.iter().filter(|s| s.run == run).count() as u64;
            fill_in(unit, result, run);
        }
        record.died = true;
        record.finished_at =
            Some(crate::clock::rfc3339(last_change(&results, run).unwrap_or_else(|| started(&record))));
        write_plan(files.dir(), &record)?;
        Ok(Some(recovered))
    }

    /// Appends the rows that the run committed to its units but not to its results files.
    fn complete_csv(&self, record: &RunRecord, results: &[UnitResult]) -> Result<u64, StoreError> {
        let mut directories: Vec<&str> = record.units.iter().map(|u| u.directory.as_str()).collect();
        directories.sort_unstable();
        directories.dedup();
        let mut added = 0;
        for directory in directories {
            let units = record.units.iter().zip(results).filter(|(u, _)| u.directory == directory);
            let mut rows: Vec<(String, Row)> = units.flat_map(|(u, r)| rows_of(u, r, &record.run)).collect();
            rows.sort_by(|a, b| a.0.cmp(&b.0));
            let path = self.csv_path(directory, &record.timestamp);
            if rows.is_empty() && !path.exists() {
                continue;
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
