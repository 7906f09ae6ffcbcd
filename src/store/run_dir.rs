//! `runs/{timestamp}-{experiment}/`: what one run meant to do, what happened, how it ended. A run is alive while the lock
//! of its name is held; the lock's file goes away when the run has ended in good order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::csv_file::{ResultsCsv, row_key};
use super::journal::JournalWriter;
use super::json::{Versioned, read_json, to_json};
use super::lock::{Lock, TryLock};
use super::record::{RunRecord, RunUnit, SCHEMA, UnitResult};
use super::recover::rows_of;
use super::{Store, StoreError, atomic};
use crate::clock;

pub(super) const PLAN_FILE: &str = "plan.json";
const JOURNAL_FILE: &str = "journal.jsonl";
/// Taken seconds in a row after which the clock, not the crowd, is to blame.
const MAX_SHIFT: u32 = 3600;

/// The directory of a live run and the results files that it has claimed.
#[derive(Debug)]
pub struct RunDir {
    store: Store,
    lock: Lock,
    path: PathBuf,
    timestamp: String,
    /// By stack directory.
    csv: BTreeMap<String, ResultsCsv>,
}

/// A run that has come to its end and is still live.
#[derive(Debug)]
pub struct RunOver {
    store: Store,
    run: String,
    lock: Option<Lock>,
}

/// Paths inside a run's directory, live or not.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFiles(PathBuf);

