//! How a latency is spread over requests, a row per stack and load: from the 5th to the 95th percentile, the middle half,
//! the median with the interval of its mean over samples, and the 99th percentile.

use super::axis::Axis;
use super::canvas::{Area, Canvas, Hit, Mark, Shape, Side};
use super::ink::Ink;
use super::{Panel, Placed, Plot, Scene, Topic, look};
use crate::report::figures::figure;
use crate::report::spread::{Spread, quantile};
use crate::stats::interval::Interval;
use crate::stats::{Dist, Histogram, Summary};

/// Rows of one plot; more are left out, highest loads first to stay.
const MAX_ROWS: usize = 24;
const ROW: u32 = 76;

/// What is drawn, and where it comes from.
struct Metric {
    title: &'static str,
    file: &'static str,
    requests: fn(&Spread) -> &Histogram,
    dist: fn(&Summary) -> &Dist,
}

const METRICS: [Metric; 3] = [
    Metric { title: "TTFT", file: "ttft", requests: |s| &s.ttft, dist: |s| &s.ttft },
    Metric { title: "TPOT", file: "tpot", requests: |s| &s.tpot, dist: |s| &s.tpot },
    Metric { title: "E2EL", file: "e2el", requests: |s| &s.e2el, dist: |s| &s.e2el },
];

/// Milliseconds.
struct Row {
    stack: usize,
    label: String,
    requests: u64,
    p5: f64,
    p25: f64,
    p50: f64,
    p75: f64,
    p95: f64,
    p99: f64,
    /// The median over samples.
    over_samples: Option<Interval>,
    anchor: String,
}

pub fn plots(scene: &Scene<'_>) -> Vec<Plot> {
    let panels = scene.panels.iter();
    panels.flat_map(|panel| METRICS.iter().filter_map(move |metric| plot(scene, panel, metric))).collect()
}

fn plot(scene: &Scene<'_>, panel: &Panel<'_>, metric: &Metric) -> Option<Plot> {
    let mut rows: Vec<Row> = panel.units.iter().rev().filter_map(|p| row(scene, p, metric)).collect();
    let left_out = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    rows.reverse();
    if rows.is_empty() {
        return None;
    }
    let n = rows.len() as f64;
    let values = rows.iter().flat_map(|r| [r.p5, r.p99]);
    let mut canvas = Canvas::new(Axis::log(&format!("{}, ms", metric.title), values), Axis::plain("", 0.0, n));
    canvas.height = ROW * rows.len() as u32 + 20;
    canvas.left = 12;
    for (i, row) in rows.iter().enumerate() {
        draw(&mut canvas, n - i as f64 - 1.0, row);
    }
    let cut = if left_out > 0 { format!(" {left_out} rows of lower load are left out.") } else { String::new() };
    Some(Plot {
        topic: Topic::Spread,
        title: format!("{} over requests: {}", metric.title, panel.title),
        caption: format!("{} · {}", metric.title, panel.title),
        alt: format!("{}{cut}", alt(panel, metric, &rows)),
        name: format!("spread-{}-{}", metric.file, panel.name),
        drawing: canvas.draw(),
    })
}

fn row(scene: &Scene<'_>, placed: &Placed<'_>, metric: &Metric) -> Option<Row> {
    let requests = (metric.requests)(placed.unit.spread.as_ref()?);
    let at = |share: f64| quantile(requests, share);
    Some(Row {
        stack: placed.stack,
        label: format!("{} · {}", scene.stacks.name(placed.stack), placed.load),
        requests: requests.len(),
        p5: at(0.05)?,
        p25: at(0.25)?,
        p50: at(0.5)?,
        p75: at(0.75)?,
        p95: at(0.95)?,
        p99: at(0.99)?,
        over_samples: placed.unit.over_samples(|s| (metric.dist)(s).p50),
        anchor: placed.unit.anchor(),
    })
}

/// A row between `y` and `y + 1`: its label above, the spread below.
fn draw(canvas: &mut Canvas, y: f64, row: &Row) {
    let (ink, _) = look(row.stack);
    let middle = y + 0.36;
    let rect = |from: f64, to: f64, half: f64, opacity: f64| Mark::Rect {
        from: (from, middle - half),
        to: (to, middle + half),
        ink,
        opacity,
    };
    canvas.marks.push(Mark::Line { points: vec![(row.p5, middle), (row.p95, middle)], ink, width: 3, opacity: 0.8 });
    canvas.marks.push(rect(row.p25, row.p75, 0.17, 0.35));
    canvas.marks.push(Mark::Dot { at: (row.p99, middle), ink, size: 5, shape: Shape::Disc, opacity: 0.6 });
    if let Some(half) = row.over_samples.and_then(|i| i.half_width) {
        let ends = vec![((row.p50 - half).max(row.p50 * 0.1), middle - 0.22), (row.p50 + half, middle - 0.22)];
        canvas.marks.push(Mark::Line { points: ends, ink: Ink::Text, width: 3, opacity: 0.8 });
    }
    let median = vec![(row.p50, middle - 0.17), (row.p50, middle + 0.17)];
    canvas.marks.push(Mark::Line { points: median, ink: Ink::Text, width: 4, opacity: 1.0 });
    // At the left end of the axis, whatever its value is.
    canvas.marks.push(Mark::Text {
        at: (0.0, y + 0.78),
        text: row.label.clone(),
        ink: Ink::Text,
        side: Side::Left,
        size: 0.92,
        bold: false,
    });
    let interval = row.over_samples.and_then(|i| i.half_width).map(|h| format!(" ± {} over samples", figure(h)));
    let text = format!(
        "{}, {} requests\nmedian {} ms{}\nmiddle half {} to {} ms\np5 {}, p95 {}, p99 {} ms",
        row.label,
        row.requests,
        figure(row.p50),
        interval.unwrap_or_default(),
        figure(row.p25),
        figure(row.p75),
        figure(row.p5),
        figure(row.p95),
        figure(row.p99)
    );
    let area = Area::Rect((0.0, y), (f64::MAX, y + 1.0));
    canvas.hits.push(Hit { area, text, anchor: Some(row.anchor.clone()) });
}

fn alt(panel: &Panel<'_>, metric: &Metric, rows: &[Row]) -> String {
    let list: Vec<String> =
        rows.iter().map(|r| format!("{}: median {}, p99 {}", r.label, figure(r.p50), figure(r.p99))).collect();
    format!("Distribution of {} over requests in milliseconds for {}. {}.", metric.title, panel.title, list.join("; "))
}
