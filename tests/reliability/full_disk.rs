//! Disks that are full, that fail, that may not be written to: a run ends by itself and says why; what was committed stays;
//! the next run on a good disk goes on.

use crate::shim::{self, Trouble};
use crate::tree::{Bench, assert_kept};
use crate::{Dice, scale, tell};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;
const EACCES: i32 = 13;

/// Every later change, too.
const FOR_EVER: u64 = 1 << 40;

fn sweep() -> Bench {
    Bench::new(2, 1, 300, "attempts = 1")
}

/// A run with trouble, then one without. Gives the first one's exit code and what it said.
fn troubled(trouble: Trouble) -> (Option<i32>, String) {
    let bench = sweep();
    let mut run = bench.run();
    shim::before(&mut run, &bench.artifacts());
    shim::with_trouble(&mut run, trouble);
    let output = run.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("internal error") && !said.contains("panicked"), "{trouble:?}: {said}");
    let before = bench.samples();
    bench.complete();
    assert_kept(&before, &bench.samples());
    bench.assert_whole();
    (output.status.code(), said)
}

/// Changes spread over a sweep.
fn points(salt: u64, each: u64) -> Vec<u64> {
    let mut dice = Dice::new(salt);
    let n = scale("POINTS", 120).div_ceil(each);
    (0..n).map(|i| 1 + i * 110 / n + dice.below(110 / n.min(110) + 1)).collect()
}

#[test]
fn a_disk_that_is_full_ends_the_run_and_loses_nothing() {
    let points = points(4, 30);
    for at in &points {
        let (code, said) = troubled(Trouble::Fail { at: *at, errno: ENOSPC, count: FOR_EVER });
        assert!(matches!(code, Some(0 | 5 | 7)), "from change {at} on: {code:?}\n{said}");
        if code != Some(0) {
            assert!(said.contains("No space left on device"), "from change {at} on: {said}");
        }
    }
    tell(&format!("full from {} points on: 0 committed samples lost", points.len()));
}

#[test]
fn a_single_failed_write_costs_one_sample_at_most() {
    for at in points(5, 30) {
        let (code, said) = troubled(Trouble::Fail { at, errno: EIO, count: 1 });
        assert!(matches!(code, Some(0 | 5 | 7)), "at change {at}: {code:?}\n{said}");
        if code != Some(0) {
            assert!(said.contains("Input/output error"), "at change {at}: {said}");
        }
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_an_environment_failure() {
    for (errno, words) in [(EROFS, "Read-only file system"), (EACCES, "Permission denied")] {
        let (code, said) = troubled(Trouble::Fail { at: 1, errno, count: FOR_EVER });
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains(words) && said.contains("artifacts"), "{said}");
    }
}
