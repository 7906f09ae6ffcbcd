//! Comparing and gating through the binary: files that a script wrote, runs of the simulated engine, other tools' files.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value as Json, json};
use support::Sandbox;

/// Noise that is the same every time: a value between -1 and 1.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A baseline file of 16 cells in two stacks. `nights` names runs; each has `starts` starts with a sample each.
fn file(name: &str, nights: &[&str], starts: u32, factor: impl Fn(&str) -> f64) -> String {
    let mut dice = Dice(nights.len() as u64 * 7919 + name.bytes().map(u64::from).sum::<u64>());
    let mut cells = Vec::new();
    for engine in ["vllm", "sglang"] {
        for concurrency in 1..=8u64 {
            let mut samples = Vec::new();
            for night in nights {
                for start in 1..=starts {
                    let value = 10.0 * concurrency as f64 * factor(engine) * (1.0 + 0.02 * dice.roll());
                    samples.push(json!({ "run": night, "start": start, "values": { "mean_ttft_ms": value } }));
                }
            }
            let cell = json!({ "model": "m", "method": "hf", "engine": engine, "tokens": { "input": 128 }, "concurrency": concurrency });
            cells.push(json!({ "cell": cell, "samples": samples }));
        }
    }
    json!({ "format": "llmatrix-baseline", "version": 1, "cells": cells }).to_string()
}

fn same(_: &str) -> f64 {
    1.0
}

fn slower(engine: &str) -> f64 {
    if engine == "vllm" { 1.10 } else { 1.0 }
}

const NIGHTS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
const GATE: &str = "--gate --limit ttft=+5%";

#[test]
fn a_regression_is_6_and_says_where() {
    let s = Sandbox::new();
    s.write("a.json", file("a", &["a"], 3, same));
    s.write("b.json", file("b", &["b"], 3, slower));
    let done = s.run(&format!("compare a.json b.json {GATE} --junit j.xml --markdown m.md --json")).exit(6);
    let report = done.json();
    assert_eq!((report["outcome"].as_str(), report["family"].as_u64()), (Some("regression"), Some(16)));
    let cells = report["cells"].as_array().unwrap();
    for cell in cells {
        let finding = &cell["findings"][0];
        let slow = cell["cell"]["engine"] == "vllm";
        assert_eq!(finding["verdict"] == "worse", slow, "{finding}");
        assert_eq!((&finding["interval_of"], &finding["test"]), (&json!("starts"), &json!("moderated_t")));
    }
    let junit = s.read("j.xml");
    assert_eq!(junit.matches("<failure type=\"regression\"").count(), 8, "{junit}");
    let failure = junit.lines().find(|l| l.contains("<failure")).unwrap();
    for part in ["TTFT mean of", "concurrency=", "engine=vllm", "[+", "limit +5%", "q = "] {
        assert!(failure.contains(part), "{part}: {failure}");
    }
    let markdown = s.read("m.md");
    assert!(markdown.contains("8 of 16 cells are worse") && markdown.contains("❌ worse"), "{markdown}");
    let kept = s.run("compare a.json b.json --only engine=vllm --json").success().json();
    assert_eq!((kept["cells"].as_array().unwrap().len(), &kept["only_a"]), (8, &json!([])));
    // The other way round nothing got worse, and the table says so.
    let done = s.run(&format!("compare b.json a.json {GATE}")).exit(0);
    assert!(done.stdout.contains("8 better") && done.stdout.contains("no regression"), "{}", done.stdout);
    s.run(&format!("compare a.json a.json {GATE}")).exit(0);
}

