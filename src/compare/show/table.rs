//! A comparison in a terminal: what differs around the numbers, then the numbers, then what follows.

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};

use super::{counts, effect, headline, percent, value};
use crate::compare::history::History;
use crate::compare::{Comparison, Verdict, metric};
use crate::report::terminal::Style;

/// Writes the comparison. `all` shows cells of which nothing is better, worse or undecided too.
pub fn write(comparison: &Comparison, style: Style, all: bool, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "{} → {}", comparison.a.described, comparison.b.described)?;
    if comparison.simulated == Some(true) {
        writeln!(out, "simulated: these numbers are of the simulated engine")?;
    }
    for difference in &comparison.differences {
        writeln!(out, "differs: {}", difference.text())?;
    }
    for drift in &comparison.drift {
        writeln!(out, "{}{}", if drift.moved { "unstable: " } else { "" }, drift.text())?;
    }
    let rows = comparison.cells.iter().flat_map(|c| &c.findings).filter(|f| all || f.verdict != Verdict::Same).count();
    if rows > 0 {
        writeln!(out, "\n{}\n", table(comparison, style, all))?;
    }
    for (side, names) in [("a", &comparison.only_a), ("b", &comparison.only_b)] {
        if !names.is_empty() {
            writeln!(out, "only in {side}: {}", listed(names))?;
        }
    }
    if !all && rows < comparison.cells.iter().map(|c| c.findings.len()).sum() {
        writeln!(out, "what is the same is left out; --all shows it")?;
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

fn table(comparison: &Comparison, style: Style, all: bool) -> Table {
    let mut table = plain(style);
    let heads = ["cell", "metric", "a", "b", "change, 95 % interval", "limit", "verdict"];
    table.set_header(heads.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    for cell in &comparison.cells {
        let shown = cell.findings.iter().filter(|f| all || f.verdict != Verdict::Same);
        for (i, finding) in shown.enumerate() {
            let of = |m: Option<crate::compare::judge::Measured>| m.map_or("-".to_string(), |m| value(finding, m.mean));
            let mut verdict = finding.verdict.as_str().to_string();
            finding.reason.iter().for_each(|r| verdict.push_str(&format!(": {r}")));
            let mut name = if i == 0 { cell.name.clone() } else { String::new() };
            if i == 0 && !cell.differs.is_empty() {
                let differs: Vec<String> = cell.differs.iter().map(|d| d.text()).collect();
                name.push_str(&format!("\n{}", differs.join("\n")));
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
    writeln!(out, "\n{table}")
}

fn plain(style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    match style.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}
