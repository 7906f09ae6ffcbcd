//! The baseline file: what was measured under a name, in one small JSON that a repository can hold and a script can write.
//! `docs/compare.md` states the format. One sample is one line, so that a diff of two nights can be read.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::side::{Position, Side, SideCell, SideRun, SideSample};
use crate::spec::gate;
use crate::store::record::CellRecord;
use crate::value::Value;

/// What stands under `format`.
pub const FORMAT: &str = "llmatrix-baseline";
/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;

/// Why a baseline cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BaselineError {
    #[error(
        "it is a baseline of version {found}; this llmatrix reads up to {VERSION}. Use the newer llmatrix that wrote it"
    )]
    Newer { found: u32 },
    #[error("it is not a baseline: {0}")]
    Shape(String),
    #[error("{place}: {problem}")]
    Content { place: String, problem: String },
}

/// The file of a side.
pub fn write(side: &Side) -> String {
    let metrics: Vec<String> = gate::metrics()
        .into_iter()
        .filter(|m| side.cells.iter().flat_map(|c| &c.samples).any(|s| s.values.contains_key(m)))
        .collect();
    let mut places: Vec<&BTreeMap<String, String>> = Vec::new();
    for sample in side.cells.iter().flat_map(|c| &c.samples) {
        if !places.contains(&&sample.circumstances) {
            places.push(&sample.circumstances);
        }
    }
    let mut out = String::new();
    let line = |out: &mut String, name: &str, value: &Json| {
        let _ = writeln!(out, " {}: {value},", json!(name));
    };
    out.push_str("{\n");
    line(&mut out, "format", &json!(FORMAT));
    line(&mut out, "version", &json!(VERSION));
    line(&mut out, "name", &json!(side.name));
    side.tool.iter().for_each(|tool| line(&mut out, "tool", &json!(tool)));
    side.simulated.iter().for_each(|simulated| line(&mut out, "simulated", &json!(simulated)));
    list(&mut out, "runs", side.runs.iter().map(run_json), ",");
    list(&mut out, "circumstances", places.iter().map(|p| json!(p)), ",");
    line(&mut out, "metrics", &json!(metrics.iter().map(|m| super::metric::column(m)).collect::<Vec<_>>()));
    out.push_str(" \"cells\": [");
    for (i, cell) in side.cells.iter().enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        let labels: BTreeMap<&str, &str> = cell.labels.iter().map(|(a, l)| (a.as_str(), l.as_str())).collect();
        let _ = writeln!(out, "  {{\"name\": {}, \"cell\": {},", json!(cell.name), json!(cell.cell));
        if !labels.is_empty() {
            let _ = writeln!(out, "   \"labels\": {},", json!(labels));
        }
        out.push_str("   \"samples\": [");
        for (j, sample) in cell.samples.iter().enumerate() {
            let place = places.iter().position(|p| **p == sample.circumstances);
            let _ = write!(out, "{}    {}", if j == 0 { "\n" } else { ",\n" }, sample_json(sample, &metrics, place));
        }
        out.push_str("]}");
    }
    out.push_str("]\n}\n");
    out
}

fn list(out: &mut String, name: &str, items: impl Iterator<Item = Json>, end: &str) {
    let items: Vec<String> = items.map(|i| format!("\n  {i}")).collect();
    let _ = writeln!(out, " {}: [{}]{end}", json!(name), items.join(","));
}

fn run_json(run: &SideRun) -> Json {
    let mut out = json!({ "run": run.run });
    let mut add = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            out[name] = value;
        }
    };
    add("started_at", run.started_at.as_ref().map(|v| json!(v)));
    add("experiment", run.experiment.as_ref().map(|v| json!(v)));
    add("experiment_commit", run.commit.as_ref().map(|v| json!(v)));
    add("experiment_dirty", run.dirty.map(|v| json!(v)));
    out
}

