//! `seal.json` of a run that is over: what its files were, those of its directory and its results files. The next start
//! looks at them, so that what somebody changed since is said and kept apart from what the run wrote.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::csv_file::ResultsCsv;
use super::json::{Versioned, read_json, to_json};
use super::lock::TryLock;
use super::record::{RunRecord, SCHEMA, UnitResult};
use super::seal::{FileSeal, FileSeals, Look};
use super::unit::Stored;
use super::{Store, StoreError, aside, atomic, read_dir_names};

pub(super) const SEAL_FILE: &str = "seal.json";
/// Name of the lock of whoever looks at the runs.
const INSPECTION: &str = "inspection";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunSeal {
    schema: u32,
    /// By path from the root of the tree.
    files: FileSeals,
}

impl Versioned for RunSeal {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Store {
    /// Seals the files of a run that is over as they are now.
    pub fn seal_run(&self, record: &RunRecord) -> Result<(), StoreError> {
        let dir = self.run_files(&record.run).dir().to_path_buf();
        let own = read_dir_names(&dir).into_iter().filter(|n| !n.starts_with('.') && n != SEAL_FILE);
        let own = own.filter(|n| !n.starts_with(aside::DAMAGED)).map(|n| dir.join(n));
        let mut files = FileSeals::new();
        for path in own.chain(self.results_files(record)).filter(|p| p.is_file()) {
            files.insert(self.name_in_tree(&path), FileSeal::of(&path)?);
        }
        atomic::write(&dir.join(SEAL_FILE), &to_json(&RunSeal { schema: SCHEMA, files }))
    }

