//! Other tools' result files as a side. What a tool measured by the definition that is ours is taken under our name; what
//! it defines otherwise is left out, never renamed. `docs/compare.md` has the tables. Formats that are written too have
//! their readers in `report::formats`; a file that was exported from a run of ours comes back as what it was.

mod guidellm;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::baseline::{self, BaselineError};
use super::metric;
use super::side::{Side, SideCell, SideRun, SideSample, coordinates};
use crate::report::formats::aiperf::AiPerf;
use crate::report::formats::vllm::VllmBench;
use crate::report::formats::{FormatError, Measurement, Origin};
use crate::store::record::CellRecord;
use crate::value::Value;

/// Why a file is not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ImportError {
    #[error("it is neither JSON nor CSV that can be read: {0}")]
    Syntax(String),
    #[error("{tool} {version} is not a version that this llmatrix reads ({known}): {help}")]
    Version { tool: &'static str, version: String, known: &'static str, help: &'static str },
    #[error("it looks like a file of {tool}, but {problem}")]
    Shape { tool: &'static str, problem: String },
    #[error(
        "it is of no tool that this llmatrix reads: a baseline of its own (`\"format\": \"llmatrix-baseline\"`), vLLM bench \
         serve and its Rust client, SGLang bench_serving, AIPerf, genai-perf, guidellm. {0}"
    )]
    Unknown(String),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Baseline(#[from] BaselineError),
}

/// One measurement of another tool.
#[derive(Debug, Default)]
struct Measured {
    cell: CellRecord,
    values: BTreeMap<String, f64>,
    circumstances: BTreeMap<String, String>,
    /// What it was before it was exported.
    origin: Option<Origin>,
}

/// Reads a file. `name` is what the side is called.
pub fn read(text: &str, name: &str) -> Result<Side, ImportError> {
    if text.trim_start().starts_with("Metric,") {
        return Ok(side(name, AIPERF, vec![of_format(AiPerf::parse_csv(text)?.measurement(), AIPERF)?]));
    }
    let documents: Vec<Json> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|e| ImportError::Syntax(e.to_string()))?;
    let first = documents.first().ok_or_else(|| ImportError::Syntax("it is empty".into()))?;
    if baseline::is_baseline(first) {
        return Ok(baseline::read(first, name)?);
    }
    let mut tool = None;
    let mut measured = Vec::new();
    for document in &documents {
        let (of, more) = read_document(document)?;
        tool = tool.or(Some(of));
        measured.extend(more);
    }
    Ok(side(name, tool.unwrap_or_default(), measured))
}

fn read_document(document: &Json) -> Result<(&'static str, Vec<Measured>), ImportError> {
    if guidellm::is(document) {
        return guidellm::read(document).map(|m| (guidellm::TOOL, m));
    }
    if is_aiperf(document) {
        return of_format(AiPerf::parse(document)?.measurement(), AIPERF).map(|m| (AIPERF, vec![m]));
    }
    if is_vllm(document) {
        let sglang = document.get("mean_e2e_latency_ms").or(document.get("total_throughput")).is_some();
        let tool = if sglang { SGLANG } else { VLLM };
        return of_format(VllmBench::parse(document)?.measurement(), tool).map(|m| (tool, vec![m]));
    }
    let keys = document.as_object().map(|o| o.keys().take(6).cloned().collect::<Vec<_>>().join(", "));
    Err(ImportError::Unknown(match keys {
        Some(keys) if !keys.is_empty() => format!("It begins with {keys}"),
        _ => "It is no JSON object".into(),
    }))
}

const VLLM: &str = "vLLM bench";
const SGLANG: &str = "SGLang bench_serving";
const AIPERF: &str = "AIPerf";

/// The JSON of `vllm bench serve`, of its Rust client, and of SGLang's `bench_serving`, which took it over. None has a
/// version: a file is known by its keys.
fn is_vllm(document: &Json) -> bool {
    let has = |key: &&str| document.get(*key).is_some();
    let latencies = ["mean_ttft_ms", "median_ttft_ms", "mean_e2el_ms", "mean_e2e_latency_ms"];
    ["request_throughput", "completed"].iter().all(&has) && latencies.iter().any(has)
}

/// The JSON of AIPerf, and that of genai-perf, which has the same tags.
fn is_aiperf(document: &Json) -> bool {
    let tags = ["time_to_first_token", "inter_token_latency", "request_latency", "request_throughput"];
    let figures = tags.iter().filter(|tag| document.get(**tag).is_some_and(|t| t.get("unit").is_some()));
    document.get("aiperf_version").is_some() || figures.count() >= 2
}

