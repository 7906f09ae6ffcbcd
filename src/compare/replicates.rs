//! What one repeat is. Samples of one engine start have the start in common, and starts of one night the night; what they
//! have in common cannot be seen in how they scatter. So the error of a comparison is taken from the largest unit that was
//! repeated: nights from five on, else engine starts. Without either, nothing is decided.

use std::collections::BTreeMap;

use serde::Serialize;

use super::side::{SideCell, SideSample};
use crate::spec::policy::ErrorTerm;
use crate::stats::moderated::Groups;

/// Nights of the baseline by which nights can be told apart.
pub const NIGHTS: usize = 5;

/// The unit that was repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Nights,
    Starts,
    Samples,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Nights => "nights",
            Level::Starts => "starts",
            Level::Samples => "samples",
        }
    }
}

/// Logarithms of a metric by night and start.
#[derive(Clone, Debug, Default)]
pub struct Nested {
    /// Run → start → samples.
    nights: BTreeMap<String, BTreeMap<Option<u32>, Vec<f64>>>,
}

impl Nested {
    /// The samples of a cell that have the metric; `None` where a value has no logarithm.
    pub fn of<'s>(samples: impl IntoIterator<Item = &'s SideSample>, metric: &str) -> Option<Nested> {
        let mut nested = Nested::default();
        for sample in samples {
            let Some(value) = sample.values.get(metric) else { continue };
            if *value <= 0.0 || !value.is_finite() {
                return None;
            }
            let night = nested.nights.entry(sample.run.clone()).or_default();
            night.entry(sample.start).or_default().push(value.ln());
        }
        Some(nested)
    }

    pub fn samples(&self) -> usize {
        self.nights.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    pub fn starts(&self) -> usize {
        self.nights.values().map(BTreeMap::len).sum()
    }

    pub fn nights(&self) -> usize {
        self.nights.len()
    }

    /// One value per unit of a level: the mean of its starts, a start that of its samples.
    pub fn values(&self, level: Level) -> Vec<f64> {
        let start = |samples: &Vec<f64>| mean(samples.iter().copied());
        match level {
            Level::Nights => self.nights.values().map(|night| mean(night.values().map(start))).collect(),
            Level::Starts => self.nights.values().flat_map(BTreeMap::values).map(start).collect(),
            Level::Samples => self.nights.values().flat_map(BTreeMap::values).flatten().copied().collect(),
        }
    }

    /// Sum of squares and degrees of freedom between samples within their starts.
    fn within(&self) -> (f64, f64) {
        let mut out = (0.0, 0.0);
        for samples in self.nights.values().flat_map(BTreeMap::values) {
            let centre = mean(samples.iter().copied());
            out.0 += samples.iter().map(|x| (x - centre).powi(2)).sum::<f64>();
            out.1 += samples.len() as f64 - 1.0;
        }
        out
    }

    /// Samples in one night on average (harmonic), by which its mean is better than one sample.
    fn per_night(&self) -> f64 {
        let n = self.nights.len() as f64;
        n / self.nights.values().map(|night| 1.0 / night.values().map(Vec::len).sum::<usize>() as f64).sum::<f64>()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0.0, 0.0), |(n, sum), x| (n + 1.0, sum + x));
    sum / n
}

/// The level at which a pair can be tested; `None` when nothing was repeated that a verdict could rest on.
pub fn level(a: &Nested, b: &Nested, error: ErrorTerm) -> Option<Level> {
    let told = |nested: &Nested| nested.starts() >= 2;
    if a.nights() >= NIGHTS && b.nights() >= 1 {
        Some(Level::Nights)
    } else if (told(a) && told(b)) || (a.starts() >= NIGHTS && b.starts() >= 1) {
        Some(Level::Starts)
    } else if error == ErrorTerm::Samples && a.samples().max(b.samples()) >= 2 && a.samples().min(b.samples()) >= 1 {
        Some(Level::Samples)
    } else {
        None
    }
}

/// The replicates of a pair at a level.
pub fn groups(a: &Nested, b: &Nested, level: Level) -> Groups {
    let extra = if level == Level::Nights { thinner(a, b) } else { 0.0 };
    Groups { a: a.values(level), b: b.values(level), extra }
}

/// A night with fewer samples than those of the baseline scatters more than they do, by what samples scatter.
fn thinner(a: &Nested, b: &Nested) -> f64 {
    let ((x, n), (y, m)) = (a.within(), b.within());
    let short = 1.0 / b.per_night() - 1.0 / a.per_night();
    if n + m < 1.0 || short <= 1e-9 { 0.0 } else { (x + y) / (n + m) * short / b.nights() as f64 }
}

/// The samples of a cell but for those of its run's control.
pub fn ordinary(cell: &SideCell) -> impl Iterator<Item = &SideSample> {
    cell.samples.iter().filter(|s| s.control.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::cell;

    fn nested(samples: &[(&str, u32, f64)]) -> Nested {
        Nested::of(&cell("vllm", 1, samples).samples, "mean_ttft").unwrap()
    }

    #[test]
    fn the_largest_unit_that_was_repeated() {
        let one_start = nested(&[("r1", 1, 10.0), ("r1", 1, 11.0), ("r1", 1, 12.0)]);
        let starts = nested(&[("r2", 1, 10.0), ("r2", 2, 11.0), ("r2", 2, 12.0)]);
        let names: Vec<String> = (0..5).map(|i| format!("n{i}")).collect();
        let nights: Vec<(&str, u32, f64)> = names.iter().map(|n| (n.as_str(), 1, 10.0)).collect();
        let (four, five) = (nested(&nights[..4]), nested(&nights));
        use ErrorTerm::{Samples, Starts};
        assert_eq!(level(&one_start, &one_start, Starts), None);
        assert_eq!(level(&one_start, &one_start, Samples), Some(Level::Samples));
        assert_eq!(level(&starts, &one_start, Starts), None);
        assert_eq!(level(&starts, &starts, Starts), Some(Level::Starts));
        assert_eq!(level(&four, &one_start, Starts), None);
        assert_eq!(level(&four, &starts, Starts), Some(Level::Starts));
        assert_eq!(level(&five, &one_start, Starts), Some(Level::Nights));
        assert_eq!(level(&five, &Nested::default(), Starts), None);
    }

    #[test]
    fn a_start_counts_once_however_often_it_was_measured() {
        let a = nested(&[("r", 1, 10.0), ("r", 2, 20.0), ("r", 2, 20.0)]);
        assert_eq!(a.values(Level::Starts).len(), 2);
        let night = a.values(Level::Nights);
        assert!((night[0] - (10f64.ln() + 20f64.ln()) / 2.0).abs() < 1e-12);
        assert_eq!((a.samples(), a.starts(), a.nights()), (3, 2, 1));
    }

    #[test]
    fn a_thinner_night_scatters_more() {
        let full: Vec<(String, u32, f64)> =
            (0..5).flat_map(|n| (0..3).map(move |i| (format!("n{n}"), 1, 10.0 + f64::from(i)))).collect();
        let full: Vec<(&str, u32, f64)> = full.iter().map(|(n, s, v)| (n.as_str(), *s, *v)).collect();
        let (a, thin, like) =
            (nested(&full), nested(&[("b", 1, 10.0)]), nested(&[("b", 1, 10.0), ("b", 1, 11.0), ("b", 1, 12.0)]));
        assert!(groups(&a, &thin, Level::Nights).extra > 0.0);
        assert_eq!(groups(&a, &like, Level::Nights).extra, 0.0);
        assert!(Nested::of(&cell("vllm", 1, &[("r", 1, 0.0)]).samples, "mean_ttft").is_none());
    }
}
