//! Other tools' result files as a side. Each reader takes what the tool measured by the definition that is ours, under our
//! name; what it defines otherwise is left out, never renamed. `docs/compare.md` has the tables.

mod aiperf;
mod guidellm;
mod vllm;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::baseline::{self, BaselineError};
use super::side::{Side, SideCell, SideRun, SideSample, coordinates};
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
    Baseline(#[from] BaselineError),
}

/// One measurement of another tool.
#[derive(Debug, Default)]
struct Measured {
    cell: CellRecord,
    values: BTreeMap<String, f64>,
    circumstances: BTreeMap<String, String>,
}

/// Reads a file. `name` is what the side is called.
pub fn read(text: &str, name: &str) -> Result<Side, ImportError> {
    if text.trim_start().starts_with("Metric,") {
        return Ok(side(name, aiperf::TOOL, vec![aiperf::read_csv(text)?]));
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
    if aiperf::is(document) {
        return aiperf::read(document).map(|m| (aiperf::TOOL, vec![m]));
    }
    if let Some(tool) = vllm::tool(document) {
        return vllm::read(document, tool).map(|m| (tool, vec![m]));
    }
    let keys = document.as_object().map(|o| o.keys().take(6).cloned().collect::<Vec<_>>().join(", "));
    Err(ImportError::Unknown(match keys {
        Some(keys) if !keys.is_empty() => format!("It begins with {keys}"),
        _ => "It is no JSON object".into(),
    }))
}

/// Measurements of equal coordinates are repeats of a cell. None says of which engine start it is, so all count to one.
fn side(name: &str, tool: &str, measured: Vec<Measured>) -> Side {
    let mut side = Side { name: name.to_string(), tool: Some(tool.to_string()), ..Side::default() };
    side.runs.push(SideRun { run: tool.to_string(), ..SideRun::default() });
    for m in measured {
        let sample = SideSample {
            run: tool.to_string(),
            values: m.values,
            circumstances: m.circumstances,
            ..SideSample::default()
        };
        match side.cells.iter_mut().find(|c| coordinates(&c.cell) == coordinates(&m.cell)) {
            Some(cell) => cell.samples.push(sample),
            None => side.cells.push(SideCell {
                name: cell_name(&m.cell),
                cell: m.cell,
                labels: Vec::new(),
                samples: vec![sample],
            }),
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
        "model" => String::new(),
        other => format!("{other}="),
    };
    let order = ["model", "tokens.input", "tokens.output", "concurrency", "rate"];
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

/// A mean length in whole tokens, as an experiment would ask for it.
fn tokens(total: Option<f64>, requests: Option<f64>) -> Option<f64> {
    Some((total? / requests.filter(|n| *n > 0.0)?).round())
}

#[cfg(test)]
mod tests;
