//! TTFT, TPOT and E2EL against load, a line per stack: the median, and thinner the 99th percentile.

use super::axis::Axis;
use super::canvas::{Area, Canvas, Hit, Mark};
use super::{Panel, Placed, Plot, Scene, Topic, look};
use crate::report::figures::{figure, with_interval};
use crate::stats::{Dist, Summary};

/// Name, name as a file, and where a summary has it.
type Metric = (&'static str, &'static str, fn(&Summary) -> &Dist);

const METRICS: [Metric; 3] =
    [("TTFT", "ttft", |s| &s.ttft), ("TPOT", "tpot", |s| &s.tpot), ("E2EL", "e2el", |s| &s.e2el)];

/// A unit on the axes.
struct Point {
    load: f64,
    p50: f64,
    half_width: Option<f64>,
    p99: Option<f64>,
    text: String,
    anchor: String,
}

pub fn plots(scene: &Scene<'_>) -> Vec<Plot> {
    let panels = scene.panels.iter();
    panels.flat_map(|panel| METRICS.iter().filter_map(move |metric| plot(scene, panel, *metric))).collect()
}

/// `None` where no stack was measured under two loads.
fn plot(scene: &Scene<'_>, panel: &Panel<'_>, metric: (&str, &str, fn(&Summary) -> &Dist)) -> Option<Plot> {
    let (title, file, dist) = metric;
    let series: Vec<(usize, Vec<Point>)> = panel
        .series()
        .into_iter()
        .map(|(stack, units)| {
            let name = scene.stacks.name(stack);
            (stack, units.iter().filter_map(|p| point(p, name, dist)).collect())
        })
        .filter(|(_, points): &(usize, Vec<Point>)| !points.is_empty())
        .collect();
    if !series.iter().any(|(_, points)| points.len() > 1) {
        return None;
    }
    let all = || series.iter().flat_map(|(_, points)| points);
    let values = all().flat_map(|p| [Some(p.p50), p.p99]).flatten();
    let mut canvas =
        Canvas::new(Axis::loads(panel.load.axis(), all().map(|p| p.load)), Axis::log(&format!("{title}, ms"), values));
    for (stack, points) in &series {
        draw(&mut canvas, *stack, points);
        let (ink, shape) = look(*stack);
        canvas.legend.push((ink, shape, scene.stacks.name(*stack).to_string()));
    }
    Some(Plot {
        topic: Topic::Latency,
        title: format!("{title} against load: {}", panel.title),
        caption: format!("{title} · {}", panel.title),
        alt: alt(scene, panel, title, &series),
        name: format!("{file}-{}", panel.name),
        drawing: canvas.draw(),
    })
}

fn point(placed: &Placed<'_>, name: &str, dist: fn(&Summary) -> &Dist) -> Option<Point> {
    let unit = placed.unit;
    let of = |stat: fn(&Dist) -> Option<f64>| unit.over_samples(|s| stat(dist(s)));
    let p50 = of(|d| d.p50)?;
    let shown = |what: &str, stat: fn(&Dist) -> Option<f64>| {
        of(stat).map(|i| format!("\n{what} {} ms", with_interval(i.mean, i.half_width))).unwrap_or_default()
    };
    let text = format!(
        "{name}, {}{}{}{}{}",
        placed.load,
        shown("p50", |d| d.p50),
        shown("p90", |d| d.p90),
        shown("p95", |d| d.p95),
        shown("p99", |d| d.p99)
    );
    Some(Point {
        load: placed.load.value()?,
        p50: p50.mean,
        half_width: p50.half_width,
        p99: of(|d| d.p99).map(|i| i.mean),
        text,
        anchor: unit.anchor(),
    })
}

fn draw(canvas: &mut Canvas, stack: usize, points: &[Point]) {
    let (ink, shape) = look(stack);
    let high: Vec<(f64, f64)> = points.iter().filter_map(|p| Some((p.load, p.p99?))).collect();
    canvas.marks.push(Mark::Line { points: high.clone(), ink, width: 2, opacity: 0.55 });
    for at in high {
        canvas.marks.push(Mark::Dot { at, ink, size: 5, shape, opacity: 0.55 });
    }
    let line = points.iter().map(|p| (p.load, p.p50)).collect();
    canvas.marks.push(Mark::Line { points: line, ink, width: 4, opacity: 1.0 });
    for p in points {
        if let Some(half) = p.half_width {
            let ends = vec![(p.load, (p.p50 - half).max(p.p50 * 0.1)), (p.load, p.p50 + half)];
            canvas.marks.push(Mark::Line { points: ends, ink, width: 3, opacity: 0.7 });
        }
        let at = (p.load, p.p50);
        canvas.marks.push(Mark::Dot { at, ink, size: 8, shape, opacity: 1.0 });
        canvas.hits.push(Hit { area: Area::Dot(at), text: p.text.clone(), anchor: Some(p.anchor.clone()) });
        if let Some(p99) = p.p99 {
            let area = Area::Dot((p.load, p99));
            canvas.hits.push(Hit { area, text: p.text.clone(), anchor: Some(p.anchor.clone()) });
        }
    }
}

fn alt(scene: &Scene<'_>, panel: &Panel<'_>, title: &str, series: &[(usize, Vec<Point>)]) -> String {
    let range = |(stack, points): &(usize, Vec<Point>)| {
        let (first, last) = (points.first()?, points.last()?);
        let name = scene.stacks.name(*stack);
        let (low, high) = (figure(first.load), figure(last.load));
        Some(format!("{name} from {} ms at {low} to {} ms at {high}", figure(first.p50), figure(last.p50)))
    };
    let list: Vec<String> = series.iter().filter_map(range).collect();
    format!(
        "Median and 99th percentile of {title} against {} for {}. Medians: {}.",
        panel.load.axis(),
        panel.title,
        list.join("; ")
    )
}