fn sample_json(sample: &SideSample, metrics: &[String], place: Option<usize>) -> String {
    let mut fields = vec![format!("\"run\": {}", json!(sample.run))];
    sample.start.iter().for_each(|s| fields.push(format!("\"start\": {s}")));
    if let Some((unit, number)) = &sample.key {
        fields.push(format!("\"unit\": {}, \"sample\": {number}", json!(unit)));
    }
    sample.control.iter().for_each(|c| fields.push(format!("\"control\": {}", json!(c.as_str()))));
    place.filter(|_| !sample.circumstances.is_empty()).iter().for_each(|p| fields.push(format!("\"in\": {p}")));
    let values: Vec<Option<f64>> = metrics.iter().map(|m| sample.values.get(m).copied()).collect();
    fields.push(format!("\"values\": {}", json!(values)));
    format!("{{{}}}", fields.join(", "))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool: Option<String>,
    #[serde(default)]
    simulated: Option<bool>,
    #[serde(default)]
    runs: Vec<RunEntry>,
    #[serde(default)]
    circumstances: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    metrics: Vec<String>,
    cells: Vec<CellEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunEntry {
    run: String,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    experiment: Option<String>,
    #[serde(default)]
    experiment_commit: Option<String>,
    #[serde(default)]
    experiment_dirty: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CellEntry {
    #[serde(default)]
    name: Option<String>,
    cell: Value,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    samples: Vec<SampleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleEntry {
    #[serde(default)]
    run: Option<String>,
    #[serde(default)]
    start: Option<u32>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    sample: Option<u32>,
    #[serde(default)]
    control: Option<String>,
    #[serde(default, rename = "in")]
    place: Option<usize>,
    values: Json,
}

/// Whether a JSON document says that it is a baseline.
pub fn is_baseline(document: &Json) -> bool {
    document.get("format").and_then(Json::as_str) == Some(FORMAT)
}

/// Reads a baseline. `name` is what it is called where the file does not say.
pub fn read(document: &Json, name: &str) -> Result<Side, BaselineError> {
    let version = document.get("version").and_then(Json::as_u64).and_then(|v| u32::try_from(v).ok());
    if let Some(found) = version.filter(|v| *v > VERSION) {
        return Err(BaselineError::Newer { found });
    }
    let file = File::deserialize(document).map_err(|e| BaselineError::Shape(e.to_string()))?;
    let metrics = file
        .metrics
        .iter()
        .map(|m| known(m).map_err(|problem| content("metrics", problem)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut cells = Vec::with_capacity(file.cells.len());
    for (i, cell) in file.cells.into_iter().enumerate() {
        let place = format!("cells[{i}]");
        cells.push(read_cell(cell, &metrics, &file.circumstances, &place)?);
    }
    let mut runs: Vec<SideRun> = file
        .runs
        .into_iter()
        .map(|r| SideRun {
            run: r.run,
            started_at: r.started_at,
            experiment: r.experiment,
            commit: r.experiment_commit,
            dirty: r.experiment_dirty,
        })
        .collect();
    // Runs that only their samples name, in the order in which they do.
    for sample in cells.iter().flat_map(|c: &SideCell| &c.samples) {
        if runs.iter().all(|r| r.run != sample.run) {
            runs.push(SideRun { run: sample.run.clone(), ..SideRun::default() });
        }
    }
    let name = file.name.unwrap_or_else(|| name.to_string());
    Ok(Side { name, tool: file.tool, simulated: file.simulated, runs, cells, control_problem: None })
}

fn read_cell(
    entry: CellEntry,
    metrics: &[String],
    places: &[BTreeMap<String, String>],
    place: &str,
) -> Result<SideCell, BaselineError> {
    let mut cell = CellRecord::new();
    flatten("", &entry.cell, &mut cell).map_err(|problem| content(&format!("{place}.cell"), problem))?;
    let mut samples = Vec::with_capacity(entry.samples.len());
    for (j, sample) in entry.samples.into_iter().enumerate() {
        let place = format!("{place}.samples[{j}]");
        samples.push(read_sample(sample, metrics, places, &place)?);
    }
    let name = entry.name.unwrap_or_else(|| cell.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "));
    Ok(SideCell { name, cell, labels: entry.labels.into_iter().collect(), samples })
}

fn read_sample(
    entry: SampleEntry,
    metrics: &[String],
    places: &[BTreeMap<String, String>],
    place: &str,
) -> Result<SideSample, BaselineError> {
    let circumstances = match entry.place {
        None => BTreeMap::new(),
        Some(i) => places.get(i).cloned().ok_or_else(|| {
            content(place, format!("`in` is {i}, and there are {} entries in `circumstances`", places.len()))
        })?,
    };
    let control = match entry.control.as_deref() {
        None => None,
        Some(text) => Some(
            Position::parse(text)
                .ok_or_else(|| content(place, format!("`control` is \"first\" or \"last\", not {text:?}")))?,
        ),
    };
    Ok(SideSample {
        key: entry.unit.zip(entry.sample),
        run: entry.run.unwrap_or_else(|| "run".into()),
        start: entry.start,
        control,
        values: read_values(&entry.values, metrics).map_err(|problem| content(&format!("{place}.values"), problem))?,
        circumstances,
        requests: None,
    })
}

/// A table of metric → number, or a list in the order of the file's `metrics`. Null is not measured.
fn read_values(values: &Json, metrics: &[String]) -> Result<BTreeMap<String, f64>, String> {
    let number = |name: &str, value: &Json| match value {
        Json::Null => Ok(None),
        Json::Number(n) => Ok(n.as_f64()),
        other => Err(format!("`{name}` is a number or null, not {other}")),
    };
    let mut out = BTreeMap::new();
    match values {
        Json::Object(table) => {
            for (name, value) in table {
                let metric = known(name)?;
                number(name, value)?.map(|v| out.insert(metric, v));
            }
        }
        Json::Array(list) if list.len() == metrics.len() => {
            for (metric, value) in metrics.iter().zip(list) {
                number(metric, value)?.map(|v| out.insert(metric.clone(), v));
            }
        }
        Json::Array(list) => {
            return Err(format!("there are {} values, and `metrics` names {}", list.len(), metrics.len()));
        }
        other => return Err(format!("a table of metrics or a list of numbers is expected, not {other}")),
    }
    Ok(out)
}

fn known(name: &str) -> Result<String, String> {
    gate::metric(name).ok_or_else(|| {
        let help = crate::diag::did_you_mean(name, gate::names().iter().map(String::as_str));
        format!("`{name}` is not a metric{}", help.map(|h| format!("; {h}")).unwrap_or_default())
    })
}

/// Dotted paths of a table that may hold tables.
fn flatten(prefix: &str, value: &Value, out: &mut CellRecord) -> Result<(), String> {
    let Some(table) = value.as_map() else {
        return Err(format!("a table of parameters is expected, not {}", value.type_name()));
    };
    for (name, value) in table {
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        match value {
            Value::Map(_) => flatten(&path, value, out)?,
            value => {
                out.insert(path, value.clone());
            }
        }
    }
    Ok(())
}

fn content(place: &str, problem: String) -> BaselineError {
    BaselineError::Content { place: place.to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing;

    fn read_text(text: &str) -> Result<Side, BaselineError> {
        read(&serde_json::from_str(text).unwrap(), "file")
    }

    #[test]
    fn what_is_written_is_read() {
        let (runs, result) = testing::two_runs_on_one_sample();
        let mut side = Side::of_runs("x", &runs, |_, _| Some(result.clone()));
        let text = write(&side);
        assert!(text.lines().filter(|l| l.contains("\"values\"")).count() == 2, "{text}");
        // Where requests lie is known only with the artifacts.
        side.cells.iter_mut().flat_map(|c| &mut c.samples).for_each(|s| s.requests = None);
        assert_eq!(read_text(&text).unwrap(), side);
    }

    #[test]
    fn what_a_script_writes_is_read() {
        let side = read_text(
            r#"{"format": "llmatrix-baseline", "version": 1, "cells": [
                {"cell": {"engine": "vllm", "tokens": {"input": 128}, "concurrency": 8.0},
                 "samples": [{"start": 1, "values": {"ttft": 50.5, "output_throughput": null}}, {"values": {"p95_ttft_ms": 3}}]}]}"#,
        )
        .unwrap();
        let cell = &side.cells[0];
        assert_eq!(cell.cell["tokens.input"], Value::Int(128));
        assert_eq!(cell.cell["concurrency"], Value::Int(8));
        assert_eq!(cell.samples[0].values, BTreeMap::from([("mean_ttft".to_string(), 50.5)]));
        assert_eq!((cell.samples[1].start, side.name.as_str(), side.runs.len()), (None, "file", 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let file = |cells: &str| format!(r#"{{"format": "llmatrix-baseline", "version": 1, "cells": {cells}}}"#);
        let problem = |cells: &str| read_text(&file(cells)).unwrap_err().to_string();
        assert!(
            problem(r#"[{"cell": {}, "samples": [{"values": {"p95_tfft_ms": 1}}]}]"#)
                .contains("cells[0].samples[0].values: `p95_tfft_ms` is not a metric")
        );
        assert!(problem(r#"[{"cell": {}, "samples": [{"values": [1]}]}]"#).contains("`metrics` names 0"));
        assert!(problem(r#"[{"cell": 3, "samples": []}]"#).contains("cells[0].cell: a table"));
        assert!(problem(r#"[{"cell": {}, "samples": [{"valus": {}}]}]"#).contains("valus"));
        assert!(problem(r#"[{"cell": {}, "samples": [{"control": "middle", "values": {}}]}]"#).contains("\"first\""));
        assert!(problem(r#"[{"cell": {}, "samples": [{"in": 0, "values": {}}]}]"#).contains("circumstances"));
        let newer = r#"{"format": "llmatrix-baseline", "version": 2, "nights": []}"#;
        assert_eq!(read_text(newer), Err(BaselineError::Newer { found: 2 }));
    }
}
