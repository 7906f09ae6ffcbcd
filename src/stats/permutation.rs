//! A permutation test, for six repeats and more on each side: it asks nothing of the noise but that repeats could be
//! exchanged if nothing had changed. The statistic is Student's with each cell's own variance; its permutations are pooled
//! over the cells of one size (as in V. G. Tusher, R. Tibshirani and G. Chu, *Significance analysis of microarrays*, PNAS
//! 98 (2001)), so that a strict level over many cells can be reached with six repeats, which alone have 924 splits.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::moderated::Groups;
use super::null::Sizes;

/// Replicates that each side must have.
pub const REPLICATES: usize = 6;
/// All splits are taken up to this number, else as many at random.
const SPLITS: usize = 3000;
const FEWEST_SPLITS: usize = 300;
/// Statistics that are computed for one group of cells.
const STATISTICS: usize = 500_000;

/// One-sided p-values of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permuted {
    /// Of the hypothesis that b is not above a, and that it is not below.
    pub above: f64,
    pub below: f64,
}

/// Tests the cells that have enough replicates on both sides; the others are `None`.
pub fn test(cells: &[Groups]) -> Vec<Option<Permuted>> {
    let mut by_size: BTreeMap<Sizes, Vec<usize>> = BTreeMap::new();
    for (index, cell) in cells.iter().enumerate() {
        let sizes = cell.sizes();
        if sizes.a.min(sizes.b) >= REPLICATES {
            by_size.entry(sizes).or_default().push(index);
        }
    }
    let mut out = vec![None; cells.len()];
    for (sizes, members) in by_size {
        let splits = splits(sizes, (STATISTICS / members.len()).clamp(FEWEST_SPLITS, SPLITS));
        let mut pooled = Vec::with_capacity(splits.len() * members.len());
        for index in &members {
            let values: Vec<f64> = cells[*index].a.iter().chain(&cells[*index].b).copied().collect();
            pooled.extend(splits.iter().map(|in_b| statistic(&values, in_b)));
        }
        pooled.sort_unstable_by(f64::total_cmp);
        for index in members {
            let values: Vec<f64> = cells[index].a.iter().chain(&cells[index].b).copied().collect();
            let seen = statistic(&values, &identity(sizes));
            let n = pooled.len();
            // The split that was measured is among the splits, so neither count is 0.
            let above = n - pooled.partition_point(|t| *t < seen);
            let below = pooled.partition_point(|t| *t <= seen);
            out[index] = Some(Permuted { above: above as f64 / n as f64, below: below as f64 / n as f64 });
        }
    }
    out
}

/// Which values count to side b, for each split; the one that was measured is the first.
fn splits(sizes: Sizes, most: usize) -> Vec<Vec<bool>> {
    let n = sizes.a + sizes.b;
    let mut out = vec![identity(sizes)];
    if binomial(n, sizes.b).is_some_and(|all| all <= most) {
        let mut next = identity(sizes);
        while advance(&mut next) {
            out.push(next.clone());
        }
    } else {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64((sizes.a as u64) << 32 | sizes.b as u64);
        let mut next = identity(sizes);
        out.extend((1..most).map(|_| {
            next.shuffle(&mut rng);
            next.clone()
        }));
    }
    out
}

fn identity(sizes: Sizes) -> Vec<bool> {
    (0..sizes.a + sizes.b).map(|i| i >= sizes.a).collect()
}

/// The split before this one in lexicographic order; the identity, with all of b at the end, is the first of the order,
/// so this walks upwards to the last.
fn advance(split: &mut [bool]) -> bool {
    // The next permutation of a multiset (Narayana Pandita's algorithm).
    let Some(i) = (0..split.len() - 1).rev().find(|i| !split[*i] && split[*i + 1]) else { return false };
    let j = (i + 1..split.len()).rev().find(|j| split[*j]).unwrap_or(i + 1);
    split.swap(i, j);
    split[i + 1..].reverse();
    true
}

fn binomial(n: usize, k: usize) -> Option<usize> {
    (0..k.min(n - k)).try_fold(1usize, |c, i| Some(c.checked_mul(n - i)? / (i + 1)))
}

fn statistic(values: &[f64], in_b: &[bool]) -> f64 {
    let (mut n, mut sum, mut squares) = ([0.0; 2], [0.0; 2], 0.0);
    // Around a value of the data, so that the squares keep their digits.
    let origin = values[0];
    for (value, in_b) in values.iter().zip(in_b) {
        let (side, x) = (usize::from(*in_b), value - origin);
        n[side] += 1.0;
        sum[side] += x;
        squares += x * x;
    }
    let within = squares - sum[0] * sum[0] / n[0] - sum[1] * sum[1] / n[1];
    let variance = within.max(0.0) / (n[0] + n[1] - 2.0);
    (sum[1] / n[1] - sum[0] / n[0]) / (variance.max(1e-24) * (1.0 / n[0] + 1.0 / n[1])).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(a: &[f64], b: &[f64]) -> Groups {
        Groups { a: a.into(), b: b.into(), extra: 0.0 }
    }

    #[test]
    fn all_splits_once() {
        let all = splits(Sizes { a: 6, b: 6 }, 3000);
        assert_eq!(all.len(), 924);
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 924);
        assert!(all.iter().all(|s| s.iter().filter(|b| **b).count() == 6));
        assert_eq!(splits(Sizes { a: 20, b: 20 }, 3000).len(), 3000);
        assert_eq!(binomial(12, 6), Some(924));
    }

    #[test]
    fn separate_sides_have_the_smallest_value() {
        let a = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02];
        let b = a.map(|x| x + 1.0);
        let p = test(&[cell(&a, &b)])[0].unwrap();
        assert!((p.above - 1.0 / 924.0).abs() < 1e-12 && p.below > 0.999, "{p:?}");
        let p = test(&[cell(&b, &a)])[0].unwrap();
        assert!((p.below - 1.0 / 924.0).abs() < 1e-12);
        assert_eq!(test(&[cell(&a[..5], &b)]), [None]);
    }

    #[test]
    fn one_wild_value_decides_nothing() {
        let a = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02];
        let b = [1.01, 1.08, 0.91, 1.04, 0.96, 9.0];
        let p = test(&[cell(&a, &b)])[0].unwrap();
        assert!(p.above > 0.1, "{p:?}");
    }
}
