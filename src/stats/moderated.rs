//! Comparing two sides of many cells with few repeats each: a moderated t-test on log values. Three repeats say little
//! about the noise of their own cell, but all cells of a run say a lot about noise: each cell's variance is drawn towards
//! what the others have (G. K. Smyth, *Linear models and empirical Bayes methods for assessing differential expression*,
//! Stat. Appl. Genet. Mol. Biol. 3 (2004), known from limma). Skewed noise is allowed for twice: it widens the spread of
//! variances, and it lengthens one tail of the statistic ([`super::null`]).
//!
//! On the log scale a difference is a ratio, and noise in proportion to a value has one size for all cells.

use super::dist::moments;
use super::null::{KNOWN_SKEWS, LENT, Null, Nulls, Sizes, own_skewness};
use super::special::ln_gamma;

/// The replicates of one cell, natural logarithms: what a replicate is (a start, a night) was decided before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    /// Variance of the difference that the replicates do not show, such as that of a night with fewer repeats.
    pub extra: f64,
}

/// What all cells together say about noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation between replicates that a cell is drawn towards, log scale.
    pub common: f64,
    /// Degrees of freedom that the other cells lend to each: 0 lends nothing, infinite means one noise for all.
    pub lent: f64,
    /// Skewness of one replicate's noise; 0 is normal.
    pub skew: f64,
    /// Degrees of freedom of all cells together.
    pub degrees: f64,
}

/// One cell, tested.
#[derive(Clone, Debug)]
pub struct Tested {
    /// Difference of means, b − a, log scale.
    pub difference: f64,
    /// Its standard error.
    pub error: f64,
    /// Standard deviation between replicates, moderated.
    pub noise: f64,
    /// Degrees of freedom, own and lent.
    pub degrees: f64,
    /// Of the hypothesis that b is not above a, and that it is not below.
    pub p_above: f64,
    pub p_below: f64,
    /// 95 % interval of the difference.
    pub low: f64,
    pub high: f64,
}

/// Noise below a millionth of the value is taken for a millionth: clocks are no finer, and a variance of 0 would make
/// every difference certain.
const FINEST: f64 = 1e-6;
/// Twice the logarithm of the likelihood ratio from which a spread of variances is believed: 5 %, one-sided.
const SPREAD: f64 = 2.71;
/// Standard errors that an estimate of skewness must be away from 0.
const SKEWED: f64 = 1.5;
/// Cells that must have a variance before anything is lent.
const LENDERS: usize = 3;

impl Groups {
    pub fn sizes(&self) -> Sizes {
        Sizes { a: self.a.len(), b: self.b.len() }
    }

    /// Sum of squares within the sides.
    fn squares(&self) -> f64 {
        let side = |values: &[f64]| {
            let (n, _, std) = moments(values.iter().copied());
            std.map_or(0.0, |s| s * s * (n - 1) as f64)
        };
        side(&self.a) + side(&self.b)
    }

    fn variance(&self) -> Option<f64> {
        let degrees = self.sizes().degrees();
        (degrees > 0).then(|| (self.squares() / degrees as f64).max(FINEST * FINEST))
    }

    fn difference(&self) -> Option<f64> {
        let mean = |values: &[f64]| moments(values.iter().copied()).1;
        Some(mean(&self.b)? - mean(&self.a)?)
    }
}

impl Noise {
    /// Learns the noise from all cells; `None` when no side of any cell has two replicates.
    pub fn of(cells: &[Groups], nulls: &mut Nulls) -> Option<Noise> {
        let known: Vec<(&Groups, f64)> = cells.iter().filter_map(|c| Some((c, c.variance()?))).collect();
        let degrees: f64 = known.iter().map(|(c, _)| c.sizes().degrees() as f64).sum();
        if known.is_empty() {
            return None;
        }
        let pooled = known.iter().map(|(c, v)| v * c.sizes().degrees() as f64).sum::<f64>() / degrees;
        if known.len() < LENDERS {
            return Some(Noise { common: pooled.sqrt(), lent: 0.0, skew: 0.0, degrees });
        }
        let skew = skewness(cells, nulls);
        Some(spread(&known, pooled, skew, degrees))
    }

    /// Tests one cell; `None` when a side is empty or nothing is known of its noise.
    pub fn test(&self, cell: &Groups, nulls: &mut Nulls) -> Option<Tested> {
        let difference = cell.difference()?;
        let sizes = cell.sizes();
        let own = sizes.degrees() as f64;
        let degrees = (self.lent + own).min(self.degrees.max(own));
        if degrees <= 0.0 {
            return None;
        }
        let variance = self.moderated(cell.variance().unwrap_or(0.0), own);
        let error = (variance * sizes.leverage() + cell.extra).sqrt();
        let null = nulls.of(sizes, self.skew, self.lent, self.degrees.max(own));
        Some(self.tested(difference, error, variance.sqrt(), degrees, &null))
    }

