//! Each unit with its parameters, its samples and its files.

use serde::Serialize;

use super::{Detail, PageOptions};
use crate::report::figures::figure;
use crate::report::{Report, ReportUnit};
use crate::stats::Summary;
use crate::store::record::SampleRecord;
use crate::store::sample_dir_name;

#[derive(Serialize)]
pub struct Unit {
    anchor: String,
    name: String,
    status: String,
    class: &'static str,
    /// `TTFT 52.0 ms · 1052 tok/s`.
    line: String,
    id: String,
    deployment: String,
    /// Link to the unit's directory, with a slash at its end.
    files: Option<String>,
    cause: Option<String>,
    parameters: Vec<(String, String)>,
    samples: Vec<Sample>,
    errors: Vec<(String, u64)>,
}

#[derive(Serialize)]
struct Sample {
    number: u32,
    /// Directory of its files.
    directory: String,
    started: String,
    figures: Vec<String>,
    valid: bool,
    reason: String,
    cached: bool,
}

/// A head, and the figure below it.
type Figure = (&'static str, fn(&Summary) -> Option<f64>);

/// Heads of a sample's figures.
pub const FIGURES: [Figure; 8] = [
    ("TTFT p50", |s| s.ttft.p50),
    ("p99", |s| s.ttft.p99),
    ("TPOT p50", |s| s.tpot.p50),
    ("p99", |s| s.tpot.p99),
    ("E2EL p50", |s| s.e2el.p50),
    ("out tok/s", |s| s.output_throughput),
    ("req/s", |s| s.request_throughput),
    ("errors", |s| Some(s.n_error as f64)),
];

/// All units; none in a page that has to be very short.
pub fn units(report: &Report, options: &PageOptions, detail: Detail) -> Vec<Unit> {
    if detail == Detail::Bare {
        return Vec::new();
    }
    report.units.iter().map(|u| unit(report, u, options, detail)).collect()
}

fn unit(report: &Report, unit: &ReportUnit, options: &PageOptions, detail: Detail) -> Unit {
    let full = detail == Detail::Full;
    let run = report.run.as_ref().map(|r| r.run.as_str());
    let path = |root: &String| format!("{root}/{}/units/{}/", unit.directory, unit.unit_id.short(16));
    let labels = unit.facts.labels.iter().map(|(axis, label)| (axis.clone(), label.clone()));
    let cell = unit.facts.cell.iter().map(|(name, value)| (name.clone(), value.to_string()));
    let samples = unit.samples.iter().map(|s| sample(s, run));
    let errors = unit.samples.iter().flat_map(|s| &s.summary.errors).cloned();
    Unit {
        anchor: unit.anchor(),
        name: unit.name.clone(),
        status: unit.status().replace('_', " "),
        class: unit.status(),
        line: line(unit),
        id: unit.unit_id.to_string(),
        deployment: unit.deploy_id.short(16),
        files: options.root.as_ref().map(path),
        cause: unit.cause().map(str::to_string),
        parameters: if full { labels.chain(cell).collect() } else { Vec::new() },
        samples: if full { samples.collect() } else { Vec::new() },
        errors: if full { errors.collect() } else { Vec::new() },
    }
}

fn line(unit: &ReportUnit) -> String {
    let shown = |name: &str, of: fn(&Summary) -> Option<f64>, after: &str| {
        unit.over_samples(of).map(|i| format!("{name}{}{after}", figure(i.mean)))
    };
    let parts = [
        shown("TTFT ", |s| s.ttft.p50, " ms"),
        shown("TPOT ", |s| s.tpot.p50, " ms"),
        shown("", |s| s.output_throughput, " tok/s"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn sample(s: &SampleRecord, run: Option<&str>) -> Sample {
    let figures = FIGURES.iter().map(|(_, of)| of(&s.summary).map(figure).unwrap_or_default());
    Sample {
        number: s.sample,
        directory: sample_dir_name(s.sample),
        started: s.started_at.replace('T', " ").split('.').next().unwrap_or_default().to_string(),
        figures: figures.collect(),
        valid: s.valid,
        reason: s.invalid_reason.clone().unwrap_or_default(),
        cached: run.is_some_and(|run| run != s.run),
    }
}
