//! The JSON of `vllm bench serve`, of its Rust client, and of SGLang's `bench_serving`, which took it over with other names
//! for three figures. None has a version: a file is known by its keys.

use serde_json::Value as Json;

use super::{ImportError, Measured, number, text, tokens};
use crate::spec::gate;
use crate::value::Value;

const VLLM: &str = "vLLM bench";
const SGLANG: &str = "SGLang bench_serving";

/// Whose file it is, if it is one.
pub fn tool(document: &Json) -> Option<&'static str> {
    let has = |key: &str| document.get(key).is_some();
    let latency = ["mean_ttft_ms", "median_ttft_ms", "mean_e2el_ms", "mean_e2e_latency_ms"].iter().any(|k| has(k));
    if !(has("request_throughput") && has("completed") && latency) {
        return None;
    }
    Some(if has("mean_e2e_latency_ms") || has("total_throughput") { SGLANG } else { VLLM })
}

pub fn read(document: &Json, tool: &'static str) -> Result<Measured, ImportError> {
    let completed = number(document, "completed");
    if completed.is_none_or(|n| n <= 0.0) {
        return Err(ImportError::Shape { tool, problem: "no request was completed".into() });
    }
    let mut m = Measured::default();
    m.set("model", text(document, "model_id").map(Value::str));
    m.number("tokens.input", tokens(number(document, "total_input_tokens"), completed));
    m.number("tokens.output", tokens(number(document, "total_output_tokens"), completed));
    m.number("concurrency", number(document, "max_concurrency"));
    // "inf" sends everything at once, which is no rate.
    m.number("rate", number(document, "request_rate").filter(|r| r.is_finite()));
    m.number("requests", number(document, "num_prompts").or(completed));
    for metric in gate::metrics() {
        let value = match gate::is_latency(&metric) {
            true => latency(document, &metric),
            false => figure(document, &metric, completed),
        };
        m.value(&metric, value);
    }
    text(document, "backend").map(|b| m.circumstances.insert("backend".into(), b.to_string()));
    Ok(m)
}

fn latency(document: &Json, metric: &str) -> Option<f64> {
    let (aggregate, name) = metric.split_once('_')?;
    let aggregate = if aggregate == "p50" { "median" } else { aggregate };
    let direct = number(document, &format!("{aggregate}_{name}_ms"));
    direct
        .or_else(|| (aggregate == "median").then(|| number(document, &format!("p50_{name}_ms"))).flatten())
        .or_else(|| (name == "e2el").then(|| number(document, &format!("{aggregate}_e2e_latency_ms"))).flatten())
}

fn figure(document: &Json, metric: &str, completed: Option<f64>) -> Option<f64> {
    match metric {
        "request_throughput" | "output_throughput" | "request_goodput" => number(document, metric),
        "total_token_throughput" => number(document, metric).or_else(|| number(document, "total_throughput")),
        "output_throughput_steady" => number(document.get("steady_state")?, "output_throughput"),
        "error_rate" => {
            let sent = number(document, "num_prompts");
            let failed = number(document, "failed").or_else(|| Some(sent? - completed?))?;
            Some(failed / (failed + completed?))
        }
        _ => None,
    }
}
