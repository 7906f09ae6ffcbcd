//! An interval from within one sample: a block bootstrap over its requests in the order of their start. Requests near each
//! other wait in the same queue, so they are drawn in blocks. It says how sure one measurement is of itself, and nothing
//! about how another would come out.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::dist::percentile;

/// Times that each side is drawn anew.
const RESAMPLES: usize = 999;
/// Fewer requests say nothing.
pub const REQUESTS: usize = 20;

/// What is compared of the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    Mean,
    /// A percentile, 0 to 1.
    Percentile(f64),
}

impl Statistic {
    fn of(self, values: &mut [f64]) -> f64 {
        match self {
            Statistic::Mean => values.iter().sum::<f64>() / values.len() as f64,
            Statistic::Percentile(p) => {
                values.sort_unstable_by(f64::total_cmp);
                percentile(values, p).unwrap_or(f64::NAN)
            }
        }
    }
}

/// The 95 % interval of `ln(statistic of b / statistic of a)`, for values in the order of their requests' start; circular
/// blocks of `n^(1/3)` requests (H. R. Künsch, Ann. Stat. 17 (1989); the rate after P. Hall, J. L. Horowitz and B.-Y. Jing,
/// Biometrika 82 (1995)). `None` with fewer than [`REQUESTS`], or where a statistic is not positive.
pub fn interval(a: &[f64], b: &[f64], statistic: Statistic) -> Option<(f64, f64)> {
    if a.len().min(b.len()) < REQUESTS {
        return None;
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(((a.len() as u64) << 32) | b.len() as u64);
    let mut drawn: Vec<f64> = (0..RESAMPLES)
        .map(|_| (redrawn(b, statistic, &mut rng) / redrawn(a, statistic, &mut rng)).ln())
        .filter(|x| x.is_finite())
        .collect();
    if drawn.len() < RESAMPLES {
        return None;
    }
    drawn.sort_unstable_by(f64::total_cmp);
    Some((percentile(&drawn, 0.025)?, percentile(&drawn, 0.975)?))
}

fn redrawn(values: &[f64], statistic: Statistic, rng: &mut Xoshiro256PlusPlus) -> f64 {
    let n = values.len();
    let block = (n as f64).cbrt().ceil() as usize;
    let mut out = Vec::with_capacity(n + block);
    while out.len() < n {
        let from = rng.random_range(0..n);
        out.extend((0..block).map(|i| values[(from + i) % n]));
    }
    out.truncate(n);
    statistic.of(&mut out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(n: usize, level: f64) -> Vec<f64> {
        (0..n).map(|i| level * (1.0 + 0.2 * (i as f64 / 7.0).sin() + 0.05 * ((i * 37 % 11) as f64 / 11.0))).collect()
    }

    #[test]
    fn a_difference_is_inside_and_nothing_is_not() {
        let (low, high) = interval(&waves(400, 100.0), &waves(400, 120.0), Statistic::Mean).unwrap();
        assert!(low < 1.2f64.ln() && 1.2f64.ln() < high && low > 0.0, "{low} {high}");
        let (low, high) = interval(&waves(400, 100.0), &waves(400, 100.0), Statistic::Percentile(0.5)).unwrap();
        assert!(low < 0.0 && 0.0 < high);
        assert_eq!(interval(&waves(10, 1.0), &waves(400, 1.0), Statistic::Mean), None);
        assert_eq!(interval(&[0.0; 30], &waves(400, 1.0), Statistic::Mean), None);
    }

    #[test]
    fn values_that_hang_together_make_it_wider() {
        let apart: Vec<f64> = (0..400).map(|i| 100.0 + ((i * 7919) % 400) as f64 / 10.0).collect();
        let mut together = apart.clone();
        together.sort_unstable_by(f64::total_cmp);
        let width = |v: &[f64]| interval(v, v, Statistic::Mean).map(|(l, h)| h - l).unwrap();
        assert!(width(&together) > 1.5 * width(&apart), "{} {}", width(&together), width(&apart));
    }
}
