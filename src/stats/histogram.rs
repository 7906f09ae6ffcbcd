//! A histogram of nanoseconds that grows with the range of its values, not with their number. Buckets are linear within a
//! power of two (as in HdrHistogram): a value is known to within 0.05 %, and exactly below 2 µs. Count, sum, sum of
//! squares, minimum and maximum are exact.

use std::fmt;

/// Each power of two is cut into `2^SUB_BITS` buckets.
const SUB_BITS: u32 = 10;
const SUB: usize = 1 << SUB_BITS;
/// Rows of buckets that a 64-bit value can fall into.
const ROWS: usize = 64 - SUB_BITS as usize + 1;

type Row = Option<Box<[u64; SUB]>>;

/// Counts values in nanoseconds.
#[derive(Clone, PartialEq)]
pub struct Histogram {
    /// By power of two; a row exists once a value fell into it.
    rows: [Row; ROWS],
    n: u64,
    sum: u128,
    squares: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { rows: [const { None }; ROWS], n: 0, sum: 0, squares: 0, min: u64::MAX, max: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Histogram { n, min, max, .. } = self;
        f.debug_struct("Histogram").field("n", n).field("min", min).field("max", max).finish_non_exhaustive()
    }
}

/// Row and bucket of a value.
fn place(ns: u64) -> (usize, usize) {
    if ns < SUB as u64 {
        return (0, ns as usize);
    }
    let shift = 63 - ns.leading_zeros() - SUB_BITS;
    (shift as usize + 1, (ns >> shift) as usize - SUB)
}

/// Middle of a bucket.
fn middle(row: usize, bucket: usize) -> u64 {
    match row.checked_sub(1) {
        None => bucket as u64,
        Some(shift) => ((bucket + SUB) as u64) << shift | ((1u64 << shift) >> 1),
    }
}

impl Histogram {
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Counts a value so many times, at least once.
    pub fn record_n(&mut self, ns: u64, times: u64) {
        let (row, bucket) = place(ns);
        self.rows[row].get_or_insert_with(|| Box::new([0; SUB]))[bucket] += times;
        self.n += times;
        self.sum += u128::from(ns) * u128::from(times);
        self.squares += u128::from(ns) * u128::from(ns) * u128::from(times);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            let Some(theirs) = theirs else { continue };
            match mine {
                None => *mine = Some(theirs.clone()),
                Some(mine) => mine.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a += b),
            }
        }
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub fn len(&self) -> u64 {
        self.n
    }

    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Nanoseconds.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    pub fn min(&self) -> Option<u64> {
        (self.n > 0).then_some(self.min)
    }

    pub fn max(&self) -> Option<u64> {
        (self.n > 0).then_some(self.max)
    }

    /// Nanoseconds.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum as f64 / self.n as f64)
    }

    /// Sample standard deviation, nanoseconds.
    pub fn std(&self) -> Option<f64> {
        let (n, sum) = (self.n as f64, self.sum as f64);
        (self.n > 1).then(|| ((self.squares as f64 - sum * (sum / n)).max(0.0) / (n - 1.0)).sqrt())
    }

    /// Value `rank` (from 0) of the ascending values, to the precision of its bucket; the first and the last are exact.
    ///
    /// # Panics
    /// When there is no such value.
    pub fn at(&self, rank: u64) -> u64 {
        assert!(rank < self.n, "rank {rank} of {} values", self.n);
        if rank == 0 {
            return self.min;
        }
        if rank == self.n - 1 {
            return self.max;
        }
        let mut before = 0;
        for (row, buckets) in self.rows.iter().enumerate() {
            for (bucket, count) in buckets.iter().flat_map(|b| b.iter().enumerate()) {
                before += count;
                if rank < before {
                    return middle(row, bucket).clamp(self.min, self.max);
                }
            }
        }
        self.max
    }

    /// Buckets that hold something, ascending: (middle, count).
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.rows.iter().enumerate().flat_map(|(row, buckets)| {
            let filled = buckets.iter().flat_map(|b| b.iter().enumerate()).filter(|(_, n)| **n > 0);
            filled.map(move |(bucket, n)| (middle(row, bucket), *n))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_have_a_place() {
        let mut h = Histogram::default();
        for ns in [0, 1, 1023, 1024, 2047, 2048, u64::MAX] {
            h.record(ns);
        }
        assert_eq!((h.len(), h.min(), h.max()), (7, Some(0), Some(u64::MAX)));
        assert_eq!((1..6).map(|i| h.at(i)).collect::<Vec<_>>(), [1, 1023, 1024, 2047, 2049]);
        assert_eq!(Histogram::default().mean(), None);
    }

    #[test]
    fn a_million_values_take_what_their_range_takes() {
        let mut h = Histogram::default();
        (0..1_000_000u64).for_each(|i| h.record(10_000_000 + i % 1000));
        assert_eq!(h.rows.iter().flatten().count(), 1);
        assert_eq!(h.mean(), Some(10_000_499.5));
        assert!((h.std().unwrap() - 288.675).abs() < 0.01, "{:?}", h.std());
    }

    proptest! {
        #[test]
        fn ranks_are_within_a_thousandth_and_moments_exact(mut values in prop::collection::vec(0..20_000_000_000u64, 1..200), at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
            let (mut h, mut rest) = (Histogram::default(), Histogram::default());
            let cut = cut.index(values.len());
            values[..cut].iter().for_each(|v| h.record(*v));
            values[cut..].iter().for_each(|v| rest.record(*v));
            h.merge(&rest);
            values.sort_unstable();
            let rank = at.index(values.len());
            let (known, exact) = (h.at(rank as u64) as f64, values[rank] as f64);
            prop_assert!((known - exact).abs() <= 0.0005 * exact, "{known} for {exact}");
            prop_assert_eq!(h.sum(), values.iter().map(|v| u128::from(*v)).sum::<u128>());
            prop_assert_eq!((h.min(), h.max()), (values.first().copied(), values.last().copied()));
            prop_assert_eq!(h.buckets().map(|(_, n)| n).sum::<u64>(), h.len());
        }
    }
}
