//! One table of texts and numbers, from which every human format is drawn.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

use super::column::{Column, Source, find, number, usual};
use super::figures::{figure, with_interval};
use super::{Report, ReportUnit, View, ViewError, axes};
use crate::event::{FailureClass, Stage};
use crate::stats::interval::t_interval;
use crate::store::record::{AttemptRecord, Provenance, SampleRecord};
use crate::store::row::{Field, Measured, Row, RowSource};

pub use super::column::Better;

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub heads: Vec<Head>,
    /// In the order of `groups`.
    pub lines: Vec<Line>,
    /// The lines in groups; one without a title where none were asked for.
    pub groups: Vec<Group>,
    /// The columns are the usual ones: nobody asked for any of them by name.
    pub usual: bool,
}

/// Lines that have the same values in the columns of the grouping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `engine vllm · precision fp8`.
    pub title: String,
    pub lines: Range<usize>,
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The name by which the column is asked for.
    pub name: String,
    pub title: String,
    /// `""` where there is none.
    pub unit: String,
    pub better: Option<Better>,
    /// All values are numbers: aligned to the right.
    pub numeric: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Index into [`Report::units`].
    pub unit: usize,
    pub standing: Standing,
    pub cells: Vec<Cell>,
}

/// What a row's numbers are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They count.
    Good,
    /// They are there and do not count.
    Invalid,
    /// There are none.
    Missing,
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Empty where there is nothing to say.
    pub text: String,
    pub number: Option<f64>,
}

/// Draws the table of a view.
pub fn grid(report: &Report, view: &View) -> Result<Grid, ViewError> {
    let units = &report.units;
    let named = |names: &[String]| names.iter().map(|name| find(name, units)).collect::<Result<Vec<_>, _>>();
    let groups = named(&view.group)?;
    let mut columns = if view.columns.is_empty() { usual(units) } else { named(&view.columns)? };
    columns.retain(|c| !view.group.contains(&c.name) || view.columns.contains(&c.name));
    let sort: Vec<(Column, bool)> = view
        .sort
        .iter()
        .map(|key| match key.strip_prefix('-') {
            Some(name) => Ok((find(name, units)?, true)),
            None => Ok((find(key, units)?, false)),
        })
        .collect::<Result<_, ViewError>>()?;
    // Groups stand in the order of their values, rows within them as they are to be sorted.
    let order: Vec<(&Column, bool)> =
        groups.iter().map(|c| (c, false)).chain(sort.iter().map(|(c, reverse)| (c, *reverse))).collect();
    let mut keyed: Vec<(Vec<Cell>, Line)> = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        for samples in sample_groups(unit, view.samples) {
            let rows = rows(unit, &samples);
            let line = Line {
                unit: index,
                standing: standing(&samples),
                cells: columns.iter().map(|c| cell(c, unit, &samples, &rows)).collect(),
            };
            keyed.push((order.iter().map(|(c, _)| cell(c, unit, &samples, &rows)).collect(), line));
        }
    }
    keyed.sort_by(|(a, _), (b, _)| {
        let each = a.iter().zip(b).zip(&order).map(|((a, b), (_, reverse))| compare(a, b, *reverse));
        each.fold(Ordering::Equal, Ordering::then)
    });
    let titles: Vec<String> = keyed.iter().map(|(keys, _)| group_title(&groups, keys)).collect();
    let lines: Vec<Line> = keyed.into_iter().map(|(_, line)| line).collect();
    let heads = columns.into_iter().enumerate().map(|(i, c)| head(c, i, &lines)).collect();
    Ok(Grid { heads, lines, groups: runs(titles), usual: view.columns.is_empty() })
}

/// `engine vllm · concurrency 8`.
fn group_title(groups: &[Column], keys: &[Cell]) -> String {
    let value = |key: &Cell| if key.text.is_empty() { "unset".to_string() } else { key.text.clone() };
    let part = |(column, key): (&Column, &Cell)| format!("{} {}", column.title, value(key));
    groups.iter().zip(keys).map(part).collect::<Vec<_>>().join(" · ")
}

/// Equal neighbours together.
fn runs(titles: Vec<String>) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    for (i, title) in titles.into_iter().enumerate() {
        match out.last_mut() {
            Some(last) if last.title == title => last.lines.end = i + 1,
            _ => out.push(Group { title, lines: i..i + 1 }),
        }
    }
    out
}

fn head(column: Column, index: usize, lines: &[Line]) -> Head {
    let mut cells = lines.iter().map(|l| &l.cells[index]).filter(|c| !c.text.is_empty()).peekable();
    let numeric = if cells.peek().is_some() { cells.all(|c| c.number.is_some()) } else { column.better.is_some() };
    let Column { name, title, unit, better, source: _ } = column;
    Head { name, title, unit, better, numeric }
}

/// The samples behind each row of a unit: all that count together, or each for itself.
fn sample_groups(unit: &ReportUnit, single: bool) -> Vec<Vec<&SampleRecord>> {
    if single && !unit.samples.is_empty() {
        unit.samples.iter().map(|s| vec![s]).collect()
    } else {
        vec![unit.shown_samples()]
    }
}

