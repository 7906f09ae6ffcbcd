//! One unit's directory: reading it, reserving it, committing samples and failures to it. Only the holder of a
//! [`Reservation`] can write, and everything half-written that it finds was left by a process that is dead.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::lock::{Lock, TryLock};
use super::record::{AttemptRecord, SCHEMA, SampleRecord, UnitRecord, UnitResult};
use super::{Store, StoreError, atomic, read_dir_names};
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
    /// under `damaged-{n}-…`. A unit that is not there yet is written with its first result.
    pub fn reserve(&self, directory: &str, record: &UnitRecord) -> Result<Lookup, StoreError> {
        let TryLock::Held(lock) = Lock::attempt(&self.unit_lock_path(&record.unit_id))? else {
            return Ok(Lookup::Taken);
        };
        let dir = self.unit_dir(directory, &record.unit_id);
        let mut set_aside = None;
        let mut unwritten = None;
        let result = match read(&dir, &record.unit_id)? {
            Stored::Present { result, .. } => *result,
            stored => {
                if let Stored::Damaged(reason) = stored {
                    set_aside_everything(&dir)?;
                    set_aside = Some(reason);
                }
                unwritten = Some(Box::new(record.clone()));
                UnitResult::empty(record.unit_id, record.deploy_id)
            }
        };
        sweep(&dir, &result)?;
        let next_sample = next_number(&dir, &result);
        let reservation = Reservation { _lock: lock, dir, unwritten, result, next_sample, set_aside };
        Ok(Lookup::Reserved(Box::new(reservation)))
    }

    /// Whether another process, or another reservation of this one, holds a unit right now.
    pub fn is_taken(&self, unit_id: &UnitId) -> Result<bool, StoreError> {
        Ok(matches!(Lock::attempt(&self.unit_lock_path(unit_id))?, TryLock::Taken))
    }

    /// Removes what a dead process left half-written in a unit, unless somebody is at work there.
    pub(super) fn sweep_unit(&self, directory: &str, unit_id: &UnitId) -> Result<(), StoreError> {
        let dir = self.unit_dir(directory, unit_id);
        if !dir.is_dir() {
            return Ok(());
        }
        let TryLock::Held(_lock) = Lock::attempt(&self.unit_lock_path(unit_id))? else { return Ok(()) };
        match read(&dir, unit_id)? {
            Stored::Present { result, .. } => sweep(&dir, &result),
            Stored::Absent | Stored::Damaged(_) => Ok(()),
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

    /// Why what was there before had to be set aside.
    pub fn set_aside(&self) -> Option<&str> {
        self.set_aside.as_deref()
    }

    /// Makes an empty directory for the files of the next sample.
    pub fn draft(&self) -> Result<SampleDraft, StoreError> {
        let dir = self.dir.join(format!("{}sample-{}", atomic::TEMP, self.next_sample));
        atomic::remove(&dir)?;
        atomic::create_dir(&dir)?;
        Ok(SampleDraft { dir })
    }

    /// Commits a sample: first its files, whole, under their final name, then `result.json`. Only the second counts.
    /// The record must have the number [`Reservation::next_sample`].
    pub fn commit(&mut self, draft: SampleDraft, record: SampleRecord) -> Result<(), StoreError> {
        assert_eq!(record.sample, self.next_sample, "a sample has the number it was drafted under");
        let place = self.dir.join(sample_dir_name(record.sample));
        atomic::sync_files_in(&draft.dir)?;
        // Left by a commit of this number whose second half failed.
        atomic::remove(&place)?;
        atomic::rename(&draft.dir, &place)?;
        let number = record.sample;
        self.replace(|result| result.samples.push(record))?;
        self.next_sample = number + 1;
        Ok(())
    }

    /// Keeps a failed attempt.
    pub fn record_failure(&mut self, record: AttemptRecord) -> Result<(), StoreError> {
        self.replace(|result| result.attempts.push(record))
    }

    /// Writes a changed result; the one in memory changes only when the file has.
    fn replace(&mut self, change: impl FnOnce(&mut UnitResult)) -> Result<(), StoreError> {
        let mut result = self.result.clone();
        change(&mut result);
        if let Some(record) = &self.unwritten {
            atomic::create_dir(&self.dir)?;
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

pub(super) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("records have string keys and no failing serializers");
    bytes.push(b'\n');
    bytes
}

/// A file type that carries its schema number.
pub(super) trait Versioned: DeserializeOwned {
    fn schema(&self) -> u32;
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

/// Reads a versioned JSON file. `Ok(None)` when it is not there; `Ok(Some(Err(reason)))` when it is not what it should
/// be; an error when the file system fails or a newer tool wrote it, which is no damage.
pub(super) fn read_json<T: Versioned>(path: &Path) -> Result<Option<Result<T, String>>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("read", path)(e)),
    };
    let newer = |found: u32| StoreError::Newer { path: path.to_path_buf(), found, known: SCHEMA };
    match serde_json::from_slice::<T>(&bytes) {
        Ok(value) if value.schema() > SCHEMA => Err(newer(value.schema())),
        Ok(value) => Ok(Some(Ok(value))),
        // A later schema need not parse as this one.
        Err(e) => match serde_json::from_slice::<Head>(&bytes) {
            Ok(head) if head.schema > SCHEMA => Err(newer(head.schema)),
            _ => Ok(Some(Err(e.to_string()))),
        },
    }
}

#[derive(serde::Deserialize)]
struct Head {
    schema: u32,
}

pub(super) fn read(dir: &Path, unit_id: &UnitId) -> Result<Stored, StoreError> {
    let unit = read_json::<UnitRecord>(&dir.join(UNIT_FILE))?;
    let result = read_json::<UnitResult>(&dir.join(RESULT_FILE))?;
    let damaged = |reason: String| Ok(Stored::Damaged(reason));
    let unit = match unit {
        Some(Ok(unit)) => unit,
        Some(Err(e)) => return damaged(format!("{UNIT_FILE} cannot be read: {e}")),
        None if result.is_some() => return damaged(format!("{UNIT_FILE} is missing")),
        None => return Ok(Stored::Absent),
    };
    if let Err(reason) = check_ids(&unit, unit_id) {
        return damaged(reason);
    }
    match result {
        Some(Ok(result)) if result.unit_id != *unit_id => {
            damaged(format!("{RESULT_FILE} belongs to unit {}", result.unit_id.short(16)))
        }
        Some(Ok(result)) => Ok(Stored::Present { unit: Box::new(unit), result: Box::new(result) }),
        Some(Err(e)) => damaged(format!("{RESULT_FILE} cannot be read: {e}")),
        None => {
            let result = UnitResult::empty(unit.unit_id, unit.deploy_id);
            Ok(Stored::Present { unit: Box::new(unit), result: Box::new(result) })
        }
    }
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

/// Renames everything that a reader would trust to `damaged-{n}-…` with one `n`.
fn set_aside_everything(dir: &Path) -> Result<(), StoreError> {
    let names = read_dir_names(dir);
    let n = free_prefix(&names);
    for name in names.iter().filter(|n| *n == UNIT_FILE || *n == RESULT_FILE || sample_number(n).is_some()) {
        set_aside(dir, name, n)?;
    }
    Ok(())
}

fn set_aside(dir: &Path, name: &str, n: u32) -> Result<(), StoreError> {
    atomic::rename(&dir.join(name), &dir.join(format!("damaged-{n}-{name}")))
}

/// Removes temporary files, and the one sample directory that a process killed between the two steps of a commit leaves:
/// the only one without a record, with the next number. Any other was not left by a crash and is set aside.
fn sweep(dir: &Path, result: &UnitResult) -> Result<(), StoreError> {
    let names = read_dir_names(dir);
    for name in names.iter().filter(|n| n.starts_with(atomic::TEMP)) {
        atomic::remove(&dir.join(name))?;
    }
    let orphans: Vec<u32> =
        names.iter().filter_map(|n| sample_number(n)).filter(|n| result.sample(*n).is_none()).collect();
    let others = names.iter().filter(|n| sample_number(n).is_none()).filter_map(|n| number_in_use(n)).max();
    let last = others.unwrap_or(0).max(result.last_sample());
    for number in &orphans {
        let name = sample_dir_name(*number);
        if orphans.len() == 1 && *number == last + 1 {
            atomic::remove(&dir.join(name))?;
        } else {
            set_aside(dir, &name, free_prefix(&names))?;
        }
    }
    Ok(())
}

/// The first `n` for which no `damaged-{n}-…` is there.
fn free_prefix(names: &[String]) -> u32 {
    (1u32..)
        .find(|n| !names.iter().any(|name| name.starts_with(&format!("damaged-{n}-"))))
        .expect("a directory has fewer names than u32 has values")
}

fn sample_number(name: &str) -> Option<u32> {
    name.strip_prefix("sample-")?.parse().ok()
}

/// The number of a sample's directory, set aside or not.
fn number_in_use(name: &str) -> Option<u32> {
    let name = match name.strip_prefix("damaged-") {
        Some(rest) => rest.split_once('-')?.1,
        None => name,
    };
    sample_number(name)
}

/// One more than any number that was ever used here, as far as can be seen.
fn next_number(dir: &Path, result: &UnitResult) -> u32 {
    let seen = read_dir_names(dir).iter().filter_map(|n| number_in_use(n)).max().unwrap_or(0);
    seen.max(result.last_sample()) + 1
}
