//! The matrix as a coloured grid: stacks down, lengths and loads across, one figure at a time.

use serde::Serialize;

use crate::report::cells::{Lengths, Load, Stacks, short_models};
use crate::report::column::Better;
use crate::report::figures::figure;
use crate::report::{Report, ReportUnit};
use crate::stats::Summary;

/// A figure that the grid can show.
struct Metric {
    title: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Summary) -> Option<f64>,
}

/// In the order in which they are offered; price comes from the sample, not from its summary.
const METRICS: [Metric; 10] = [
    Metric { title: "Output per GPU", unit: "tok/s", better: Better::Higher, of: |s| s.output_throughput_per_gpu },
    Metric { title: "Output", unit: "tok/s", better: Better::Higher, of: |s| s.output_throughput },
    Metric { title: "Output per user", unit: "tok/s", better: Better::Higher, of: |s| s.output_tokens_per_user },
    Metric { title: "TTFT p50", unit: "ms", better: Better::Lower, of: |s| s.ttft.p50 },
    Metric { title: "TTFT p99", unit: "ms", better: Better::Lower, of: |s| s.ttft.p99 },
    Metric { title: "TPOT p50", unit: "ms", better: Better::Lower, of: |s| s.tpot.p50 },
    Metric { title: "TPOT p99", unit: "ms", better: Better::Lower, of: |s| s.tpot.p99 },
    Metric { title: "E2EL p50", unit: "ms", better: Better::Lower, of: |s| s.e2el.p50 },
    Metric { title: "Requests", unit: "1/s", better: Better::Higher, of: |s| s.request_throughput },
    Metric { title: "Goodput", unit: "1/s", better: Better::Higher, of: |s| s.request_goodput },
];