    fn tested(&self, difference: f64, error: f64, noise: f64, degrees: f64, null: &Null) -> Tested {
        let t = difference / error;
        Tested {
            difference,
            error,
            noise,
            degrees,
            p_above: null.above(t),
            p_below: null.below(t),
            low: difference - null.at(0.975) * error,
            high: difference - null.at(0.025) * error,
        }
    }

    /// A cell's variance, drawn towards the common one as far as the lent degrees of freedom weigh.
    fn moderated(&self, variance: f64, own: f64) -> f64 {
        let common = self.common * self.common;
        match self.lent {
            l if l.is_infinite() => common,
            l => ((l * common + own * variance) / (l + own)).max(FINEST * FINEST),
        }
    }
}

/// The common variance and the degrees of freedom to lend, by the likelihood of the cells' variances: if true variances
/// are an inverse χ² with `d₀` degrees of freedom around `s₀²`, an estimate with `d` has the distribution of `s₀² F(d, d₀)`.
/// A spread that may well be chance is taken for none.
fn spread(known: &[(&Groups, f64)], pooled: f64, skew: f64, degrees: f64) -> Noise {
    // A single cell of no noise at all must not decide about the spread.
    let mut sorted: Vec<f64> = known.iter().map(|(_, v)| *v).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let floor = sorted[sorted.len() / 2] * 1e-5;
    let seen: Vec<(f64, f64)> =
        known.iter().map(|(cell, v)| (v.max(floor), cell.sizes().effective_degrees(skew))).collect();
    let candidates = LENT.map(|lent| {
        let common = if lent.is_infinite() { weighted(&seen) } else { scale(&seen, lent) };
        (lent, common, likelihood(&seen, common, lent))
    });
    let all = candidates[LENT.len() - 1];
    let best = candidates.into_iter().max_by(|a, b| a.2.total_cmp(&b.2)).unwrap_or(all);
    match 2.0 * (best.2 - all.2) > SPREAD {
        true => Noise { common: best.1.sqrt(), lent: best.0, skew, degrees },
        false => Noise { common: pooled.sqrt(), lent: f64::INFINITY, skew, degrees },
    }
}

fn weighted(seen: &[(f64, f64)]) -> f64 {
    seen.iter().map(|(v, d)| v * d).sum::<f64>() / seen.iter().map(|(_, d)| d).sum::<f64>()
}

/// The common variance that is most likely when this much is lent: where the likelihood's slope, which falls, is zero.
fn scale(seen: &[(f64, f64)], lent: f64) -> f64 {
    let slope = |common: f64| -> f64 {
        seen.iter()
            .map(|(v, d)| {
                let x = d * v / (lent * common);
                (d + lent) * x / (1.0 + x) - d
            })
            .sum()
    };
    let ends = seen.iter().fold((f64::INFINITY, 0.0f64), |(low, high), (v, _)| (low.min(*v), high.max(*v)));
    let (mut low, mut high) = (ends.0.ln() - 5.0, ends.1.ln() + 5.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if slope(middle.exp()) > 0.0 { low = middle } else { high = middle }
    }
    ((low + high) / 2.0).exp()
}

/// The logarithm of the likelihood, but for what is the same for all candidates.
fn likelihood(seen: &[(f64, f64)], common: f64, lent: f64) -> f64 {
    seen.iter()
        .map(|(v, d)| {
            let half = d / 2.0;
            if lent.is_infinite() {
                return half * (half * v / common).ln() - half * v / common;
            }
            let x = d * v / (lent * common);
            let share = ln_gamma((d + lent) / 2.0) - ln_gamma(lent / 2.0);
            share + half * x.ln() - (d + lent) / 2.0 * x.ln_1p()
        })
        .sum()
}

