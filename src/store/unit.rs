//! One unit's directory: reading it, reserving it, committing samples and failures to it. Only the holder of a
//! [`Reservation`] can write, and everything half-written that it finds was left by a process that is dead.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::aside::{self, UNCOMMITTED, damaged_samples};
use super::json::{Versioned, read_json, to_json};
use super::lock::{Lock, TryLock};
use super::record::{AttemptRecord, SampleRecord, UnitRecord, UnitResult};
use super::seal::{Look, seal_files_in};
use super::{Store, StoreError, atomic};
use crate::digest::{DeployId, UnitId};

pub(super) const UNIT_FILE: &str = "unit.json";
pub(super) const RESULT_FILE: &str = "result.json";

/// What a unit's directory holds, read without a lock.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    Absent,
    /// Planned or measured. Without `result.json` the result is empty.
    Present {
        unit: Box<UnitRecord>,
        result: Box<UnitResult>,
    },
    /// Something that cannot be trusted, and why.
    Damaged(String),
}

/// The answer to a wish to measure a unit.
#[derive(Debug)]
pub enum Lookup {
    /// Another live run holds it.
    Taken,
    /// It is ours until the reservation is dropped.
    Reserved(Box<Reservation>),
}

/// The permission to write a unit.
#[derive(Debug)]
pub struct Reservation {
    _lock: Lock,
    store: Store,
    dir: PathBuf,
    /// What is to be written as `unit.json` before the first result; `None` when it is there.
    unwritten: Option<Box<UnitRecord>>,
    result: UnitResult,
    next_sample: u32,
    set_aside: Option<String>,
}

/// A sample's directory before it counts. Dropping it removes it.
#[derive(Debug)]
pub struct SampleDraft {
    dir: PathBuf,
}

impl Store {
    /// Reads a unit: both files are parsed and both ids recomputed from their documents.
    pub fn read_unit(&self, directory: &str, unit_id: &UnitId) -> Result<Stored, StoreError> {
        read(&self.unit_dir(directory, unit_id), unit_id)
    }

    /// Asks for the permission to write a unit. Leftovers of dead processes are removed, damaged files are set aside
    /// under `damaged-{n}-…`, and what is whole stays. A unit that is not there yet is written with its first result.
    pub fn reserve(&self, directory: &str, record: &UnitRecord) -> Result<Lookup, StoreError> {
        let TryLock::Held(lock) = self.try_lock(&self.unit_lock_path(&record.unit_id))? else {
            return Ok(Lookup::Taken);
        };
        let dir = self.unit_dir(directory, &record.unit_id);
        self.refuse_links(&dir)?;
        let Found { unit, result } = Found::read(&dir, &record.unit_id)?;
        let mut reasons = Vec::new();
        // A result that vouches for itself outlives its `unit.json`, which is made again.
        let vouches = matches!(&result, Part::Whole(result) if result.is_sealed());
        let absent = matches!((&unit, &result), (Part::Absent, Part::Absent));
        let good_unit = matches!(unit, Part::Whole(_));
        if let Some(reason) = unit.problem(UNIT_FILE).filter(|_| !absent) {
            aside::set_file_aside(&dir, UNIT_FILE, false)?;
            reasons.push(reason);
        }
        let mut result = match result {
            Part::Whole(result) if good_unit || vouches => result,
            Part::Absent => UnitResult::empty(record.unit_id, record.deploy_id),
            other => {
                aside::set_file_aside(&dir, RESULT_FILE, true)?;
                if let Part::Damaged(reason) = other {
                    reasons.push(reason);
                }
                UnitResult::empty(record.unit_id, record.deploy_id)
            }
        };
        let damaged = damaged_samples(&dir, &result, Look::Glance);
        if !damaged.is_empty() {
            aside::set_samples_aside(&dir, &mut result, &damaged)?;
            reasons.extend(damaged.into_iter().map(|(_, reason)| reason));
        }
        aside::remove_leftovers(&dir, &result)?;
        reasons.extend(aside::set_orphans_aside(&dir, &result)?);
        let mut unwritten = (!good_unit).then(|| Box::new(record.clone()));
        let next_sample = aside::next_number(&dir, &result);
        if !reasons.is_empty() {
            // Numbers stay used when what was set aside is thrown away one day.
            (result.last_number, result.schema) = (next_sample - 1, super::record::SCHEMA);
            if let Some(record) = unwritten.take() {
                atomic::write(&dir.join(UNIT_FILE), &to_json(&record))?;
            }
            atomic::write(&dir.join(RESULT_FILE), &to_json(&result))?;
        }
        Ok(Lookup::Reserved(Box::new(Reservation {
            _lock: lock,
            store: self.clone(),
            dir,
            unwritten,
            result,
            next_sample,
            set_aside: (!reasons.is_empty()).then(|| reasons.join("; ")),
        })))
    }

