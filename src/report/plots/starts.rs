//! How long engines took to their first token, a bar per start, in its stages where the deployment told of them.

use super::axis::Axis;
use super::canvas::{Area, Canvas, Hit, Mark, Side};
use super::ink::Ink;
use super::{Plot, Topic};
use crate::report::figures::figure;
use crate::report::{EngineStart, Report};

/// Starts that are drawn; of more, the slowest.
const MAX_ROWS: usize = 30;
const ROW: u32 = 58;

pub fn plots(report: &Report) -> Option<Plot> {
    let mut starts: Vec<&EngineStart> = report.starts.iter().filter(|s| s.seconds.is_some()).collect();
    let failed = report.starts.len() - starts.len();
    starts.sort_by(|a, b| total(b).total_cmp(&total(a)));
    let left_out = starts.len().saturating_sub(MAX_ROWS);
    starts.truncate(MAX_ROWS);
    if starts.is_empty() {
        return None;
    }
    let n = starts.len() as f64;
    let longest = starts.iter().map(|s| total(s));
    let mut canvas = Canvas::new(Axis::from_zero("seconds", longest), Axis::plain("", 0.0, n));
    canvas.height = ROW * starts.len() as u32 + 20;
    canvas.left = 12;
    for (i, start) in starts.iter().enumerate() {
        draw(&mut canvas, n - i as f64 - 1.0, start);
    }
    let list: Vec<String> =
        starts.iter().map(|s| format!("{} start {}: {} s", s.container, s.start, figure(total(s)))).collect();
    let more = match (left_out, failed) {
        (0, 0) => String::new(),
        (l, f) => format!(" {l} quicker starts are left out, {f} failed."),
    };
    Some(Plot {
        topic: Topic::Starts,
        title: "Time to the first token of each engine start".into(),
        caption: "Time to the first token".into(),
        alt: format!("Seconds from the start of an engine to its first token. {}.{more}", list.join("; ")),
        name: "engine-starts".into(),
        drawing: canvas.draw(),
    })
}

/// What was waited: all stages, pulls included, or the time to the first token where there are none.
fn total(start: &EngineStart) -> f64 {
    let stages: f64 = start.stages.iter().map(|(_, s)| s).sum();
    stages.max(start.seconds.unwrap_or(0.0))
}

fn draw(canvas: &mut Canvas, y: f64, start: &EngineStart) {
    let (low, high) = (y + 0.1, y + 0.44);
    let mut from = 0.0;
    let whole = [(None, total(start))];
    let stages: Vec<(Option<crate::event::Stage>, f64)> = match start.stages.len() {
        0 | 1 => whole.to_vec(),
        _ => start.stages.iter().map(|(stage, s)| (Some(*stage), *s)).collect(),
    };
    for (i, (_, seconds)) in stages.iter().enumerate() {
        let opacity = 0.4 + 0.5 * (i as f64 / stages.len() as f64);
        canvas.marks.push(Mark::Rect { from: (from, low), to: (from + seconds, high), ink: Ink::Series(0), opacity });
        from += seconds;
    }
    let label = format!("{} · start {} · {} s", start.container, start.start, figure(total(start)));
    canvas.marks.push(Mark::Text {
        at: (0.0, y + 0.7),
        text: label.clone(),
        ink: Ink::Text,
        side: Side::Left,
        size: 0.92,
        bold: false,
    });
    let named = stages.iter().filter_map(|(stage, s)| Some(format!("\n{} {} s", (*stage)?.as_str(), figure(*s))));
    let version = start.engine_version.as_ref().map(|v| format!("\nversion {v}")).unwrap_or_default();
    let text = format!("{label}{}{version}", named.collect::<String>());
    canvas.hits.push(Hit { area: Area::Rect((0.0, y), (f64::MAX, y + 1.0)), text, anchor: None });
}
