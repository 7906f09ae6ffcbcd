//! A small sweep from an empty directory to its artifacts, and again.

mod support;

use std::collections::BTreeSet;

use serde_json::Value as Json;
use support::{COLUMNS, FAST, Sandbox, canonical, rows, text};

fn experiment() -> String {
    format!(
        r#"name = "first"
description = "two models on two engines"
tags = ["nightly"]
[defaults]
requests = 3
{FAST}
[[matrix]]
method = "sim"
model = ["org/Model-8B", "Plain"]
engine = ["vllm", "trtllm"]
tokens = [{{ input = 8, output = 4 }}, {{ input = 32, output = 2 }}]
concurrency = [1, 2]
[run]
repeats = 2
"#
    )
}

/// The files of the artifacts as the contract has them, made from the plan alone.
fn promised(plan: &support::Plan, repeats: usize, timestamp: &str) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for unit in plan.units() {
        let cell = &unit["cell"];
        let model = text(&cell["model"]).replace('/', "--");
        let stack = format!("{model}_{}_{}", text(&cell["method"]), text(&cell["engine"]));
        let dir = format!("{stack}/units/{}", &text(&unit["unit_id"])[..16]);
        files.insert(format!("{stack}/benchmark_{stack}_{timestamp}.csv"));
        files.extend(["unit.json", "result.json"].map(|f| format!("{dir}/{f}")));
        for n in 1..=repeats {
            files.extend(["requests.csv", "engine.log"].map(|f| format!("{dir}/sample-{n}/{f}")));
        }
    }
    let run = format!("runs/{timestamp}-first");
    files.extend(
        ["plan.json", "journal.jsonl", "summary.md", "report.html", "junit.xml", "seal.json"]
            .map(|f| format!("{run}/{f}")),
    );
    files
}

fn without_telemetry(tree: BTreeSet<String>) -> BTreeSet<String> {
    tree.into_iter().filter(|f| !f.ends_with("/telemetry.csv")).collect()
}

#[test]
fn a_sweep_leaves_exactly_the_promised_files_and_a_second_run_measures_nothing() {
    let s = Sandbox::new();
    s.write("experiments/first.toml", experiment());
    let plan = s.plan("experiments/first.toml");
    plan.all("new", "before anything ran");
    assert_eq!((plan.ids().len(), plan.deploy_ids().len()), (16, 4));
    assert!(!s.exists("artifacts"), "planning creates nothing");

    let done = s.run("run experiments/first.toml").success();
    assert!(done.stdout.contains("org/Model-8B") && done.stdout.contains("measured"), "{}", done.stdout);
    let runs = s.runs("artifacts");
    let timestamp = runs[0].strip_suffix("-first").expect("runs are named after the experiment");
    assert!(is_timestamp(timestamp), "{timestamp}");
    assert_eq!(without_telemetry(s.tree("artifacts")), promised(&plan, 2, timestamp));
    check_units(&s, &plan);
    check_rows(&s, &plan, &runs[0], timestamp);
    check_run(&s, &plan, &runs[0]);

    let before = s.results("artifacts");
    s.plan("experiments/first.toml").all("cached", "after the run");
    let again = s.run("run experiments/first.toml").success().says(&["16 cached", "nothing was measured"]);
    assert_eq!(again.stdout, "");
    assert_eq!(s.results("artifacts"), before);
    let second = s.runs("artifacts")[1].clone();
    let mut expected = promised(&plan, 2, timestamp);
    expected.extend(
        ["plan.json", "journal.jsonl", "summary.md", "report.html", "junit.xml", "seal.json"]
            .map(|f| format!("runs/{second}/{f}")),
    );
    assert_eq!(without_telemetry(s.tree("artifacts")), expected, "no CSV without rows");
    let record = json(&s, &format!("artifacts/runs/{second}/plan.json"));
    assert_eq!(record["counts"]["cached"], 16);
    assert!(record["units"].as_array().unwrap().iter().all(|u| u["samples"] == serde_json::json!([1, 2])), "{record}");
}

fn is_timestamp(text: &str) -> bool {
    text.len() == 16
        && text.chars().enumerate().all(|(i, c)| match i {
            8 => c == 'T',
            15 => c == 'Z',
            _ => c.is_ascii_digit(),
        })
}

