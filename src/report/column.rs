//! The columns that a table can have: what each is called, where its values come from, which end of it is better.

use super::{ReportUnit, ViewError, axes};
use crate::store::row::{Field, columns};

/// Which values of a column are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A column of the results row, by its index.
    Row(usize),
    /// A labelled axis or a parameter.
    Axis(String),
    Status,
    /// Number of samples that count.
    Samples,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name by which it is asked for.
    pub name: String,
    /// The name that people read.
    pub title: String,
    /// `""` where there is none.
    pub unit: String,
    pub better: Option<Better>,
    pub source: Source,
}

/// Short names of the columns that most tables have.
const TITLES: &[(&str, &str)] = &[
    ("isl", "ISL"),
    ("osl", "OSL"),
    ("concurrency", "conc"),
    ("request_rate", "rate"),
    ("output_throughput", "output"),
    ("total_token_throughput", "total"),
    ("request_throughput", "requests"),
    ("request_goodput", "goodput"),
    ("output_throughput_per_gpu", "per GPU"),
    ("output_tokens_per_user", "per user"),
    ("usd_per_1m_output_tokens", "$/1M out"),
    ("cost_usd", "cost"),
    ("makespan_s", "makespan"),
];

/// The usual columns for these units.
pub fn usual(units: &[ReportUnit]) -> Vec<Column> {
    let has = |test: fn(&ReportUnit) -> bool| units.iter().any(test);
    let mut names = vec!["model", "method", "engine", "isl", "osl"];
    if has(|u| u.facts.concurrency.is_some()) || units.is_empty() {
        names.push("concurrency");
    }
    if has(|u| u.facts.request_rate.is_some()) {
        names.push("request_rate");
    }
    let axes = axes::varying(units);
    names.extend(axes.iter().map(String::as_str));
    names.extend(["p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "output_throughput", "request_throughput"]);
    if has(|u| u.samples.iter().any(|s| s.summary.makespan_s.is_some())) {
        names.push("makespan_s");
    }
    if has(|u| u.samples.iter().any(|s| s.summary.request_goodput.is_some())) {
        names.push("request_goodput");
    }
    if has(|u| u.samples.iter().any(|s| s.cost_usd.is_some())) {
        names.push("usd_per_1m_output_tokens");
    }
    if has(|u| u.samples.len() > 1) {
        names.push("samples");
    }
    names.push("status");
    names.into_iter().map(|name| find(name, units).expect("the usual columns exist")).collect()
}

/// The column of a name.
pub fn find(name: &str, units: &[ReportUnit]) -> Result<Column, ViewError> {
    let column = |title: String, unit: &str, better, source| Column {
        name: name.to_string(),
        title,
        unit: unit.to_string(),
        better,
        source,
    };
    match name {
        "status" => return Ok(column("status".into(), "", None, Source::Status)),
        "samples" => return Ok(column("n".into(), "", None, Source::Samples)),
        _ => {}
    }
    if let Some(index) = columns().iter().position(|c| c.name == name) {
        return Ok(column(title(name), unit(name, columns()[index].unit), better(name), Source::Row(index)));
    }
    let known = units.iter().any(|u| axes::value(u, name).is_some());
    if known || matches!(crate::spec::params::lookup(name), crate::spec::params::Lookup::Param(_)) {
        let title = name.strip_prefix("engine_args.").unwrap_or(name).to_string();
        return Ok(column(title, "", None, Source::Axis(name.to_string())));
    }
    Err(ViewError::UnknownColumn { name: name.to_string(), suggestion: nearest(name, units) })
}

fn nearest(name: &str, units: &[ReportUnit]) -> Option<String> {
    let labels = units.iter().flat_map(|u| u.facts.labels.iter().map(|(axis, _)| axis.as_str()));
    let cells = units.iter().flat_map(|u| u.facts.cell.keys().map(String::as_str));
    let all = columns().iter().map(|c| c.name).chain(["status", "samples"]).chain(labels).chain(cells);
    let near = all.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min()?;
    (near.0 <= 1 + name.len() / 3).then(|| near.1.to_string())
}

/// `p99_ttft_ms` is `TTFT p99`.
fn title(name: &str) -> String {
    if let Some((_, title)) = TITLES.iter().find(|(n, _)| *n == name) {
        return (*title).to_string();
    }
    let Some((stat, metric)) = name.strip_suffix("_ms").and_then(|n| n.split_once('_')) else {
        return name.to_string();
    };
    match metric {
        "ttft" | "tpot" | "itl" | "e2el" => format!("{} {stat}", metric.to_uppercase()),
        _ => name.to_string(),
    }
}

/// What a head says of the unit: nothing where the name is enough.
fn unit<'a>(name: &str, unit: &'a str) -> &'a str {
    match (name, unit) {
        ("isl" | "osl" | "concurrency" | "requests", _) => "",
        (_, "tokens/s") => "tok/s",
        _ => unit,
    }
}

fn better(name: &str) -> Option<Better> {
    let lower = ["error_rate", "makespan_s", "j_per_output_token", "cost_usd", "usd_per_1m_output_tokens", "energy_j"];
    let higher = ["throughput", "goodput", "tokens_per_user"];
    let latency = ["_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms"];
    if lower.contains(&name) || (latency.iter().any(|l| name.ends_with(l)) && !name.starts_with("client_")) {
        Some(Better::Lower)
    } else if higher.iter().any(|h| name.contains(h)) {
        Some(Better::Higher)
    } else {
        None
    }
}

/// A field as a number, where it is one.
pub fn number(field: &Field) -> Option<f64> {
    match field {
        Field::Int(i) => Some(*i as f64),
        Field::Float(f) => Some(*f),
        Field::Empty | Field::Bool(_) | Field::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_titles_and_directions() {
        let c = |name| find(name, &[]).unwrap();
        assert_eq!((c("p99_ttft_ms").title.as_str(), c("p99_ttft_ms").unit.as_str()), ("TTFT p99", "ms"));
        assert_eq!(c("p99_ttft_ms").better, Some(Better::Lower));
        assert_eq!(c("output_throughput").better, Some(Better::Higher));
        assert_eq!(c("client_error_ttft_ms").better, None);
        assert_eq!(c("engine_args.max_num_seqs").source, Source::Axis("engine_args.max_num_seqs".into()));
        let e = find("p99_tfft_ms", &[]).unwrap_err().to_string();
        assert!(e.contains("did you mean `p99_ttft_ms`?"), "{e}");
    }
}
