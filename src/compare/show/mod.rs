//! A comparison and a history as people and other programs read them.

pub mod brief;
pub mod junit;
pub mod markdown;
pub mod table;

use super::{Compared, Comparison, Finding, Verdict};
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
            "regression against {}: {} of {} cells {} worse",
            comparison.a.described,
            worse.len(),
            comparison.cells.len(),
            if worse.len() == 1 { "is" } else { "are" }
        ),
        Outcome::Undecidable { reason } => format!("no verdict against {}: {reason}", comparison.a.described),
    })
}

/// Reasons that are too long for a row of a table: it has a number, and the reason stands below, once.
#[derive(Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    /// What stands behind a verdict: `: 22 starts on each side would decide`, ` [1]`.
    pub fn behind(&mut self, finding: &Finding) -> String {
        const SHORT: usize = 48;
        let Some(reason) = &finding.reason else { return String::new() };
        if reason.len() <= SHORT {
            return format!(": {reason}");
        }
        let known = self.0.iter().position(|r| r == reason);
        let place = known.unwrap_or_else(|| {
            self.0.push(reason.clone());
            self.0.len() - 1
        });
        format!(" [{}]", place + 1)
    }

    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().enumerate().map(|(i, reason)| format!("[{}] {reason}", i + 1))
    }
}

/// Parameters that differ in the same way in every cell, said once.
pub(super) fn in_every_cell(comparison: &Comparison) -> Vec<String> {
    let [first, rest @ ..] = comparison.cells.as_slice() else { return Vec::new() };
    let everywhere = |d: &&super::pair::Differs| !rest.is_empty() && rest.iter().all(|c| c.differs.contains(d));
    first.differs.iter().filter(everywhere).map(super::pair::Differs::text).collect()
}

/// The other parameters that differ in a cell.
pub(super) fn of_cell(cell: &Compared, in_every_cell: &[String]) -> Vec<String> {
    cell.differs.iter().map(super::pair::Differs::text).filter(|d| !in_every_cell.contains(d)).collect()
}

/// Cells with something worse first, then with something better, then with something open.
pub(super) fn by_verdict(comparison: &Comparison) -> Vec<&Compared> {
    let rank = |cell: &&Compared| {
        let has = |verdict| cell.findings.iter().any(|f| f.verdict == verdict);
        [Verdict::Worse, Verdict::Better, Verdict::Undecided].into_iter().position(has).unwrap_or(3)
    };
    let mut cells: Vec<&Compared> = comparison.cells.iter().collect();
    cells.sort_by_key(rank);
    cells
}

/// Findings by what a reader wants to see first.
pub(super) fn ordered(comparison: &Comparison) -> Vec<(&Compared, &Finding)> {
    let mut all: Vec<(&Compared, &Finding)> =
        comparison.cells.iter().flat_map(|c| c.findings.iter().map(move |f| (c, f))).collect();
    all.sort_by_key(|(_, f)| f.verdict);
    all
}

#[cfg(test)]
mod tests;