fn standing(samples: &[&SampleRecord]) -> Standing {
    match samples.first() {
        None => Standing::Missing,
        Some(sample) if sample.valid => Standing::Good,
        Some(_) => Standing::Invalid,
    }
}

/// The results rows of the samples. A unit without any has one row of what is known before measuring.
fn rows(unit: &ReportUnit, samples: &[&SampleRecord]) -> Vec<Row> {
    let row = |measured| {
        let (unit_id, deploy_id) = (Some(unit.unit_id), Some(unit.deploy_id));
        Row::new(&RowSource { unit_id, deploy_id, facts: &unit.facts, measured })
    };
    match (samples, unit.attempts.last()) {
        ([], Some(attempt)) => vec![row(Measured::Attempt(attempt))],
        ([], None) => vec![row(Measured::Attempt(&unmeasured()))],
        _ => samples.iter().map(|s| row(Measured::Sample(s))).collect(),
    }
}

fn unmeasured() -> AttemptRecord {
    AttemptRecord {
        sample: 0,
        run: String::new(),
        attempt: 0,
        start: 0,
        started_at: String::new(),
        finished_at: String::new(),
        stage: Stage::Start,
        class: FailureClass::Infrastructure,
        cause: String::new(),
        blocked: false,
        simulated: false,
        log_tail: None,
        provenance: Provenance::default(),
    }
}

fn cell(column: &Column, unit: &ReportUnit, samples: &[&SampleRecord], rows: &[Row]) -> Cell {
    match &column.source {
        Source::Status => match samples {
            [one] if unit.samples.len() > 1 && !one.valid => text("invalid"),
            _ => text(unit.status().replace('_', " ")),
        },
        Source::Samples => Cell { text: samples.len().to_string(), number: Some(samples.len() as f64) },
        Source::Axis(name) => {
            let value = axes::value(unit, name).unwrap_or_default();
            Cell { number: value.parse().ok(), text: value }
        }
        Source::Row(index) => fold(rows.iter().map(|row| &row.fields()[*index])),
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), number: None }
}

/// The mean of numbers; of anything else, what all rows say, or the first and a mark.
fn fold<'a>(fields: impl Iterator<Item = &'a Field>) -> Cell {
    let fields: Vec<&Field> = fields.filter(|f| **f != Field::Empty).collect();
    let numbers: Vec<f64> = fields.iter().filter_map(|f| number(f)).collect();
    if numbers.len() < fields.len() || fields.is_empty() {
        let texts: Vec<String> = fields.iter().map(|f| plain(f)).collect();
        let Some(first) = texts.first() else { return Cell::default() };
        let same = texts.iter().all(|t| t == first);
        return text(if same { first.clone() } else { format!("{first} …") });
    }
    let whole = fields.iter().all(|f| matches!(f, Field::Int(_)));
    if whole && numbers.iter().all(|n| *n == numbers[0]) {
        return Cell { text: plain(fields[0]), number: Some(numbers[0]) };
    }
    match t_interval(&numbers) {
        Some(i) => Cell { text: with_interval(i.mean, i.half_width), number: Some(i.mean) },
        None => Cell::default(),
    }
}

fn plain(field: &Field) -> String {
    match field {
        Field::Empty => String::new(),
        Field::Bool(b) => if *b { "yes" } else { "no" }.to_string(),
        Field::Int(i) => i.to_string(),
        Field::Float(f) => figure(*f),
        Field::Text(t) => t.clone(),
    }
}

/// Numbers before texts before nothing, in either direction.
fn compare(a: &Cell, b: &Cell, reverse: bool) -> Ordering {
    let rank = |c: &Cell| (c.text.is_empty(), c.number.is_none());
    rank(a).cmp(&rank(b)).then_with(|| {
        let order = match (a.number, b.number) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.text.cmp(&b.text),
        };
        if reverse { order.reverse() } else { order }
    })
}

impl Grid {
    /// Takes a column out.
    pub fn remove(&mut self, at: usize) {
        self.heads.remove(at);
        self.lines.iter_mut().for_each(|l| drop(l.cells.remove(at)));
    }