#[test]
fn five_nights_tell_and_one_start_does_not() {
    let s = Sandbox::new();
    s.write("nights.json", file("a", &NIGHTS, 1, same));
    s.write("one.json", file("c", &["a"], 1, same));
    s.write("slow.json", file("b", &["b"], 1, slower));
    let report = s.run(&format!("compare nights.json slow.json {GATE} --json")).exit(6).json();
    assert_eq!(report["cells"][0]["findings"][0]["interval_of"], "nights");
    let report = s.run(&format!("compare one.json slow.json {GATE} --json")).exit(9).json();
    assert_eq!(report["outcome"], "undecidable");
    assert!(report["reason"].as_str().unwrap().contains("starts = 3"), "{}", report["reason"]);
    let verdicts = report["cells"].as_array().unwrap().iter().map(|c| c["findings"][0]["verdict"].clone());
    assert!(verdicts.into_iter().all(|v| v == "undecided"));
    // Whoever knows that starts do not differ may say so.
    s.write(
        "three.json",
        file("d", &["a"], 3, same).replace("\"start\":2", "\"start\":1").replace("\"start\":3", "\"start\":1"),
    );
    s.write(
        "slow3.json",
        file("e", &["b"], 3, slower).replace("\"start\":2", "\"start\":1").replace("\"start\":3", "\"start\":1"),
    );
    s.run(&format!("compare three.json slow3.json {GATE}")).exit(9);
    let report = s.run(&format!("compare three.json slow3.json {GATE} --error samples --json")).exit(6).json();
    assert_eq!(report["cells"][0]["findings"][0]["interval_of"], "samples");
}

#[test]
fn six_repeats_are_permuted() {
    let s = Sandbox::new();
    s.write("a.json", file("a", &["a"], 6, same));
    s.write("b.json", file("b", &["b"], 6, slower));
    let report = s.run(&format!("compare a.json b.json {GATE} --json")).exit(6).json();
    assert_eq!(report["cells"][0]["findings"][0]["test"], "permutation");
    assert_eq!(
        report["cells"].as_array().unwrap().iter().filter(|c| c["findings"][0]["verdict"] == "worse").count(),
        8
    );
}

#[test]
fn absolute_limits_need_no_noise() {
    let s = Sandbox::new();
    s.write("a.json", file("a", &["a"], 1, same));
    let broken = s.run("compare a.json a.json --gate --limit ttft=65ms --json").exit(6).json();
    let worse: Vec<bool> =
        broken["cells"].as_array().unwrap().iter().map(|c| c["findings"][0]["verdict"] == "worse").collect();
    assert_eq!(worse.iter().filter(|w| **w).count(), 4, "concurrency 7 and 8 of two engines: {worse:?}");
    s.run("compare a.json a.json --gate --limit ttft=90ms").exit(0);
}

#[test]
fn a_moved_control_is_9_whatever_else_got_slower() {
    let s = Sandbox::new();
    let with_control = |text: String, last: f64| {
        let mut file: Json = serde_json::from_str(&text).unwrap();
        let sample = |position: &str, start: u32, value: f64| json!({ "run": "r", "start": start, "control": position, "values": { "mean_ttft_ms": value } });
        let around =
            |position: &str, start: u32, value: f64| [-0.1, 0.0, 0.1].map(|d| sample(position, start, value + d));
        let samples: Vec<Json> = around("first", 1, 50.0).into_iter().chain(around("last", 2, last)).collect();
        let control = json!({ "name": "control", "cell": { "engine": "vllm", "concurrency": 99 }, "samples": samples });
        file["cells"].as_array_mut().unwrap().push(control);
        file.to_string()
    };
    s.write("a.json", file("a", &["a"], 3, same));
    s.write("steady.json", with_control(file("b", &["b"], 3, slower), 50.2));
    s.write("moved.json", with_control(file("b", &["b"], 3, slower), 56.0));
    s.run(&format!("compare a.json steady.json {GATE}")).exit(6);
    let done = s.run(&format!("compare a.json moved.json {GATE} --junit j.xml --json")).exit(9);
    let reason = done.json()["reason"].as_str().unwrap().to_string();
    assert!(reason.contains("unstable") && reason.contains("control") && reason.contains("first and last"), "{reason}");
    let junit = s.read("j.xml");
    assert!(junit.contains("type=\"undecidable\"") && !junit.contains("type=\"regression\""), "{junit}");
}

