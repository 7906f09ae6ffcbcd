//! Charts as inline SVG: output throughput against tokens per second and user, one chart per pair of lengths, one line
//! per stack, one point per load.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::figures::figure;
use super::html::escape;
use super::{Report, ReportUnit, axes};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;
/// Colours that the style sheet has; beyond them lines are dashed.
const COLORS: usize = 8;
/// More charts than this say nothing.
const MAX_CHARTS: usize = 24;

/// A chart.
pub struct Chart {
    pub title: String,
    pub svg: String,
}

/// A point: the load, the coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    load: f64,
    /// Output tokens per second and user.
    x: f64,
    /// Output tokens per second.
    y: f64,
}

type Series = BTreeMap<String, Vec<Point>>;

/// The charts of a report; none where no stack was measured under two loads.
pub fn charts(report: &Report) -> Vec<Chart> {
    let axes = axes::varying(&report.units);
    let mut groups: BTreeMap<(Option<u32>, Option<u32>), Series> = BTreeMap::new();
    for unit in &report.units {
        if let Some(point) = point(unit) {
            let group = groups.entry((unit.facts.isl, unit.facts.osl)).or_default();
            group.entry(stack(unit, &axes)).or_default().push(point);
        }
    }
    groups.retain(|_, series| series.values().any(|points| points.len() > 1));
    let charts = groups.into_iter().take(MAX_CHARTS).map(|((isl, osl), mut series)| {
        series.values_mut().for_each(|points| points.sort_by(|a, b| a.load.total_cmp(&b.load)));
        let length = |n: Option<u32>| n.map_or("varying".to_string(), |n| n.to_string());
        Chart { title: format!("{} tokens in, {} out", length(isl), length(osl)), svg: svg(&series) }
    });
    charts.collect()
}

/// The mean over the samples that count.
fn point(unit: &ReportUnit) -> Option<Point> {
    let valid: Vec<_> = unit.samples.iter().filter(|s| s.valid).collect();
    let mean = |of: fn(&crate::stats::Summary) -> Option<f64>| {
        let values: Vec<f64> = valid.iter().filter_map(|s| of(&s.summary)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let load = unit.facts.request_rate.or(unit.facts.concurrency.map(f64::from))?;
    Some(Point { load, x: mean(|s| s.output_tokens_per_user)?, y: mean(|s| s.output_throughput)? })
}

/// What a line stands for: everything that tells units apart but lengths and load.
fn stack(unit: &ReportUnit, axes: &[String]) -> String {
    let mut parts = vec![unit.facts.model.clone(), unit.facts.method.clone(), unit.facts.engine.clone()];
    parts.extend(axes.iter().filter_map(|name| axes::value(unit, name)));
    parts.join(" ")
}

fn svg(series: &Series) -> String {
    let mut out = String::new();
    draw(&mut out, series).expect("writing to a string succeeds");
    out
}

fn draw(out: &mut String, series: &Series) -> fmt::Result {
    let all = || series.values().flatten();
    let (x_ticks, y_ticks) = (ticks(all().map(|p| p.x)), ticks(all().map(|p| p.y)));
    let x_top = x_ticks.last().copied().unwrap_or(1.0);
    let y_top = y_ticks.last().copied().unwrap_or(1.0);
    let x = |v: f64| LEFT + v / x_top * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| HEIGHT - BOTTOM - v / y_top * (HEIGHT - TOP - BOTTOM);
    let legend = 14.0 * series.len() as f64 + 8.0;
    writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", HEIGHT + legend)?;
    for tick in &x_ticks {
        let (at, foot) = (x(*tick), HEIGHT - BOTTOM);
        writeln!(out, "<path class=\"axis\" d=\"M{at:.1} {TOP}V{foot}\"/>")?;
        writeln!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", foot + 14.0, figure(*tick))?;
    }
    for tick in &y_ticks {
        let (at, end) = (y(*tick), WIDTH - RIGHT);
        writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {at:.1}H{end}\"/>")?;
        writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, figure(*tick))?;
    }
    let label = "output tok/s per user →   ↑ output tok/s";
    writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>", WIDTH - RIGHT, HEIGHT - 6.0)?;
    for (index, (name, points)) in series.iter().enumerate() {
        draw_series(out, index, name, points, (&x, &y))?;
    }
    writeln!(out, "</svg>")
}

type Scale<'a> = &'a dyn Fn(f64) -> f64;

fn draw_series(out: &mut String, index: usize, name: &str, points: &[Point], scale: (Scale, Scale)) -> fmt::Result {
    let (x, y) = scale;
    let color = format!("var(--c{})", index % COLORS);
    let dash =
        if index >= COLORS { format!(" stroke-dasharray=\"{} 3\"", 2 + 3 * (index / COLORS)) } else { String::new() };
    let path: Vec<String> = points.iter().map(|p| format!("{:.1} {:.1}", x(p.x), y(p.y))).collect();
    writeln!(out, "<path class=\"s\" stroke=\"{color}\"{dash} d=\"M{}\"/>", path.join("L"))?;
    for p in points {
        let text = format!("{name}\nload {}: {} tok/s, {} per user", figure(p.load), figure(p.y), figure(p.x));
        let (cx, cy) = (x(p.x), y(p.y));
        writeln!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\" fill=\"{color}\"><title>{}</title></circle>",
            escape(&text)
        )?;
    }
    let row = HEIGHT + 8.0 + 14.0 * index as f64;
    writeln!(out, "<path class=\"s\" stroke=\"{color}\"{dash} d=\"M{LEFT} {row}h22\"/>")?;
    writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", LEFT + 28.0, row + 4.0, escape(name))
}

/// Round numbers from zero to above the largest value, three to six of them.
fn ticks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let top = values.fold(0.0, f64::max);
    if !(top.is_finite() && top > 0.0) {
        return vec![0.0, 1.0];
    }
    let magnitude = 10f64.powf(top.log10().floor());
    let step = [0.2, 0.5, 1.0, 2.0].map(|s| s * magnitude).into_iter().find(|step| top / step <= 5.0);
    let step = step.unwrap_or(magnitude * 5.0);
    (0..=(top / step).ceil() as u32).map(|i| f64::from(i) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_stack_under_two_loads_makes_a_line() {
        let charts = charts(&testing::report());
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].title, "1024 tokens in, 128 out");
        assert_eq!(charts[0].svg.matches("<circle").count(), 2);
        assert!(charts[0].svg.contains("load 8.00: 5000 tok/s, 140 per user"), "{}", charts[0].svg);
        assert!(super::charts(&Report::default()).is_empty());
    }

    #[test]
    fn ticks_are_round_and_reach_over_the_values() {
        assert_eq!(ticks([3.0, 140.0].into_iter()), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(ticks([0.9].into_iter()).last(), Some(&1.0));
        for top in [0.001, 0.7, 1.0, 9.99, 10.0, 4999.0, 123_456.0] {
            let t = ticks([top].into_iter());
            assert!((3..=7).contains(&t.len()) && *t.last().unwrap() >= top, "{top}: {t:?}");
        }
        assert_eq!(ticks(std::iter::empty()), [0.0, 1.0]);
    }
}
