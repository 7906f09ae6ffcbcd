//! `--simulate`: a sweep of real stacks on a machine without GPU and without a container engine.

mod support;

use std::process::Command;

use serde_json::Value as Json;
use support::{Sandbox, finish, text};

const SHOOTOUT: &str = include_str!("../experiments/hf-shootout.toml");

/// The shootout beside nothing but its own template directory, if any.
fn shootout() -> Sandbox {
    let s = Sandbox::new();
    s.write("experiments/hf-shootout.toml", SHOOTOUT);
    s.mkdir("empty-path");
    s
}

/// No program can be found, and no container engine answers.
fn bare(s: &Sandbox, line: &str) -> Command {
    let mut command = s.command(line.split_whitespace());
    command.env("PATH", s.path("empty-path")).env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    command
}

const SMALL: &str =
    "--only concurrency=1,tokens.input=128 --set requests=2 --set warmup=0 --set tokens.output=4 --repeats 1";

#[test]
fn the_shootout_can_be_rehearsed_anywhere_and_nothing_of_it_counts_as_measured() {
    let s = shootout();
    let line = format!("run --simulate {SMALL} experiments/hf-shootout.toml");
    finish(&mut bare(&s, &line), &line).success().says(&["(simulated): 6 units"]);
    let tree = s.tree("artifacts");
    assert!(tree.iter().all(|f| f.starts_with("simulated/")), "{tree:#?}");
    for engine in ["vllm", "sglang", "trtllm"] {
        let stack = format!("simulated/meta-llama--Llama-3.1-8B-Instruct_hf_{engine}/");
        assert!(tree.iter().any(|f| f.starts_with(&stack) && f.ends_with("/result.json")), "{stack}");
    }
    for file in tree.iter().filter(|f| f.contains("/benchmark_")) {
        let rows = support::rows(&s.path("artifacts").join(file));
        assert!(!rows.is_empty() && rows.iter().all(|r| r["simulated"] == "true" && r["hardware"] == "sim"), "{file}");
    }
    for file in tree.iter().filter(|f| f.ends_with("/unit.json")) {
        let unit: Json = serde_json::from_str(&s.read(&format!("artifacts/{file}"))).unwrap();
        assert_eq!(unit["simulated"], true);
        assert_eq!(unit["deploy"]["simulated"]["model_version"], 1);
        let engine = text(&unit["deploy"]["params"]["engine"]);
        assert_eq!(unit["deploy"]["simulated"]["flavor"], format!("hf-{engine}"));
    }

    let rehearsed = s.plan(&format!("--simulate {SMALL} experiments/hf-shootout.toml"));
    rehearsed.all("cached", "rehearsed");
    let real = s.plan(&format!("{SMALL} experiments/hf-shootout.toml"));
    real.all("new", "a rehearsal is no measurement");
    assert!(real.ids().is_disjoint(&rehearsed.ids()) && real.deploy_ids().is_disjoint(&rehearsed.deploy_ids()));

    s.run("report --simulated").success();
    s.run("report").exit(4);
}

#[test]
fn the_same_secrets_and_stacks_are_planned_but_nothing_is_asked_of_the_network() {
    // A rehearsal needs no HF_TOKEN, though the experiment's `env` names it.
    let s = shootout();
    let small = SMALL.replace("--only ", "--only engine=vllm,");
    let line = format!("run --simulate --offline {small} experiments/hf-shootout.toml");
    let mut command = bare(&s, &line);
    let done = finish(command.env("http_proxy", "http://127.0.0.1:9").env("HF_TOKEN", "hf_secret"), &line).success();
    assert!(!format!("{done:?}").contains("hf_secret"));
    for file in s.tree("artifacts") {
        let bytes = std::fs::read(s.path("artifacts").join(&file)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hf_secret"), "{file}");
    }
}

#[test]
fn a_real_run_says_what_is_missing_here() {
    let s = shootout();
    let line = format!("run {SMALL} experiments/hf-shootout.toml");
    let mut command = bare(&s, &line);
    let done = finish(command.env("HF_TOKEN", "hf_secret"), &line).exit(7);
    assert!(done.stderr.contains("cannot start") || done.stderr.contains("Docker"), "{}", done.stderr);
    assert!(done.stderr.contains("6 blocked; exit code 7"), "{}", done.stderr);
    assert!(!format!("{done:?}").contains("hf_secret"));
    // Every unit says why; nothing of it is a result, and the next run tries again.
    let plan = s.plan(&format!("{SMALL} experiments/hf-shootout.toml"));
    plan.all("failed", "blocked");
    assert!(plan.units().iter().all(|u| !text(&u["note"]).contains("--retry-failed")), "infrastructure runs again");
    assert!(s.samples("artifacts").values().all(Vec::is_empty));
}

#[test]
fn hardware_that_is_not_here_is_planned_with_a_warning_and_not_run() {
    let s = Sandbox::new();
    s.write(
        "x.toml",
        "[[matrix]]\nmethod = \"hf\"\nengine = \"vllm\"\nmodel = \"m\"\nhardware = \"h100-sxm-80gb\"\ntokens = { input = 8, output = 2 }\n",
    );
    let plan = s.plan("x.toml");
    let warnings = plan.0["warnings"].to_string();
    assert!(warnings.contains("planned for h100-sxm-80gb"), "{warnings}");
    assert_eq!(plan.0["hardware"], "h100-sxm-80gb");
    s.run("run x.toml").exit(7).says(&["h100-sxm-80gb"]);
    s.run("run --simulate x.toml --set requests=2").success();
}
