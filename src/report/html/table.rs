//! The table of results: every cell of the grid, coloured within its column.

use serde::Serialize;

use super::Detail;
use crate::report::grid::{Cell, Head, Line, Standing};
use crate::report::{Grid, Report, ReportUnit};

/// Rows of a page that has to be short.
const FEW_ROWS: usize = 1500;

#[derive(Serialize)]
pub struct Table {
    /// What holds for all rows.
    caption: Option<String>,
    heads: Vec<HeadCell>,
    groups: Vec<Rows>,
    /// Some unit has several samples, so numbers have intervals.
    repeated: bool,
    /// Rows that are not shown.
    more: usize,
}

#[derive(Serialize)]
struct HeadCell {
    name: String,
    title: String,
    unit: String,
    numeric: bool,
}

#[derive(Serialize)]
struct Rows {
    title: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    class: &'static str,
    anchor: String,
    hover: String,
    cells: Vec<Body>,
}

#[derive(Serialize)]
struct Body {
    text: String,
    class: &'static str,
    /// What it sorts by: six significant digits.
    number: Option<String>,
    /// Percent between worst and best.
    heat: Option<u8>,
}

pub fn table(report: &Report, grid: &Grid, detail: Detail) -> Table {
    let most = if detail == Detail::Bare { FEW_ROWS } else { usize::MAX };
    let mut grid = grid.clone();
    // Columns that were asked for stay as they were asked for.
    let caption = if grid.usual { grid.take_constants() } else { None };
    if grid.usual {
        grid.shorten_models();
    }
    let heat: Vec<Vec<Option<f64>>> = (0..grid.heads.len()).map(|i| grid.heat(i)).collect();
    let row = |at: usize, line: &Line| {
        let unit = &report.units[line.unit];
        let cells =
            line.cells.iter().zip(&grid.heads).zip(&heat).map(|((cell, head), heat)| body(cell, head, heat[at]));
        Row { class: class(line.standing), anchor: unit.anchor(), hover: hover(unit), cells: cells.collect() }
    };
    let groups = grid.groups.iter().map(|g| Rows {
        title: g.title.clone(),
        rows: g.lines.clone().take_while(|at| *at < most).map(|at| row(at, &grid.lines[at])).collect(),
    });
    let heads = grid.heads.iter().map(|h| HeadCell {
        name: h.name.clone(),
        title: h.title.clone(),
        unit: h.unit.clone(),
        numeric: h.numeric,
    });
    Table {
        caption,
        heads: heads.collect(),
        groups: groups.filter(|g| !g.rows.is_empty()).collect(),
        repeated: report.units.iter().any(|u| u.valid_samples() > 1),
        more: grid.lines.len().saturating_sub(most),
    }
}

fn class(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "",
        Standing::Invalid => "invalid",
        Standing::Missing => "missing",
    }
}

fn hover(unit: &ReportUnit) -> String {
    let cause = unit.cause().and_then(|c| c.lines().next()).map(|c| format!("\n{c}")).unwrap_or_default();
    format!("{}\nunit {}{cause}", unit.name, unit.unit_id.short(16))
}

fn body(cell: &Cell, head: &Head, heat: Option<f64>) -> Body {
    let class = match (head.numeric, head.better) {
        (_, Some(_)) => "num metric",
        (true, None) => "num",
        (false, None) => "",
    };
    let heat = heat.map(|h| (h * 100.0).round() as u8);
    Body { text: cell.text.clone(), class, number: cell.number.map(digits), heat }
}

fn digits(v: f64) -> String {
    let text = format!("{v:.5e}");
    text.parse::<f64>().map_or(text, |v| v.to_string())
}
