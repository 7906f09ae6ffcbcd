//! What the template is handed.

use std::collections::BTreeSet;

use serde::Serialize;

use super::failures::{Failures, failures};
use super::highlights::{Best, highlights};
use super::matrix::{Matrix, matrices};
use super::soundness::{Soundness, soundness};
use super::table::{Table, table};
use super::units::{FIGURES, Unit, units};
use super::{Detail, PageOptions, SCRIPT, STYLE};
use crate::report::plots::{Topic, plots};
use crate::report::{Grid, Report, answers, markdown, searches};

/// Plots of one topic in a page that has to be short, and in any page; and how many of them are not folded away.
const FEW_PLOTS: usize = 6;
const MANY_PLOTS: usize = 24;
const OPEN_PLOTS: usize = 9;

/// Everything on the page, in order.
#[derive(Serialize)]
pub struct Page {
    style: &'static str,
    script: &'static str,
    title: String,
    description: Option<String>,
    run: Option<Run>,
    /// What had to be left out.
    cut: Option<String>,
    notes: Vec<String>,
    best: Vec<Best>,
    matrices: Vec<Matrix>,
    table: Table,
    searches: Vec<searches::Section>,
    answers: Vec<answers::Section>,
    topics: Vec<TopicSection>,
    failures: Failures,
    soundness: Soundness,
    /// Heads of the figures of a sample.
    sample_heads: Vec<&'static str>,
    units: Vec<Unit>,
    facts: Vec<(&'static str, String)>,
    engines: Vec<Engine>,
}

#[derive(Serialize)]
struct Run {
    name: String,
    when: String,
    simulated: bool,
    tags: Vec<String>,
    hardware: String,
    /// Number, word.
    counts: Vec<(u64, &'static str)>,
    exit: Option<i32>,
}

#[derive(Serialize)]
struct TopicSection {
    id: &'static str,
    title: &'static str,
    /// In the bar of links.
    short: &'static str,
    note: &'static str,
    plots: Vec<Drawn>,
    folded: Vec<Drawn>,
    /// Plots that are not shown.
    more: usize,
    wide: bool,
}

#[derive(Serialize)]
struct Drawn {
    caption: String,
    svg: String,
}

/// What a stack ran.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Engine {
    stack: String,
    version: String,
    image: String,
    digest: String,
    template: String,
}

impl Page {
    pub fn of(report: &Report, grid: &Grid, options: &PageOptions, detail: Detail) -> Page {
        let mut notes = report.notes.clone();
        notes.extend(report.run.iter().flat_map(|run| run.warnings.clone()));
        Page {
            style: STYLE,
            script: SCRIPT,
            title: report.title.clone(),
            description: report.run.as_ref().and_then(|r| r.description.clone()),
            run: report.run.as_ref().map(Run::of),
            cut: cut(detail),
            notes,
            best: highlights(report),
            matrices: matrices(report),
            table: table(report, grid, detail),
            searches: searches::sections(report),
            answers: answers::sections(report),
            topics: topics(report, detail),
            failures: failures(report, detail),
            soundness: soundness(report),
            sample_heads: FIGURES.iter().map(|(head, _)| *head).collect(),
            units: units(report, options, detail),
            facts: markdown::provenance(report).map(markdown::facts).unwrap_or_default(),
            engines: engines(report, detail),
        }
    }
}

fn cut(detail: Detail) -> Option<String> {
    match detail {
        Detail::Full => None,
        Detail::Lean => Some(
            "This run is large: samples, parameters and logs of single units, and plots beyond the first of each kind, are \
             left out here. `llmatrix export` has all figures, `llmatrix report --plots` all plots."
                .into(),
        ),
        Detail::Bare => Some(
            "This run is very large: plots and details of units are left out here, and so are rows beyond the first. \
             `llmatrix export` has all figures, `llmatrix report --plots` all plots."
                .into(),
        ),
    }
}

/// `2026-11-24 06:15 to 06:20 UTC`; in full where it did not end so.
fn when(run: &crate::store::record::RunRecord) -> String {
    let parts =
        |t: &str| t.split_once('T').map(|(day, time)| (day.to_string(), time.get(..5).unwrap_or(time).to_string()));
    match (parts(&run.started_at), run.finished_at.as_deref().filter(|_| !run.died).and_then(parts)) {
        (Some((day, from)), Some((same, to))) if day == same => format!("{day} {from} to {to} UTC"),
        (Some((day, from)), Some((end, to))) => format!("{day} {from} to {end} {to} UTC"),
        _ => markdown::when(run),
    }
}

impl Run {
    fn of(run: &crate::store::record::RunRecord) -> Run {
        let hardware: Vec<&str> = run.hardware.iter().map(|(class, _)| class.as_str()).collect();
        let counts = run.counts.map(|c| {
            let all = [
                (c.measured, "measured"),
                (c.cached, "cached"),
                (c.invalid, "invalid"),
                (c.failed, "failed"),
                (c.blocked, "blocked"),
                (c.unsupported, "unsupported"),
                (c.not_run, "not run"),
            ];
            all.into_iter().filter(|(n, _)| *n > 0).collect()
        });
        Run {
            name: run.run.clone(),
            when: when(run),
            simulated: run.simulated,
            tags: run.tags.clone(),
            hardware: hardware.join(", "),
            counts: counts.unwrap_or_default(),
            exit: run.exit_code,
        }
    }
}

/// Id, topic, title, title in the bar, note.
const TOPICS: [(&str, Topic, &str, &str, &str); 5] = [
    (
        "frontier",
        Topic::Frontier,
        "Throughput against interactivity",
        "Frontier",
        "Each point is a unit, each line a stack under rising load. Up is more for the money, right is faster for each \
         user; the grey band joins the points that no other one beats in both.",
    ),
    (
        "load",
        Topic::Latency,
        "Latency under load",
        "Load",
        "Thick is the median with its 95 % interval over samples, thin the 99th percentile. Both axes are logarithmic.",
    ),
    (
        "spread",
        Topic::Spread,
        "Latency over requests",
        "Distributions",
        "The line spans the 5th to the 95th percentile, the box the middle half; the dark bar is the median, the dot the \
         99th percentile, and the short bar below it the 95 % interval of the median over samples.",
    ),
    (
        "lengths",
        Topic::Heat,
        "Input against output length",
        "Lengths",
        "The maps of one model share a colour scale: green is better.",
    ),
    ("starts", Topic::Starts, "Engine starts", "Starts", "From the start of an engine to its first token."),
];

fn topics(report: &Report, detail: Detail) -> Vec<TopicSection> {
    if detail == Detail::Bare {
        return Vec::new();
    }
    let most = if detail == Detail::Full { MANY_PLOTS } else { FEW_PLOTS };
    let all = plots(report);
    TOPICS
        .into_iter()
        .filter_map(|(id, topic, title, short, note)| {
            let own: Vec<_> = all.iter().filter(|p| p.topic == topic).collect();
            let drawn = own.iter().take(most).map(|p| Drawn { caption: p.caption.clone(), svg: p.inline() });
            let mut plots: Vec<Drawn> = drawn.collect();
            let more = own.len() - plots.len();
            let folded = plots.split_off(plots.len().min(OPEN_PLOTS));
            let wide = topic == Topic::Starts;
            (!plots.is_empty()).then_some(TopicSection { id, title, short, note, plots, folded, more, wide })
        })
        .collect()
}

/// Engines, images and rendered templates that were measured, once each.
fn engines(report: &Report, detail: Detail) -> Vec<Engine> {
    let mut seen = BTreeSet::new();
    for unit in &report.units {
        for sample in &unit.samples {
            let p = &sample.provenance;
            let template = p.template.clone().filter(|_| detail == Detail::Full);
            seen.insert(Engine {
                stack: format!("{} {} · {}", unit.facts.method, unit.facts.engine, unit.facts.model),
                version: p.engine_version.clone().unwrap_or_default(),
                image: unit.facts.image.clone().unwrap_or_default(),
                digest: p.image_digest.clone().unwrap_or_default(),
                template: template.unwrap_or_default(),
            });
        }
    }
    seen.into_iter().collect()
}
