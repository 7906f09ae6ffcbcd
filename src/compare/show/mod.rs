//! A comparison and a history as people and other programs read them.

pub mod brief;
pub mod junit;
pub mod markdown;
pub mod table;

use super::{Comparison, Finding, Verdict};
use crate::compare::gate::Outcome;
use crate::compare::metric;

/// `+10.2%`.
pub(super) fn percent(share: f64) -> String {
    format!("{:+.1}%", share * 100.0)
}

/// `+10.2% [+8.1%, +12.4%]`, and what the interval does not cover.
pub(super) fn effect(finding: &Finding) -> String {
    let Some(change) = finding.change else { return String::new() };
    let mut text = percent(change);
    if let Some([low, high]) = finding.interval {
        text.push_str(&format!(" [{}, {}]", percent(low), percent(high)));
    }
    match finding.interval_of {
        Some("within_start") => text.push_str(" within one start"),
        Some("within_sample") => text.push_str(" within one sample"),
        _ => {}
    }
    text
}

/// A value with its unit.
pub(super) fn value(finding: &Finding, x: f64) -> String {
    let figure = crate::report::figure(x);
    if finding.unit.is_empty() { figure } else { format!("{figure} {}", finding.unit) }
}

/// `TTFT p95 of llama-hf-vllm conc 8: +10.2% [+8.1%, +12.4%], limit +5%`.
pub(super) fn sentence(cell: &str, finding: &Finding) -> String {
    let mut text = format!("{} of {cell}: ", metric::title(&finding.metric));
    match (effect(finding), finding.b) {
        (effect, _) if !effect.is_empty() => text.push_str(&effect),
        (_, Some(b)) => text.push_str(&value(finding, b.mean)),
        (_, None) => text.push_str("no value"),
    }
    text.push_str(&format!(", limit {}", finding.limit));
    if let Some(q) = finding.q {
        text.push_str(&format!(", q = {}", small(q)));
    }
    text
}

/// A probability.
pub(super) fn small(p: f64) -> String {
    if p >= 0.001 { format!("{p:.3}") } else { format!("{p:.0e}") }
}

/// How many findings of each verdict.
pub(super) fn counts(comparison: &Comparison) -> String {
    let of = |verdict| comparison.cells.iter().flat_map(|c| &c.findings).filter(|f| f.verdict == verdict).count();
    let words = [Verdict::Worse, Verdict::Better, Verdict::Same, Verdict::Undecided];
    let parts = words.into_iter().map(|v| (of(v), v)).filter(|(n, _)| *n > 0);
    let text: Vec<String> = parts.map(|(n, v)| format!("{n} {}", v.as_str())).collect();
    if text.is_empty() { "nothing compared".into() } else { text.join(", ") }
}

/// The verdict of a gate in a sentence; `None` for a plain comparison.
pub(super) fn headline(comparison: &Comparison) -> Option<String> {
    let worse: Vec<&str> = comparison
        .cells
        .iter()
        .filter(|c| c.findings.iter().any(|f| f.verdict == Verdict::Worse))
        .map(|c| c.name.as_str())
        .collect();
    Some(match comparison.outcome.as_ref()? {
        Outcome::Pass => format!("no regression against {}", comparison.a.described),
        Outcome::Regression => format!(
            "regression against {}: {} of {} cells are worse",
            comparison.a.described,
            worse.len(),
            comparison.cells.len()
        ),
        Outcome::Undecidable { reason } => format!("no verdict against {}: {reason}", comparison.a.described),
    })
}

/// Findings by what a reader wants to see first.
pub(super) fn ordered(comparison: &Comparison) -> Vec<(&str, &Finding)> {
    let mut all: Vec<(&str, &Finding)> =
        comparison.cells.iter().flat_map(|c| c.findings.iter().map(move |f| (c.name.as_str(), f))).collect();
    all.sort_by_key(|(_, f)| f.verdict);
    all
}

#[cfg(test)]
mod tests;
