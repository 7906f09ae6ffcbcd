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

/// One unit on each of two simulated engines of one model.
fn two_engines(s: &Sandbox, run: &str, seeds: [u32; 2]) {
    s.write(
        "sane.toml",
        format!(
            "[defaults]\nmodel = \"org/m-1B\"\nmethod = \"sim\"\n{}\nrequests = 4\ntokens = {{ input = 8, output = 4 }}\n\
             [[matrix]]\nengine = [\"vllm\", \"sglang\"]\n[[override]]\nwhen = {{ engine = \"vllm\" }}\n\
             set = {{ engine_args.seed = {} }}\n[[override]]\nwhen = {{ engine = \"sglang\" }}\nset = {{ engine_args.seed = {} }}\n\
             [run]\nattempts = 1\n{run}",
            support::FAST, seeds[0], seeds[1]
        ),
    );
}

#[test]
fn an_engine_that_talks_nonsense_is_invalid_and_never_a_result() {
    let s = Sandbox::new();
    two_engines(&s, "", [0, 0]);
    for nonsense in ["repeat", "empty"] {
        let line = format!("run --set engine_args.nonsense={nonsense} --only engine=vllm sane.toml");
        s.run(&line).exit(5).says(&[
            "makes no sense: it answers a fixed question with",
            "sanity = \"warn\"",
            "1 invalid",
        ]);
    }
    assert!(s.samples("artifacts").values().all(Vec::is_empty));
    let plan = s.plan("--set engine_args.nonsense=repeat --only engine=vllm sane.toml");
    plan.all("invalid", "it stands in the artifacts");
    // Knowingly, it is measured; by the way of its answers alone it would still not count.
    let line = "run --sanity warn --set engine_args.nonsense=repeat --only engine=vllm sane.toml";
    s.run(line).success().says(&["makes no sense"]);
    s.run("run --sanity maybe sane.toml").exit(2).says(&["\"off\", \"warn\" and \"require\""]);
}

#[test]
fn what_engines_of_one_model_answer_is_kept_and_compared() {
    let s = Sandbox::new();
    two_engines(&s, "", [0, 0]);
    let done = s.run("run sane.toml").success();
    assert!(!done.stdout.contains("to the fixed question differ"), "{}", done.stdout);
    let file = s.tree("artifacts").into_iter().find(|f| f.contains("sim_vllm/benchmark_")).unwrap();
    let rows = support::rows(&s.path("artifacts").join(file));
    assert!(rows[0]["sanity"] == "ok" && !rows[0]["sanity_text"].is_empty(), "{rows:?}");
    assert!(rows[0]["sanity_logprob"].parse::<f64>().unwrap() < 0.0, "{rows:?}");
    // Another seed is another checkpoint, as far as words go.
    two_engines(&s, "", [0, 1]);
    let done = s.run("run sane.toml").success();
    assert!(done.stdout.contains("answers of org/m-1B (completions) to the fixed question differ:"), "{}", done.stdout);
}

#[test]
fn a_machine_without_a_container_engine_plans_and_reports_and_says_what_a_run_lacks() {
    let s = shootout();
    // Nothing of it needs a token or a GPU, so that only the engine is missing.
    s.write("e.toml", SHOOTOUT.replace("env = { HF_TOKEN = \"${HF_TOKEN}\" }", "gpus = 0"));
    for line in ["validate e.toml", "plan e.toml", "explain --help", &format!("run --simulate {SMALL} e.toml")] {
        finish(&mut bare(&s, line), line).success();
    }
    for line in ["report --simulated", "report --simulated --json"] {
        assert!(!finish(&mut bare(&s, line), line).success().stdout.is_empty(), "{line}");
    }
    let line = format!("run --json {SMALL} e.toml");
    let run = finish(&mut bare(&s, &line), &line).exit(7);
    let events = run.json_lines();
    let failed: Vec<&Json> = events.iter().filter(|e| e["event"] == "deployment_failed").collect();
    assert_eq!(failed.len(), 6, "each deployment says so: {}", run.stdout);
    for failure in failed {
        let cause = text(&failure["cause"]);
        for part in ["no container engine answers at unix:///nowhere/docker.sock", "Start Docker", "--simulate"] {
            assert!(cause.contains(part), "{cause}");
        }
    }
    // Where a GPU is missing too, both are told.
    s.write("gpus.toml", SHOOTOUT.replace("env = { HF_TOKEN = \"${HF_TOKEN}\" }", "gpus = 64"));
    let line = format!("run --json {SMALL} gpus.toml");
    let run = finish(&mut bare(&s, &line), &line).exit(7);
    for part in ["no container engine answers", "it needs 64 GPUs, and this host has "] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
}
