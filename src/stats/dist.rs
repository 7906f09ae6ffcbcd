//! Distributions. Percentiles are interpolated linearly between the two nearest order statistics: the value at rank
//! `p (n − 1)`, counted from 0 (Hyndman and Fan's type 7, the default of NumPy and R). The standard deviation is that of
//! a sample (`n − 1`), and undefined for one value.

use super::{Dist, Histogram};

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

    /// Of counted values. Percentiles are as precise as the histogram, all else is exact.
    pub fn of_histogram(counted: &Histogram) -> Dist {
        let ms = |ns: f64| ns / NS_PER_MS;
        let at = |i: usize| ms(counted.at(i as u64) as f64);
        Dist::from_order(counted.len(), counted.mean().map(ms), counted.std().map(ms), at)
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
    fn a_histogram_gives_the_same_distribution() {
        let mut counted = Histogram::default();
        let values = [5_000_000, 9_000_000_000, 7_000_000];
        values.iter().for_each(|ns| counted.record(*ns));
        let (d, exact) = (Dist::of_histogram(&counted), Dist::of_ns(values.into_iter()));
        assert_eq!((d.n, d.min, d.max, d.mean), (exact.n, exact.min, exact.max, exact.mean));
        let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() / b.unwrap() - 1.0).abs() < 0.0005;
        assert!(close(d.p50, exact.p50) && close(d.p99, exact.p99) && close(d.std, exact.std), "{d:?} {exact:?}");
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
