//! The table in a terminal, and below it what went wrong.

mod fit;

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};

use super::grid::{Grid, Line, Standing};
use super::{Report, ReportUnit, answers, searches};

/// How to draw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Columns of the terminal; unlimited when unset.
    pub width: Option<u16>,
    /// Colours and bold text.
    pub color: bool,
}

/// Writes the table and the causes of what is missing in it.
pub fn write(report: &Report, grid: &Grid, style: Style, mut out: impl Write) -> io::Result<()> {
    let (on, off) = if style.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let fitted = fit::fit(grid, style.width.map(usize::from));
    if let Some(caption) = &fitted.caption {
        writeln!(out, " {caption}")?;
    }
    let grid = &fitted.grid;
    if grid.groups.is_empty() {
        writeln!(out, "{}", table(grid, &[], style))?;
    }
    for (i, group) in grid.groups.iter().enumerate() {
        if !group.title.is_empty() {
            writeln!(out, "{}{on}{}{off}", if i > 0 { "\n" } else { "" }, group.title)?;
        }
        writeln!(out, "{}", table(grid, &grid.lines[group.lines.clone()], style))?;
    }
    if !fitted.hidden.is_empty() {
        let hidden = fitted.hidden.join(", ");
        writeln!(out, "no room for {hidden}: a wider terminal or --columns shows them")?;
    }
    searches::lines(report).try_for_each(|line| writeln!(out, "search {line}"))?;
    answers::lines(report).try_for_each(|line| writeln!(out, "{line}"))?;
    write_causes(report, grid, style, &mut out)?;
    out.flush()
}

/// A table without rows, as all of ours look.
pub fn plain(style: Style) -> Table {
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

fn table(grid: &Grid, lines: &[Line], style: Style) -> Table {
    let mut table = plain(style);
    table.set_header(grid.heads.iter().map(|head| {
        let unit = if head.unit.is_empty() { String::new() } else { format!("\n{}", head.unit) };
        aligned(Cell::new(format!("{}{unit}", head.title)), head.numeric).add_attribute(Attribute::Bold)
    }));
    for line in lines {
        table.add_row(line.cells.iter().zip(&grid.heads).map(|(cell, head)| {
            let shown = aligned(Cell::new(if cell.text.is_empty() { "-" } else { &cell.text }), head.numeric);
            match line.standing {
                Standing::Good => shown,
                Standing::Invalid => shown.fg(Color::Yellow),
                Standing::Missing => shown.fg(Color::Red),
            }
        }));
    }
    table
}

fn aligned(cell: Cell, numeric: bool) -> Cell {
    if numeric { cell.set_alignment(CellAlignment::Right) } else { cell }
}

/// One line per unit without numbers that count.
fn write_causes(report: &Report, grid: &Grid, style: Style, out: &mut impl Write) -> io::Result<()> {
    let mut shown: Vec<usize> = grid.lines.iter().map(|l| l.unit).collect();
    shown.dedup();
    for unit in shown.into_iter().map(|i| &report.units[i]) {
        if let Some(cause) = unit.cause() {
            let (on, off) = if style.color { (code(unit), "\x1b[0m") } else { ("", "") };
            let first = cause.lines().next().unwrap_or_default();
            writeln!(out, "{on}{}{off} {}: {first}", unit.status().replace('_', " "), unit.name)?;
        }
    }
    for cell in &report.unsupported {
        let of = |name: &str| cell.cell.get(name).map(ToString::to_string).unwrap_or_default();
        writeln!(out, "unsupported {} {} {}: {}", of("model"), of("method"), of("engine"), cell.reason)?;
    }
    Ok(())
}

fn code(unit: &ReportUnit) -> &'static str {
    match unit.status() {
        "failed" | "blocked" => "\x1b[31m",
        _ => "\x1b[33m",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::super::{View, grid};
    use super::*;

    fn drawn(style: Style) -> String {
        let report = report();
        let mut out = Vec::new();
        write(&report, &grid(&report, &View::default()).unwrap(), style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_usual_table() {
        let text: Vec<String> = drawn(Style::default()).lines().map(|l| l.trim_end().to_string()).collect();
        insta::assert_snapshot!("terminal", text.join("\n"));
    }

    #[test]
    fn a_narrow_terminal_and_colours() {
        let narrow = drawn(Style { width: Some(100), color: false });
        let table = narrow.split("\ninvalid ").next().unwrap();
        assert!(table.lines().all(|l| l.chars().count() <= 100), "{narrow}");
        assert!(!narrow.contains('\x1b'));
        assert!(drawn(Style { width: None, color: true }).contains("\x1b[31mfailed\x1b[0m m-hf-sglang c=1 bf16: CUDA"));
    }
}
