//! The plots of a report, each a drawing with a title, a text for who cannot see it, and a name as a file.

mod axis;
mod canvas;
mod frontier;
mod heat;
mod ink;
mod latency;
mod spreads;
mod starts;

use super::Report;
use super::cells::{Lengths, Load, Stacks, short_models};
use canvas::{Drawing, Shape};
use ink::{Ink, SERIES};

/// What a plot is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Frontier,
    Latency,
    Spread,
    Heat,
    Starts,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    pub topic: Topic,
    /// What it shows, in a line.
    pub title: String,
    /// The same under a heading that says the rest.
    pub caption: String,
    /// The same for who cannot see it, with the figures that matter.
    pub alt: String,
    /// Name of its file, without extension; no two plots of a report share one.
    pub name: String,
    drawing: Drawing,
}

impl Plot {
    /// An SVG file of its own.
    pub fn file(&self) -> String {
        self.drawing.file(&self.title, &self.alt)
    }

    /// An SVG element for a page with our style sheet.
    pub fn inline(&self) -> String {
        self.drawing.inline(&self.alt)
    }
}

/// All plots that the report has figures for, by topic.
pub fn plots(report: &Report) -> Vec<Plot> {
    let scene = Scene::of(report);
    let mut out = frontier::plots(&scene);
    out.extend(latency::plots(&scene));
    out.extend(spreads::plots(&scene));
    out.extend(heat::plots(&scene));
    out.extend(starts::plots(report));
    rename_doubles(&mut out);
    out
}

/// A second plot of a name gets a number.
fn rename_doubles(plots: &mut [Plot]) {
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for plot in plots {
        let n = seen.entry(plot.name.clone()).or_default();
        *n += 1;
        if *n > 1 {
            plot.name = format!("{}-{n}", plot.name);
        }
    }
}

/// A report prepared for drawing.
struct Scene<'a> {
    stacks: Stacks,
    panels: Vec<Panel<'a>>,
}

/// Units that can stand in one plot: one model, one pair of lengths, one kind of load.
struct Panel<'a> {
    /// The model, short.
    model: String,
    lengths: Lengths,
    load: Load,
    /// `Qwen3-8B · 1024 → 128 tokens`.
    title: String,
    /// `Qwen3-8B-1024-128`.
    name: String,
    units: Vec<Placed<'a>>,
}

/// A unit, its stack and its load.
#[derive(Clone, Copy)]
struct Placed<'a> {
    unit: &'a super::ReportUnit,
    stack: usize,
    load: Load,
}

impl<'a> Scene<'a> {
    fn of(report: &'a Report) -> Scene<'a> {
        let stacks = Stacks::of(report);
        let short = short_models(report);
        let mut panels: Vec<Panel<'a>> = Vec::new();
        for unit in &report.units {
            let (lengths, load) = (Lengths::of(unit), Load::of(unit));
            let model = short(&unit.facts.model);
            let placed = Placed { unit, stack: stacks.index(unit), load };
            let fits = |p: &&mut Panel<'_>| p.model == model && p.lengths == lengths && p.load.same_kind(load);
            match panels.iter_mut().find(fits) {
                Some(panel) => panel.units.push(placed),
                None => panels.push(Panel::new(model, lengths, placed)),
            }
        }
        for panel in &mut panels {
            let value = |p: &Placed<'_>| p.load.value().unwrap_or(0.0);
            panel.units.sort_by(|a, b| value(a).total_cmp(&value(b)));
        }
        Scene { stacks, panels }
    }
}

impl<'a> Panel<'a> {
    fn new(model: String, lengths: Lengths, first: Placed<'a>) -> Panel<'a> {
        let kind = if matches!(first.load, Load::Rate(_)) { " · open loop" } else { "" };
        let title = format!("{model} · {lengths} tokens{kind}");
        let number = |n: Option<u32>| n.map_or_else(|| "any".to_string(), |n| n.to_string());
        let kind = if matches!(first.load, Load::Rate(_)) { "-rate" } else { "" };
        let name = file_name(&format!("{model}-{}-{}{kind}", number(lengths.isl), number(lengths.osl)));
        Panel { model, lengths, load: first.load, title, name, units: vec![first] }
    }

    /// The stacks of the panel in their order, each with its units by rising load.
    fn series(&self) -> Vec<(usize, Vec<Placed<'a>>)> {
        let mut stacks: Vec<usize> = self.units.iter().map(|p| p.stack).collect();
        stacks.sort_unstable();
        stacks.dedup();
        stacks.into_iter().map(|s| (s, self.units.iter().filter(|p| p.stack == s).copied().collect())).collect()
    }
}

/// What a stack is drawn in, the same in every plot of a report.
fn look(stack: usize) -> (Ink, Shape) {
    let shape = [Shape::Disc, Shape::Square, Shape::Triangle, Shape::Ring][stack / SERIES % 4];
    (Ink::Series(stack), shape)
}

/// A name that is safe as part of a file's.
fn file_name(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    text.chars().map(safe).take(96).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_report_has_plots_of_every_topic_that_it_has_figures_for() {
        let report = testing::wide_report();
        let plots = plots(&report);
        let topics: std::collections::BTreeSet<Topic> = plots.iter().map(|p| p.topic).collect();
        let all = [Topic::Frontier, Topic::Latency, Topic::Spread, Topic::Heat, Topic::Starts];
        assert_eq!(topics, all.into_iter().collect());
        let names: std::collections::BTreeSet<&str> = plots.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), plots.len(), "{names:?}");
        for plot in &plots {
            assert!(plot.alt.len() > 40 && plot.file().contains("<desc>"), "{}", plot.name);
            assert!(!plot.file().contains("NaN") && !plot.file().contains("inf"), "{}", plot.name);
        }
    }

    #[test]
    fn an_empty_report_has_none() {
        assert!(plots(&Report::default()).is_empty());
        assert_eq!(file_name("a b/ü"), "a-b--");
    }
}