    /// Takes out the columns that are no figures and the same in all rows, and says them in a line; `None` where there
    /// are none.
    pub fn take_constants(&mut self) -> Option<String> {
        if self.lines.len() < 2 {
            return None;
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while at < self.heads.len() {
            let first = &self.lines[0].cells[at].text;
            let same = self.lines.iter().all(|l| l.cells[at].text == *first);
            if same && !first.is_empty() && self.heads[at].better.is_none() && self.heads.len() > 1 {
                parts.push(format!("{} {first}", self.heads[at].title));
                self.remove(at);
            } else {
                at += 1;
            }
        }
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    /// `org/Model` becomes `Model` where models stay apart without it.
    pub fn shorten_models(&mut self) {
        let Some(at) = self.heads.iter().position(|h| h.name == "model") else { return };
        let last = |text: &str| text.rsplit('/').next().unwrap_or(text).to_string();
        let full: BTreeSet<&str> = self.lines.iter().map(|l| l.cells[at].text.as_str()).collect();
        let short: BTreeSet<String> = full.iter().map(|m| last(m)).collect();
        if full.len() == short.len() {
            self.lines.iter_mut().for_each(|l| l.cells[at].text = last(&l.cells[at].text));
        }
    }

    /// Where each number of a column lies between its worst (0) and its best (1) value, on a logarithmic scale where all
    /// are positive; `None` for columns without a better end, values that do not count, and columns of equal values.
    pub fn heat(&self, column: usize) -> Vec<Option<f64>> {
        let Some(better) = self.heads[column].better else { return vec![None; self.lines.len()] };
        let good = |l: &Line| l.cells[column].number.filter(|_| l.standing == Standing::Good);
        let numbers: Vec<f64> = self.lines.iter().filter_map(good).collect();
        let logarithmic = numbers.iter().all(|n| *n > 0.0);
        let scale = |n: f64| if logarithmic { n.ln() } else { n };
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = scale(high) - scale(low);
        let place = |n: f64| match better {
            _ if width.is_nan() || width <= 0.0 => None,
            Better::Higher => Some((scale(n) - scale(low)) / width),
            Better::Lower => Some((scale(high) - scale(n)) / width),
        };
        self.lines.iter().map(|l| good(l).and_then(place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    fn column(grid: &Grid, name: &str) -> Vec<String> {
        let i = grid.heads.iter().position(|h| h.name == name).unwrap();
        grid.lines.iter().map(|l| l.cells[i].text.clone()).collect()
    }

    #[test]
    fn the_usual_table_has_means_with_their_intervals() {
        let g = grid(&report(), &View::default()).unwrap();
        let names: Vec<&str> = g.heads.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "model",
                "method",
                "engine",
                "isl",
                "osl",
                "concurrency",
                "precision",
                "p50_ttft_ms",
                "p99_ttft_ms",
                "p50_tpot_ms",
                "output_throughput",
                "request_throughput",
                "request_goodput",
                "samples",
                "status"
            ]
        );
        assert_eq!(column(&g, "p50_ttft_ms"), ["52.0 ± 5.0", "40.0", "90.0", "", ""]);
        assert_eq!(column(&g, "samples"), ["3", "1", "1", "0", "0"]);
        assert_eq!(column(&g, "status"), ["measured", "cached", "invalid", "failed", "blocked"]);
        assert_eq!(g.lines[2].standing, Standing::Invalid);
        assert!(g.heads[3].numeric && !g.heads[0].numeric);
    }

    #[test]
    fn rows_sort_by_number_and_absent_values_stay_last() {
        let view =
            |sort: &str| View { columns: vec!["p50_ttft_ms".into()], sort: vec![sort.into()], ..View::default() };
        let sorted = |s| column(&grid(&report(), &view(s)).unwrap(), "p50_ttft_ms");
        assert_eq!(sorted("p50_ttft_ms"), ["40.0", "52.0 ± 5.0", "90.0", "", ""]);
        assert_eq!(sorted("-p50_ttft_ms"), ["90.0", "52.0 ± 5.0", "40.0", "", ""]);
        assert!(grid(&report(), &view("nothing_like_it")).is_err());
    }

    #[test]
    fn samples_can_have_rows_of_their_own() {
        let view = View { columns: vec!["sample".into(), "p50_ttft_ms".into()], samples: true, ..View::default() };
        let g = grid(&report(), &view).unwrap();
        assert_eq!(column(&g, "sample")[..3], ["2", "3", "4"]);
        assert_eq!(column(&g, "p50_ttft_ms")[..3], ["50.0", "52.0", "54.0"]);
    }

    #[test]
    fn rows_stand_in_groups_whose_column_is_their_title() {
        let view = View {
            group: vec!["engine".into(), "precision".into()],
            sort: vec!["-concurrency".into()],
            ..View::default()
        };
        let g = grid(&report(), &view).unwrap();
        let groups: Vec<(&str, Range<usize>)> = g.groups.iter().map(|g| (g.title.as_str(), g.lines.clone())).collect();
        assert_eq!(
            groups,
            [
                ("engine sglang · precision bf16", 0..2),
                ("engine vllm · precision bf16", 2..4),
                ("engine vllm · precision fp8", 4..5)
            ]
        );
        assert!(!g.heads.iter().any(|h| h.name == "engine"));
        assert_eq!(column(&g, "concurrency"), ["8", "1", "8", "1", "1"]);
        let plain = grid(&report(), &View::default()).unwrap();
        assert_eq!(plain.groups, [Group { title: String::new(), lines: 0..5 }]);
    }

    #[test]
    fn heat_is_one_for_the_best_and_leaves_out_what_does_not_count() {
        let view = View { columns: vec!["p50_ttft_ms".into(), "isl".into()], ..View::default() };
        let g = grid(&report(), &view).unwrap();
        assert_eq!(g.heat(0), [Some(0.0), Some(1.0), None, None, None]);
        assert_eq!(g.heat(1), [None; 5]);
    }
}
