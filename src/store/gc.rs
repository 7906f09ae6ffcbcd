//! Removing what nobody refers to any more: old runs with their results files, units that no kept run names, files that were
//! set aside. What is to go is renamed first, so that a removal that is cut short leaves nothing that looks whole.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::aside::DAMAGED;
use super::lock::TryLock;
use super::record::RunRecord;
use super::{Store, StoreError, UNITS, atomic, read_dir_names};

/// What may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcRequest {
    /// Of each experiment, only so many runs stay, and the last one that ended well: what a gate compares with.
    pub keep_last: Option<u32>,
    /// Units that none of the runs which stay refers to.
    pub unreferenced: bool,
    /// What runs have set aside.
    pub damaged: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Garbage {
    pub runs: Vec<String>,
    pub units: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
    pub bytes: u64,
    /// In the way, with why: they stay.
    pub kept: Vec<(PathBuf, String)>,
}

/// Marks what is being removed. A start that finds it removes the rest.
const GOING: &str = ".tmp-gc-";

impl Store {
    /// Finds what may go; removes it unless it is only asked about (`dry_run`).
    pub fn collect_garbage(&self, request: &GcRequest, dry_run: bool) -> Result<Garbage, StoreError> {
        let mut out = Garbage::default();
        if !dry_run {
            self.finish_removals()?;
        }
        let mut kept = Vec::new();
        for (run, record) in self.records() {
            let Some(record) = record else {
                let path = self.run_files(&run).dir().to_path_buf();
                // Which units it refers to cannot be known, so that none can be called unreferenced.
                out.kept.push((path, "its plan.json cannot be read".into()));
                kept.push(None);
                continue;
            };
            kept.push(Some(record));
        }
        let going = going(&kept, request);
        for record in kept.iter_mut() {
            if !record.as_ref().is_some_and(|r| going.contains(&r.run)) {
                continue;
            }
            let Some(run) = record.take() else { continue };
            if self.remove_run(&run, dry_run, &mut out)? {
                continue;
            }
            *record = Some(run);
        }
        if request.unreferenced {
            self.remove_unreferenced(&kept, dry_run, &mut out)?;
        }
        if request.damaged {
            self.remove_damaged(dry_run, &mut out)?;
        }
        Ok(out)
    }

    /// Removes what an earlier collection left half removed.
    pub fn finish_removals(&self) -> Result<(), StoreError> {
        let mut places = vec![self.root.clone(), self.runs_dir()];
        for stack in self.stacks() {
            places.push(self.stack_dir(&stack));
            places.push(self.stack_dir(&stack).join(UNITS));
        }
        for dir in places {
            for name in read_dir_names(&dir).iter().filter(|n| n.starts_with(GOING)) {
                self.refuse_links(&dir)?;
                atomic::remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Runs that are there, with what they say of themselves where that can be read.
    fn records(&self) -> Vec<(String, Option<RunRecord>)> {
        self.run_dirs().into_iter().map(|run| (run.clone(), self.read_run(&run).ok())).collect()
    }

    /// Whether the run went.
    fn remove_run(&self, record: &RunRecord, dry_run: bool, out: &mut Garbage) -> Result<bool, StoreError> {
        let dir = self.run_files(&record.run).dir().to_path_buf();
        let TryLock::Held(lock) = self.try_lock(&self.run_lock_path(&record.run))? else {
            out.kept.push((dir, "a live process is at work on it".into()));
            return Ok(false);
        };
        self.refuse_links(&dir)?;
        let csv = self.results_files(record).into_iter().filter(|p| p.is_file());
        for path in csv.collect::<Vec<_>>() {
            out.bytes += size(&path);
            remove(&path, dry_run)?;
            out.files.push(path);
        }
        out.bytes += size(&dir);
        remove(&dir, dry_run)?;
        out.runs.push(record.run.clone());
        lock.remove()?;
        Ok(true)
    }

    fn remove_unreferenced(
        &self,
        kept: &[Option<RunRecord>],
        dry_run: bool,
        out: &mut Garbage,
    ) -> Result<(), StoreError> {
        if !out.kept.iter().all(|(_, why)| why.starts_with("a live process")) {
            return Ok(());
        }
        let short = |r: &RunRecord| r.units.iter().map(|u| u.unit_id.short(16)).collect::<Vec<_>>();
        let named: HashSet<String> = kept.iter().flatten().flat_map(short).collect();
        for stack in self.stacks() {
            let units = self.stack_dir(&stack).join(UNITS);
            for unit in read_dir_names(&units).into_iter().filter(|u| !u.starts_with('.') && !named.contains(u)) {
                let path = units.join(&unit);
                let lock = self.try_lock(&self.locks_dir().join(&unit))?;
                let TryLock::Held(lock) = lock else {
                    out.kept.push((path, "a live run is measuring it".into()));
                    continue;
                };
                self.refuse_links(&path)?;
                out.bytes += size(&path);
                remove(&path, dry_run)?;
                out.units.push(path);
                lock.remove()?;
            }
        }
        Ok(())
    }

    fn remove_damaged(&self, dry_run: bool, out: &mut Garbage) -> Result<(), StoreError> {
        let mut places = vec![self.runs_dir()];
        places.extend(self.run_dirs().iter().map(|run| self.run_files(run).dir().to_path_buf()));
        for stack in self.stacks() {
            let units = self.stack_dir(&stack).join(UNITS);
            places.extend(read_dir_names(&units).into_iter().map(|unit| units.join(unit)));
            places.push(self.stack_dir(&stack));
        }
        for dir in places {
            for name in read_dir_names(&dir).iter().filter(|n| n.starts_with(DAMAGED)) {
                self.refuse_links(&dir)?;
                let path = dir.join(name);
                out.bytes += size(&path);
                // Numbers of samples stay in use by what is beside them, or begin anew where nothing is.
                remove(&path, dry_run)?;
                out.files.push(path);
            }
        }
        Ok(())
    }
}

/// Names of the runs beyond the newest of each experiment and its last good one.
fn going(records: &[Option<RunRecord>], request: &GcRequest) -> HashSet<String> {
    let Some(keep) = request.keep_last else { return HashSet::new() };
    let mut by_experiment: BTreeMap<&str, Vec<&RunRecord>> = BTreeMap::new();
    for record in records.iter().flatten() {
        by_experiment.entry(&record.experiment).or_default().push(record);
    }
    let mut out = HashSet::new();
    for runs in by_experiment.values() {
        let old = runs.len().saturating_sub(keep as usize);
        // Oldest first, as the directories are.
        let good = runs.iter().rposition(|r| r.exit_code == Some(0));
        out.extend((0..old).filter(|i| Some(*i) != good).map(|i| runs[i].run.clone()));
    }
    out
}

fn remove(path: &Path, dry_run: bool) -> Result<(), StoreError> {
    if dry_run {
        return Ok(());
    }
    let name = path.file_name().expect("garbage has a name").to_string_lossy();
    let going = path.with_file_name(format!("{GOING}{name}"));
    atomic::remove(&going)?;
    atomic::rename(path, &going)?;
    atomic::remove(&going)
}

/// Bytes of a file, or of all files below a directory; links count as nothing.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if meta.is_file() {
        return meta.len();
    }
    if !meta.is_dir() {
        return 0;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}