    /// Whether another process, or another reservation of this one, holds a unit right now.
    pub fn is_taken(&self, unit_id: &UnitId) -> Result<bool, StoreError> {
        Ok(matches!(self.try_lock(&self.unit_lock_path(unit_id))?, TryLock::Taken))
    }

    /// Removes what a dead process left half-written in a unit, unless somebody is at work there.
    pub(super) fn sweep_unit(&self, directory: &str, unit_id: &UnitId) -> Result<(), StoreError> {
        let dir = self.unit_dir(directory, unit_id);
        self.refuse_links(&dir)?;
        if !dir.is_dir() {
            return Ok(());
        }
        let TryLock::Held(_lock) = self.try_lock(&self.unit_lock_path(unit_id))? else { return Ok(()) };
        match read(&dir, unit_id)? {
            Stored::Present { result, .. } => aside::remove_leftovers(&dir, &result),
            // Killed before its first result.
            Stored::Absent => {
                aside::remove_leftovers(&dir, &UnitResult::empty(*unit_id, DeployId::of_canonical(b"")))?;
                // Where something else is in it, it stays.
                let _ = fs::remove_dir(&dir);
                Ok(())
            }
            Stored::Damaged(_) => Ok(()),
        }
    }
}

impl Reservation {
    /// What is committed.
    pub fn result(&self) -> &UnitResult {
        &self.result
    }

    /// Number of the next sample.
    pub fn next_sample(&self) -> u32 {
        self.next_sample
    }

    /// Why something that was there had to be set aside.
    pub fn set_aside(&self) -> Option<&str> {
        self.set_aside.as_deref()
    }

    /// Makes an empty directory for the files of the next sample.
    pub fn draft(&self) -> Result<SampleDraft, StoreError> {
        self.store.make_dir(&self.dir)?;
        let dir = self.dir.join(format!("{}sample-{}", atomic::TEMP, self.next_sample));
        atomic::remove(&dir)?;
        fs::create_dir(&dir).map_err(StoreError::io("create the directory", &dir))?;
        let mark = dir.join(UNCOMMITTED);
        File::create_new(&mark).map_err(StoreError::io("create", &mark))?;
        Ok(SampleDraft { dir })
    }

    /// Commits a sample: first its files, whole, under their final name, then `result.json`. Only the second counts.
    /// The record must have the number [`Reservation::next_sample`]; the seals of its files are filled in.
    pub fn commit(&mut self, draft: SampleDraft, mut record: SampleRecord) -> Result<(), StoreError> {
        assert_eq!(record.sample, self.next_sample, "a sample has the number it was drafted under");
        let place = self.dir.join(sample_dir_name(record.sample));
        atomic::sync_files_in(&draft.dir)?;
        record.files = seal_files_in(&draft.dir)?;
        record.files.remove(UNCOMMITTED);
        // Left by a commit of this number whose second half failed.
        atomic::remove(&place)?;
        atomic::rename(&draft.dir, &place)?;
        let number = record.sample;
        self.replace(|result| result.samples.push(record))?;
        self.next_sample = number + 1;
        // It counts whether this succeeds or not; the next holder tries again.
        let _ = atomic::remove(&place.join(UNCOMMITTED)).and_then(|()| atomic::sync_dir(&place));
        Ok(())
    }

    /// Keeps a failed attempt.
    pub fn record_failure(&mut self, record: AttemptRecord) -> Result<(), StoreError> {
        self.replace(|result| result.attempts.push(record))
    }

