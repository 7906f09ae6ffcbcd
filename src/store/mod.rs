//! Everything that is written under `artifacts/`: units with their samples, the tidy CSV of each run, journals and locks.
//! The tree is the database; there is no index beside it. Safe at any instant: a file that others trust appears whole
//! under its name or not at all, and what a killed process leaves behind is recognised by a lock that died with it.
//!
//! ```text
//! {root}/{model}_{method}_{engine}/benchmark_…_{timestamp}.csv
//! {root}/{model}_{method}_{engine}/units/{unit_id:16}/{unit.json, result.json, sample-{n}/}
//! {root}/runs/{timestamp}-{experiment}/{plan.json, journal.jsonl, seal.json, …}
//! {root}/baselines/{name}.json
//! {root}/.locks/{unit_id:16}, {root}/.locks/run-{timestamp}-{experiment}
//! ```
//!
//! The root is the artifacts directory, and `simulated/` in it for simulated runs.

mod aside;
mod atomic;
pub mod baselines;
mod catalog;
pub mod csv_file;
pub mod gc;
pub mod journal;
mod json;
pub mod lock;
mod place;
pub mod record;
pub mod recover;
pub mod row;
mod row_telemetry;
pub mod run_dir;
mod run_seal;
pub mod seal;
pub mod unit;
pub mod verify;

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::UnitId;

pub use lock::{Lock, TryLock};
pub use run_dir::{RunDir, RunOver};
pub use unit::{Lookup, Reservation, SampleDraft, Stored, sample_dir_name};

/// Name of the directory of simulated results inside the artifacts.
pub const SIMULATED: &str = "simulated";
const RUNS: &str = "runs";
const LOCKS: &str = ".locks";
const UNITS: &str = "units";

/// Why the artifacts could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has schema {found}; this llmatrix reads up to {known}. Use the newer llmatrix that wrote it", .path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("cannot read {}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error(
        "{} is a symbolic link, and nothing in artifacts is written through one. Put a directory in its place, or give \
         `--artifacts` the place it leads to",
        .path.display()
    )]
    Link { path: PathBuf },
    #[error("no free name for a run at {timestamp} in {}: {tried} seconds in a row are taken", .root.display())]
    NoFreeName { root: PathBuf, timestamp: String, tried: u32 },
}

impl StoreError {
    /// For `map_err`: what was being done, to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io { action, path, source }
    }
}

/// An artifact tree.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    simulated: bool,
    durable: place::Durable,
}

impl Store {
    /// Opens the tree of real or of simulated results in an artifacts directory. Nothing is created until something is
    /// written.
    pub fn open(artifacts: impl Into<PathBuf>, simulated: bool) -> Store {
        let artifacts = artifacts.into();
        let root = if simulated { artifacts.join(SIMULATED) } else { artifacts };
        Store { root, simulated, durable: place::Durable::default() }
    }

    /// Where this tree begins.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// `{root}/runs`.
    pub fn runs_dir(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// The directory of a stack, `{root}/{model}_{method}_{engine}`.
    pub fn stack_dir(&self, directory: &str) -> PathBuf {
        self.root.join(directory)
    }

    /// The directory of a unit.
    pub fn unit_dir(&self, directory: &str, unit_id: &UnitId) -> PathBuf {
        self.stack_dir(directory).join(UNITS).join(unit_id.short(16))
    }

    fn locks_dir(&self) -> PathBuf {
        self.root.join(LOCKS)
    }

    fn unit_lock_path(&self, unit_id: &UnitId) -> PathBuf {
        self.locks_dir().join(unit_id.short(16))
    }

    fn run_lock_path(&self, run: &str) -> PathBuf {
        self.locks_dir().join(format!("run-{run}"))
    }

    /// Directories of stacks in the tree, sorted by name.
    pub fn stacks(&self) -> Vec<String> {
        let mut names: Vec<String> = read_dir_names(&self.root)
            .into_iter()
            .filter(|n| n != RUNS && n != SIMULATED && !n.starts_with('.'))
            .filter(|n| self.root.join(n).join(UNITS).is_dir())
            .collect();
        names.sort();
        names
    }
}

/// Names in a directory that are UTF-8; none when it cannot be read, which is what an absent directory means here.
fn read_dir_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
pub(crate) mod tests;
