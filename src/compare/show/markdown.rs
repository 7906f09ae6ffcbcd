//! A comparison as Markdown that fits a comment of a pull request: the verdict, what differs, what changed. Long tables
//! are cut, and say so.

use std::fmt::Write;

use super::{counts, effect, headline, ordered, percent, value};
use crate::compare::history::History;
use crate::compare::{Comparison, Finding, Verdict, metric};
use crate::report::markdown::cell as text_cell;

/// Rows that a comment has; a forge cuts longer ones off somewhere.
const ROWS: usize = 60;

pub fn comparison(comparison: &Comparison) -> String {
    let mut out = String::new();
    let line = |out: &mut String, text: &str| out.push_str(&format!("{text}\n"));
    match headline(comparison) {
        Some(verdict) => line(&mut out, &format!("### {}\n", capital(&text_cell(&verdict)))),
        None => line(&mut out, "### Comparison\n"),
    }
    let sides = format!("{} → {}", text_cell(&comparison.a.described), text_cell(&comparison.b.described));
    let simulated = if comparison.simulated == Some(true) { ", **simulated**" } else { "" };
    line(&mut out, &format!("{sides}{simulated}: {}.\n", counts(comparison)));
    for difference in &comparison.differences {
        line(&mut out, &format!("- differs: {}", text_cell(&difference.text())));
    }
    for drift in &comparison.drift {
        line(&mut out, &format!("- {}{}", if drift.moved { "**unstable**: " } else { "" }, text_cell(&drift.text())));
    }
    if !comparison.differences.is_empty() || !comparison.drift.is_empty() {
        out.push('\n');
    }
    rows(&mut out, comparison);
    for (side, names) in [("a", &comparison.only_a), ("b", &comparison.only_b)] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|n| text_cell(n)).collect();
            line(&mut out, &format!("Only in {side}: {}.\n", names.join(", ")));
        }
    }
    let percent = format!("{}%", comparison.fdr * 100.0);
    line(
        &mut out,
        &format!("<sub>{} tests, false-discovery rate {percent}; intervals are 95 %.</sub>", comparison.family),
    );
    out
}

fn rows(out: &mut String, comparison: &Comparison) {
    let told: Vec<(&str, &Finding)> =
        ordered(comparison).into_iter().filter(|(_, f)| f.verdict != Verdict::Same).collect();
    if told.is_empty() {
        return;
    }
    out.push_str("| | cell | metric | a | b | change, 95 % interval | limit |\n|:--|:--|:--|--:|--:|:--|:--|\n");
    for (name, finding) in told.iter().take(ROWS) {
        let of = |m: Option<crate::compare::judge::Measured>| m.map_or(String::new(), |m| value(finding, m.mean));
        let mark = match finding.verdict {
            Verdict::Worse => "❌ worse",
            Verdict::Better => "✅ better",
            Verdict::Undecided => "❔ undecided",
            Verdict::Same => "same",
        };
        let reason = finding.reason.as_ref().map(|r| format!(" ({})", text_cell(r))).unwrap_or_default();
        let _ = writeln!(
            out,
            "| {mark} | {} | {} | {} | {} | {}{reason} | {} |",
            text_cell(name),
            text_cell(&metric::title(&finding.metric)),
            of(finding.a),
            of(finding.b),
            effect(finding),
            finding.limit
        );
    }
    if told.len() > ROWS {
        let _ = writeln!(out, "\n{} more are not shown.", told.len() - ROWS);
    }
    out.push('\n');
}

pub fn history(history: &History) -> String {
    let mut out = format!(
        "### Steps over {} nights of {}\n\n{} series searched.\n",
        history.runs.len(),
        text_cell(&history.name),
        history.series
    );
    if history.steps.is_empty() {
        out.push_str("\nNo series steps.\n");
        return out;
    }
    out.push_str("\n| since | stack | metric | change | cells | what else changed |\n|:--|:--|:--|--:|:--|:--|\n");
    for step in &history.steps {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            text_cell(&step.after.text()),
            text_cell(&step.stack),
            text_cell(&metric::title(&step.metric)),
            percent(step.change),
            step.cells.iter().map(|c| text_cell(&c.cell)).collect::<Vec<_>>().join(", "),
            text_cell(&step.differences.join("; "))
        );
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}
