//! Axes: scale, range, and ticks that a person would have chosen.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use super::super::figures::figure;

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub title: String,
    pub scale: Scale,
    low: f64,
    high: f64,
    /// Values with their labels, ascending.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to a round number that is no less than any value.
    pub fn from_zero(title: &str, values: impl Iterator<Item = f64>) -> Axis {
        let ticks = round_ticks(values.fold(0.0, f64::max));
        let high = *ticks.last().expect("there are ticks");
        Axis { ticks: labelled(ticks), ..Axis::plain(title, 0.0, high) }
    }

    /// Logarithmic, with round ticks. Values that are not positive have no place on it.
    pub fn log(title: &str, values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = range(values);
        let axis = Axis { scale: Scale::Log, ..Axis::plain(title, low, high).padded() };
        let ticks = axis.apart(log_ticks(low, high));
        Axis { ticks: labelled(ticks), ..axis }
    }

    /// Logarithmic, with a tick at each of the values: loads that were asked for. Where they are many, some are left out.
    pub fn loads(title: &str, values: impl Iterator<Item = f64>) -> Axis {
        let mut ticks: Vec<f64> = values.filter(|v| *v > 0.0).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let (low, high) = range(ticks.iter().copied());
        let axis = Axis { scale: Scale::Log, ..Axis::plain(title, low, high).padded() };
        let ticks = axis.apart(ticks);
        Axis { ticks: labelled(ticks), ..axis }
    }

    /// Those of the ticks that have room for their labels.
    fn apart(&self, ticks: Vec<f64>) -> Vec<f64> {
        let mut shown: Vec<f64> = Vec::new();
        for tick in ticks {
            if shown.last().is_none_or(|last| self.place(tick) - self.place(*last) > 0.08) {
                shown.push(tick);
            }
        }
        shown
    }

    /// As many equal steps as there are names, each named in its middle.
    pub fn categories(title: &str, names: impl Iterator<Item = String>, count: f64) -> Axis {
        let ticks = names.enumerate().map(|(i, name)| (i as f64 + 0.5, name)).collect();
        Axis { ticks, ..Axis::plain(title, 0.0, count) }
    }

    /// A plain range without ticks, for what is labelled otherwise.
    pub fn plain(title: &str, low: f64, high: f64) -> Axis {
        let high = if high > low { high } else { low + 1.0 };
        Axis { title: title.to_string(), scale: Scale::Linear, low, high, ticks: Vec::new() }
    }

    /// A little room at both ends of a logarithmic range.
    fn padded(self) -> Axis {
        let room = (self.high / self.low).ln().max(0.7) * 0.06;
        Axis { low: self.low * (-room).exp(), high: self.high * room.exp(), ..self }
    }

    /// Where a value lies, 0 to 1; what is off the axis lies at its end.
    pub fn place(&self, value: f64) -> f64 {
        let of = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Log => v.max(f64::MIN_POSITIVE).ln(),
        };
        ((of(value) - of(self.low)) / (of(self.high) - of(self.low))).clamp(0.0, 1.0)
    }

    /// What stands at a tick.
    pub fn label(&self, value: f64) -> String {
        self.ticks.iter().find(|(v, _)| *v == value).map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// The axis as the library asks for one.
impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.place(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        // Ticks are all there is: no finer lines between them.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|(v, _)| *v).collect() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

fn labelled(ticks: Vec<f64>) -> Vec<(f64, String)> {
    ticks.into_iter().map(|v| (v, short(v))).collect()
}

/// A tick's text: no more digits than it needs, thousands as `k`.
fn short(v: f64) -> String {
    let trimmed = |x: f64| match figure(x) {
        text if text.contains('.') && !text.contains('e') => {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        text => text,
    };
    if v.abs() >= 10_000.0 { format!("{}k", trimmed(v / 1000.0)) } else { trimmed(v) }
}

/// Ends of the positive values; some range where there is none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = values.filter(|v| *v > 0.0 && v.is_finite());
    let (low, high) = positive.fold((f64::INFINITY, 0.0), |(l, h), v| (v.min(l), v.max(h)));
    if low.is_finite() { (low, high) } else { (1.0, 10.0) }
}

/// Round numbers from zero to above the largest value, three to seven of them.
fn round_ticks(top: f64) -> Vec<f64> {
    if !(top.is_finite() && top > 0.0) {
        return vec![0.0, 1.0];
    }
    let magnitude = 10f64.powf(top.log10().floor());
    let step = [0.2, 0.5, 1.0, 2.0].map(|s| s * magnitude).into_iter().find(|step| top / step <= 5.0);
    let step = step.unwrap_or(magnitude * 5.0);
    (0..=(top / step).ceil() as u32).map(|i| f64::from(i) * step).collect()
}

/// Round numbers within a range: powers of ten, or with 3, or with 2 and 5 between them, until there are at least three;
/// in a range that holds fewer, its round parts.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let within = |steps: &[f64]| {
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
        all.filter(|v| (low * 0.95..=high * 1.05).contains(v)).collect::<Vec<f64>>()
    };
    let choices: [&[f64]; 4] =
        [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]];
    let found = choices.into_iter().map(within).find(|ticks| ticks.len() >= 3);
    found.unwrap_or_else(|| {
        let step = round_ticks(high - low).get(1).copied().unwrap_or(1.0).max(high * 1e-6);
        let first = (low / step).floor() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + step).filter(|v| *v > 0.0).take(6).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_reach_over_the_values() {
        assert_eq!(labels(&Axis::from_zero("x", [3.0, 140.0].into_iter())), ["0", "50", "100", "150"]);
        assert_eq!(labels(&Axis::from_zero("x", std::iter::empty())), ["0", "1"]);
        assert_eq!(labels(&Axis::from_zero("x", [52_000.0].into_iter())), ["0", "20k", "40k", "60k"]);
        for top in [0.001, 0.7, 1.0, 9.99, 10.0, 4999.0, 123_456.0] {
            let t = round_ticks(top);
            assert!((3..=7).contains(&t.len()) && *t.last().unwrap() >= top, "{top}: {t:?}");
        }
    }

    #[test]
    fn logarithmic_ticks_are_few_and_inside() {
        assert_eq!(labels(&Axis::log("x", [1.2, 900.0].into_iter())), ["3", "10", "30", "100", "300"]);
        for (low, high) in [(1.0, 1.0), (7.0, 7.4), (0.02, 5000.0), (95.0, 105.0), (40.0, 260.0)] {
            let axis = Axis::log("x", [low, high].into_iter());
            let n = axis.ticks.len();
            assert!((1..=11).contains(&n), "{low}…{high}: {n} ticks");
            assert!(axis.place(low) > 0.0 && axis.place(high) < 1.0 && axis.place(low) <= axis.place(high));
        }
    }

    #[test]
    fn loads_keep_their_own_numbers() {
        let axis = Axis::loads("concurrency", [64.0, 1.0, 4.0, 16.0, 4.0].into_iter());
        assert_eq!(labels(&axis), ["1", "4", "16", "64"]);
        let many = Axis::loads("rate", (1..=100).map(f64::from));
        assert!((4..=13).contains(&many.ticks.len()), "{:?}", labels(&many));
    }
}