impl RunFiles {
    pub fn new(dir: impl Into<PathBuf>) -> RunFiles {
        RunFiles(dir.into())
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn plan(&self) -> PathBuf {
        self.0.join(PLAN_FILE)
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join(JOURNAL_FILE)
    }

    /// What references were found to mean for this run alone.
    pub fn lock(&self) -> PathBuf {
        self.0.join("float.lock")
    }

    pub fn summary(&self) -> PathBuf {
        self.0.join("summary.md")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    pub fn junit(&self) -> PathBuf {
        self.0.join("junit.xml")
    }

    /// What the gate said, for a comment and for programs.
    pub fn gate_markdown(&self) -> PathBuf {
        self.0.join("gate.md")
    }

    pub fn gate_json(&self) -> PathBuf {
        self.0.join("gate.json")
    }
}

impl Versioned for RunRecord {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Store {
    /// Claims a name for a run at `now`, and the results file of each stack that it means to measure, all under one
    /// timestamp: the first second for which every one of these names is free. `record` is handed the run's name and
    /// timestamp and gives the `plan.json` that is written before anything else.
    pub fn create_run(
        &self,
        experiment: &str,
        now: Timestamp,
        stacks: &[String],
        record: impl Fn(&str, &str) -> RunRecord,
    ) -> Result<(RunDir, RunRecord), StoreError> {
        for shift in 0..MAX_SHIFT {
            let at = now.saturating_add(SignedDuration::from_secs(shift.into())).unwrap_or(now);
            if let Some(claimed) = self.try_claim(experiment, &clock::stamp(at), stacks, &record)? {
                return Ok(claimed);
            }
        }
        Err(StoreError::NoFreeName { root: self.root.clone(), timestamp: clock::stamp(now), tried: MAX_SHIFT })
    }

    fn try_claim(
        &self,
        experiment: &str,
        timestamp: &str,
        stacks: &[String],
        record: &impl Fn(&str, &str) -> RunRecord,
    ) -> Result<Option<(RunDir, RunRecord)>, StoreError> {
        let run = format!("{timestamp}-{}", file_name(experiment));
        let path = self.runs_dir().join(&run);
        if path.exists() {
            return Ok(None);
        }
        // The lock comes first, so that there is no moment in which a live run looks dead.
        let TryLock::Held(lock) = self.try_lock(&self.run_lock_path(&run))? else { return Ok(None) };
        lock.persist()?;
        self.make_dir(&self.runs_dir())?;
        match fs::create_dir(&path) {
            Ok(()) => {}
            // Another run had the name and has ended meanwhile; its lock's file is not ours to keep.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return if RunFiles::new(&path).finished()? { lock.remove().map(|()| None) } else { Ok(None) };
            }
            Err(e) => return Err(StoreError::io("create the directory", &path)(e)),
        }
        let record = record(&run, timestamp);
        atomic::write(&path.join(PLAN_FILE), &to_json(&record))?;
        atomic::sync_dir(&self.runs_dir())?;
        let mut dir =
            RunDir { store: self.clone(), lock, path, timestamp: timestamp.to_string(), csv: BTreeMap::new() };
        for stack in stacks {
            self.make_dir(&self.stack_dir(stack))?;
            match ResultsCsv::claim(&self.csv_path(stack, timestamp))? {
                Some(csv) => dir.csv.insert(stack.clone(), csv),
                None => return dir.give_up().map(|()| None),
            };
        }
        Ok(Some((dir, record)))
    }

    /// Takes a run that is over again, so that its summaries can be written anew: a kill meanwhile leaves a lock, by which
    /// the next start knows that the seal is an old one. `None` while another process has it.
    pub fn take_again(&self, run: &str) -> Result<Option<RunOver>, StoreError> {
        let TryLock::Held(lock) = self.try_lock(&self.run_lock_path(run))? else { return Ok(None) };
        lock.persist()?;
        Ok(Some(RunOver { store: self.clone(), run: run.to_string(), lock: Some(lock) }))
    }

    /// Names of all runs in the tree, oldest first.
    pub fn runs(&self) -> Vec<String> {
        let mut names = self.run_dirs();
        names.retain(|n| self.runs_dir().join(n).join(PLAN_FILE).is_file());
        names
    }

    /// Paths of a run by its name.
    pub fn run_files(&self, run: &str) -> RunFiles {
        RunFiles::new(self.runs_dir().join(run))
    }

    /// Reads the `plan.json` of a run.
    pub fn read_run(&self, run: &str) -> Result<RunRecord, StoreError> {
        let path = self.run_files(run).plan();
        match read_json::<RunRecord>(&path)? {
            Some(Ok(record)) => Ok(record),
            Some(Err(reason)) => Err(StoreError::Unreadable { path, reason }),
            None => Err(StoreError::Unreadable { path, reason: "there is no such run".into() }),
        }
    }

    /// Whether a process that is alive is at work on the run.
    pub fn is_live(&self, run: &str) -> Result<bool, StoreError> {
        let path = self.run_lock_path(run);
        if !path.exists() {
            return Ok(false);
        }
        Ok(matches!(self.try_lock(&path)?, TryLock::Taken))
    }
}

impl RunFiles {
    fn finished(&self) -> Result<bool, StoreError> {
        let record = read_json::<RunRecord>(&self.plan())?;
        Ok(matches!(record, Some(Ok(record)) if record.finished_at.is_some()))
    }
}

impl RunDir {
    pub fn files(&self) -> RunFiles {
        RunFiles::new(&self.path)
    }

    /// `20261124T061500Z`, the same in the names of all files of the run.
    pub fn timestamp(&self) -> &str {
        &self.timestamp
    }

    /// Replaces `plan.json` of the live run.
    pub fn save(&self, record: &RunRecord) -> Result<(), StoreError> {
        write_plan(&self.path, record)
    }

    /// Keeps the lock that the run goes by in place of the committed one.
    pub fn keep_lock(&self, text: &str) -> Result<(), StoreError> {
        atomic::write(&self.files().lock(), text.as_bytes())
    }

    /// Starts the run's journal.
    pub fn journal(&self) -> Result<JournalWriter, StoreError> {
        JournalWriter::create(&self.files().journal())
    }

    /// The claimed results file of a stack.
    pub fn csv(&mut self, stack: &str) -> Option<&mut ResultsCsv> {
        self.csv.get_mut(stack)
    }

    /// Appends the rows of a unit that are not in its results file.
    pub fn complete_csv(&mut self, unit: &RunUnit, result: &UnitResult, run: &str) -> Result<(), StoreError> {
        let Some(csv) = self.csv.get_mut(&unit.directory) else { return Ok(()) };
        let there = csv.keys()?;
        for (_, row) in rows_of(unit, result, run) {
            if !there.contains(&row_key(&row)) {
                csv.append(&row)?;
            }
        }
        Ok(())
    }

    /// Paths of the results files that hold rows or may still get some.
    pub fn csv_paths(&self) -> Vec<PathBuf> {
        self.csv.values().map(|csv| csv.path().to_path_buf()).collect()
    }

    /// Ends the run in good order: results files without rows are removed and `plan.json` is replaced by `record`. The
    /// run stays live until what is returned is sealed or dropped, so that its summaries can be written.
    pub fn finish(self, record: &RunRecord) -> Result<RunOver, StoreError> {
        for csv in self.csv.into_values() {
            csv.finish()?;
        }
        write_plan(&self.path, record)?;
        Ok(RunOver { store: self.store, run: record.run.clone(), lock: Some(self.lock) })
    }

    /// Takes every claim back.
    fn give_up(self) -> Result<(), StoreError> {
        for csv in self.csv.into_values() {
            csv.finish()?;
        }
        atomic::remove(&self.path)?;
        self.lock.remove()
    }
}

impl RunOver {
    pub fn files(&self) -> RunFiles {
        self.store.run_files(&self.run)
    }

    /// Seals the run's files as they are and lets go of the run.
    pub fn seal(&mut self) -> Result<(), StoreError> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<(), StoreError> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        self.store.seal_run(&self.store.read_run(&self.run)?)?;
        lock.remove()
    }
}

impl Drop for RunOver {
    fn drop(&mut self) {
        // What cannot be done now, the next start does.
        let _ = self.let_go();
    }
}

pub(super) fn write_plan(dir: &Path, record: &RunRecord) -> Result<(), StoreError> {
    debug_assert_eq!(record.schema, SCHEMA);
    atomic::write(&dir.join(PLAN_FILE), &to_json(record))
}

/// A name that is safe as part of a file's: anything outside `[A-Za-z0-9._-]` becomes `-`.
fn file_name(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = text.chars().map(safe).take(96).collect();
    if name.is_empty() { "experiment".into() } else { name }
}
