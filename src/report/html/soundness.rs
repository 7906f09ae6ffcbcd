//! Whether the figures may be trusted: samples that do not count and why, and how well the client kept up.

use serde::Serialize;

use crate::report::figures::figure;
use crate::report::{Report, ReportUnit};
use crate::store::record::SampleRecord;

#[derive(Serialize)]
pub struct Soundness {
    samples: usize,
    valid: usize,
    checks: Vec<Check>,
    invalid: Vec<Invalid>,
}

/// One thing that could spoil a measurement, at its worst.
#[derive(Serialize)]
struct Check {
    what: &'static str,
    worst: String,
    meaning: &'static str,
    unit: Option<(String, String)>,
}

#[derive(Serialize)]
struct Invalid {
    name: String,
    anchor: String,
    sample: u32,
    reason: String,
}

type Of = fn(&SampleRecord) -> Option<f64>;

/// What, unit, meaning, value: larger is worse.
const CHECKS: [(&str, &str, &str, Of); 7] = [
    ("Failed requests", "%", "Above max_error_rate a sample does not count.", |s| Some(s.summary.error_rate * 100.0)),
    ("Answers of a wrong length", "", "They make a sample invalid where the length was to be exact.", |s| {
        Some(s.summary.wrong_output_length as f64)
    }),
    ("Late starts, p99", "ms", "How far the client fell behind its schedule.", |s| s.summary.queue_delay_p99_ms),
    ("Receive lag, p99", "ms", "From bytes being there to their time being taken.", |s| s.summary.recv_lag_p99_ms),
    ("CPU of the busiest client thread", "%", "Near 100 the client is the bottleneck.", |s| {
        s.summary.client_cpu_fraction.map(|f| f * 100.0)
    }),
    ("The client's own error in TTFT", "ms", "Against a server of known timing on this host; never subtracted.", |s| {
        s.client_error_ttft_ms
    }),
    ("The client's own error in ITL", "ms", "Likewise, for the time between tokens.", |s| s.client_error_itl_ms),
];

pub fn soundness(report: &Report) -> Soundness {
    let all = || report.units.iter().flat_map(|u| u.samples.iter().map(move |s| (u, s)));
    let mut checks: Vec<Check> = CHECKS.iter().filter_map(|check| worst(check, all())).collect();
    let unsteady = all().filter(|(_, s)| !s.summary.steady_reached).count();
    if all().next().is_some() {
        checks.push(Check {
            what: "Samples without a steady state",
            worst: unsteady.to_string(),
            meaning: "Ramp and drain are then part of every throughput; longer samples have one.",
            unit: None,
        });
    }
    let invalid = all().filter(|(_, s)| !s.valid).map(|(u, s)| Invalid {
        name: u.name.clone(),
        anchor: u.anchor(),
        sample: s.sample,
        reason: s.invalid_reason.clone().unwrap_or_default(),
    });
    Soundness {
        samples: all().count(),
        valid: all().filter(|(_, s)| s.valid).count(),
        checks,
        invalid: invalid.take(200).collect(),
    }
}

fn worst<'a>(
    (what, unit, meaning, of): &(&'static str, &'static str, &'static str, Of),
    samples: impl Iterator<Item = (&'a ReportUnit, &'a SampleRecord)>,
) -> Option<Check> {
    let values = samples.filter_map(|(u, s)| Some((of(s)?, u)));
    let (value, worst) = values.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let text = if unit.is_empty() { figure(value) } else { format!("{} {unit}", figure(value)) };
    // Where all is well, no unit is to be looked at.
    let named = (value > 0.0).then(|| (worst.name.clone(), worst.anchor()));
    Some(Check { what, worst: text, meaning, unit: named })
}
