//! The JSON of guidellm: several benchmarks in a file, each a measurement.

use serde_json::Value as Json;

use super::{ImportError, Measured, number, text};
use crate::value::Value;

pub const TOOL: &str = "guidellm";

/// Their distribution → our latency, and what makes milliseconds of it. Their time per output token counts the first
/// token too, so it is not ours; their inter-token latency is ours per request, weighted by tokens in the aggregate.
const LATENCIES: [(&str, &str, f64); 4] = [
    ("time_to_first_token_ms", "ttft", 1.0),
    ("time_to_first_output_token_ms", "ttfo", 1.0),
    ("inter_token_latency_ms", "tpot", 1.0),
    ("request_latency", "e2el", 1e3),
];
const FIGURES: [(&str, &str); 3] = [
    ("requests_per_second", "request_throughput"),
    ("output_tokens_per_second", "output_throughput"),
    ("tokens_per_second", "total_token_throughput"),
];

pub fn is(document: &Json) -> bool {
    document.pointer("/metadata/guidellm_version").is_some()
        || document.pointer("/benchmarks/0/metrics/time_to_first_token_ms").is_some()
}

pub fn read(document: &Json) -> Result<Vec<Measured>, ImportError> {
    let version = document.pointer("/metadata/version").and_then(Json::as_u64).unwrap_or(1);
    if !(1..=2).contains(&version) {
        let release =
            document.pointer("/metadata/guidellm_version").and_then(Json::as_str).unwrap_or("of unknown release");
        return Err(ImportError::Version {
            tool: "guidellm's report",
            version: format!("{version} (guidellm {release})"),
            known: "1 and 2, up to guidellm 0.8",
            help: "export it with an older guidellm, or compare another tool's file",
        });
    }
    let benchmarks = document.get("benchmarks").and_then(Json::as_array).filter(|b| !b.is_empty());
    let benchmarks = benchmarks.ok_or_else(|| shape("it has no benchmark".into()))?;
    let model =
        ["/config/spec/backend/model", "/args/model", "/config/model", "/benchmarks/0/benchmarker/backend/model"]
            .iter()
            .find_map(|p| document.pointer(p)?.as_str());
    benchmarks.iter().enumerate().map(|(i, b)| read_benchmark(b, i, model)).collect()
}

fn read_benchmark(benchmark: &Json, index: usize, model: Option<&str>) -> Result<Measured, ImportError> {
    let metrics = benchmark.get("metrics").ok_or_else(|| shape(format!("benchmark {index} has no metrics")))?;
    let of = |name: &str| metrics.get(name).and_then(|m| m.get("successful")).filter(|s| !s.is_null());
    let mut m = Measured::default();
    for (theirs, ours, scale) in LATENCIES {
        let Some(d) = of(theirs) else { continue };
        m.value(&format!("mean_{ours}"), number(d, "mean").map(|v| v * scale));
        for p in ["p50", "p90", "p95", "p99"] {
            m.value(&format!("{p}_{ours}"), d.get("percentiles").and_then(|t| number(t, p)).map(|v| v * scale));
        }
    }
    for (theirs, ours) in FIGURES {
        m.value(ours, of(theirs).and_then(|d| number(d, "mean")));
    }
    if m.values.is_empty() {
        return Err(shape(format!("benchmark {index} has none of the metrics that are read")));
    }
    let totals = |name: &str| metrics.get("request_totals").and_then(|t| number(t, name));
    let (ok, failed) = (totals("successful"), totals("errored"));
    m.value(
        "error_rate",
        ok.zip(failed).filter(|(ok, failed)| ok + failed > 0.0).map(|(ok, failed)| failed / (ok + failed)),
    );
    m.set("model", model.map(Value::str));
    m.number("tokens.input", of("prompt_token_count").and_then(|d| number(d, "mean")).map(f64::round));
    m.number("tokens.output", of("output_token_count").and_then(|d| number(d, "mean")).map(f64::round));
    strategy(benchmark, &mut m);
    m.number("requests", totals("total"));
    Ok(m)
}

fn strategy(benchmark: &Json, m: &mut Measured) {
    let places = ["/config/strategy", "/args/strategy", "/scheduler/strategy"];
    let Some(strategy) = places.iter().find_map(|p| benchmark.pointer(p)) else { return };
    match text(strategy, "type_").unwrap_or_default() {
        "concurrent" => {
            m.number("concurrency", number(strategy, "streams").or_else(|| number(strategy, "max_concurrency")))
        }
        "synchronous" => m.number("concurrency", Some(1.0)),
        "constant" | "poisson" | "async" => m.number("rate", number(strategy, "rate")),
        _ => {}
    }
}

fn shape(problem: String) -> ImportError {
    ImportError::Shape { tool: TOOL, problem }
}
