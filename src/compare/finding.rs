//! What is said of one metric of one pair, after the tests.

use std::collections::BTreeSet;

use super::judge::{Finding, Measured, Needed, Requests, Verdict};
use super::metric;
use super::replicates::{Level, NIGHTS, Nested, ordinary};
use super::side::{SideCell, SideSample};
use super::trial::{Family, IDENTICAL, State, TestedPair, Trial};
use crate::spec::gate::{Better, Limit, better};
use crate::stats::dist::moments;
use crate::stats::moderated::Tested;
use crate::stats::{block, power};

impl Trial<'_> {
    /// What is to be said of it; `None` where neither side has the metric.
    pub fn finding(&self, a: &SideCell, b: &SideCell, family: Family, requests: &Requests<'_>) -> Option<Finding> {
        let blank = self.blank();
        Some(match &self.state {
            State::Missing => {
                let has = |cell: &SideCell| ordinary(cell).any(|s| s.values.contains_key(&self.measure.metric));
                match (has(a), has(b)) {
                    (false, false) => return None,
                    (on_a, _) => {
                        Finding { reason: Some(format!("only side {} has it", if on_a { "a" } else { "b" })), ..blank }
                    }
                }
            }
            State::NoRatio => Finding {
                reason: Some("a value of 0 has no change in percent; an absolute limit can judge it".into()),
                ..blank
            },
            State::Identical { reason } => Finding {
                a: Measured::plain(a, &self.measure.metric),
                b: Measured::plain(b, &self.measure.metric),
                change: Some(0.0).filter(|_| *reason == IDENTICAL),
                test: "identical",
                verdict: Verdict::Same,
                reason: Some((*reason).to_string()),
                ..blank
            },
            State::Absolute => self.against_limit(a, b)?,
            State::Untested { a: x, b: y, within } => {
                let finding = Finding {
                    a: Some(Measured::of(x, Level::Samples)),
                    b: Some(Measured::of(y, Level::Samples)),
                    change: Some((mean(y, Level::Samples) - mean(x, Level::Samples)).exp_m1()),
                    reason: Some(lacking(x, y)),
                    ..blank
                };
                match within {
                    Some(t) => finding.with_interval((t.low, t.high), "within_start"),
                    None => match self.within_sample(a, b, requests) {
                        Some(ends) => finding.with_interval(ends, "within_sample"),
                        None => finding,
                    },
                }
            }
            State::Tested(t) => self.tested(t, family),
        })
    }

    fn blank(&self) -> Finding {
        let metric = self.measure.metric.clone();
        Finding {
            unit: metric::unit(&metric),
            better: if better(&metric) == Better::Lower { "lower" } else { "higher" },
            limit: self.measure.limit.text(&metric),
            metric,
            a: None,
            b: None,
            change: None,
            interval: None,
            interval_of: None,
            test: "none",
            p: None,
            q: None,
            verdict: Verdict::Undecided,
            reason: None,
            needed: None,
        }
    }

    fn against_limit(&self, a: &SideCell, b: &SideCell) -> Option<Finding> {
        let Limit::Absolute(limit) = self.measure.limit else { return None };
        let metric = &self.measure.metric;
        let seen = Measured::plain(b, metric)?;
        let broken = match better(metric) {
            Better::Lower => seen.mean > limit,
            Better::Higher => seen.mean < limit,
        };
        Some(Finding {
            a: Measured::plain(a, metric),
            b: Some(seen),
            test: "limit",
            verdict: if broken { Verdict::Worse } else { Verdict::Same },
            ..self.blank()
        })
    }

    fn within_sample(&self, a: &SideCell, b: &SideCell, requests: &Requests<'_>) -> Option<(f64, f64)> {
        let (aggregate, latency) = self.measure.metric.split_once('_')?;
        let statistic = match aggregate {
            "mean" => block::Statistic::Mean,
            p => block::Statistic::Percentile(p.strip_prefix('p')?.parse::<f64>().ok()? / 100.0),
        };
        let of = |cell: &SideCell| requests(ordinary(cell).next()?, latency);
        block::interval(&of(a)?, &of(b)?, statistic)
    }

    fn tested(&self, t: &TestedPair, family: Family) -> Finding {
        let finding =
            Finding { a: Some(Measured::of(&t.a, t.level)), b: Some(Measured::of(&t.b, t.level)), ..self.blank() };
        let Some(tested) = &t.tested else {
            let reason = Some("nothing is known of its noise: no cell was repeated".to_string());
            return Finding { reason, ..finding };
        };
        let metric = &self.measure.metric;
        let (sign, smallest) = smallest(better(metric), self.measure.limit);
        let effect = sign * tested.difference;
        let inside = tested.low.abs().max(tested.high.abs()) < smallest;
        let verdict = if t.worse.1 <= family.fdr && effect >= smallest {
            Verdict::Worse
        } else if t.better.1 <= family.fdr && -effect >= smallest {
            Verdict::Better
        } else if inside {
            Verdict::Same
        } else {
            Verdict::Undecided
        };
        let (p, q) = if effect >= 0.0 { t.worse } else { t.better };
        let undecided = verdict == Verdict::Undecided;
        let needed = undecided.then(|| needed(t, tested, smallest, effect.abs(), family.level)).flatten();
        let reason = undecided.then(|| match needed {
            Some(n) => format!("{} {} on each side would decide", n.per_side, n.unit.as_str()),
            None => "too near the limit, or too noisy, for any number of repeats".to_string(),
        });
        let change = Some(tested.difference.exp_m1());
        Finding { change, test: t.test, p: Some(p), q: Some(q), verdict, reason, needed, ..finding }
            .with_interval((tested.low, tested.high), t.level.as_str())
    }
}

