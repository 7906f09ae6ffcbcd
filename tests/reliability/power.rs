//! Power failures: a sweep is recorded change by change; at each change, what a disk may then hold is put in place, and the
//! next start must find every sample that was reported, whole, and make the rest as good as new. A kill of the process alone
//! is the case in which the disk forgets nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use llmatrix::store::Store;
use serde_json::Value;

use crate::disk::{Change, Disk, Memory, read_log};
use crate::shim::{self, Trouble};
use crate::tree::{Bench, Committed, Samples, assert_kept, assert_tree, samples};
use crate::{Dice, scale, tell};

/// Four units with two samples each, so that results are replaced as well as made.
fn sweep() -> Bench {
    Bench::new(2, 2, 300, "attempts = 5")
}

/// Runs a sweep and gives every change that it made.
fn record(bench: &Bench) -> Vec<Change> {
    let log = bench.path().join("changes");
    let mut run = bench.run();
    shim::before(&mut run, &bench.artifacts());
    shim::with_log(&mut run, &log);
    let output = run.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let changes = read_log(&fs::read(log).expect("the log is there"));
    assert!(changes.len() > 100, "the shim saw {} changes", changes.len());
    changes
}

/// A directory in memory where there is one: images are many and short-lived.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("llmatrix-power-").tempdir_in(dir).expect("a directory")
}

/// Unit and number of each sample that a write to the journal reports.
fn reported(change: &Change) -> Vec<(String, u64)> {
    let Change::Write { bytes, path, .. } = change else { return Vec::new() };
    if !path.ends_with("journal.jsonl") {
        return Vec::new();
    }
    let lines = std::str::from_utf8(bytes).expect("a journal is text").lines();
    let events = lines.filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let finished = events.filter(|e| e["event"] == "sample_finished");
    finished.map(|e| (e["unit_id"].as_str().expect("an id").into(), e["sample"].as_u64().expect("a number"))).collect()
}

/// The samples as the sweep left them, which no later change of it touched.
fn expected(all: &Samples, reported: &[(String, u64)]) -> Samples {
    reported.iter().map(|key| (key.clone(), all[key].clone())).collect()
}

/// What the next start does about the artifacts before it measures anything, and what must then hold.
fn check(artifacts: &Path, promised: &Samples, context: &str) {
    let store = Store::open(artifacts, false);
    let recovered = store.recover().unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(recovered.iter().all(|r| r.problem.is_none()), "{context}: {recovered:?}");
    let said = store.inspect_runs().unwrap_or_else(|e| panic!("{context}: {e}"));
    assert_eq!(said, Vec::<String>::new(), "{context}: nobody damaged anything");
    let now: Samples = samples(artifacts);
    for (key, sample) in promised {
        let found: Option<&Committed> = now.get(key);
        assert_eq!(found, Some(sample), "{context}: {key:?} was reported, and is lost or changed");
    }
    assert_eq!(store.verify().expect("it can be read").problems, [], "{context}");
    assert_tree(artifacts);
}

#[test]
fn no_power_failure_takes_a_reported_sample() {
    let bench = sweep();
    let changes = record(&bench);
    let all = bench.samples();
    let points = scale("POINTS", 120).min(changes.len() as u64 + 1).max(1);
    let mut dice = Dice::new(1);
    // Points spread over the whole, at a place of their own in each stretch.
    let stretch = (changes.len() as u64 + 1) as f64 / points as f64;
    let chosen: Vec<usize> =
        (0..points).map(|i| ((i as f64 + dice.below(1000) as f64 / 1000.0) * stretch) as usize).collect();
    let (mut disk, mut done, mut promised, mut images) = (Disk::new(&bench.artifacts()), Vec::new(), Samples::new(), 0);
    for at in 0..=changes.len() {
        for _ in chosen.iter().filter(|c| **c == at) {
            for memory in Memory::ANY {
                let dir = scratch();
                let artifacts = dir.path().join("artifacts");
                fs::create_dir(&artifacts).expect("a directory");
                disk.write_image(memory, &mut dice, &artifacts);
                check(&artifacts, &promised, &format!("after change {at} of {}, {memory:?}", changes.len()));
                images += 1;
            }
        }
        let Some(change) = changes.get(at) else { break };
        disk.apply(change);
        done.extend(reported(change));
        promised = expected(&all, &done);
    }
    assert_eq!(promised.len(), all.len(), "every sample is reported");
    tell(&format!(
        "{images} disks after power failures at {points} of {} changes: 0 reported samples lost",
        changes.len()
    ));
}

/// The model of the disk against the machine: a process that is really killed before a change leaves what the model says.
#[test]
fn a_kill_at_a_write_leaves_what_the_model_says_and_the_next_run_goes_on() {
    let mut dice = Dice::new(2);
    for _ in 0..scale("POINTS", 120).div_ceil(30) {
        let bench = sweep();
        let log = bench.path().join("changes");
        let mut run = bench.run();
        shim::before(&mut run, &bench.artifacts());
        shim::with_log(&mut run, &log);
        shim::with_trouble(&mut run, Trouble::Kill { at: 1 + dice.below(200) });
        let output = run.output().expect("the binary runs");
        if output.status.success() {
            continue;
        }
        let mut disk = Disk::new(&bench.artifacts());
        read_log(&fs::read(&log).unwrap_or_default()).iter().for_each(|c| disk.apply(c));
        let dir = scratch();
        disk.write_image(Memory::All, &mut dice, dir.path());
        assert_eq!(contents(dir.path()), contents(&bench.artifacts()));
        let before = bench.samples();
        bench.complete();
        assert_kept(&before, &bench.samples());
        bench.assert_whole();
    }
}

/// The binary itself goes on after power failures.
#[test]
fn the_next_run_goes_on_after_a_power_failure() {
    let bench = sweep();
    let changes = record(&bench);
    let all = bench.samples();
    let mut dice = Dice::new(3);
    for memory in [Memory::Synced, Memory::Some] {
        let cut = dice.below(changes.len() as u64) as usize;
        let mut disk = Disk::new(&bench.artifacts());
        changes[..cut].iter().for_each(|c| disk.apply(c));
        let promised = expected(&all, &changes[..cut].iter().flat_map(reported).collect::<Vec<_>>());
        fs::remove_dir_all(bench.artifacts()).expect("it was there");
        fs::create_dir(bench.artifacts()).expect("a directory");
        disk.write_image(memory, &mut dice, &bench.artifacts());
        bench.complete();
        assert_kept(&promised, &bench.samples());
        bench.assert_whole();
    }
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = crate::tree::files(dir).into_iter();
    files.map(|p| (p.strip_prefix(dir).expect("below").to_path_buf(), fs::read(&p).expect("a file"))).collect()
}