/// Skewness of the noise, from what every group of three and more shows of it in units of its own scatter: the skewness
/// under which groups of these sizes would show as much on average. Few groups say little about it, so the estimate is
/// drawn towards 0 by its own error.
fn skewness(cells: &[Groups], nulls: &mut Nulls) -> f64 {
    let (mut shown, mut expected, mut weight) = (0.0, [0.0; KNOWN_SKEWS.len()], 0.0);
    for group in cells.iter().flat_map(|c| [&c.a, &c.b]) {
        let Some(own) = own_skewness(group) else { continue };
        let known = nulls.skewness(group.len());
        let precision = 1.0 / known[0].1;
        shown += precision * own;
        weight += precision;
        expected.iter_mut().zip(known.iter()).for_each(|(sum, (mean, _))| *sum += precision * mean);
    }
    if weight == 0.0 {
        return 0.0;
    }
    let (size, sign) = (shown.abs(), shown.signum());
    let above = expected.iter().position(|e| *e >= size).unwrap_or(KNOWN_SKEWS.len() - 1).max(1);
    let (low, high) = (above - 1, above);
    let slope = (expected[high] - expected[low]) / (KNOWN_SKEWS[high] - KNOWN_SKEWS[low]);
    let estimate = (KNOWN_SKEWS[low] + (size - expected[low]) / slope).clamp(0.0, KNOWN_SKEWS[KNOWN_SKEWS.len() - 1]);
    // The variance of the weighted sum is the sum of the weights.
    let error = weight / (slope * slope);
    // What may well be chance is none: few cells say little about the shape of their noise.
    if size * size < SKEWED * SKEWED * weight {
        return 0.0;
    }
    sign * estimate / (1.0 + error)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Exp1, Normal};

    use super::*;

    fn cells(n: usize, sizes: (usize, usize), mut draw: impl FnMut(usize) -> f64) -> Vec<Groups> {
        (0..n)
            .map(|cell| {
                let mut side = |k: usize| (0..k).map(|_| draw(cell)).collect::<Vec<_>>();
                Groups { a: side(sizes.0), b: side(sizes.1), extra: 0.0 }
            })
            .collect()
    }

    #[test]
    fn equal_noise_lends_everything() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let normal = Normal::new(0.0, 0.02).unwrap();
        let cells = cells(200, (3, 3), |_| normal.sample(&mut rng));
        let mut nulls = Nulls::default();
        let noise = Noise::of(&cells, &mut nulls).unwrap();
        assert!(noise.lent > 20.0 && (noise.common / 0.02 - 1.0).abs() < 0.1 && noise.skew.abs() < 0.6, "{noise:?}");
        let t = noise.test(&cells[0], &mut nulls).unwrap();
        assert!((t.noise / 0.02 - 1.0).abs() < 0.3 && t.low < t.difference && t.difference < t.high);
    }

    #[test]
    fn unequal_noise_lends_little() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let cells = cells(200, (4, 4), |cell| {
            let noise = if cell % 2 == 0 { 0.002 } else { 0.05 };
            Normal::new(0.0, noise).unwrap().sample(&mut rng)
        });
        let mut nulls = Nulls::default();
        let noise = Noise::of(&cells, &mut nulls).unwrap();
        assert!(noise.lent < 2.0, "{noise:?}");
        let quiet = noise.test(&cells[0], &mut nulls).unwrap();
        let loud = noise.test(&cells[1], &mut nulls).unwrap();
        assert!(quiet.noise < 0.3 * loud.noise, "{quiet:?} {loud:?}");
    }

    #[test]
    fn skewness_is_found_and_not_taken_for_unequal_noise() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let cells = cells(400, (3, 3), |_| 0.02 * <Exp1 as Distribution<f64>>::sample(&Exp1, &mut rng));
        let noise = Noise::of(&cells, &mut Nulls::default()).unwrap();
        assert!(noise.skew > 1.2 && noise.lent > 10.0, "{noise:?}");
    }

    #[test]
    fn a_lone_cell_is_students_two_sample_test() {
        // Means 10 and 12, variances 1 and 1, three each: t = 2 / √(2/3).
        let cell = Groups { a: vec![9.0, 10.0, 11.0], b: vec![11.0, 12.0, 13.0], extra: 0.0 };
        let mut nulls = Nulls::default();
        let noise = Noise::of(std::slice::from_ref(&cell), &mut nulls).unwrap();
        let t = noise.test(&cell, &mut nulls).unwrap();
        assert_eq!((t.degrees, t.difference), (4.0, 2.0));
        assert!((t.p_above - super::super::special::t_above(6f64.sqrt(), 4.0)).abs() < 1e-9);
        assert!((t.p_above + t.p_below - 1.0).abs() < 1e-9);
        assert!((t.high - 2.0 - 2.776_445 * (2.0 / 3f64).sqrt()).abs() < 1e-5);
    }

    #[test]
    fn what_cannot_be_tested() {
        let one = Groups { a: vec![1.0], b: vec![1.1], extra: 0.0 };
        let mut nulls = Nulls::default();
        assert_eq!(Noise::of(std::slice::from_ref(&one), &mut nulls), None);
        // Beside cells that have a variance, the one without borrows theirs.
        let many: Vec<Groups> = (0..5)
            .map(|i| Groups { a: vec![0.0, 0.1, 0.2 + 0.01 * f64::from(i)], b: vec![0.1, 0.0], extra: 0.0 })
            .collect();
        let noise = Noise::of(&many, &mut nulls).unwrap();
        assert!(noise.test(&one, &mut nulls).is_some());
        assert!(noise.test(&Groups::default(), &mut nulls).is_none());
    }
}