    /// Looks at the files of every sealed run. What is not as it was is set aside, results files are made again from the
    /// units; each gives a sentence.
    pub fn inspect_runs(&self) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        // Two starts at once need not both say it.
        let TryLock::Held(_lock) = self.try_lock(&self.locks_dir().join(INSPECTION))? else { return Ok(found) };
        for run in self.finished_runs() {
            match self.inspect_run(&run) {
                Ok(sentences) => found.extend(sentences),
                Err(e @ (StoreError::Newer { .. } | StoreError::Io { .. } | StoreError::Link { .. })) => {
                    found.push(format!("the files of run {run} cannot be looked at: {e}"));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// What is wrong with a sealed run, in the order of its files: (path from the root, why).
    pub(super) fn run_problems(&self, run: &str, look: Look) -> Result<Vec<(String, String)>, StoreError> {
        let path = self.run_files(run).dir().join(SEAL_FILE);
        match read_json::<RunSeal>(&path)? {
            None => Ok(Vec::new()),
            Some(Err(reason)) => Ok(vec![(self.name_in_tree(&path), format!("cannot be read: {reason}"))]),
            Some(Ok(seal)) => {
                let problem =
                    |(name, s): (&String, &FileSeal)| Some((name.clone(), s.problem(&self.root.join(name), look)?));
                Ok(seal.files.iter().filter_map(problem).collect())
            }
        }
    }

    /// Directories of runs, alive, dead or over, oldest first.
    pub(super) fn run_dirs(&self) -> Vec<String> {
        let mut names = read_dir_names(&self.runs_dir());
        names.retain(|n| !n.starts_with('.') && !n.starts_with(aside::DAMAGED) && self.runs_dir().join(n).is_dir());
        names.sort();
        names
    }

    /// Those that no live process is at work on and that have come to an end.
    fn finished_runs(&self) -> Vec<String> {
        let mut runs = self.run_dirs();
        runs.retain(|run| {
            let sealed = self.run_files(run).dir().join(SEAL_FILE).exists();
            let over = || {
                let plan = read_json::<RunRecord>(&self.run_files(run).plan());
                matches!(plan, Ok(Some(Ok(record))) if record.finished_at.is_some())
            };
            !self.run_lock_path(run).exists() && (sealed || over())
        });
        runs
    }

    fn inspect_run(&self, run: &str) -> Result<Vec<String>, StoreError> {
        let dir = self.run_files(run).dir().to_path_buf();
        self.refuse_links(&dir)?;
        match read_json::<RunSeal>(&dir.join(SEAL_FILE))? {
            Some(Ok(_)) => {}
            None => return self.seal_anew(run, "is missing"),
            Some(Err(reason)) => {
                aside::set_file_aside(&dir, SEAL_FILE, false)?;
                return self.seal_anew(run, &format!("cannot be read: {reason}"));
            }
        }
        // A process that writes its summaries anew holds its lock until it has sealed them: what differs is looked at again
        // when nobody does.
        let differs = !self.run_problems(run, Look::Glance)?.is_empty();
        if !differs || self.run_lock_path(run).exists() {
            return Ok(Vec::new());
        }
        let Some(Ok(seal)) = read_json::<RunSeal>(&dir.join(SEAL_FILE))? else { return Ok(Vec::new()) };
        let problems = self.run_problems(run, Look::Glance)?;
        if problems.is_empty() {
            return Ok(Vec::new());
        }
        let record = self.read_run(run).ok();
        let mut sentences = Vec::new();
        let mut files = seal.files;
        for (name, problem) in problems {
            let path = self.root.join(&name);
            self.refuse_links(&path)?;
            set_aside(&path)?;
            files.remove(&name);
            let again = match &record {
                Some(record) if self.results_files(record).contains(&path) => {
                    self.make_results_again(record, &path)?;
                    files.insert(name.clone(), FileSeal::of(&path)?);
                    "it is made again from the units"
                }
                _ => consequence(&path),
            };
            sentences.push(format!("{name} {problem}: {again}{}", kept(&problem)));
        }
        atomic::write(&dir.join(SEAL_FILE), &to_json(&RunSeal { schema: SCHEMA, files }))?;
        Ok(sentences)
    }

    /// Seals a run whose seal is gone. One of an older tool never had any.
    fn seal_anew(&self, run: &str, problem: &str) -> Result<Vec<String>, StoreError> {
        let Ok(record) = self.read_run(run) else {
            return Ok(vec![format!("runs/{run}/{SEAL_FILE} {problem}, and so is the run's plan.json")]);
        };
        self.seal_run(&record)?;
        let had_one = record.schema >= super::json::SEALED;
        let sentence = format!("runs/{run}/{SEAL_FILE} {problem}: the run's files are taken as they are now");
        Ok(had_one.then_some(sentence).into_iter().collect())
    }

    /// Paths of the results files that a run may have.
    pub(super) fn results_files(&self, record: &RunRecord) -> Vec<PathBuf> {
        let mut stacks: Vec<&str> = record.units.iter().map(|u| u.directory.as_str()).collect();
        stacks.sort_unstable();
        stacks.dedup();
        stacks.into_iter().map(|s| self.csv_path(s, &record.timestamp)).collect()
    }

    fn make_results_again(&self, record: &RunRecord, path: &Path) -> Result<(), StoreError> {
        let results = self.results_of(record)?;
        let Some((mut csv, _)) = ResultsCsv::reopen(path)? else { return Ok(()) };
        for (_, row) in self.rows_for(record, &results, path) {
            csv.append(&row)?;
        }
        Ok(())
    }

    /// What the units of a run hold now.
    pub(super) fn results_of(&self, record: &RunRecord) -> Result<Vec<UnitResult>, StoreError> {
        let result = |unit: &super::record::RunUnit| {
            Ok(match self.read_unit(&unit.directory, &unit.unit_id)? {
                Stored::Present { result, .. } => *result,
                Stored::Absent | Stored::Damaged(_) => UnitResult::empty(unit.unit_id, unit.deploy_id),
            })
        };
        record.units.iter().map(result).collect()
    }

    pub(super) fn name_in_tree(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// Renames a file that is there to `damaged-{n}-…` beside it.
fn set_aside(path: &Path) -> Result<(), StoreError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    aside::set_file_aside(dir, &name.to_string_lossy(), false)
}

fn consequence(path: &Path) -> &'static str {
    match path.file_name().and_then(|n| n.to_str()) {
        Some("plan.json") => "the run cannot be reported any more; its samples are kept with their units",
        Some("journal.jsonl") => "the run cannot be replayed any more; its results stand",
        _ => "`llmatrix report` makes it again",
    }
}

fn kept(problem: &str) -> &'static str {
    if problem == "is missing" { "" } else { "; what was there is set aside" }
}
