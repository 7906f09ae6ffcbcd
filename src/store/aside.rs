//! What is found in a unit's directory beside committed samples: leftovers of dead processes, which are removed, and what
//! somebody or something damaged, which is set aside under a name that says so and is never removed by a run.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::json::to_json;
use super::record::{SCHEMA, SampleRecord, UnitResult};
use super::seal::{Look, first_problem};
use super::unit::{RESULT_FILE, sample_dir_name};
use super::{StoreError, atomic, read_dir_names};

/// What the names of files that were set aside begin with.
pub(super) const DAMAGED: &str = "damaged-";
/// In a sample's directory from its beginning until it is committed: one that has it and no record was left by a crash.
pub(super) const UNCOMMITTED: &str = ".uncommitted";

/// Samples with a record whose files are not what was committed, with why.
pub(super) fn damaged_samples(dir: &Path, result: &UnitResult, look: Look) -> Vec<(u32, String)> {
    let problem = |s: &SampleRecord| {
        let name = sample_dir_name(s.sample);
        Some((s.sample, format!("{name}/{}", first_problem(&dir.join(&name), &s.files, look)?)))
    };
    result.samples.iter().filter_map(problem).collect()
}

/// What is kept of a sample that is set aside.
#[derive(Serialize)]
struct SetAside<'a> {
    schema: u32,
    reason: &'a str,
    sample: &'a SampleRecord,
}

/// Takes samples out of a result: their records and what is left of their files stay as `damaged-{n}-sample-{k}`. What a
/// kill in between leaves is found damaged again.
pub(super) fn set_samples_aside(
    dir: &Path,
    result: &mut UnitResult,
    damaged: &[(u32, String)],
) -> Result<(), StoreError> {
    for (number, reason) in damaged {
        let Some(sample) = result.sample(*number) else { continue };
        let (name, n) = (sample_dir_name(*number), free_prefix(&read_dir_names(dir)));
        let record = to_json(&SetAside { schema: SCHEMA, reason, sample });
        atomic::write(&dir.join(format!("{DAMAGED}{n}-{name}.json")), &record)?;
        if fs::symlink_metadata(dir.join(&name)).is_ok() {
            set_aside(dir, &name, n)?;
        }
    }
    result.samples.retain(|s| damaged.iter().all(|(number, _)| *number != s.sample));
    atomic::write(&dir.join(RESULT_FILE), &to_json(&*result))
}

/// Renames a file and everything that it alone vouched for to `damaged-{n}-…` with one `n`.
pub(super) fn set_file_aside(dir: &Path, file: &str, with_samples: bool) -> Result<(), StoreError> {
    let names = read_dir_names(dir);
    let n = free_prefix(&names);
    for name in names.iter().filter(|name| *name == file || (with_samples && sample_number(name).is_some())) {
        set_aside(dir, name, n)?;
    }
    Ok(())
}

/// Removes what dead processes left: temporary files, and the directory of a sample that was never committed.
pub(super) fn remove_leftovers(dir: &Path, result: &UnitResult) -> Result<(), StoreError> {
    for name in read_dir_names(dir) {
        let path = dir.join(&name);
        if name.starts_with(atomic::TEMP) {
            atomic::remove(&path)?;
        } else if let Some(number) = sample_number(&name) {
            let mark = path.join(UNCOMMITTED);
            if result.sample(number).is_some() {
                atomic::remove(&mark)?;
            } else if fs::symlink_metadata(&mark).is_ok() {
                atomic::remove(&path)?;
            }
        }
    }
    Ok(())
}

/// Sets the directories of samples aside that were committed once and have no record; gives the reasons.
pub(super) fn set_orphans_aside(dir: &Path, result: &UnitResult) -> Result<Vec<String>, StoreError> {
    let mut reasons = Vec::new();
    let mut names = read_dir_names(dir);
    names.sort();
    for name in names {
        if sample_number(&name).is_some_and(|number| result.sample(number).is_none()) {
            set_aside(dir, &name, free_prefix(&read_dir_names(dir)))?;
            reasons.push(format!("{name} has no record in {RESULT_FILE}"));
        }
    }
    Ok(reasons)
}

fn set_aside(dir: &Path, name: &str, n: u32) -> Result<(), StoreError> {
    atomic::rename(&dir.join(name), &dir.join(format!("{DAMAGED}{n}-{name}")))
}

/// The first `n` for which no `damaged-{n}-…` is there.
fn free_prefix(names: &[String]) -> u32 {
    (1u32..)
        .find(|n| !names.iter().any(|name| name.starts_with(&format!("{DAMAGED}{n}-"))))
        .expect("a directory has fewer names than u32 has values")
}

fn sample_number(name: &str) -> Option<u32> {
    name.strip_prefix("sample-")?.parse().ok()
}

/// The number of a sample's directory, set aside or not, or of a record that is.
fn number_in_use(name: &str) -> Option<u32> {
    let name = match name.strip_prefix(DAMAGED) {
        Some(rest) => rest.split_once('-')?.1,
        None => name,
    };
    sample_number(name.strip_suffix(".json").unwrap_or(name))
}

/// One more than any number that was ever used here, as far as can be seen.
pub(super) fn next_number(dir: &Path, result: &UnitResult) -> u32 {
    let seen = read_dir_names(dir).iter().filter_map(|n| number_in_use(n)).max().unwrap_or(0);
    seen.max(result.last_sample()).saturating_add(1)
}
