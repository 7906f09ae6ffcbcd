//! A comparison in a few lines, for a message.

use super::{counts, headline, ordered, sentence};
use crate::compare::{Comparison, Verdict};

/// Findings that a message lists; more are counted.
const LINES: usize = 10;

/// The verdict, how many there are of each, and what got worse.
pub fn lines(comparison: &Comparison) -> Vec<String> {
    let mut lines: Vec<String> = headline(comparison).into_iter().collect();
    lines.push(counts(comparison));
    let worse: Vec<String> = ordered(comparison)
        .into_iter()
        .filter(|(_, f)| f.verdict == Verdict::Worse)
        .map(|(cell, f)| format!("• {}", sentence(&cell.name, f)))
        .collect();
    let more = worse.len().saturating_sub(LINES);
    lines.extend(worse.into_iter().take(LINES));
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}
