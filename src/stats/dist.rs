//! Distributions. Percentiles are interpolated linearly between the two nearest order statistics: the value at rank
//! `p (n − 1)`, counted from 0 (Hyndman and Fan's type 7, the default of NumPy and R). The standard deviation is that of
//! a sample (`n − 1`), and undefined for one value.

use super::{Dist, Gaps};

/// Nanoseconds in a millisecond.
const NS_PER_MS: f64 = 1e6;

/// The value at `p` (0 to 1) of ascending values.
pub fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    interpolate(sorted.len(), |i| sorted[i], p)
}

fn interpolate(n: usize, at: impl Fn(usize) -> f64, p: f64) -> Option<f64> {
    let last = n.checked_sub(1)?;
    let rank = p.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (rank.floor() as usize, rank.fract());
    let a = at(low);
    // Without this, an infinite neighbour that has no weight would make the result NaN.
    if part == 0.0 {
        return Some(a);
    }
    Some(a + (at(low + 1) - a) * part)
}

/// Mean and sample standard deviation (Welford).
pub fn moments(values: impl Iterator<Item = f64>) -> (u64, Option<f64>, Option<f64>) {
    let (mut n, mut mean, mut squares) = (0u64, 0.0, 0.0);
    for x in values {
        n += 1;
        let delta = x - mean;
        mean += delta / n as f64;
        squares += delta * (x - mean);
    }
    (n, (n > 0).then_some(mean), (n > 1).then(|| (squares / (n - 1) as f64).sqrt()))
}

impl Dist {
    /// Of values in milliseconds.
    pub fn of_ms(mut values: Vec<f64>) -> Dist {
        values.sort_unstable_by(f64::total_cmp);
        let (n, mean, std) = moments(values.iter().copied());
        Dist::from_order(n, mean, std, |i| values[i])
    }

    /// Of values in nanoseconds.
    pub fn of_ns(values: impl Iterator<Item = u64>) -> Dist {
        Dist::of_ms(values.map(|ns| ns as f64 / NS_PER_MS).collect())
    }

    /// Of gaps between token events.
    pub fn of_gaps(gaps: &Gaps) -> Dist {
        let (short, long) = gaps.sorted();
        let at = |i: usize| short.get(i).map_or_else(|| long[i - short.len()] as f64, |ns| f64::from(*ns)) / NS_PER_MS;
        let (n, mean, std) = moments((0..gaps.len()).map(at));
        Dist::from_order(n, mean, std, at)
    }

    /// Of values in nanoseconds together with `failed` requests that count as infinite. Whatever an infinite value takes
    /// part in is `None`.
    pub fn with_failures(values: impl Iterator<Item = u64>, failed: u64) -> Dist {
        if failed == 0 {
            return Dist::of_ns(values);
        }
        let mut values: Vec<f64> = values.map(|ns| ns as f64 / NS_PER_MS).collect();
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len() as u64 + failed;
        Dist::from_order(n, None, None, |i| values.get(i).copied().unwrap_or(f64::INFINITY))
    }

    fn from_order(n: u64, mean: Option<f64>, std: Option<f64>, at: impl Fn(usize) -> f64) -> Dist {
        let of = |p: f64| interpolate(n as usize, &at, p).filter(|v| v.is_finite());
        Dist { n, mean, std, min: of(0.0), max: of(1.0), p50: of(0.5), p90: of(0.9), p95: of(0.95), p99: of(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_interpolate_linearly() {
        let d = Dist::of_ms(vec![40.0, 10.0, 30.0, 20.0]);
        assert_eq!((d.n, d.min, d.p50, d.max), (4, Some(10.0), Some(25.0), Some(40.0)));
        assert_eq!(d.p90, Some(37.0));
        assert_eq!(d.mean, Some(25.0));
        assert!((d.std.unwrap() - 12.909_944_487_358_056).abs() < 1e-12);
        assert_eq!(Dist::of_ms(vec![]), Dist::default());
        let one = Dist::of_ms(vec![7.0]);
        assert_eq!((one.p50, one.p99, one.std), (Some(7.0), Some(7.0), None));
    }

    #[test]
    fn failures_count_as_infinite() {
        let ms = |n: u64| n * 1_000_000;
        let d = Dist::with_failures([1, 2, 3, 4, 5, 6, 7, 8, 9].map(ms).into_iter(), 1);
        assert_eq!((d.n, d.p50, d.p90, d.max, d.mean), (10, Some(5.5), None, None, None));
        assert_eq!(Dist::with_failures([ms(3)].into_iter(), 2).p50, None);
        let exact = Dist::with_failures([ms(1), ms(2)].into_iter(), 1);
        assert_eq!(exact.p50, Some(2.0));
    }

    #[test]
    fn gaps_longer_than_four_seconds_keep_their_length() {
        let mut gaps = Gaps::default();
        for ns in [5_000_000, 9_000_000_000, 7_000_000] {
            gaps.push(ns);
        }
        let d = Dist::of_gaps(&gaps);
        assert_eq!((d.min, d.p50, d.max, d.n), (Some(5.0), Some(7.0), Some(9000.0), 3));
    }

    proptest! {
        #[test]
        fn percentiles_are_ordered_and_within_the_values(mut xs in prop::collection::vec(-1e9..1e9f64, 1..60), p in 0.0..1.0f64, q in 0.0..1.0f64) {
            xs.sort_unstable_by(f64::total_cmp);
            let (p, q) = (p.min(q), p.max(q));
            let (a, b) = (percentile(&xs, p).unwrap(), percentile(&xs, q).unwrap());
            prop_assert!(a <= b + 1e-6);
            prop_assert!(xs[0] - 1e-6 <= a && b <= xs[xs.len() - 1] + 1e-6);
        }
    }
}
