//! What is seen of an engine during a sample, against what the simulated engine really did: its load over time and its
//! counters, under the names of each engine and of older versions.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{Sandbox, rows};

/// Between two looks, seconds.
const INTERVAL: f64 = 0.1;
const STREAMS: f64 = 8.0;
/// 24 requests of 60 tokens, 8 at a time, 10 ms a token: about 1.9 s.
const EXPERIMENT: &str = r#"
[defaults]
model = "org/m-8B"
method = "sim"
tokens = { input = 64, output = 60 }
requests = 24
concurrency = 8
warmup = 2
engine_args.ttft = "30ms"
engine_args.itl = "10ms"

[[matrix]]
engine = ["vllm", "sglang", "trtllm", "python"]
engine_args.old_metrics = [false, true]

[run]
scrape_interval = "100ms"
"#;

type Row = BTreeMap<String, String>;

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}`", row[column]))
}

/// The least and the most requests that a server can have had within an interval of a moment: those that the client had
/// in flight all the time, and those it had in flight at any time.
fn bounds(requests: &[Row], at: f64) -> (f64, f64) {
    let count = |inside: &dyn Fn(f64, f64) -> bool| {
        let inside = |r: &&Row| inside(number(r, "start_ms") / 1e3, number(r, "end_ms") / 1e3);
        requests.iter().filter(inside).count() as f64
    };
    let least = count(&|start, end| start <= at - INTERVAL && at + INTERVAL <= end);
    let most = count(&|start, end| start <= at + INTERVAL && at - INTERVAL <= end);
    (least, most.min(STREAMS))
}

fn series(telemetry: &Path, metric: &str) -> Vec<(f64, f64)> {
    let rows = rows(telemetry);
    let mine = rows.iter().filter(|r| r["source"] == "engine" && r["metric"] == metric);
    mine.map(|r| (number(r, "seconds"), number(r, "value"))).collect()
}

#[test]
fn series_and_summaries_are_what_the_engine_did() {
    let s = Sandbox::new();
    s.write("e.toml", EXPERIMENT);
    s.run("run e.toml").success();
    let mut seen = 0;
    for engine in ["vllm", "sglang", "trtllm", "python"] {
        let stack = format!("artifacts/org--m-8B_sim_{engine}");
        let tree = s.tree(&stack);
        let csv = tree.iter().find(|f| f.ends_with(".csv") && !f.contains('/')).unwrap();
        for row in rows(&s.path(&format!("{stack}/{csv}"))) {
            let sample = s.path(&format!("{stack}/units/{}/sample-1", &row["unit_id"][..16]));
            check(engine, &row, &sample);
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

fn check(engine: &str, row: &Row, sample: &Path) {
    let name = format!("{engine} {}", row["parameters"]);
    assert_eq!(row["valid"], "true", "{name}: {}", row["invalid_reason"]);
    let telemetry = sample.join("telemetry.csv");
    let window = number(row, "duration_s");
    // Triton itself has no metric of what runs; all others have one.
    if engine == "python" {
        assert!(row["server_running_mean"].is_empty() && row["kv_cache_usage_peak"].is_empty(), "{name}");
        assert_eq!(number(row, "server_waiting_peak"), 0.0, "{name}");
    } else {
        let requests = rows(&sample.join("requests.csv"));
        let running: Vec<(f64, f64)> =
            series(&telemetry, "running").into_iter().filter(|(at, _)| *at > 0.0 && *at <= window).collect();
        assert!(!running.is_empty(), "{name}: no look fell into {window} s");
        for (at, value) in &running {
            let (low, high) = bounds(&requests, *at);
            assert!((low..=high).contains(value), "{name}: {value} at {at} s, and {low} to {high} were in flight");
        }
        let (mean, peak) = (number(row, "server_running_mean"), number(row, "server_running_peak"));
        let of_series = running.iter().map(|(_, n)| n).sum::<f64>() / running.len() as f64;
        assert!((mean - of_series).abs() < 1e-9 && peak <= STREAMS, "{name}: {mean} {of_series} {peak}");
        // Counters hold the sample and nothing else: the first look is after the warm-up.
        for (metric, column) in [("prompt_tokens_total", "input_tokens"), ("generation_tokens_total", "output_tokens")]
        {
            let counted = series(&telemetry, metric);
            let grown = counted.last().unwrap().1 - counted.first().unwrap().1;
            assert_eq!(grown, number(row, column), "{name} {metric}");
        }
        let kv = number(row, "kv_cache_usage_peak");
        assert!(kv > 0.0 && kv < 1.0, "{name}: {kv}");
    }
    assert!(
        number(row, "server_queue_mean_ms") < number(row, "mean_e2el_ms"),
        "{name}: {}",
        row["server_queue_mean_ms"]
    );
    assert!(number(row, "watch_cpu_fraction") > 0.0, "{name}");
    assert!((0.0..=1.0).contains(&number(row, "host_cpu_mean")), "{name}");
    // No GPU was watched: that is not known, and not zero.
    for column in ["gpu_power_mean_w", "energy_j", "j_per_output_token", "j_per_request", "gpu_memory_peak_mib"] {
        assert_eq!(row[column], "", "{name} {column}");
    }
}

#[test]
fn looks_can_be_left_out() {
    let s = Sandbox::new();
    s.write("e.toml", EXPERIMENT);
    s.run("run e.toml --only engine=vllm,engine_args.old_metrics=false --scrape-interval 0s").success();
    let stack = "artifacts/org--m-8B_sim_vllm";
    let csv = s.tree(stack).into_iter().find(|f| f.ends_with(".csv") && !f.contains('/')).unwrap();
    let row = &rows(&s.path(&format!("{stack}/{csv}")))[0];
    assert_eq!(row["server_running_mean"], "", "no look fell into the window");
    assert!(number(row, "server_ttft_mean_ms") > 0.0 && number(row, "preemptions") == 0.0);
}
