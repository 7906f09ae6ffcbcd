//! A wall clock that jumps by a year, forwards or backwards, in the middle of a run: nothing is timed with it.

use serde_json::Value;

use crate::shim::{self, Trouble};
use crate::tree::Bench;

const YEAR: i64 = 365 * 24 * 3600;

#[test]
fn a_clock_that_jumps_a_year_changes_nothing_but_stamps() {
    for seconds in [YEAR, -YEAR] {
        let bench = Bench::new(2, 1, 300, "attempts = 5");
        let mut run = bench.run();
        shim::before(&mut run, &bench.artifacts());
        // In the middle of the samples.
        shim::with_trouble(&mut run, Trouble::Clock { at: 60, seconds });
        let output = run.output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        bench.assert_whole();
        let samples = bench.samples();
        let year =
            |record: &Value| record["finished_at"].as_str().expect("a stamp")[..4].parse::<i64>().expect("a year");
        let years: Vec<i64> = samples.values().map(|s| year(&s.record)).collect();
        assert!(years.iter().max() > years.iter().min(), "the jump came in between: {years:?}");
        for sample in samples.values() {
            let seconds = sample.record["seconds"].as_f64().expect("a length");
            assert!((0.0..60.0).contains(&seconds), "a sample was timed with the wall clock: {seconds} s");
        }
        // The next run, by the true clock: everything is cached, whatever its stamps say.
        let said = bench.complete();
        assert!(said.contains("every unit is cached"), "{said}");
        assert_eq!(bench.samples(), samples);
    }
}

/// `--max-age` goes by the wall clock, and a sample from the future is young.
#[test]
fn an_age_is_all_that_a_clock_decides() {
    let bench = Bench::new(1, 1, 300, "attempts = 5");
    let mut run = bench.run();
    shim::before(&mut run, &bench.artifacts());
    shim::with_trouble(&mut run, Trouble::Clock { at: 0, seconds: -YEAR });
    assert!(run.output().expect("the binary runs").status.success());
    let plan = |args: &[&str]| {
        let output = bench.command(args).output().expect("the binary runs");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["summary"].clone()
    };
    assert_eq!(plan(&["plan", "--json", "e.toml"])["cached"], 2);
    assert_eq!(plan(&["plan", "--json", "--max-age", "20h", "e.toml"])["expired"], 2);
    assert_eq!(plan(&["plan", "--json", "--max-age", "9000h", "e.toml"])["cached"], 2);
}
