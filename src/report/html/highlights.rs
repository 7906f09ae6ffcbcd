//! What each model did best, and which unit did it.

use serde::Serialize;

use crate::report::cells::{Lengths, Load, Stacks, short_models};
use crate::report::figures::with_interval;
use crate::report::{Report, ReportUnit};
use crate::stats::interval::{Interval, t_interval};

/// The best of one model.
#[derive(Serialize)]
pub struct Best {
    model: String,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    title: &'static str,
    value: String,
    unit: &'static str,
    /// `vllm · 1024 → 128 · c 64`.
    by: String,
    anchor: String,
}

type Of = fn(&ReportUnit) -> Option<Interval>;

/// Title, unit, whether higher is better, value.
const FIGURES: [(&str, &str, bool, Of); 5] = [
    ("Most output per GPU", "tok/s", true, |u| u.over_samples(|s| s.output_throughput_per_gpu.or(s.output_throughput))),
    ("Most goodput", "1/s", true, |u| u.over_samples(|s| s.request_goodput)),
    ("Shortest TTFT p50", "ms", false, |u| u.over_samples(|s| s.ttft.p50)),
    ("Fastest for a user", "tok/s", true, |u| u.over_samples(|s| s.output_tokens_per_user)),
    ("Cheapest output", "$/1M", false, price),
];

/// US dollars per million output tokens.
fn price(unit: &ReportUnit) -> Option<Interval> {
    let values: Vec<f64> = unit
        .samples
        .iter()
        .filter(|s| s.valid && s.summary.output_tokens > 0)
        .filter_map(|s| Some(s.cost_usd? / s.summary.output_tokens as f64 * 1e6))
        .collect();
    t_interval(&values)
}

/// For each model with at least two measured units.
pub fn highlights(report: &Report) -> Vec<Best> {
    let stacks = Stacks::of(report);
    let short = short_models(report);
    let mut models: Vec<&str> = Vec::new();
    for unit in &report.units {
        if !models.contains(&unit.facts.model.as_str()) {
            models.push(&unit.facts.model);
        }
    }
    let best = |model: &str| {
        let units: Vec<&ReportUnit> =
            report.units.iter().filter(|u| u.facts.model == model && u.valid_samples() > 0).collect();
        let figures: Vec<Figure> = FIGURES
            .iter()
            .filter_map(|(title, unit, higher, of)| {
                let all = units.iter().filter_map(|u| Some((of(u)?, *u)));
                let by = |a: &(Interval, &ReportUnit), b: &(Interval, &ReportUnit)| a.0.mean.total_cmp(&b.0.mean);
                let (value, best) = if *higher { all.max_by(by)? } else { all.min_by(by)? };
                let stack = stacks.name(stacks.index(best));
                Some(Figure {
                    title,
                    value: with_interval(value.mean, value.half_width),
                    unit,
                    by: format!("{stack} · {} · {}", Lengths::of(best), Load::of(best)),
                    anchor: best.anchor(),
                })
            })
            .collect();
        (units.len() > 1 && !figures.is_empty()).then(|| Best { model: short(model), figures })
    };
    models.into_iter().filter_map(best).collect()
}
