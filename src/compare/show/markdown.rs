//! A comparison as Markdown that fits a comment of a pull request: the verdict, what differs, what changed. Long tables
//! are cut, and say so.

use std::fmt::Write;

use super::{Notes, counts, effect, headline, in_every_cell, of_cell, ordered, percent, value};
use crate::compare::history::History;
use crate::compare::{Compared, Comparison, Finding, Verdict, metric};
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
    let everywhere = in_every_cell(comparison);
    for differs in &everywhere {
        line(&mut out, &format!("- differs: {}", text_cell(differs)));
    }
    for drift in &comparison.drift {
        line(&mut out, &format!("- {}{}", if drift.moved { "**unstable**: " } else { "" }, text_cell(&drift.text())));
    }
    if !(comparison.differences.is_empty() && everywhere.is_empty() && comparison.drift.is_empty()) {
        out.push('\n');
    }
    findings(&mut out, comparison, &everywhere);
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

/// What is better or worse, and folded up what is open.
fn findings(out: &mut String, comparison: &Comparison, everywhere: &[String]) {
    let all = ordered(comparison).into_iter().filter(|(_, f)| f.verdict != Verdict::Same);
    let (open, told): (Vec<_>, Vec<_>) = all.partition(|(_, f)| f.verdict == Verdict::Undecided);
    let mut notes = Notes::default();
    rows(out, &told, everywhere, &mut notes);
    if !open.is_empty() {
        let _ = write!(out, "<details><summary>{} undecided</summary>\n\n", open.len());
        rows(out, &open, everywhere, &mut notes);
        for note in notes.lines() {
            let _ = writeln!(out, "{}\n", text_cell(&note));
        }
        out.push_str("</details>\n\n");
    }
}

fn rows(out: &mut String, findings: &[(&Compared, &Finding)], everywhere: &[String], notes: &mut Notes) {
    if findings.is_empty() {
        return;
    }
    out.push_str("| | cell | metric | a | b | change, 95 % interval | limit |\n|:--|:--|:--|--:|--:|:--|:--|\n");
    for (cell, finding) in findings.iter().take(ROWS) {
        let of = |m: Option<crate::compare::judge::Measured>| m.map_or(String::new(), |m| value(finding, m.mean));
        let mark = match finding.verdict {
            Verdict::Worse => "❌ worse",
            Verdict::Better => "✅ better",
            Verdict::Undecided => "❔ undecided",
            Verdict::Same => "same",
        };
        let name = std::iter::once(cell.name.clone()).chain(of_cell(cell, everywhere)).collect::<Vec<_>>();
        let _ = writeln!(
            out,
            "| {mark}{} | {} | {} | {} | {} | {} | {} |",
            text_cell(&notes.behind(finding)),
            name.iter().map(|n| text_cell(n)).collect::<Vec<_>>().join("<br>"),
            text_cell(&metric::title(&finding.metric)),
            of(finding.a),
            of(finding.b),
            effect(finding),
            finding.limit
        );
    }
    if findings.len() > ROWS {
        let _ = writeln!(out, "\n{} more are not shown.", findings.len() - ROWS);
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
