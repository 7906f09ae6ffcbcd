//! Which parameters tell the units of a report apart.

use std::collections::{BTreeMap, BTreeSet};

use super::ReportUnit;

/// Parameters that have columns of their own in every table, or that only size the load.
const NOT_AXES: &[&str] = &[
    "model",
    "method",
    "engine",
    "tokens.input",
    "tokens.output",
    "concurrency",
    "rate",
    "requests",
    "warmup",
    "duration",
];

/// Names of labelled axes and parameters that vary and are not said by another column. An override that follows from the
/// engine, or what a label sets, is no axis of its own.
pub fn varying(units: &[ReportUnit]) -> Vec<String> {
    let mut shown: Vec<Vec<String>> = ["model", "method", "engine"].map(|name| values(units, name)).into();
    let mut axes = Vec::new();
    for axis in label_axes(units) {
        let column = values(units, &axis);
        if distinct(&column) > 1 {
            shown.push(column);
            axes.push(axis);
        }
    }
    for name in parameters(units) {
        let column = values(units, &name);
        if distinct(&column) > 1 && !shown.iter().any(|other| follows(&column, other)) {
            shown.push(column);
            axes.push(name);
        }
    }
    axes
}

/// The value of a label or of a parameter, as text.
pub fn value(unit: &ReportUnit, name: &str) -> Option<String> {
    let label = unit.facts.labels.iter().find(|(axis, _)| axis == name).map(|(_, label)| label.clone());
    label.or_else(|| unit.facts.cell.get(name).map(ToString::to_string))
}

fn values(units: &[ReportUnit], name: &str) -> Vec<String> {
    units.iter().map(|u| value(u, name).unwrap_or_default()).collect()
}

fn label_axes(units: &[ReportUnit]) -> BTreeSet<String> {
    units.iter().flat_map(|u| u.facts.labels.iter().map(|(axis, _)| axis.clone())).collect()
}

fn parameters(units: &[ReportUnit]) -> BTreeSet<String> {
    let names = units.iter().flat_map(|u| u.facts.cell.keys());
    names.filter(|name| !NOT_AXES.contains(&name.as_str())).cloned().collect()
}

fn distinct(column: &[String]) -> usize {
    column.iter().collect::<BTreeSet<_>>().len()
}

/// Whether equal values of `other` always come with equal values of `column`.
fn follows(column: &[String], other: &[String]) -> bool {
    let mut seen = BTreeMap::new();
    other.iter().zip(column).all(|(key, value)| *seen.entry(key).or_insert(value) == value)
}

#[cfg(test)]
mod tests {
    use super::super::testing::unit;
    use super::*;

    #[test]
    fn only_what_no_other_column_says() {
        let cells = [
            r#"{"engine":"vllm","engine_args.a":1,"quantization":"none","requests":10,"seed":1}"#,
            r#"{"engine":"vllm","engine_args.a":1,"quantization":"fp8","requests":20,"seed":2}"#,
            r#"{"engine":"sglang","engine_args.b":2,"quantization":"none","requests":10,"seed":1}"#,
            r#"{"engine":"sglang","engine_args.b":2,"quantization":"fp8","requests":10,"seed":1}"#,
        ];
        let mut units: Vec<ReportUnit> = cells.iter().map(|c| unit("u", c)).collect();
        assert_eq!(varying(&units), ["quantization", "seed"]);
        for (i, unit) in units.iter_mut().enumerate() {
            unit.facts.labels = vec![("precision".into(), ["bf16", "fp8"][i % 2].into())];
        }
        assert_eq!(varying(&units), ["precision", "seed"]);
        assert!(varying(&units[..1]).is_empty());
    }
}
