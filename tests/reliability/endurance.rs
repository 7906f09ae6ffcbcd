//! Long runs: memory does not grow with what has been measured, and neither does a journal beyond a few lines for each
//! sample.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::tree::Bench;
use crate::{scale, tell};

/// Kilobytes of a process.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn journal(bench: &Bench) -> Option<PathBuf> {
    let run = fs::read_dir(bench.artifacts().join("runs")).ok()?.next()?.ok()?;
    Some(run.path().join("journal.jsonl"))
}

#[test]
fn memory_is_flat_and_the_journal_is_bounded() {
    let units = scale("UNITS", 64).max(20) as usize;
    let bench = Bench::new(units / 2, 1, 100, "attempts = 5\nmax_units = 1000000");
    let mut run = bench.start();
    // Committed samples and what the process then needs.
    let mut seen: Vec<(u64, u64)> = Vec::new();
    while run.try_wait().expect("it can be asked").is_none() {
        let lines = journal(&bench).and_then(|j| fs::read_to_string(j).ok()).unwrap_or_default();
        let done = lines.matches("\"event\":\"sample_finished\"").count() as u64;
        if let Some(kilobytes) = resident(run.id()) {
            seen.push((done, kilobytes));
        }
        std::thread::sleep(Duration::from_millis(50 + units as u64 / 20));
    }
    assert!(run.wait().expect("it has ended").success());
    bench.assert_whole();
    let fifth = seen.iter().find(|(done, _)| *done >= units as u64 / 5).expect("a look at the run").1;
    let most = seen.iter().map(|(_, kb)| *kb).max().expect("a look at the run");
    let growth = most.saturating_sub(fifth);
    let bytes = fs::metadata(journal(&bench).expect("a journal")).expect("a journal").len();
    tell(&format!(
        "{units} units: {:.1} MB after a fifth of them, {:.1} MB at most; {} bytes of journal per unit",
        fifth as f64 / 1e3,
        most as f64 / 1e3,
        bytes / units as u64
    ));
    // What is kept of a unit is its outcome; anything that holds on to samples would show.
    assert!(growth < 24_000 + 2 * units as u64, "it grew by {growth} kB from a fifth of the units on");
    assert!(bytes < 4096 * units as u64, "{bytes} bytes of journal");
}
