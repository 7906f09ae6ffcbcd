//! A report as a matrix: which stack, which lengths, which load each unit is, and its figures over samples.

use std::collections::BTreeSet;
use std::fmt;

use super::figures::figure;
use super::{Report, ReportUnit, axes};
use crate::stats::Summary;
use crate::stats::interval::{Interval, t_interval};

/// What a matrix compares: everything that tells units apart but model, lengths and load.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    /// Parameters and labels that vary.
    axes: Vec<String>,
    /// Name of each stack as keys, in the order in which the report has them.
    keys: Vec<Vec<String>>,
    names: Vec<String>,
}

/// Lengths that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lengths {
    pub isl: Option<u32>,
    pub osl: Option<u32>,
}

/// How hard a stack was pressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Requests in flight.
    Concurrency(u32),
    /// Requests per second.
    Rate(f64),
    /// By a trace or by stages.
    Other,
}

impl Stacks {
    pub fn of(report: &Report) -> Stacks {
        let axes = axes::varying(&report.units);
        let mut stacks = Stacks { axes, ..Stacks::default() };
        for unit in &report.units {
            let key = stacks.key(unit);
            if !stacks.keys.contains(&key) {
                stacks.keys.push(key);
            }
        }
        stacks.names = names(&stacks.keys);
        stacks
    }

    /// Number of the stack that a unit is of.
    ///
    /// # Panics
    /// When the unit is of another report.
    pub fn index(&self, unit: &ReportUnit) -> usize {
        let key = self.key(unit);
        self.keys.iter().position(|k| *k == key).expect("a unit of this report")
    }

    /// What tells the stack from the others; method and engine where there is only one.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Method, engine, and what the varying axes say: a label as it is, a parameter with its name.
    fn key(&self, unit: &ReportUnit) -> Vec<String> {
        let fixed = [unit.facts.method.clone(), unit.facts.engine.clone()];
        let varying = self.axes.iter().map(|name| match axes::value(unit, name) {
            None => String::new(),
            Some(label) if unit.facts.labels.iter().any(|(axis, _)| axis == name) => label,
            Some(value) => format!("{}={value}", name.rsplit('.').next().unwrap_or(name)),
        });
        fixed.into_iter().chain(varying).collect()
    }
}

/// Names of as few words as tell the keys apart: the engine, and whatever is not the same for all.
fn names(keys: &[Vec<String>]) -> Vec<String> {
    let varies = |at: usize| keys.iter().map(|k| &k[at]).collect::<BTreeSet<_>>().len() > 1;
    let name = |key: &Vec<String>| {
        let words = key.iter().enumerate().filter(|(at, _)| *at == 1 || varies(*at) || keys.len() == 1);
        words.map(|(_, word)| word.as_str()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
    };
    keys.iter().map(name).collect()
}

impl Lengths {
    pub fn of(unit: &ReportUnit) -> Lengths {
        Lengths { isl: unit.facts.isl, osl: unit.facts.osl }
    }
}

/// `1024 → 128`.
impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |n: Option<u32>| n.map_or_else(|| "any".to_string(), |n| n.to_string());
        write!(f, "{} → {}", text(self.isl), text(self.osl))
    }
}

impl Load {
    pub fn of(unit: &ReportUnit) -> Load {
        match (unit.facts.request_rate, unit.facts.concurrency) {
            (Some(rate), _) => Load::Rate(rate),
            (None, Some(n)) => Load::Concurrency(n),
            (None, None) => Load::Other,
        }
    }

    pub fn value(self) -> Option<f64> {
        match self {
            Load::Concurrency(n) => Some(f64::from(n)),
            Load::Rate(rate) => Some(rate),
            Load::Other => None,
        }
    }

    /// Name of an axis of such loads.
    pub fn axis(self) -> &'static str {
        match self {
            Load::Concurrency(_) => "concurrency",
            Load::Rate(_) => "requests per second",
            Load::Other => "load",
        }
    }

    /// Loads that can stand on one axis.
    pub fn same_kind(self, other: Load) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// `c 16`, `2.5/s`.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Concurrency(n) => write!(f, "c {n}"),
            Load::Rate(rate) => write!(f, "{}/s", figure(*rate)),
            Load::Other => write!(f, "–"),
        }
    }
}

impl ReportUnit {
    /// Mean and interval of a figure over the samples that count.
    pub fn over_samples(&self, of: impl Fn(&Summary) -> Option<f64>) -> Option<Interval> {
        let values: Vec<f64> = self.samples.iter().filter(|s| s.valid).filter_map(|s| of(&s.summary)).collect();
        t_interval(&values)
    }

    /// Where a page has the unit.
    pub fn anchor(&self) -> String {
        format!("u-{}", self.unit_id.short(12))
    }
}

/// Models without what all of them have in common: the organisation, where names stay apart without it.
pub fn short_models(report: &Report) -> impl Fn(&str) -> String + use<> {
    let models: BTreeSet<String> = report.units.iter().map(|u| u.facts.model.clone()).collect();
    let last = |m: &str| m.rsplit('/').next().unwrap_or(m).to_string();
    let distinct = models.iter().map(|m| last(m)).collect::<BTreeSet<_>>().len() == models.len();
    move |model: &str| if distinct { last(model) } else { model.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn stacks_are_named_by_what_tells_them_apart() {
        let report = testing::report();
        let stacks = Stacks::of(&report);
        let names: Vec<&str> = (0..stacks.len()).map(|i| stacks.name(i)).collect();
        assert_eq!(names, ["vllm bf16", "vllm fp8", "sglang bf16"]);
        assert_eq!(stacks.index(&report.units[3]), 2);
        let mut report = report;
        report.units[0].facts.cell.insert("engine_args.kv_tokens".into(), crate::value::Value::Int(2048));
        let stacks = Stacks::of(&report);
        assert_eq!((stacks.name(0), stacks.name(1)), ("vllm bf16 kv_tokens=2048", "vllm bf16"));
        let one = Report { units: vec![report.units[0].clone()], ..Report::default() };
        assert_eq!(Stacks::of(&one).name(0), "hf vllm");
    }

    #[test]
    fn words_of_lengths_and_loads() {
        assert_eq!(Lengths { isl: Some(1024), osl: None }.to_string(), "1024 → any");
        assert_eq!((Load::Concurrency(8).to_string(), Load::Rate(2.5).to_string()), ("c 8".into(), "2.50/s".into()));
        let report = testing::report();
        assert_eq!(short_models(&report)("org/m"), "m");
    }
}