/// The grid of one model.
#[derive(Serialize)]
pub struct Matrix {
    model: String,
    /// Offered figures: title with unit, and whether higher is better.
    metrics: Vec<Offered>,
    lengths: Vec<Head>,
    loads: Vec<Load2>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Offered {
    title: String,
    higher: bool,
}

#[derive(Serialize)]
struct Head {
    text: String,
    span: usize,
}

#[derive(Serialize)]
struct Load2 {
    text: String,
    /// First of its lengths: a line is drawn before it.
    first: bool,
}

#[derive(Serialize)]
struct Row {
    stack: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    /// `ok`, `invalid`, `failed`, …; empty where nothing was planned.
    status: &'static str,
    text: String,
    anchor: Option<String>,
    hover: String,
    /// Offered figures with four digits, comma-separated; an absent one is empty.
    values: String,
    /// Percent of the way from twice as bad as the best of its column to the best.
    heat: Option<u8>,
    first: bool,
}

type Column = (Lengths, Load);

/// A grid for each model that has more than one unit.
pub fn matrices(report: &Report) -> Vec<Matrix> {
    let stacks = Stacks::of(report);
    let short = short_models(report);
    let mut models: Vec<&str> = Vec::new();
    for unit in report.units.iter().filter(|u| !u.probe) {
        if !models.contains(&unit.facts.model.as_str()) {
            models.push(&unit.facts.model);
        }
    }
    let offered: Vec<&Metric> = METRICS.iter().filter(|m| report.units.iter().any(|u| value(u, m).is_some())).collect();
    let matrix = |model: &str| {
        let units: Vec<&ReportUnit> = report.units.iter().filter(|u| u.facts.model == model && !u.probe).collect();
        (units.len() > 1 && !offered.is_empty()).then(|| Matrix::of(short(model), &units, &stacks, &offered))
    };
    models.into_iter().filter_map(matrix).collect()
}

fn value(unit: &ReportUnit, metric: &Metric) -> Option<f64> {
    unit.over_samples(metric.of).map(|i| i.mean)
}

impl Matrix {
    fn of(model: String, units: &[&ReportUnit], stacks: &Stacks, offered: &[&Metric]) -> Matrix {
        let mut columns: Vec<Column> = Vec::new();
        for unit in units {
            let column = (Lengths::of(unit), Load::of(unit));
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let load = |c: &Column| (matches!(c.1, Load::Rate(_)), c.1.value().unwrap_or(f64::INFINITY));
        columns.sort_by(|a, b| {
            let lengths = a.0.cmp(&b.0);
            lengths.then_with(|| load(a).0.cmp(&load(b).0)).then_with(|| load(a).1.total_cmp(&load(b).1))
        });
        let first = |at: usize| at == 0 || columns[at - 1].0 != columns[at].0;
        let best: Vec<Option<f64>> = columns.iter().map(|c| best(c, units, offered[0])).collect();
        let mut rows: Vec<(usize, Row)> = Vec::new();
        for unit in units {
            let stack = stacks.index(unit);
            if !rows.iter().any(|(s, _)| *s == stack) {
                rows.push((stack, Row { stack: stacks.name(stack).to_string(), cells: Vec::new() }));
            }
        }
        rows.sort_by_key(|(stack, _)| *stack);
        for (stack, row) in &mut rows {
            for (at, column) in columns.iter().enumerate() {
                let of = |u: &&&ReportUnit| stacks.index(u) == *stack && (Lengths::of(u), Load::of(u)) == *column;
                let unit = units.iter().find(of).copied();
                row.cells.push(Cell { first: first(at), ..cell(unit, offered, best[at]) });
            }
        }
        Matrix {
            model,
            metrics: offered.iter().map(|m| Offered::of(m)).collect(),
            lengths: heads(&columns),
            loads: columns.iter().enumerate().map(|(i, c)| Load2 { text: c.1.to_string(), first: first(i) }).collect(),
            rows: rows.into_iter().map(|(_, row)| row).collect(),
        }
    }
}

impl Offered {
    fn of(metric: &Metric) -> Offered {
        Offered { title: format!("{}, {}", metric.title, metric.unit), higher: metric.better == Better::Higher }
    }
}

fn heads(columns: &[Column]) -> Vec<Head> {
    let mut out: Vec<(Lengths, Head)> = Vec::new();
    for (lengths, _) in columns {
        match out.last_mut() {
            Some((last, head)) if last == lengths => head.span += 1,
            _ => out.push((*lengths, Head { text: lengths.to_string(), span: 1 })),
        }
    }
    out.into_iter().map(|(_, head)| head).collect()
}

/// The best figure of a column.
fn best(column: &Column, units: &[&ReportUnit], metric: &Metric) -> Option<f64> {
    let values = units.iter().filter(|u| (Lengths::of(u), Load::of(u)) == *column).filter_map(|u| value(u, metric));
    match metric.better {
        Better::Higher => values.max_by(f64::total_cmp),
        Better::Lower => values.min_by(f64::total_cmp),
    }
}

fn cell(unit: Option<&ReportUnit>, offered: &[&Metric], best: Option<f64>) -> Cell {
    let Some(unit) = unit else {
        let (text, hover, values) = (String::new(), "not planned".into(), String::new());
        return Cell { status: "", text, anchor: None, hover, values, heat: None, first: false };
    };
    let values: Vec<Option<f64>> = offered.iter().map(|m| value(unit, m)).collect();
    let shown = values[0];
    let cause = unit.cause().and_then(|c| c.lines().next()).map(|c| format!("\n{c}")).unwrap_or_default();
    // What has figures that count has its place among the others, also where more samples were asked for.
    let status = if unit.valid_samples() > 0 { "ok" } else { unit.status() };
    let text = match (shown, status) {
        (Some(v), _) => figure(v),
        (None, "ok") => "–".into(),
        (None, status) => status.replace('_', " "),
    };
    let heat = shown.zip(best).map(|(v, best)| {
        let times = if offered[0].better == Better::Higher { best / v } else { v / best };
        ((1.0 - times.log2().clamp(0.0, 1.0)) * 100.0).round() as u8
    });
    Cell {
        status,
        text,
        anchor: Some(unit.anchor()),
        hover: format!("{}{cause}", unit.name),
        values: values.iter().map(|v| v.map(digits).unwrap_or_default()).collect::<Vec<_>>().join(","),
        heat,
        first: false,
    }
}

/// Four significant digits, as a script reads them.
fn digits(v: f64) -> String {
    let text = format!("{v:.3e}");
    text.parse::<f64>().map_or(text, |v| v.to_string())
}
