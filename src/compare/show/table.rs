//! A comparison in a terminal: what differs around the numbers, then the numbers, then what follows.

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use super::{Notes, by_verdict, counts, effect, headline, in_every_cell, of_cell, percent, value};
use crate::compare::history::History;
use crate::compare::{Comparison, Verdict, metric};
use crate::report::terminal::{Style, plain};

/// Writes the comparison. `all` shows cells of which nothing is better, worse or undecided too.
pub fn write(comparison: &Comparison, style: Style, all: bool, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "{} → {}", comparison.a.described, comparison.b.described)?;
    if comparison.simulated == Some(true) {
        writeln!(out, "simulated: these numbers are of the simulated engine")?;
    }
    for difference in &comparison.differences {
        writeln!(out, "differs: {}", difference.text())?;
    }
    for differs in in_every_cell(comparison) {
        writeln!(out, "differs: {differs}")?;
    }
    for drift in &comparison.drift {
        writeln!(out, "{}{}", if drift.moved { "unstable: " } else { "" }, drift.text())?;
    }
    let rows = comparison.cells.iter().flat_map(|c| &c.findings).filter(|f| all || f.verdict != Verdict::Same).count();
    if rows > 0 {
        let mut notes = Notes::default();
        let table = table(comparison, style, all, &mut notes);
        writeln!(out, "\n{}\n", trimmed(&table))?;
        notes.lines().try_for_each(|note| writeln!(out, "{note}"))?;
    }
    for (side, names) in [("a", &comparison.only_a), ("b", &comparison.only_b)] {
        if !names.is_empty() {
            writeln!(out, "only in {side}: {}", listed(names))?;
        }
    }
    if !all && rows < comparison.cells.iter().map(|c| c.findings.len()).sum() {
        writeln!(out, "what is the same is left out; `compare --all` shows it")?;
    }
    writeln!(out, "{}", counts(comparison))?;
    headline(comparison).iter().try_for_each(|text| writeln!(out, "{text}"))
}

fn listed(names: &[String]) -> String {
    const MOST: usize = 5;
    let mut text = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(&format!(" and {} more", names.len() - MOST));
    }
    text
}

/// A table without the blanks that fill its last column.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
}

fn table(comparison: &Comparison, style: Style, all: bool, notes: &mut Notes) -> Table {
    let everywhere = in_every_cell(comparison);
    let mut table = plain(style);
    let heads = ["cell", "metric", "a", "b", "change, 95 % interval", "limit", "verdict"];
    table.set_header(heads.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    for cell in by_verdict(comparison) {
        let shown = cell.findings.iter().filter(|f| all || f.verdict != Verdict::Same);
        for (i, finding) in shown.enumerate() {
            let of = |m: Option<crate::compare::judge::Measured>| m.map_or("-".to_string(), |m| value(finding, m.mean));
            let verdict = format!("{}{}", finding.verdict.as_str(), notes.behind(finding));
            let mut name = if i == 0 { cell.name.clone() } else { String::new() };
            if i == 0 {
                of_cell(cell, &everywhere).iter().for_each(|differs| name.push_str(&format!("\n{differs}")));
            }
            table.add_row(vec![
                Cell::new(name),
                Cell::new(metric::title(&finding.metric)),
                Cell::new(of(finding.a)).set_alignment(CellAlignment::Right),
                Cell::new(of(finding.b)).set_alignment(CellAlignment::Right),
                Cell::new(effect(finding)),
                Cell::new(&finding.limit),
                match finding.verdict {
                    Verdict::Worse => Cell::new(verdict).fg(Color::Red),
                    Verdict::Better => Cell::new(verdict).fg(Color::Green),
                    Verdict::Undecided => Cell::new(verdict).fg(Color::Yellow),
                    Verdict::Same => Cell::new(verdict),
                },
            ]);
        }
    }
    table
}

/// Writes the steps of a history.
pub fn write_history(history: &History, style: Style, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "{}: {} nights, {} series", history.name, history.runs.len(), history.series)?;
    if history.steps.is_empty() {
        return writeln!(out, "no series steps");
    }
    let mut table = plain(style);
    let heads = ["since", "before", "stack", "metric", "change", "cells"];
    table.set_header(heads.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    for step in &history.steps {
        let cells = match step.cells.as_slice() {
            [only] => only.cell.clone(),
            several => format!("{} cells", several.len()),
        };
        let since = std::iter::once(step.after.text()).chain(step.differences.iter().cloned());
        table.add_row(vec![
            Cell::new(since.collect::<Vec<_>>().join("\n")),
            Cell::new(step.before.text()),
            Cell::new(&step.stack),
            Cell::new(metric::title(&step.metric)),
            Cell::new(percent(step.change)).set_alignment(CellAlignment::Right),
            Cell::new(cells),
        ]);
    }
    writeln!(out, "\n{}", trimmed(&table))
}
