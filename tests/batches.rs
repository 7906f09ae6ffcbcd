//! `api = "batch"` on the simulated engine, over both of its ways, and what cannot be a batch.

mod support;

use serde_json::{Value as Json, json};
use support::{FAST, Sandbox, text};

fn experiment(more: &str) -> String {
    format!(
        "name = \"jobs\"\n[defaults]\nmethod = \"sim\"\nengine = \"vllm\"\nmodel = \"org/m-8B\"\napi = \"batch\"\n\
         tokens = {{ input = 16, output = 5 }}\nrequests = 40\n{FAST}\n[[matrix]]\n{more}\n"
    )
}

fn measured(s: &Sandbox, more: &str) -> Vec<Json> {
    s.write("jobs.toml", experiment(more));
    s.run("run --quiet jobs.toml").success();
    s.run("report --json --samples last").success().json_lines()
}

fn number(row: &Json, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column}: {row}"))
}

#[test]
fn a_job_is_measured_over_the_online_api_of_any_stack() {
    let s = Sandbox::new();
    let rows = measured(&s, "engine = [\"vllm\", \"sglang\", \"trtllm\", \"python\"]");
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!((&row["api"], &row["valid"], &row["n_ok"]), (&json!("batch"), &json!(true), &json!(40)), "{row}");
        assert_eq!((&row["concurrency"], &row["output_tokens"]), (&json!(40), &json!(200)), "all at once: {row}");
        assert!(number(row, "makespan_s") >= number(row, "duration_s") && number(row, "p50_ttft_ms") > 0.0, "{row}");
    }
    s.plan("jobs.toml").all("cached", "measured once");
    let table = s.run("report last").success().stdout;
    assert!(table.contains("makespan"), "{table}");
    // The whole job is the limit of a gate.
    s.run("run --quiet --force jobs.toml").success();
    let gate =
        |limit: &str| s.run(&format!("compare --gate {} last --limit makespan_s={limit}", s.runs("artifacts")[0]));
    gate("3600").success();
    gate("0.000001").exit(6);
}

#[test]
fn a_job_is_handed_over_where_the_server_takes_jobs() {
    let s = Sandbox::new();
    let rows = measured(&s, "engine = [\"vllm\", \"sglang\"]\nengine_args.batch_api = true\nwarmup = 3");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!((&row["api"], &row["valid"], &row["n_ok"]), (&json!("batch"), &json!(true), &json!(40)), "{row}");
        assert_eq!((&row["input_tokens"], &row["output_tokens"]), (&json!(640), &json!(200)), "{row}");
        assert_eq!((&row["concurrency"], &row["steady_reached"]), (&Json::Null, &json!(false)), "{row}");
        assert_eq!(row["duration_s"], row["makespan_s"]);
        for column in ["mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms", "queue_delay_p99_ms"] {
            assert_eq!(row[column], Json::Null, "{column}: {row}");
        }
        assert!((number(row, "output_throughput") - 200.0 / number(row, "makespan_s")).abs() < 1e-6, "{row}");
    }
}

#[test]
fn lines_that_fail_are_failed_requests() {
    let s = Sandbox::new();
    s.write("jobs.toml", experiment("engine_args.batch_api = true\nengine_args.fail_every = 8\n[run]\nattempts = 1"));
    s.run("run --quiet jobs.toml").exit(5);
    let row = &s.run("report --json --samples last").success().json_lines()[0];
    assert_eq!((&row["n_error"], &row["valid"]), (&json!(5), &json!(false)), "{row}");
    assert!(text(&row["invalid_reason"]).contains("5 of 40 requests failed"), "{row}");
    assert!(text(&row["invalid_reason"]).contains("HTTP 500"), "{row}");
}

#[test]
fn the_plan_says_what_a_job_is() {
    let s = Sandbox::new();
    s.write("jobs.toml", experiment("requests = [20, 5000]"));
    let plan = s.plan("jobs.toml");
    let at_once: Vec<&Json> = plan.units().iter().map(|u| &u["cell"]["concurrency"]).collect();
    assert_eq!(at_once, [&json!(20), &json!(1024)]);
    // Written out, it is the same cell.
    s.write("jobs.toml", experiment("requests = 5000\nconcurrency = 1024"));
    assert!(s.plan("jobs.toml").ids().is_subset(&plan.ids()));
    s.write("jobs.toml", experiment("concurrency = 4\nengine_args.batch_api = true").replace("requests = 40\n", ""));
    s.run("plan jobs.toml").exit(3).says(&["decides itself how many requests are in flight"]);
    s.write("jobs.toml", experiment("[matrix.vary.way]\nonline = {}\nbatch = { engine_args = { batch_api = true } }"));
    let ids = s.plan("jobs.toml");
    assert_eq!((ids.ids().len(), ids.deploy_ids().len()), (2, 2));
}

#[test]
fn what_no_job_can_have_is_an_error_with_its_place() {
    let s = Sandbox::new();
    for (set, path) in [
        ("rate = 2", "rate"),
        ("duration = \"10s\"", "duration"),
        ("ramp = \"1s\"", "ramp"),
        ("stages = [[{ rate = 1, duration = \"1s\" }]]", "stages"),
        ("tokens = { input = 8, output = 2, turns = 3 }", "tokens.turns"),
        ("cancel_rate = 0.5", "cancel_rate"),
    ] {
        s.write("jobs.toml", experiment(set));
        s.run("plan jobs.toml").exit(3).says(&["a job of fixed size", &format!("`{path}`"), "jobs.toml:11"]);
    }
}

#[test]
fn measure_knows_jobs() {
    let s = Sandbox::new();
    for (option, flag) in [("false", ""), ("true", "--batch-path /v1/batches")] {
        let mut sim = s.command(["sim", "--flavor", "hf-vllm", "--speed", "1000", "--batch-api", option]);
        let mut sim = sim.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        let mut lines = std::io::BufReader::new(sim.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut url).unwrap();
        let line = format!("measure --json --endpoint {} --engine vllm --api batch --requests 30 {flag}", url.trim());
        let row = s.run(&line).success().json();
        sim.kill().unwrap();
        sim.wait().unwrap();
        assert_eq!((&row["api"], &row["n_ok"], &row["valid"]), (&json!("batch"), &json!(30), &json!(true)), "{row}");
        assert!(number(&row, "makespan_s") > 0.0, "{row}");
        assert_eq!(row["mean_ttft_ms"].is_null(), option == "true", "{row}");
    }
}
