//! What is different around two sides: hosts, drivers, versions. Said before any number, because it may be the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::side::SideCell;

/// One thing that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `driver`, `engine_version`, …
    pub field: String,
    /// The stacks it concerns, where it does not concern all: `hf vllm`.
    pub of: Vec<String>,
    pub a: Vec<String>,
    pub b: Vec<String>,
}

/// In the order in which they are told.
const FIELDS: [&str; 13] = [
    "hardware",
    "gpus",
    "driver",
    "host",
    "cpu",
    "kernel",
    "docker_version",
    "network_path",
    "image",
    "image_digest",
    "engine_version",
    "model_commit",
    "llmatrix",
];

/// The circumstances that differ between the sides of paired cells. What only one side knows is no difference.
pub fn differences(pairs: &[(&SideCell, &SideCell)]) -> Vec<Difference> {
    let mut out = Vec::new();
    for field in FIELDS {
        let mut by_values: BTreeMap<(Vec<String>, Vec<String>), BTreeSet<String>> = BTreeMap::new();
        let mut stacks = BTreeSet::new();
        for (a, b) in pairs {
            let (in_a, in_b) = (values(a, field), values(b, field));
            stacks.insert(stack(b));
            if !in_a.is_empty() && !in_b.is_empty() && in_a != in_b {
                by_values.entry((in_a, in_b)).or_default().insert(stack(b));
            }
        }
        for ((a, b), of) in by_values {
            let of = if of == stacks { Vec::new() } else { of.into_iter().collect() };
            out.push(Difference { field: field.to_string(), of, a, b });
        }
    }
    out
}

fn values(cell: &SideCell, field: &str) -> Vec<String> {
    let all: BTreeSet<&String> = cell.samples.iter().filter_map(|s| s.circumstances.get(field)).collect();
    all.into_iter().cloned().collect()
}

/// `hf vllm`.
pub fn stack(cell: &SideCell) -> String {
    let of = |name: &str| cell.cell.get(name).map(ToString::to_string);
    let words: Vec<String> = ["method", "engine"].into_iter().filter_map(of).collect();
    if words.is_empty() { cell.name.clone() } else { words.join(" ") }
}

impl Difference {
    /// In one line: `driver: 550.54 → 560.28`.
    pub fn text(&self) -> String {
        let of = if self.of.is_empty() { String::new() } else { format!(" ({})", self.of.join(", ")) };
        format!("{}{of}: {} → {}", self.field.replace('_', " "), shown(&self.a), shown(&self.b))
    }
}

fn shown(values: &[String]) -> String {
    const MOST: usize = 3;
    let mut text = values.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if values.len() > MOST {
        text.push_str(&format!(" and {} more", values.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::cell;

    #[test]
    fn what_differs_is_told_once() {
        let with = |engine: &str, driver: &str, version: &str| {
            let mut cell = cell(engine, 1, &[("r", 1, 10.0)]);
            cell.samples[0].circumstances =
                [("driver", driver), ("engine_version", version)].map(|(k, v)| (k.into(), v.into())).into();
            cell
        };
        let (a1, b1) = (with("vllm", "550", "0.26"), with("vllm", "560", "0.27"));
        let (a2, mut b2) = (with("sglang", "550", "1"), with("sglang", "560", "1"));
        let texts =
            |b2: &SideCell| differences(&[(&a1, &b1), (&a2, b2)]).iter().map(Difference::text).collect::<Vec<_>>();
        assert_eq!(texts(&b2), ["driver: 550 → 560", "engine version (hf vllm): 0.26 → 0.27"]);
        b2.samples[0].circumstances.clear();
        assert_eq!(texts(&b2)[0], "driver (hf vllm): 550 → 560");
    }
}