/// Which sign of a difference is for the worse, and the smallest that matters on the log scale.
pub(super) fn smallest(good: Better, limit: Limit) -> (f64, f64) {
    match (good, limit) {
        (Better::Lower, Limit::Change(share)) => (1.0, share.ln_1p()),
        (Better::Higher, Limit::Change(share)) => (-1.0, -(-share).ln_1p()),
        (_, Limit::Absolute(_)) => (1.0, f64::INFINITY),
    }
}

/// Replicates that would decide: enough to find, or to exclude, a change of the size of the limit; and, once there is a
/// change for certain, enough to tell it from the limit.
fn needed(t: &TestedPair, tested: &Tested, smallest: f64, effect: f64, level: f64) -> Option<Needed> {
    let found = t.worse.1.min(t.better.1) <= level.max(0.05);
    let designed = power::replicates(tested.noise, smallest, level)?;
    let per_side = match found {
        true => designed.max(power::replicates(tested.noise, (effect - smallest).abs(), 0.025)?),
        false => designed,
    };
    // It did not do: the next larger may.
    let now = t.groups.a.len().min(t.groups.b.len()) as u64;
    Some(Needed { unit: t.level, per_side: per_side.max(now + 1) })
}

/// Why nothing could be tested, and what would change that.
fn lacking(a: &Nested, b: &Nested) -> String {
    let (x, y) = (counted(a.starts(), "engine start"), counted(b.starts(), "engine start"));
    let have = if x == y { format!("each side has {x}") } else { format!("a has {x} and b {y}") };
    format!(
        "{have}, so how much starts differ is not known: `starts = 3`, or a baseline of {NIGHTS} nights, would tell; \
         `error = \"samples\"` takes starts to be alike"
    )
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("one {what}") } else { format!("{n} {what}s") }
}

fn mean(nested: &Nested, level: Level) -> f64 {
    let values = nested.values(level);
    values.iter().sum::<f64>() / values.len() as f64
}

impl Measured {
    fn of(nested: &Nested, level: Level) -> Measured {
        Measured {
            mean: mean(nested, level).exp(),
            samples: nested.samples(),
            starts: nested.starts(),
            nights: nested.nights(),
        }
    }

    /// The plain mean of a cell's samples.
    fn plain(cell: &SideCell, metric: &str) -> Option<Measured> {
        let samples: Vec<&SideSample> = ordinary(cell).filter(|s| s.values.contains_key(metric)).collect();
        let values = samples.iter().map(|s| s.values[metric]);
        let starts: BTreeSet<_> = samples.iter().map(|s| (&s.run, s.start)).collect();
        let nights: BTreeSet<_> = samples.iter().map(|s| &s.run).collect();
        let mean = moments(values).1?;
        Some(Measured { mean, samples: samples.len(), starts: starts.len(), nights: nights.len() })
    }
}

impl Finding {
    fn with_interval(self, (low, high): (f64, f64), of: &'static str) -> Finding {
        Finding { interval: Some([low.exp_m1(), high.exp_m1()]), interval_of: Some(of), ..self }
    }
}
