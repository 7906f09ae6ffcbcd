//! The rules of a comparison, and what a gate makes of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::{Comparison, Verdict};
use super::metric;
use crate::spec::gate::{self, DEFAULT_FDR, DEFAULT_LIMITS, Limit};
use crate::spec::policy::{ErrorTerm, Gate};

/// The smallest change that matters where nothing else is said.
pub const MINIMUM: f64 = 0.05;

/// What is compared, and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub measures: Vec<Measure>,
    /// Share of what is called worse (better) that may be so by chance.
    pub fdr: f64,
    pub error: ErrorTerm,
    /// Cells of one stack only, and a verdict over all.
    pub gate: bool,
}

/// A metric and its limit: the smallest change that matters, or the worst value that is allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub metric: String,
    pub limit: Limit,
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    Regression,
    /// Something that has to be seen to first.
    Undecidable {
        reason: String,
    },
}

impl Rules {
    /// The rules of an experiment's `[gate]`; without a limit there, the usual ones.
    pub fn of_gate(section: &Gate) -> Result<Rules, String> {
        let usual: BTreeMap<String, String> = DEFAULT_LIMITS.map(|(m, l)| (m.to_string(), l.to_string())).into();
        let limits = if section.limits.is_empty() { &usual } else { &section.limits };
        let measures = limits.iter().map(|(name, text)| Measure::parse(name, text)).collect::<Result<_, _>>()?;
        Ok(Rules { measures, fdr: section.fdr, error: section.error, gate: true })
    }

    /// A plain comparison of metrics, by one smallest change that matters.
    pub fn of_metrics(names: &[String], minimum: f64, fdr: f64, error: ErrorTerm) -> Result<Rules, String> {
        let usual: Vec<String> = metric::USUAL.map(str::to_string).to_vec();
        let names = if names.is_empty() { &usual } else { names };
        let measure = |name: &String| Ok(Measure { metric: full_name(name)?, limit: Limit::Change(minimum) });
        Ok(Rules { measures: names.iter().map(measure).collect::<Result<_, String>>()?, fdr, error, gate: false })
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::of_metrics(&[], MINIMUM, DEFAULT_FDR, ErrorTerm::default()).expect("the usual metrics exist")
    }
}

impl Measure {
    pub fn parse(name: &str, limit: &str) -> Result<Measure, String> {
        let metric = full_name(name)?;
        let limit = Limit::parse(&metric, limit)?;
        Ok(Measure { metric, limit })
    }
}

fn full_name(name: &str) -> Result<String, String> {
    gate::metric(name).ok_or_else(|| {
        let help = crate::diag::did_you_mean(name, gate::names().iter().map(String::as_str));
        let help = help.unwrap_or_else(|| format!("the metrics are {}", gate::metrics().join(", ")));
        format!("`{name}` is not a metric; {help}")
    })
}

/// The verdict over a whole comparison.
pub fn outcome(comparison: &Comparison) -> Outcome {
    let findings = || comparison.cells.iter().flat_map(|c| c.findings.iter());
    let worse = findings().filter(|f| f.verdict == Verdict::Worse).count();
    if let Some(drift) = comparison.drift.iter().find(|d| d.moved) {
        return Outcome::Undecidable { reason: format!("unstable: {}", drift.text()) };
    }
    if worse > 0 {
        return Outcome::Regression;
    }
    if let Some(problem) = &comparison.control_problem {
        return Outcome::Undecidable { reason: problem.clone() };
    }
    let judged = findings().count();
    if judged == 0 {
        return Outcome::Undecidable { reason: "no cell of one side is on the other, so nothing was compared".into() };
    }
    // What cannot be tested at all passes no gate by being silent.
    let untested: Vec<_> = findings().filter(|f| f.untested()).collect();
    let beyond = untested.iter().filter(|f| f.beyond_limit()).count();
    let why = untested.first().and_then(|f| f.reason.clone()).unwrap_or_default();
    if untested.len() == judged {
        return Outcome::Undecidable { reason: format!("nothing can be decided: {why}") };
    }
    if beyond > 0 {
        let reason = format!("{beyond} of {judged} changes are beyond their limit and cannot be tested: {why}");
        return Outcome::Undecidable { reason };
    }
    Outcome::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_section() {
        let mut section = Gate::default();
        let usual = Rules::of_gate(&section).unwrap();
        assert_eq!(usual.measures.len(), 3);
        section.limits.insert("ttft".into(), "+5%".into());
        let rules = Rules::of_gate(&section).unwrap();
        assert_eq!(rules.measures, [Measure { metric: "mean_ttft".into(), limit: Limit::Change(0.05) }]);
        section.limits.insert("tfft".into(), "+5%".into());
        assert!(Rules::of_gate(&section).unwrap_err().contains("did you mean"), "{:?}", Rules::of_gate(&section));
        assert!(
            Rules::of_metrics(&["p95_ttft_ms".into()], 0.1, 0.01, ErrorTerm::Starts).unwrap().measures[0].metric
                == "p95_ttft"
        );
        assert_eq!(Rules::default().measures.len(), 5);
    }
}