fn json(s: &Sandbox, path: &str) -> Json {
    serde_json::from_str(&s.read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Ids can be made again from the documents, and results hold what was asked for.
fn check_units(s: &Sandbox, plan: &support::Plan) {
    let mut found = BTreeSet::new();
    for file in s.tree("artifacts").into_iter().filter(|f| f.ends_with("/unit.json")) {
        let unit = json(s, &format!("artifacts/{file}"));
        let id = text(&unit["unit_id"]);
        assert_eq!(unit["schema"], 2);
        assert_eq!(canonical::unit_id(&unit["unit"]), id, "{file}");
        assert_eq!(canonical::deploy_id(&unit["deploy"]), text(&unit["deploy_id"]), "{file}");
        assert_eq!(unit["unit"]["deploy"], unit["deploy_id"]);
        assert_eq!(unit["simulated"], false);
        let result = json(s, &format!("artifacts/{}", file.replace("unit.json", "result.json")));
        assert_eq!((&result["schema"], &result["unit_id"]), (&Json::from(2), &unit["unit_id"]));
        assert_eq!(result["attempts"], serde_json::json!([]));
        let samples = result["samples"].as_array().unwrap();
        let numbers: Vec<&Json> = samples.iter().map(|x| &x["sample"]).collect();
        assert_eq!(numbers, [&Json::from(1), &Json::from(2)]);
        let osl = unit["unit"]["params"]["tokens.output"].as_u64().unwrap();
        for sample in samples {
            assert_eq!(sample["valid"], true, "{sample}");
            assert_eq!(sample["summary"]["n_ok"], 3);
            assert_eq!(sample["summary"]["output_tokens"], 3 * osl);
            let path = format!("artifacts/{}", file.replace("unit.json", "sample-1/requests.csv"));
            assert_eq!(rows(&s.path(&path)).len(), 3, "{path}");
        }
        found.insert(id);
    }
    assert_eq!(found, plan.ids());
}

/// One row per sample, under the promised header.
fn check_rows(s: &Sandbox, plan: &support::Plan, run: &str, timestamp: &str) {
    let mut keys = BTreeSet::new();
    for file in s.tree("artifacts").into_iter().filter(|f| f.ends_with(&format!("{timestamp}.csv"))) {
        let text = s.read(&format!("artifacts/{file}"));
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        assert_eq!(header, COLUMNS.split_whitespace().collect::<Vec<_>>(), "{file}");
        for row in rows(&s.path(&format!("artifacts/{file}"))) {
            assert!(file.contains(&format!("{}_{}_{}", row["model"].replace('/', "--"), row["method"], row["engine"])));
            assert_eq!((row["run"].as_str(), row["experiment"].as_str()), (run, "first"));
            assert_eq!(
                (row["valid"].as_str(), row["status"].as_str(), row["n_ok"].as_str()),
                ("true", "measured", "3")
            );
            assert!(row["p99_ttft_ms"].parse::<f64>().unwrap() > 0.0);
            assert!(keys.insert((row["unit_id"].clone(), row["sample"].clone())), "a row twice: {row:?}");
        }
    }
    let expected: BTreeSet<_> =
        plan.ids().into_iter().flat_map(|id| ["1", "2"].map(|n| (id.clone(), n.to_string()))).collect();
    assert_eq!(keys, expected);
}

fn check_run(s: &Sandbox, plan: &support::Plan, run: &str) {
    let record = json(s, &format!("artifacts/runs/{run}/plan.json"));
    assert_eq!((&record["schema"], &record["run"]), (&Json::from(2), &Json::from(run)));
    assert_eq!((&record["exit_code"], &record["counts"]["measured"]), (&Json::from(0), &Json::from(16)));
    assert_eq!(record["tags"], serde_json::json!(["nightly"]));
    let units: BTreeSet<String> = record["units"].as_array().unwrap().iter().map(|u| text(&u["unit_id"])).collect();
    assert_eq!(units, plan.ids());

    let journal: Vec<Json> = s
        .read(&format!("artifacts/runs/{run}/journal.jsonl"))
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let sequence: Vec<u64> = journal.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..journal.len() as u64).collect::<Vec<_>>());
    assert_eq!(journal[0]["event"], "run_started");
    assert_eq!(journal.last().unwrap()["event"], "run_finished");
    let count = |event: &str| journal.iter().filter(|e| e["event"] == event).count();
    assert_eq!((count("deployment_ready"), count("sample_finished"), count("unit_finished")), (4, 32, 16));

    let summary = s.read(&format!("artifacts/runs/{run}/summary.md"));
    assert!(summary.starts_with("# first\n") && summary.matches("| org/Model-8B |").count() == 8, "{summary}");
    let html = s.read(&format!("artifacts/runs/{run}/report.html"));
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"), "{}", &html[..60]);
    let junit = s.read(&format!("artifacts/runs/{run}/junit.xml"));
    assert_eq!(junit.matches("<testcase").count(), 16, "{junit}");
}

#[test]
fn runs_in_the_same_second_get_names_of_their_own() {
    let s = Sandbox::new();
    s.write("first.toml", experiment().replace("repeats = 2", "").replace("[1, 2]", "1"));
    s.run("run first.toml").success();
    for _ in 0..3 {
        s.run("run first.toml").success();
    }
    let runs = s.runs("artifacts");
    assert_eq!(runs.len(), 4);
    assert!(runs.iter().all(|r| is_timestamp(r.strip_suffix("-first").unwrap())), "{runs:?}");
}
