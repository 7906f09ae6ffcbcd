//! Several runs on one artifacts directory: they share the work, none waits for another's other units, none measures what
//! another has.

use std::collections::BTreeSet;
use std::process::Child;

use crate::tree::Bench;

/// Starts so many runs at once and waits for all; each must end well.
fn crowd(bench: &Bench, runs: usize) {
    let started: Vec<Child> = (0..runs).map(|_| bench.run().spawn().expect("the binary starts")).collect();
    for run in started {
        let output = run.wait_with_output().expect("it has ended");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    bench.assert_whole();
    // Each sample in the tree says who measured it: nobody did anything twice, as `assert_whole` counted, and every run
    // knows what it stands on.
    let plans: Vec<serde_json::Value> = crate::tree::files(&bench.artifacts().join("runs"))
        .into_iter()
        .filter(|p| p.ends_with("plan.json"))
        .map(|p| serde_json::from_slice(&std::fs::read(p).expect("a plan")).expect("JSON"))
        .collect();
    assert_eq!(plans.len(), runs);
    for plan in &plans {
        let outcomes: BTreeSet<&str> = plan["units"]
            .as_array()
            .expect("units")
            .iter()
            .map(|u| u["outcome"]["as"].as_str().expect("a word"))
            .collect();
        assert!(outcomes.is_subset(&BTreeSet::from(["measured", "cached"])), "{outcomes:?}");
        let samples =
            plan["units"].as_array().expect("units").iter().map(|u| u["samples"].as_array().expect("a list").len());
        assert!(samples.min() >= Some(1), "{} stands on less than it should", plan["run"]);
    }
}

/// A host that is busy with other things disturbs samples; these are taken again and do not count, so that what is told
/// here does not depend on the host.
const POLICY: &str = "attempts = 20";

#[test]
fn eight_runs_share_sixty_four_units() {
    crowd(&Bench::new(32, 1, 300, POLICY), 8);
}

#[test]
fn two_runs_share_the_work() {
    crowd(&Bench::new(4, 3, 5_000, POLICY), 2);
}
