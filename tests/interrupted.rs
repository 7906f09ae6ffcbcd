//! Runs that end before their time: `kill -9`, Ctrl-C, SIGTERM. What was committed stays as it is, the next run measures
//! the rest, and nothing has to be repaired by hand.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use support::{Sandbox, rows, text};

/// Twelve units in two deployments, two samples each, long enough to be caught in the middle of one.
const EXPERIMENT: &str = r#"name = "long"
[defaults]
requests = 6
engine_args = { ttft = "5ms", itl = "2ms" }
[[matrix]]
method = "sim"
model = "org/m"
engine = ["vllm", "trtllm"]
tokens = { input = 8, output = 8 }
concurrency = [1, 2]
seed = [1, 2, 3]
[run]
repeats = 2
"#;

const UNITS: usize = 12;
const SAMPLES: usize = 24;

fn start(s: &Sandbox) -> Child {
    if !s.exists("long.toml") {
        s.write("long.toml", EXPERIMENT);
    }
    let mut command = s.command(["run", "long.toml"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn journal_of_first_run(s: &Sandbox) -> Option<PathBuf> {
    let run = s.runs("artifacts").into_iter().next()?;
    Some(s.path(&format!("artifacts/runs/{run}/journal.jsonl")))
}

fn events(journal: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

fn finished(events: &[Json]) -> usize {
    events.iter().filter(|e| e["event"] == "sample_finished").count()
}

/// Looks at the journal until so many samples are committed and another one has started. The deadline only ends a test
/// that would hang; nothing is concluded from how long it took.
fn wait_for_samples(s: &Sandbox, child: &mut Child, wanted: usize) {
    for _ in 0..30_000 {
        let events = journal_of_first_run(s).map(|j| events(&j)).unwrap_or_default();
        let running = events.last().is_some_and(|e| e["event"] == "sample_started");
        if finished(&events) >= wanted && running {
            return;
        }
        assert_eq!(child.try_wait().expect("it can be asked"), None, "the run ended before {wanted} samples");
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("no {wanted} samples");
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the child is alive");
}

/// The samples of every unit as they stand in its `result.json`, and the bytes of their files.
fn committed(s: &Sandbox) -> BTreeMap<String, Vec<Json>> {
    let results = s.results("artifacts");
    results
        .into_iter()
        .map(|(path, bytes)| {
            let result: Json = serde_json::from_slice(&bytes).expect("result.json is whole at any instant");
            (path, result["samples"].as_array().unwrap().clone())
        })
        .collect()
}

fn sample_files(s: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    // The mark of a sample in the making goes after its commit, which a kill may come between.
    let files = s.tree("artifacts").into_iter().filter(|f| f.contains("/sample-") && !f.ends_with("/.uncommitted"));
    files.map(|f| (f.clone(), std::fs::read(s.path("artifacts").join(f)).unwrap())).collect()
}

/// Everything that has to hold when a second run has completed a first one.
fn check_whole(s: &Sandbox, before: &BTreeMap<String, Vec<Json>>, files: &BTreeMap<String, Vec<u8>>) {
    let after = committed(s);
    assert_eq!(after.len(), UNITS);
    for (path, samples) in before {
        assert_eq!(after[path][..samples.len()], samples[..], "{path}: a committed sample changed");
    }
    let files_after = sample_files(s);
    let kept = |path: &str| {
        before.iter().any(|(unit, samples)| {
            let dir = unit.strip_suffix("result.json").unwrap();
            samples.iter().any(|x| path.starts_with(&format!("{dir}sample-{}/", x["sample"])))
        })
    };
    for (path, bytes) in files.iter().filter(|(p, _)| kept(p)) {
        assert_eq!(files_after.get(path), Some(bytes), "{path} changed");
    }
    for (path, samples) in &after {
        let numbers: Vec<u64> = samples.iter().map(|x| x["sample"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2], "{path}");
        assert!(samples.iter().all(|x| x["valid"] == true), "{path}");
    }
    assert!(s.tree("artifacts").iter().all(|f| !f.split('/').any(|part| part.starts_with(".tmp"))), "leftovers");
    check_rows(s, &after);
    s.plan("long.toml").all("cached", "after the second run");
}

/// One row per sample over the results files of both runs: the dead run's file was completed.
fn check_rows(s: &Sandbox, units: &BTreeMap<String, Vec<Json>>) {
    let mut found = BTreeSet::new();
    for file in s.tree("artifacts").into_iter().filter(|f| f.contains("/benchmark_")) {
        for row in rows(&s.path("artifacts").join(&file)) {
            assert!(
                found.insert((row["unit_id"][..16].to_string(), row["sample"].clone(), row["run"].clone())),
                "{row:?}"
            );
        }
    }
    let mut expected = BTreeSet::new();
    for (path, samples) in units {
        let unit = path.split('/').rev().nth(1).unwrap();
        expected.extend(samples.iter().map(|x| (unit.to_string(), x["sample"].to_string(), text(&x["run"]))));
    }
    assert_eq!(found, expected);
    assert_eq!(expected.len(), SAMPLES);
}

fn plan_json(s: &Sandbox, run: &str) -> Json {
    serde_json::from_str(&s.read(&format!("artifacts/runs/{run}/plan.json"))).unwrap()
}

#[test]
fn a_killed_run_loses_only_the_sample_it_was_measuring() {
    // Early, in the middle of a round, near the end of the first deployment.
    for wanted in [1, 5, 11] {
        let s = Sandbox::new();
        let mut child = start(&s);
        wait_for_samples(&s, &mut child, wanted);
        signal(&child, Signal::KILL);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let (before, files) = (committed(&s), sample_files(&s));
        let kept: usize = before.values().map(Vec::len).sum();
        assert!(kept >= wanted && kept < SAMPLES, "{kept}");
        let dead = s.runs("artifacts")[0].clone();
        assert_eq!(plan_json(&s, &dead)["finished_at"], Json::Null);

        // Planning looks and repairs nothing; what is committed counts.
        let plan = s.plan("long.toml");
        let cached = before.values().filter(|samples| samples.len() == 2).count();
        assert_eq!(plan.with("cached").len(), cached);

        let done = s.run("run long.toml").success();
        let says = format!("run {dead} was killed: its {kept} samples are kept");
        assert!(done.stderr.contains(&says) || kept == 1, "{says}\n{}", done.stderr);
        assert!(done.stderr.contains(&format!("{} samples to measure", SAMPLES - kept)), "{}", done.stderr);
        check_whole(&s, &before, &files);
        let record = plan_json(&s, &dead);
        assert_eq!(record["died"], true);
        assert_ne!(record["finished_at"], Json::Null);
        s.run(&format!("report {dead}")).success();
    }
}

#[test]
fn killed_again_and_again_a_run_still_comes_to_its_end() {
    let s = Sandbox::new();
    let mut kept = 0;
    for round in 0..4 {
        let mut child = start(&s);
        // Until this very process has committed something.
        for _ in 0..30_000 {
            let now: usize = committed(&s).values().map(Vec::len).sum();
            if now > kept + 1 {
                break;
            }
            assert_eq!(child.try_wait().unwrap(), None, "round {round}");
            std::thread::sleep(Duration::from_millis(2));
        }
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        let now: usize = committed(&s).values().map(Vec::len).sum();
        assert!(now > kept, "every round got on");
        kept = now;
    }
    let (before, files) = (committed(&s), sample_files(&s));
    s.run("run long.toml").success();
    check_whole(&s, &before, &files);
    let died = s.runs("artifacts").iter().filter(|r| plan_json(&s, r)["died"] == true).count();
    assert_eq!(died, 4);
}

#[test]
fn an_interrupt_ends_in_good_order_and_the_next_run_goes_on() {
    for which in [Signal::INT, Signal::TERM] {
        let s = Sandbox::new();
        let mut child = start(&s);
        wait_for_samples(&s, &mut child, 3);
        signal(&child, which);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("exit code 130"), "{stderr}");

        let run = s.runs("artifacts")[0].clone();
        let record = plan_json(&s, &run);
        assert_eq!((&record["exit_code"], &record["died"]), (&Json::from(130), &Json::from(false)));
        assert_ne!(record["finished_at"], Json::Null);
        let outcomes: BTreeSet<String> =
            record["units"].as_array().unwrap().iter().map(|u| text(&u["outcome"]["as"])).collect();
        assert!(outcomes.contains("not_run"), "{outcomes:?}");
        let events = events(&journal_of_first_run(&s).unwrap());
        assert_eq!(events.last().unwrap()["event"], "run_finished");
        assert_eq!(events.last().unwrap()["exit_code"], 130);
        for file in ["summary.md", "report.html", "junit.xml"] {
            assert!(s.exists(&format!("artifacts/runs/{run}/{file}")), "{file}");
        }
        // Nothing half-written, nothing to recover.
        let (before, files) = (committed(&s), sample_files(&s));
        assert_eq!(
            files.keys().filter(|f| f.ends_with("requests.csv")).count(),
            before.values().map(Vec::len).sum::<usize>()
        );
        let done = s.run("run long.toml").success();
        assert!(!done.stderr.contains("was killed"), "{}", done.stderr);
        check_whole(&s, &before, &files);
    }
}

/// The signal comes when the first file is done and the second is not begun, or just begun: it ends the whole command.
#[test]
fn an_interrupt_between_two_files_is_heard() {
    let s = Sandbox::new();
    let short = EXPERIMENT.replace("seed = [1, 2, 3]", "seed = 1").replace("repeats = 2", "repeats = 1");
    s.write("a.toml", short.replace("\"long\"", "\"first\""));
    s.write("b.toml", EXPERIMENT.replace("\"long\"", "\"second\""));
    let mut command = s.command(["run", "a.toml", "b.toml"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // The first file's last summary: what comes next is the second file.
    let ended =
        |s: &Sandbox| s.runs("artifacts").first().is_some_and(|r| s.exists(&format!("artifacts/runs/{r}/junit.xml")));
    for _ in 0..30_000 {
        if ended(&s) {
            break;
        }
        assert_eq!(child.try_wait().expect("it can be asked"), None, "it ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        committed(&s).values().map(Vec::len).sum::<usize>() < 4 + SAMPLES,
        "the second file was not run to its end"
    );
}

#[test]
fn two_runs_at_once_share_the_work() {
    let s = Sandbox::new();
    let (first, second) = (start(&s), start(&s));
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    check_whole(&s, &BTreeMap::new(), &BTreeMap::new());
    let runs = s.runs("artifacts");
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in &runs {
        let record = plan_json(&s, run);
        assert_eq!(record["exit_code"], 0);
        let units = record["units"].as_array().unwrap();
        assert!(units.iter().all(|u| u["samples"].as_array().unwrap().len() == 2), "each run knows what it stands on");
    }
}

#[test]
fn one_dies_while_another_goes_on() {
    let s = Sandbox::new();
    let mut first = start(&s);
    wait_for_samples(&s, &mut first, 2);
    let second = start(&s);
    signal(&first, Signal::KILL);
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    s.run("run long.toml").success();
    check_whole(&s, &BTreeMap::new(), &BTreeMap::new());
}
