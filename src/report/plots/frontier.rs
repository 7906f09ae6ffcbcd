//! Throughput per GPU against tokens per second and user, with the Pareto front: what a stack gives all users together
//! for what it gives each.

use super::axis::Axis;
use super::canvas::{Area, Canvas, Hit, Mark, Shape};
use super::ink::Ink;
use super::{Panel, Plot, Scene, Topic, look};
use crate::report::ReportUnit;
use crate::report::figures::{figure, with_interval};
use crate::stats::interval::Interval;

/// A unit in the plane.
struct Point<'a> {
    unit: &'a ReportUnit,
    stack: usize,
    load: String,
    /// Output tokens per second and user.
    user: Interval,
    /// Output tokens per second and GPU.
    gpu: Interval,
}

pub fn plots(scene: &Scene<'_>) -> Vec<Plot> {
    scene.panels.iter().filter_map(|panel| plot(scene, panel)).collect()
}

/// `None` where there are no two points.
fn plot(scene: &Scene<'_>, panel: &Panel<'_>) -> Option<Plot> {
    let point = |p: &super::Placed<'_>| {
        let unit = p.unit;
        let user = unit.over_samples(|s| s.output_tokens_per_user)?;
        let gpu = unit.over_samples(|s| s.output_throughput_per_gpu.or(s.output_throughput))?;
        Some((p.stack, p.load.to_string(), user, gpu))
    };
    let points: Vec<Point<'_>> = panel
        .units
        .iter()
        .filter_map(|p| {
            let (stack, load, user, gpu) = point(p)?;
            Some(Point { unit: p.unit, stack, load, user, gpu })
        })
        .collect();
    if points.len() < 2 {
        return None;
    }
    let front = front(&points);
    let mut canvas = Canvas::new(
        Axis::from_zero("output tokens/s per user →", points.iter().map(|p| p.user.mean)),
        Axis::from_zero("↑ output tokens/s per GPU", points.iter().map(|p| p.gpu.mean)),
    );
    draw_front(&mut canvas, &points, &front);
    for (stack, _) in panel.series() {
        let (ink, shape) = look(stack);
        let own: Vec<&Point<'_>> = points.iter().filter(|p| p.stack == stack).collect();
        if own.is_empty() {
            continue;
        }
        let line = own.iter().map(|p| (p.user.mean, p.gpu.mean)).collect();
        canvas.marks.push(Mark::Line { points: line, ink, width: 4, opacity: 0.9 });
        for point in own {
            draw_point(&mut canvas, point, scene.stacks.name(stack), (ink, shape));
        }
        canvas.legend.push((ink, shape, scene.stacks.name(stack).to_string()));
    }
    if front.len() > 1 {
        canvas.legend.push((Ink::Front, Shape::Ring, "Pareto front: no other point is better in both".into()));
    }
    Some(Plot {
        topic: Topic::Frontier,
        title: format!("Throughput against interactivity: {}", panel.title),
        caption: panel.title.clone(),
        alt: alt(scene, panel, &points, &front),
        name: format!("frontier-{}", panel.name),
        drawing: canvas.draw(),
    })
}

fn draw_point(canvas: &mut Canvas, point: &Point<'_>, name: &str, (ink, shape): (Ink, Shape)) {
    let at = (point.user.mean, point.gpu.mean);
    canvas.marks.push(Mark::Dot { at, ink, size: 8, shape, opacity: 1.0 });
    let text = format!(
        "{name}, {}\n{} tok/s per GPU\n{} tok/s per user",
        point.load,
        with_interval(point.gpu.mean, point.gpu.half_width),
        with_interval(point.user.mean, point.user.half_width)
    );
    canvas.hits.push(Hit { area: Area::Dot(at), text, anchor: Some(point.unit.anchor()) });
}

fn draw_front(canvas: &mut Canvas, points: &[Point<'_>], front: &[usize]) {
    if front.len() < 2 {
        return;
    }
    let line: Vec<(f64, f64)> = front.iter().map(|i| (points[*i].user.mean, points[*i].gpu.mean)).collect();
    canvas.marks.push(Mark::Line { points: line.clone(), ink: Ink::Front, width: 18, opacity: 0.28 });
    for at in line {
        canvas.marks.push(Mark::Dot { at, ink: Ink::Front, size: 15, shape: Shape::Ring, opacity: 0.8 });
    }
}

/// Points that no other one beats in both figures, by falling throughput.
fn front(points: &[Point<'_>]) -> Vec<usize> {
    let values: Vec<(f64, f64)> = points.iter().map(|p| (p.user.mean, p.gpu.mean)).collect();
    pareto(&values)
}

/// Indices of the values that are dominated by none, by rising first figure.
fn pareto(values: &[(f64, f64)]) -> Vec<usize> {
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 && a.1 >= b.1 && a != b;
    let mut front: Vec<usize> =
        (0..values.len()).filter(|i| !values.iter().any(|other| beats(*other, values[*i]))).collect();
    front.sort_by(|a, b| values[*a].0.total_cmp(&values[*b].0));
    front.dedup_by(|a, b| values[*a] == values[*b]);
    front
}

fn alt(scene: &Scene<'_>, panel: &Panel<'_>, points: &[Point<'_>], front: &[usize]) -> String {
    let on = |i: &usize| {
        let p = &points[*i];
        let name = scene.stacks.name(p.stack);
        format!("{name} at {}: {} per GPU and {} per user", p.load, figure(p.gpu.mean), figure(p.user.mean))
    };
    let list: Vec<String> = front.iter().map(on).collect();
    format!(
        "Output tokens per second and GPU against output tokens per second and user for {}, {} points. On the Pareto front: {}.",
        panel.title,
        points.len(),
        list.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let values = [(10.0, 900.0), (40.0, 500.0), (39.0, 400.0), (90.0, 100.0), (90.0, 100.0), (10.0, 850.0)];
        assert_eq!(pareto(&values), [0, 1, 3]);
        assert!(pareto(&[]).is_empty());
    }
}
