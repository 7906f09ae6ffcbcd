//! The JSON and the CSV of AIPerf, and the JSON of genai-perf, which has the same tags.

use serde_json::Value as Json;

use super::{ImportError, Measured, number, text};
use crate::spec::params::{Lookup, lookup};
use crate::value::Value;

pub const TOOL: &str = "AIPerf";

/// Their tag → our latency. Their inter-token latency is per request what ours calls time per output token; their
/// inter-chunk latency is the gaps.
const LATENCIES: [(&str, &str, &str); 5] = [
    ("time_to_first_token", "Time to First Token", "ttft"),
    ("time_to_first_output_token", "Time to First Output Token", "ttfo"),
    ("inter_token_latency", "Inter Token Latency", "tpot"),
    ("inter_chunk_latency", "Inter Chunk Latency", "itl"),
    ("request_latency", "Request Latency", "e2el"),
];
const FIGURES: [(&str, &str, &str); 5] = [
    ("request_throughput", "Request Throughput", "request_throughput"),
    ("output_token_throughput", "Output Token Throughput", "output_throughput"),
    ("total_token_throughput", "Total Token Throughput", "total_token_throughput"),
    ("output_token_throughput_per_user", "Output Token Throughput Per User", "output_tokens_per_user"),
    ("goodput", "Goodput", "request_goodput"),
];
const AGGREGATES: [(&str, &str); 5] = [("avg", "mean"), ("p50", "p50"), ("p90", "p90"), ("p95", "p95"), ("p99", "p99")];

pub fn is(document: &Json) -> bool {
    let tags = LATENCIES.iter().chain(&FIGURES).map(|(tag, ..)| tag);
    document.get("aiperf_version").is_some()
        || tags.filter(|tag| document.get(tag).is_some_and(|t| t.get("unit").is_some())).count() >= 2
}

pub fn read(document: &Json) -> Result<Measured, ImportError> {
    if let Some(version) = text(document, "schema_version").filter(|v| v.split('.').next() != Some("1")) {
        let tool = text(document, "aiperf_version").map(|v| format!(", AIPerf {v}")).unwrap_or_default();
        return Err(ImportError::Version {
            tool: "the AIPerf schema",
            version: format!("{version}{tool}"),
            known: "1.x",
            help: "export it with an AIPerf that writes schema 1, or compare the vLLM-bench format",
        });
    }
    let mut m = Measured::default();
    for (tag, _, name) in LATENCIES {
        let Some(entry) = document.get(tag) else { continue };
        let scale = milliseconds(text(entry, "unit").unwrap_or("ms"))
            .ok_or_else(|| shape(format!("`{tag}` has the unit {}", entry["unit"])))?;
        for (theirs, ours) in AGGREGATES {
            m.value(&format!("{ours}_{name}"), number(entry, theirs).map(|v| v * scale));
        }
    }
    for (tag, _, ours) in FIGURES {
        m.value(ours, document.get(tag).and_then(|e| number(e, "avg")));
    }
    if m.values.is_empty() {
        return Err(shape("it has none of the tags that are read".into()));
    }
    let average = |tag: &str| document.get(tag).and_then(|e| number(e, "avg"));
    let errors = average("error_request_count").unwrap_or(0.0);
    m.value("error_rate", average("request_count").map(|ok| errors / (ok + errors)));
    coordinates(document, average, &mut m);
    Ok(m)
}

fn coordinates(document: &Json, average: impl Fn(&str) -> Option<f64>, m: &mut Measured) {
    let config = &document["input_config"];
    let models = config.pointer("/models/items/0/name").or_else(|| config.pointer("/endpoint/model_names/0"));
    m.set("model", models.and_then(Json::as_str).map(Value::str));
    m.number("tokens.input", average("input_sequence_length").map(f64::round));
    m.number("tokens.output", average("output_sequence_length").map(f64::round));
    let phases = config.get("phases").and_then(Json::as_array).cloned().unwrap_or_default();
    let phase = phases.iter().find(|p| text(p, "kind") == Some("profiling")).or(phases.last());
    let older = config.get("loadgen");
    let of = |key: &str, old: &str| phase.and_then(|p| number(p, key)).or_else(|| older.and_then(|l| number(l, old)));
    m.number("concurrency", of("concurrency", "concurrency"));
    m.number("rate", of("rate", "request_rate").or_else(|| phase.and_then(|p| number(p, "request_rate"))));
    m.number("requests", of("requests", "request_count"));
    debug_assert!(m.cell.keys().all(|k| matches!(lookup(k), Lookup::Param(_))));
}

/// `profile_export_aiperf.csv`: a section of distributions, then one of single figures, rounded to two decimals.
pub fn read_csv(csv_text: &str) -> Result<Measured, ImportError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv_text.as_bytes());
    let mut m = Measured::default();
    let mut columns: Vec<String> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| ImportError::Syntax(e.to_string()))?;
        let label = record.get(0).unwrap_or_default();
        if matches!(label, "Metric" | "Endpoint") {
            columns = record.iter().map(str::to_string).collect();
            continue;
        }
        let (name, unit) = label.rsplit_once(" (").map_or((label, ""), |(n, u)| (n, u.trim_end_matches(')')));
        let of =
            |column: &str| columns.iter().position(|c| c == column).and_then(|i| record.get(i)?.parse::<f64>().ok());
        if let Some((.., ours)) = LATENCIES.iter().find(|(_, l, _)| *l == name) {
            let scale = milliseconds(unit).ok_or_else(|| shape(format!("`{name}` has the unit {unit:?}")))?;
            for (theirs, aggregate) in AGGREGATES {
                m.value(&format!("{aggregate}_{ours}"), of(theirs).map(|v| v * scale));
            }
        } else if let Some((.., ours)) = FIGURES.iter().find(|(_, l, _)| *l == name) {
            m.value(ours, of("avg").or_else(|| of("Value")));
        } else {
            match name {
                "Input Sequence Length" => m.number("tokens.input", of("avg").map(f64::round)),
                "Output Sequence Length" => m.number("tokens.output", of("avg").map(f64::round)),
                "Request Count" => m.number("requests", of("Value")),
                "Request Error Rate" => m.value("error_rate", of("Value").map(|percent| percent / 100.0)),
                _ => {}
            }
        }
    }
    if m.values.is_empty() { Err(shape("it has none of the rows that are read".into())) } else { Ok(m) }
}

fn milliseconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" => 1.0,
        "s" | "sec" => 1e3,
        "us" => 1e-3,
        "ns" => 1e-6,
        _ => return None,
    })
}

fn shape(problem: String) -> ImportError {
    ImportError::Shape { tool: TOOL, problem }
}