    /// Writes a changed result; the one in memory changes only when the file has.
    fn replace(&mut self, change: impl FnOnce(&mut UnitResult)) -> Result<(), StoreError> {
        let mut result = self.result.clone();
        result.schema = super::record::SCHEMA;
        change(&mut result);
        self.store.make_dir(&self.dir)?;
        if let Some(record) = &self.unwritten {
            atomic::write(&self.dir.join(UNIT_FILE), &to_json(record))?;
            self.unwritten = None;
        }
        atomic::write(&self.dir.join(RESULT_FILE), &to_json(&result))?;
        self.result = result;
        Ok(())
    }
}

impl SampleDraft {
    /// Where the sample's files are to be written.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for SampleDraft {
    fn drop(&mut self) {
        // After a commit there is nothing under this name. What cannot be removed now is swept by the next reservation.
        let _ = atomic::remove(&self.dir);
    }
}

/// `sample-{n}`.
pub fn sample_dir_name(number: u32) -> String {
    format!("sample-{number}")
}

impl Versioned for UnitRecord {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Versioned for UnitResult {
    fn schema(&self) -> u32 {
        self.schema
    }
}

/// One of a unit's two files.
enum Part<T> {
    Absent,
    Whole(T),
    Damaged(String),
}

impl<T> Part<T> {
    fn problem(&self, file: &str) -> Option<String> {
        match self {
            Part::Absent => Some(format!("{file} is missing")),
            Part::Whole(_) => None,
            Part::Damaged(reason) => Some(reason.clone()),
        }
    }
}

/// A unit's files, each for itself.
struct Found {
    unit: Part<UnitRecord>,
    result: Part<UnitResult>,
}

impl Found {
    fn read(dir: &Path, unit_id: &UnitId) -> Result<Found, StoreError> {
        let unit = match read_json::<UnitRecord>(&dir.join(UNIT_FILE))? {
            None => Part::Absent,
            Some(Err(e)) => Part::Damaged(format!("{UNIT_FILE} cannot be read: {e}")),
            Some(Ok(unit)) => match check_ids(&unit, unit_id) {
                Ok(()) => Part::Whole(unit),
                Err(reason) => Part::Damaged(reason),
            },
        };
        let result = match read_json::<UnitResult>(&dir.join(RESULT_FILE))? {
            None => Part::Absent,
            Some(Err(e)) => Part::Damaged(format!("{RESULT_FILE} cannot be read: {e}")),
            Some(Ok(result)) if result.unit_id != *unit_id => {
                Part::Damaged(format!("{RESULT_FILE} belongs to unit {}", result.unit_id.short(16)))
            }
            Some(Ok(result)) => Part::Whole(result),
        };
        Ok(Found { unit, result })
    }
}

pub(super) fn read(dir: &Path, unit_id: &UnitId) -> Result<Stored, StoreError> {
    let Found { unit, result } = Found::read(dir, unit_id)?;
    let problem = unit.problem(UNIT_FILE);
    Ok(match (unit, result) {
        (Part::Absent, Part::Absent) => Stored::Absent,
        (Part::Whole(_), Part::Damaged(reason)) => Stored::Damaged(reason),
        (Part::Whole(unit), Part::Whole(result)) => Stored::Present { unit: Box::new(unit), result: Box::new(result) },
        (Part::Whole(unit), Part::Absent) => {
            let result = UnitResult::empty(unit.unit_id, unit.deploy_id);
            Stored::Present { unit: Box::new(unit), result: Box::new(result) }
        }
        (Part::Absent | Part::Damaged(_), _) => Stored::Damaged(problem.unwrap_or_default()),
    })
}

/// Recomputes both ids from the documents.
pub(super) fn check_ids(unit: &UnitRecord, unit_id: &UnitId) -> Result<(), String> {
    if unit.unit_id != *unit_id {
        return Err(format!("{UNIT_FILE} is of unit {}", unit.unit_id.short(16)));
    }
    if UnitId::of(&unit.unit) != unit.unit_id {
        return Err(format!("the document in {UNIT_FILE} does not have the unit's id"));
    }
    if DeployId::of(&unit.deploy) != unit.deploy_id {
        return Err(format!("the deployment's document in {UNIT_FILE} does not have the deployment's id"));
    }
    Ok(())
}