/// What a reader of `report::formats` made of a file.
fn of_format(m: Measurement, tool: &'static str) -> Result<Measured, ImportError> {
    let shape = |problem: String| ImportError::Shape { tool, problem };
    if m.summary.n_ok == 0 {
        return Err(shape("no request was completed".into()));
    }
    if let Some(origin) = m.origin.as_ref().filter(|o| !o.valid) {
        let reason = origin.invalid_reason.as_deref().unwrap_or("without a reason");
        return Err(shape(format!("the sample of {} that it was exported from is invalid: {reason}", origin.run)));
    }
    let mut out = Measured { values: metric::of_summary(&m.summary).into_iter().collect(), ..Measured::default() };
    match m.origin {
        Some(origin) => {
            out.cell = origin.facts.cell.clone();
            out.origin = Some(origin);
        }
        None => {
            let facts = m.facts;
            out.set("model", Some(facts.model).filter(|m| !m.is_empty()).map(Value::str));
            for (name, count) in [("tokens.input", facts.isl), ("tokens.output", facts.osl)] {
                out.number(name, count.map(f64::from));
            }
            out.number("concurrency", facts.concurrency.map(f64::from));
            out.number("rate", facts.request_rate);
            out.number("requests", facts.requests.map(|n| n as f64));
            facts.api.map(|api| out.circumstances.insert("api".into(), api));
        }
    }
    Ok(out)
}

/// Measurements of equal coordinates are repeats of a cell. None says of which engine start it is, so all count to one.
fn side(name: &str, tool: &str, measured: Vec<Measured>) -> Side {
    let ours = measured.iter().all(|m| m.origin.is_some());
    let simulated = measured.iter().find_map(|m| m.origin.as_ref()).map(|o| o.simulated);
    let tool = (!ours).then(|| tool.to_string());
    let mut side = Side { name: name.to_string(), tool: tool.clone(), simulated, ..Side::default() };
    for m in measured {
        let name = cell_name(&m.cell);
        let sample = m.origin.as_ref().map_or_else(SideSample::default, |origin| SideSample {
            key: Some((origin.unit_id.to_string(), origin.sample)),
            run: origin.run.clone(),
            start: origin.start,
            ..SideSample::default()
        });
        let run = m.origin.map_or_else(|| tool.clone().unwrap_or_default(), |o| o.run);
        if side.runs.iter().all(|r| r.run != run) {
            side.runs.push(SideRun { run: run.clone(), ..SideRun::default() });
        }
        let sample = SideSample { run, values: m.values, circumstances: m.circumstances, ..sample };
        match side.cells.iter_mut().find(|c| coordinates(&c.cell) == coordinates(&m.cell)) {
            Some(cell) => cell.samples.push(sample),
            None => side.cells.push(SideCell { name, cell: m.cell, labels: Vec::new(), samples: vec![sample] }),
        }
    }
    side
}

fn cell_name(cell: &CellRecord) -> String {
    let short = |name: &str| match name {
        "tokens.input" => "ISL ".to_string(),
        "tokens.output" => "OSL ".to_string(),
        "concurrency" => "conc ".to_string(),
        "rate" => "rate ".to_string(),
        "model" | "method" | "engine" => String::new(),
        other => format!("{other}="),
    };
    let order = ["model", "method", "engine", "tokens.input", "tokens.output", "concurrency", "rate"];
    let parts: Vec<String> = order.iter().filter_map(|n| Some(format!("{}{}", short(n), cell.get(*n)?))).collect();
    if parts.is_empty() { "measurement".into() } else { parts.join(" ") }
}

impl Measured {
    fn set(&mut self, parameter: &str, value: Option<Value>) {
        value.map(|v| self.cell.insert(parameter.to_string(), v));
    }

    fn number(&mut self, parameter: &str, value: Option<f64>) {
        self.set(parameter, value.and_then(Value::number));
    }

    fn value(&mut self, metric: &str, value: Option<f64>) {
        value.filter(|v| v.is_finite()).map(|v| self.values.insert(metric.to_string(), v));
    }
}

/// The number at a key.
fn number(document: &Json, key: &str) -> Option<f64> {
    document.get(key)?.as_f64()
}

fn text<'j>(document: &'j Json, key: &str) -> Option<&'j str> {
    document.get(key)?.as_str()
}

#[cfg(test)]
mod tests;