#[test]
fn a_step_is_found_with_its_run() {
    let s = Sandbox::new();
    let names: Vec<String> = (1..=40).map(|i| format!("night-{i:02}")).collect();
    let nights: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stepped: Json = serde_json::from_str(&file("h", &nights, 1, same)).unwrap();
    for cell in stepped["cells"].as_array_mut().unwrap().iter_mut().take(8) {
        for sample in cell["samples"].as_array_mut().unwrap().iter_mut().skip(24) {
            let value = sample["values"]["mean_ttft_ms"].as_f64().unwrap();
            sample["values"]["mean_ttft_ms"] = json!(value * 1.05);
        }
    }
    stepped["runs"] = json!(
        names.iter().map(|n| json!({ "run": n, "experiment_commit": format!("c0ffee-{n}") })).collect::<Vec<_>>()
    );
    s.write("h.json", stepped.to_string());
    let report = s.run("compare --history 60 h.json --metrics mean_ttft --json").success().json();
    let steps = report["steps"].as_array().unwrap();
    let joint = steps.iter().find(|s| s["cells"].as_array().unwrap().len() >= 7).expect("the stack stepped");
    assert_eq!(joint["after"]["run"], "night-25");
    assert_eq!(joint["after"]["commit"], "c0ffee-night-25");
    assert!((joint["change"].as_f64().unwrap() - 0.05).abs() < 0.01);
    let text = s.run("compare --history 60 h.json --metrics mean_ttft").success().stdout;
    assert!(text.contains("night-25") && text.contains("hf vllm"), "{text}");
    assert!(
        s.run("compare --history 20 h.json --metrics mean_ttft --only engine=sglang --json").success().json()["steps"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

fn peers(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/data/peers/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn other_tools_files_are_compared() {
    let s = Sandbox::new();
    let names = [
        "vllm-bench-serve-0.32.json",
        "vllm-bench-rust.json",
        "aiperf-0.13.json",
        "aiperf-0.13.csv",
        "guidellm-0.8.1.json",
    ];
    for name in names {
        s.write(name, peers(name));
        let report = s.run(&format!("compare {name} {name} --json")).success().json();
        let findings = report["cells"][0]["findings"].as_array().unwrap().clone();
        assert!(findings.len() >= 3, "{name}: {findings:?}");
        assert!(findings.iter().all(|f| f["verdict"] == "same" && f["test"] == "identical"), "{name}");
    }
    let report = s.run("compare vllm-bench-serve-0.32.json aiperf-0.13.json --json").success().json();
    let ttft = report["cells"][0]["findings"].as_array().unwrap().iter().find(|f| f["metric"] == "p50_ttft").unwrap();
    assert!((ttft["change"].as_f64().unwrap() - (51.957932 / 51.56541650012514 - 1.0)).abs() < 1e-9);
    assert_eq!(ttft["verdict"], "undecided", "one sample each decides nothing");
    s.write("newer.json", peers("aiperf-0.13.json").replace("\"1.4\"", "\"3.0\""));
    s.run("compare newer.json aiperf-0.13.json").exit(2).says(&[
        "newer.json",
        "AIPerf in version 3.0, of AIPerf 0.13.0",
        "1.x",
    ]);
    s.write("odd.json", "{\"hello\": 1}");
    s.run("compare odd.json aiperf-0.13.json").exit(2).says(&["odd.json", "It begins with hello"]);
    s.run("compare none.json aiperf-0.13.json").exit(2).says(&["there is no file none.json"]);
}

fn git(s: &Sandbox, line: &str) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "commit.gpgsign=false"]);
    support::finish(command.args(line.split(' ')).current_dir(s.root()), "git").success();
}

#[test]
fn names_of_runs_and_git_revisions() {
    let s = Sandbox::new();
    git(&s, "init -q -b main");
    s.write(".gitignore", "artifacts/\n");
    for (ttft, branch) in [("2ms", "main"), ("9ms", "slower")] {
        git(&s, &format!("checkout -q -B {branch}"));
        s.write("nightly.toml", experiment(ttft, ""));
        git(&s, "add -A");
        git(&s, &format!("commit -q -m {branch}"));
        s.run("run --quiet nightly.toml").success();
    }
    let runs = s.runs("artifacts");
    let sides = |line: &str| {
        let report = s.run(&format!("{line} --json")).success().json();
        assert_eq!(report["cells"][0]["differs"][0]["parameter"], "engine_args.ttft", "{line}");
        [&report["a"]["runs"], &report["b"]["runs"]].map(|runs| runs[0].as_str().unwrap().to_string())
    };
    let stamp = |run: &str| run.split_once('-').unwrap().0.to_string();
    for line in [
        "compare main slower".to_string(),
        "compare HEAD~1 HEAD".to_string(),
        "compare last-good last".to_string(),
        "compare".to_string(),
        format!("compare {} nightly", stamp(&runs[0])),
        format!("compare {} {}", runs[0], runs[1]),
    ] {
        assert_eq!(sides(&line).as_slice(), runs, "{line}");
    }
    git(&s, "commit -q --allow-empty -m later");
    s.run("compare main HEAD").exit(4).says(&["no run was measured at it"]);
}

#[test]
fn what_was_exported_comes_back_as_it_was() {
    let s = Sandbox::new();
    s.write("nightly.toml", experiment("2ms", ""));
    s.run("run --quiet nightly.toml").success();
    let identical = |line: &str, cells: usize| {
        let report = s.run(line).success().json();
        assert_eq!(report["cells"].as_array().unwrap().len(), cells, "{line}");
        for cell in report["cells"].as_array().unwrap() {
            for f in cell["findings"].as_array().unwrap() {
                assert_eq!(
                    (&f["verdict"], &f["reason"]),
                    (&json!("same"), &json!("the values are identical")),
                    "{line}: {f}"
                );
            }
        }
        report
    };
    let metrics =
        "mean_ttft,p50_ttft,p99_ttft,p95_tpot,p99_itl,p90_e2el,output_throughput,request_throughput,error_rate";
    for format in ["vllm-bench", "aiperf"] {
        s.run(&format!("export --format {format} -o {format}")).success();
        assert_eq!(s.tree(format).len(), 12);
        let report = identical(&format!("compare last ./{format} --all --json --metrics {metrics}"), 4);
        assert_eq!(report["only_a"].as_array().map(Vec::len), Some(0));
        let finding = &report["cells"][0]["findings"][0];
        assert_eq!((&finding["b"]["samples"], &finding["b"]["starts"]), (&json!(3), &json!(3)));
    }
    // As if the tool itself had written them: only the load tells what is meant.
    for file in s.tree("vllm-bench") {
        let path = format!("vllm-bench/{file}");
        let mut bench: Json = serde_json::from_str(&s.read(&path)).unwrap();
        let origin = bench.as_object_mut().unwrap().remove("llmatrix").unwrap();
        match origin["facts"]["engine"] == "vllm" {
            true => s.write(&path, bench.to_string()),
            false => fs::remove_file(s.path(&path)).unwrap(),
        };
    }
    identical(&format!("compare ./vllm-bench last --only engine=vllm --all --json --metrics {metrics}"), 2);
    // Simulated numbers stay what they are on their way.
    let exported = s.read(&format!("aiperf/{}", s.tree("aiperf").first().unwrap()));
    s.write("real.json", exported.replace("\"simulated\":true", "\"simulated\":false"));
    s.write("simulated.json", exported.replace("\"simulated\":false", "\"simulated\":true"));
    s.run("compare real.json simulated.json").exit(2).says(&["simulated numbers are not compared with real ones"]);
}

/// Two engines and two loads, slow enough for a difference to be one.
fn experiment(ttft: &str, gate: &str) -> String {
    format!(
        "name = \"nightly\"\n[defaults]\nrequests = 4\nengine_args = {{ ttft = \"{ttft}\", itl = \"20us\" }}\n[[matrix]]\n\
         method = \"sim\"\nmodel = \"org/m\"\nengine = [\"vllm\", \"trtllm\"]\ntokens = {{ input = 8, output = 2 }}\n\
         concurrency = [1, 2]\n[run]\nrepeats = 3\nstarts = 3\n[gate]\nttft = \"+50%\"\n{gate}"
    )
}

#[test]
fn a_night_is_gated_against_the_last_good_one() {
    let s = Sandbox::new();
    s.write("nightly.toml", experiment("8ms", ""));
    s.run("run nightly.toml --gate last-good").exit(0).says(&["no earlier run of nightly"]);
    // What is cached is what it was.
    s.run("run nightly.toml --gate last-good").exit(0);
    s.write("nightly.toml", experiment("120ms", ""));
    let done = s.run("run nightly.toml --gate last-good").exit(6);
    assert!(done.stderr.contains("regression against last-good"), "{}", done.stderr);
    let run = s.runs("artifacts").pop().unwrap();
    let dir = format!("artifacts/runs/{run}");
    let junit = s.read(&format!("{dir}/junit.xml"));
    let failures: Vec<&str> = junit.lines().filter(|l| l.contains("<failure type=\"regression\"")).collect();
    assert_eq!(failures.len(), 4, "{junit}");
    for part in ["TTFT mean of org--m-sim-vllm", "conc 1", "[+", "limit +50%"] {
        assert!(failures.iter().any(|f| f.contains(part)), "{part}: {failures:?}");
    }
    assert!(s.read(&format!("{dir}/gate.md")).contains("Regression against last-good"));
    assert!(s.read(&format!("{dir}/summary.md")).contains("Regression against last-good"));
    let gate: Json = serde_json::from_str(&s.read(&format!("{dir}/gate.json"))).unwrap();
    assert_eq!(gate["cells"][0]["differs"][0]["parameter"], "engine_args.ttft");
    let plan: Json = serde_json::from_str(&s.read(&format!("{dir}/plan.json"))).unwrap();
    assert_eq!(plan["exit_code"], 6);
    // A night that got worse is not what the next one is held against.
    s.write("nightly.toml", experiment("8ms", ""));
    s.run("run nightly.toml --gate last-good").exit(0);
    s.run("compare --gate last-good last").exit(0);
    let report = s.run(&format!("compare last {run} --gate --json")).exit(6).json();
    assert_eq!(report["a"]["name"], "last");
}

#[test]
fn a_named_baseline_that_is_not_there_is_9() {
    let s = Sandbox::new();
    s.write("nightly.toml", experiment("1ms", ""));
    s.run("run nightly.toml --gate v1").exit(9).says(&["--gate v1: the gate will not be able to decide", "`v1`"]);
    s.run("compare v1 last --gate").exit(9);
    s.run("compare v1 last").exit(4);
    s.run("compare last-good last --gate").exit(0).says(&["nothing is compared"]);
    s.run("baseline set last").exit(2).says(&["cannot be a baseline's name"]);
    s.run("baseline set a/b").exit(2);
    s.run("baseline rm v1").exit(4).says(&["there is none"]);
    s.run("baseline set v1").success();
    s.run("run nightly.toml --gate v1").exit(0);
    let list = s.run("baseline list --json").success().json();
    assert_eq!(
        (list["name"].as_str(), list["cells"].as_u64(), list["samples"].as_u64()),
        (Some("v1"), Some(4), Some(12))
    );
    // A machine without artifacts gates with the file.
    s.run("baseline export v1 -o baselines-v1.json").success();
    s.run("run nightly.toml --artifacts elsewhere --gate baselines-v1.json").exit(0);
    let text = s.run("baseline export v1").success().stdout;
    assert_eq!(text, s.read("baselines-v1.json"));
    let report = s.run("compare v1 last --json --all").success().json();
    let findings: Vec<&Json> =
        report["cells"].as_array().unwrap().iter().flat_map(|c| c["findings"].as_array().unwrap()).collect();
    assert!(findings.iter().all(|f| f["verdict"] == "same" && f["test"] == "identical"), "{findings:?}");
    s.run("baseline rm v1").success();
    s.run("compare v1 last").exit(4);
}

#[test]
fn the_control_is_measured_first_and_last() {
    let s = Sandbox::new();
    let control = "control = { engine = \"vllm\", concurrency = 1 }\n";
    s.write("nightly.toml", experiment("8ms", control));
    s.run("run nightly.toml --gate last-good").exit(0);
    let plan =
        |run: &str| -> Json { serde_json::from_str(&s.read(&format!("artifacts/runs/{run}/plan.json"))).unwrap() };
    let first = s.runs("artifacts").pop().unwrap();
    let record = plan(&first);
    let numbers = |part: &str| record["control"][part].as_array().unwrap().len();
    assert_eq!((numbers("first"), numbers("last")), (3, 3), "{}", record["control"]);
    let unit =
        record["units"].as_array().unwrap().iter().find(|u| u["unit_id"] == record["control"]["unit_id"]).unwrap();
    assert_eq!((&unit["facts"]["engine"], &unit["facts"]["concurrency"]), (&json!("vllm"), &json!(1)));
    // Measured again although it is cached, on engine starts with numbers of their own.
    s.run("run nightly.toml").exit(0);
    let rows: Vec<String> =
        s.tree("artifacts").into_iter().filter(|f| f.ends_with(".csv") && f.contains("benchmark_")).collect();
    assert_eq!(rows.len(), 3, "two stacks in the first run, the control's in the second: {rows:?}");
    // A baseline whose control was far faster: the machine is another.
    s.run(&format!("baseline export {first} -o base.json")).success();
    let mut base: Json = serde_json::from_str(&s.read("base.json")).unwrap();
    let mean = base["metrics"].as_array().unwrap().iter().position(|m| m == "mean_ttft_ms").unwrap();
    for cell in base["cells"].as_array_mut().unwrap() {
        for sample in cell["samples"].as_array_mut().unwrap().iter_mut().filter(|s| s.get("control").is_some()) {
            let value = sample["values"][mean].as_f64().unwrap();
            sample["values"][mean] = json!(value / 1e6);
        }
    }
    s.write("base.json", base.to_string());
    let done = s.run("run nightly.toml --gate base.json").exit(9);
    assert!(
        done.stderr.contains("unstable: the control") && done.stderr.contains("baseline and run"),
        "{}",
        done.stderr
    );
    s.write("nightly.toml", experiment("8ms", "control = { engine = \"vllm\" }\n"));
    s.run("run nightly.toml").exit(3).says(&["`control` of [gate] names 2 cells"]);
    s.write("nightly.toml", experiment("8ms", "control = { engine = \"sglang\" }\n"));
    s.run("run nightly.toml").exit(3).says(&["names no cell"]);
    s.run("run nightly.toml --only engine=trtllm").exit(0).says(&["drift is not told"]);
}

#[test]
fn layers_and_simulated_runs() {
    let s = Sandbox::new();
    let text = "name = \"layers\"\n[defaults]\nrequests = 2\nmodel = \"org/m\"\nhardware = \"h100-sxm-80gb\"\n\
                tokens = { input = 8, output = 2 }\n[[matrix]]\nengine = \"vllm\"\nmethod = [\"hf\", \"triton\"]\nconcurrency = [1, 2]\n\
                [run]\nstarts = 2\nrepeats = 2\n[gate]\nttft = \"+900%\"\nagainst = { method = \"hf\" }\n";
    s.write("layers.toml", text);
    s.run("run layers.toml --simulate --gate last-good").exit(0);
    let report = s.run("compare last --against method=hf --all --json").success().json();
    assert_eq!((report["simulated"].as_bool(), report["cells"].as_array().unwrap().len()), (Some(true), 2));
    let differs = report["cells"][0]["differs"].as_array().unwrap();
    assert!(differs.iter().any(|d| d["parameter"] == "method" && d["a"] == "hf" && d["b"] == "triton"), "{differs:?}");
    // Simulated numbers are not held against real ones.
    let simulated = fs::read_dir(s.path("artifacts/simulated/runs")).unwrap().next().unwrap().unwrap();
    let run = simulated.file_name().into_string().unwrap();
    s.write("real.json", file("a", &["a"], 3, same).replace("\"version\":1", "\"version\":1,\"simulated\":false"));
    s.run(&format!("compare real.json {run}")).exit(2).says(&["simulated numbers are not compared with real ones"]);
}

#[test]
fn a_webhook_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        let mut bytes = [0; 4096];
        loop {
            let n = stream.read(&mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse::<usize>().unwrap()));
            if n == 0 || body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        text
    });
    let s = Sandbox::new();
    s.write("a.json", file("a", &["a"], 3, same));
    s.write("b.json", file("b", &["b"], 3, slower));
    let mut command = s.command([
        "compare",
        "a.json",
        "b.json",
        "--gate",
        "--limit",
        "ttft=+5%",
        "--webhook",
        "http://127.0.0.1:${PORT}/hook/${SECRET}",
    ]);
    command.env("PORT", port.to_string()).env("SECRET", "s3cr3t-token");
    let done = support::finish(&mut command, "compare").exit(6);
    let heard = heard.join().unwrap();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /hook/s3cr3t-token HTTP/1.1") && head.to_lowercase().contains("application/json"),
        "{head}"
    );
    let text = serde_json::from_str::<Json>(body).unwrap()["text"].as_str().unwrap().to_string();
    assert!(text.contains("8 of 16 cells are worse") && text.contains("• TTFT mean of"), "{text}");
    // Nobody there: a warning, without the secret.
    let mut command = s.command([
        "compare",
        "a.json",
        "a.json",
        "--gate",
        "--limit",
        "ttft=+5%",
        "--webhook",
        "http://127.0.0.1:9/${SECRET}",
    ]);
    command.env("SECRET", "s3cr3t-token");
    let quiet = support::finish(&mut command, "compare").exit(0);
    assert!(quiet.stderr.contains("could not be told") && !quiet.stderr.contains("s3cr3t"), "{}", quiet.stderr);
    assert!(!done.stderr.contains("s3cr3t"));
}

#[test]
fn misuse_is_told() {
    let s = Sandbox::new();
    s.write("a.json", file("a", &["a"], 3, same));
    for (line, said) in [
        ("compare a.json a.json --gate --limit ttft=-5%", "write \"+5%\""),
        ("compare a.json a.json --gate --limit tfft=+5%", "did you mean `ttft`?"),
        ("compare a.json a.json --gate --limit ttft", "METRIC=LIMIT"),
        ("compare a.json a.json --metrics nothing", "is not a metric"),
        ("compare a.json a.json --fdr 2", "share above 0"),
        ("compare a.json a.json --only engine=none", "engine"),
        ("compare a.json a.json --against method", "KEY=VALUE"),
        ("compare --history 5 --format junit a.json", "no JUnit form"),
    ] {
        s.run(line).exit(2).says(&[said]);
    }
    s.run("compare").exit(4);
    s.run("compare nothing-like-it a.json").exit(4).says(&["no run, baseline, file or git revision"]);
}
