//! Heat maps over input and output length, one per stack: throughput per GPU at the load that gives most, and the median
//! TTFT at the lowest load. The colours of a model's maps are one scale, so that they can be compared.

use super::axis::Axis;
use super::canvas::{Area, Canvas, Hit, Mark, Side};
use super::ink::{Ink, heat_step};
use super::{Placed, Plot, Scene, Topic, file_name};
use crate::report::figures::figure;

/// Side of a cell at most, and of the whole.
const CELL: u32 = 92;

struct Metric {
    title: &'static str,
    file: &'static str,
    unit: &'static str,
    /// The figure of a cell from the units of its lengths, and the unit that has it.
    best: for<'a> fn(&[Placed<'a>]) -> Option<(f64, Placed<'a>)>,
    higher_is_better: bool,
}

const METRICS: [Metric; 2] = [
    Metric {
        title: "Throughput per GPU",
        file: "throughput",
        unit: "tok/s per GPU",
        best: |units| {
            let values = units.iter().filter_map(|p| {
                let i = p.unit.over_samples(|s| s.output_throughput_per_gpu.or(s.output_throughput))?;
                Some((i.mean, *p))
            });
            values.max_by(|a, b| a.0.total_cmp(&b.0))
        },
        higher_is_better: true,
    },
    Metric {
        title: "TTFT at the lowest load",
        file: "ttft",
        unit: "ms median TTFT",
        best: |units| {
            let values = units.iter().filter_map(|p| Some((p.unit.over_samples(|s| s.ttft.p50)?.mean, *p)));
            let load = |p: &Placed<'_>| p.load.value().unwrap_or(f64::INFINITY);
            values.min_by(|a, b| load(&a.1).total_cmp(&load(&b.1)))
        },
        higher_is_better: false,
    },
];

/// A figure in its place.
struct Spot<'a> {
    isl: u32,
    osl: u32,
    value: f64,
    placed: Placed<'a>,
}

pub fn plots(scene: &Scene<'_>) -> Vec<Plot> {
    let mut models: Vec<&str> = scene.panels.iter().map(|p| p.model.as_str()).collect();
    models.dedup();
    let mut seen = std::collections::BTreeSet::new();
    models.retain(|m| seen.insert(*m));
    let mut out = Vec::new();
    for model in models {
        for metric in &METRICS {
            let stacks: Vec<(usize, Vec<Spot<'_>>)> =
                (0..scene.stacks.len()).map(|s| (s, spots(scene, model, s, metric))).collect();
            let all: Vec<f64> = stacks.iter().flat_map(|(_, spots)| spots.iter().map(|s| s.value)).collect();
            let plot = |(stack, spots): (usize, Vec<Spot<'_>>)| plot(scene, model, stack, &spots, metric, &all);
            out.extend(stacks.into_iter().filter_map(plot));
        }
    }
    out
}

fn spots<'a>(scene: &Scene<'a>, model: &str, stack: usize, metric: &Metric) -> Vec<Spot<'a>> {
    let mut out: Vec<Spot<'a>> = Vec::new();
    for panel in scene.panels.iter().filter(|p| p.model == model) {
        let (Some(isl), Some(osl)) = (panel.lengths.isl, panel.lengths.osl) else { continue };
        let units: Vec<Placed<'a>> = panel.units.iter().filter(|p| p.stack == stack).copied().collect();
        // Closed and open loop of the same lengths are one spot: whichever was there first.
        if out.iter().any(|s| (s.isl, s.osl) == (isl, osl)) {
            continue;
        }
        out.extend((metric.best)(&units).map(|(value, placed)| Spot { isl, osl, value, placed }));
    }
    out
}

/// `None` for fewer than three pairs of lengths: a table says that better.
fn plot(
    scene: &Scene<'_>,
    model: &str,
    stack: usize,
    spots: &[Spot<'_>],
    metric: &Metric,
    all: &[f64],
) -> Option<Plot> {
    if spots.len() < 3 {
        return None;
    }
    let distinct = |of: fn(&Spot<'_>) -> u32| {
        let mut values: Vec<u32> = spots.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (isls, osls) = (distinct(|s| s.isl), distinct(|s| s.osl));
    let (columns, rows) = (osls.len() as f64, isls.len() as f64);
    let mut canvas = Canvas::new(
        Axis::plain("output length, tokens →", 0.0, columns),
        Axis::plain("↑ input length, tokens", 0.0, rows),
    );
    canvas.height = (CELL * isls.len() as u32).min(640);
    canvas.left = 110;
    label_ends(&mut canvas, &isls, &osls);
    for spot in spots {
        let x = osls.iter().position(|v| *v == spot.osl)? as f64;
        let y = isls.iter().position(|v| *v == spot.isl)? as f64;
        draw(&mut canvas, (x, y), spot, metric, place(spot.value, all, metric.higher_is_better));
    }
    let name = scene.stacks.name(stack);
    let list: Vec<String> = spots.iter().map(|s| format!("{} → {}: {}", s.isl, s.osl, figure(s.value))).collect();
    Some(Plot {
        topic: Topic::Heat,
        title: format!("{}: {model} · {name}", metric.title),
        caption: format!("{} · {model} · {name}", metric.title),
        alt: format!("{} of {name} by input and output length, {}. {}.", metric.title, metric.unit, list.join("; ")),
        name: file_name(&format!("heat-{}-{model}-{name}", metric.file)),
        drawing: canvas.draw(),
    })
}

/// The lengths along both axes.
fn label_ends(canvas: &mut Canvas, isls: &[u32], osls: &[u32]) {
    let (columns, rows) = (osls.len() as f64, isls.len() as f64);
    canvas.x = Axis::categories(&canvas.x.title, osls.iter().map(u32::to_string), columns);
    canvas.y = Axis::categories(&canvas.y.title, isls.iter().map(u32::to_string), rows);
}

/// Between worst (0) and best (1) of all, logarithmically.
fn place(value: f64, all: &[f64], higher_is_better: bool) -> f64 {
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    if !(low > 0.0 && high > low) {
        return 0.5;
    }
    let part = (value / low).ln() / (high / low).ln();
    if higher_is_better { part } else { 1.0 - part }
}

fn draw(canvas: &mut Canvas, (x, y): (f64, f64), spot: &Spot<'_>, metric: &Metric, place: f64) {
    let gap = 0.015;
    let (from, to) = ((x + gap, y + gap), (x + 1.0 - gap, y + 1.0 - gap));
    canvas.marks.push(Mark::Rect { from, to, ink: heat_step(place), opacity: 1.0 });
    canvas.marks.push(Mark::Text {
        at: (x + 0.5, y + 0.5),
        text: figure(spot.value),
        ink: Ink::Text,
        side: Side::Middle,
        size: 1.05,
        bold: true,
    });
    let text =
        format!("{} in, {} out, {}\n{} {}", spot.isl, spot.osl, spot.placed.load, figure(spot.value), metric.unit);
    canvas.hits.push(Hit { area: Area::Rect(from, to), text, anchor: Some(spot.placed.unit.anchor()) });
}
