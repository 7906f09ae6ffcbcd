//! Reference distributions of the moderated t statistic where noise is skewed. Under normal noise it has Student's t
//! distribution; latencies have a longer tail to the right, which three repeats do not average away. So the statistic is
//! drawn under noise of the estimated skewness (a gamma distribution, shifted to mean 0 and scaled to variance 1) and of
//! the estimated spread of variances. Seeded: the same data give the same numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand_distr::{Distribution, Gamma, StandardNormal};

use super::special;

/// Drawn statistics per distribution.
const DRAWS: usize = 100_000;
/// Drawn values by which the skewness of groups is known.
const SKEWNESS_DRAWS: usize = 60_000;
/// Beyond the so-many-th largest the tail is continued.
const TAIL: usize = 150;
/// Skewness from which noise is not taken for normal any more, and beyond which no estimate is believed.
pub const SKEWED_FROM: f64 = 0.25;
pub const MOST_SKEWED: f64 = 2.5;
/// Estimates are rounded to these steps, so that distributions can be kept.
const STEP: f64 = 0.1;
/// What cells can lend each other, in degrees of freedom: nothing, or one of these.
pub const LENT: [f64; 15] =
    [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, f64::INFINITY];

/// How a cell's replicates are spread over the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sizes {
    pub a: usize,
    pub b: usize,
}

impl Sizes {
    /// Degrees of freedom of the variance within the sides.
    pub fn degrees(self) -> usize {
        self.a.saturating_sub(1) + self.b.saturating_sub(1)
    }

    /// Degrees of freedom of the χ² distribution whose relative variance is that of the variance within the sides, under
    /// noise of a skewness: skewed noise makes estimates scatter as fewer normal replicates would. A group of `n` adds
    /// `2/(n − 1) + κ/n`, with the excess kurtosis `κ` of a gamma distribution, 1.5 times the skewness squared.
    pub fn effective_degrees(self, skew: f64) -> f64 {
        let kurtosis = 1.5 * skew * skew;
        let group = |n: usize| {
            let n = n as f64;
            if n < 2.0 { 0.0 } else { (n - 1.0) * (n - 1.0) * (2.0 / (n - 1.0) + kurtosis / n) }
        };
        let degrees = self.degrees() as f64;
        2.0 * degrees * degrees / (group(self.a) + group(self.b))
    }

    /// Variance of the difference of means, in units of one replicate's.
    pub fn leverage(self) -> f64 {
        1.0 / self.a as f64 + 1.0 / self.b as f64
    }
}

/// The distribution of the statistic when nothing has changed.
#[derive(Clone, Debug)]
pub enum Null {
    Student { degrees: f64 },
    Drawn(Arc<Drawn>),
}

/// Sorted draws, with what continues their tails.
#[derive(Debug)]
pub struct Drawn {
    sorted: Vec<f64>,
    degrees: f64,
}

impl Null {
    /// `P(T ≥ t)`.
    pub fn above(&self, t: f64) -> f64 {
        match self {
            Null::Student { degrees } => special::t_above(t, *degrees),
            Null::Drawn(d) => d.above(t),
        }
    }

    /// `P(T ≤ t)`.
    pub fn below(&self, t: f64) -> f64 {
        match self {
            Null::Student { degrees } => special::t_above(-t, *degrees),
            Null::Drawn(d) => d.below(t),
        }
    }

    /// The value below which a share `p` lies.
    pub fn at(&self, p: f64) -> f64 {
        match self {
            Null::Student { degrees } => special::t_at(p, *degrees),
            Null::Drawn(d) => super::dist::percentile(&d.sorted, p).unwrap_or(0.0),
        }
    }
}

impl Drawn {
    fn above(&self, t: f64) -> f64 {
        let n = self.sorted.len();
        let beyond = n - self.sorted.partition_point(|x| *x < t);
        if beyond >= TAIL {
            return beyond as f64 / n as f64;
        }
        let tail = &self.sorted[n - TAIL..];
        self.continued(t, tail[0], tail.iter().map(|x| x - tail[0]).sum::<f64>() / TAIL as f64)
    }

    fn below(&self, t: f64) -> f64 {
        let n = self.sorted.len();
        let beyond = self.sorted.partition_point(|x| *x <= t);
        if beyond >= TAIL {
            return beyond as f64 / n as f64;
        }
        let tail = &self.sorted[..TAIL];
        let edge = tail[TAIL - 1];
        self.continued(-t, -edge, tail.iter().map(|x| edge - x).sum::<f64>() / TAIL as f64)
    }

    /// The larger of an exponential tail of the draws' own mean excess, which is that of skewed noise, and of Student's,
    /// which is that of a variance known by few degrees of freedom.
    fn continued(&self, t: f64, edge: f64, excess: f64) -> f64 {
        let exponential = (-(t - edge) / excess.max(f64::MIN_POSITIVE)).exp();
        let student = special::t_above(t, self.degrees) / special::t_above(edge, self.degrees);
        let share = TAIL as f64 / self.sorted.len() as f64;
        share * exponential.max(if student.is_finite() { student } else { 0.0 }).min(1.0)
    }
}

/// Distributions that were drawn before, by what they depend on.
#[derive(Debug, Default)]
pub struct Nulls {
    drawn: BTreeMap<(Sizes, i32, usize), Arc<Drawn>>,
    skewness: BTreeMap<usize, Arc<[(f64, f64)]>>,
}

impl Nulls {
    /// The distribution for these sizes when the other cells lend `lent` degrees of freedom; `most` caps them in all.
    pub fn of(&mut self, sizes: Sizes, skew: f64, lent: f64, most: f64) -> Null {
        let degrees = (lent + sizes.degrees() as f64).min(most);
        let skew = rounded(skew);
        // With one group size the skewness cancels in the difference only in part; without degrees it cannot be told.
        if skew == 0 || degrees <= 0.0 {
            return Null::Student { degrees };
        }
        let step = LENT.iter().rposition(|d| *d <= lent).map_or(0, |i| i + 1);
        let lent = step.checked_sub(1).map_or(0.0, |i| LENT[i]);
        let drawn = self.drawn.entry((sizes, skew, step));
        let drawn = drawn.or_insert_with(|| Arc::new(draw(sizes, f64::from(skew) * STEP, lent)));
        Null::Drawn(drawn.clone())
    }

    /// Mean and variance of [`own_skewness`] in groups of `n`, under noise of the skewnesses [`KNOWN_SKEWS`].
    pub fn skewness(&mut self, n: usize) -> Arc<[(f64, f64)]> {
        let drawn = self.skewness.entry(n);
        drawn.or_insert_with(|| KNOWN_SKEWS.iter().map(|skew| draw_skewness(n, *skew)).collect()).clone()
    }
}

/// Skewnesses for which [`Nulls::skewness`] knows what a group shows.
pub const KNOWN_SKEWS: [f64; 6] = [0.0, 0.5, 1.0, 1.5, 2.0, MOST_SKEWED];

/// The skewness that a group of at least three shows of itself, in units of its own scatter: bounded, and the same for
/// any scale of its noise. `None` without scatter.
pub fn own_skewness(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let moment = |power: i32| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
    let scatter = moment(2).sqrt();
    (values.len() >= 3 && scatter > 1e-12).then(|| moment(3) / scatter.powi(3))
}

fn draw_skewness(n: usize, skew: f64) -> (f64, f64) {
    let (noise, mut rng) = (Noise::new(skew), rng(Sizes { a: n, b: 0 }, skew));
    let groups = (SKEWNESS_DRAWS / n).max(500);
    let shown = (0..groups).filter_map(|_| {
        let values: Vec<f64> = (0..n).map(|_| noise.draw(&mut rng)).collect();
        own_skewness(&values)
    });
    let (_, mean, std) = super::dist::moments(shown);
    // Normal noise shows none on average, which need not be left to chance.
    (if skew == 0.0 { 0.0 } else { mean.unwrap_or(0.0) }, std.unwrap_or(0.0).powi(2))
}

/// In steps; 0 is normal noise.
fn rounded(skew: f64) -> i32 {
    if skew.abs() < SKEWED_FROM { 0 } else { (skew.clamp(-MOST_SKEWED, MOST_SKEWED) / STEP).round() as i32 }
}

/// Noise of mean 0, variance 1 and a skewness.
enum Noise {
    Normal,
    Gamma { gamma: Gamma<f64>, shape: f64, sign: f64 },
}

impl Noise {
    fn new(skew: f64) -> Noise {
        if skew == 0.0 {
            return Noise::Normal;
        }
        // The skewness of a gamma distribution is 2 over the root of its shape.
        let shape = 4.0 / (skew * skew);
        Noise::Gamma { gamma: Gamma::new(shape, 1.0).expect("a positive shape"), shape, sign: skew.signum() }
    }

    fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> f64 {
        match self {
            Noise::Normal => StandardNormal.sample(rng),
            Noise::Gamma { gamma, shape, sign } => sign * (gamma.sample(rng) - shape) / shape.sqrt(),
        }
    }

    /// Difference of means (b − a) and sum of squares within the sides.
    fn groups(&self, sizes: Sizes, rng: &mut Xoshiro256PlusPlus) -> (f64, f64) {
        let mut group = |n: usize| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..n {
                let x = self.draw(rng);
                sum += x;
                squares += x * x;
            }
            (sum / n as f64, (squares - sum * sum / n as f64).max(0.0))
        };
        let ((a, within_a), (b, within_b)) = (group(sizes.a), group(sizes.b));
        (b - a, within_a + within_b)
    }
}

fn rng(sizes: Sizes, skew: f64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(
        ((sizes.a as u64) << 40) ^ ((sizes.b as u64) << 20) ^ ((skew * 10.0) as i64 as u64 & 0xff),
    )
}

fn draw(sizes: Sizes, skew: f64, lent: f64) -> Drawn {
    let (noise, mut rng) = (Noise::new(skew), rng(sizes, skew));
    let own = sizes.degrees() as f64;
    let scale = (lent > 0.0 && lent.is_finite()).then(|| Gamma::new(lent / 2.0, 2.0 / lent).expect("positive"));
    let mut sorted: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let (difference, squares) = noise.groups(sizes, &mut rng);
            // The cell's own variance in units of the common one: an inverse χ² with the lent degrees of freedom.
            let variance = scale.as_ref().map_or(1.0, |s| 1.0 / s.sample(&mut rng).max(1e-12));
            let moderated = match lent {
                l if l.is_infinite() => 1.0,
                l => (l + variance * squares) / (l + own),
            };
            difference * (variance / (moderated.max(f64::MIN_POSITIVE) * sizes.leverage())).sqrt()
        })
        .collect();
    sorted.sort_unstable_by(f64::total_cmp);
    Drawn { sorted, degrees: lent + own }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Sizes = Sizes { a: 3, b: 3 };

    #[test]
    fn normal_noise_has_students_distribution() {
        let drawn = Null::Drawn(Arc::new(draw(THREE, 0.0, 0.0)));
        for t in [-3.0, -1.0, 0.5, 2.0, 4.0] {
            let (have, want) = (drawn.above(t), special::t_above(t, 4.0));
            // As near as so many draws can come.
            let error = (want * (1.0 - want) / DRAWS as f64).sqrt();
            assert!((have - want).abs() < 3.0 * error, "{t}: {have} {want}");
            assert!((drawn.below(t) - (1.0 - have)).abs() < 1e-4);
        }
        assert!((drawn.at(0.975) - 2.776).abs() < 0.06);
        // What is lent comes with the degrees of freedom that it stands for.
        let lent = Null::Drawn(Arc::new(draw(THREE, 0.0, 4.0)));
        assert!((lent.above(2.306) / 0.025 - 1.0).abs() < 0.04, "{}", lent.above(2.306));
    }

    #[test]
    fn skewed_noise_has_a_longer_tail_on_one_side() {
        // Five exponential nights against one: the one night has the tail.
        let sizes = Sizes { a: 5, b: 1 };
        let null = Nulls::default().of(sizes, 2.0, f64::INFINITY, f64::INFINITY);
        let normal = special::t_above(4.0, f64::INFINITY);
        assert!(null.above(4.0) > 50.0 * normal, "{} {normal}", null.above(4.0));
        assert!(null.below(-4.0) < 1e-3);
        let left = Nulls::default().of(sizes, -2.0, f64::INFINITY, f64::INFINITY);
        assert!((left.below(-4.0) / null.above(4.0) - 1.0).abs() < 0.1);
    }

    #[test]
    fn skewed_noise_leaves_fewer_degrees() {
        assert!((THREE.effective_degrees(0.0) - 4.0).abs() < 1e-12);
        // Exponential noise: 2 · 16 / (2 · 4 · (1 + 2)).
        assert!((THREE.effective_degrees(2.0) - 32.0 / 24.0).abs() < 1e-12);
        assert!((Sizes { a: 5, b: 1 }.effective_degrees(0.0) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn what_groups_show_of_their_skewness() {
        let mut nulls = Nulls::default();
        for n in [3, 5, 10] {
            let shown = nulls.skewness(n);
            assert!(shown.windows(2).all(|w| w[1].0 > w[0].0), "{n}: {shown:?}");
        }
        assert_eq!(own_skewness(&[1.0, 1.0, 1.0]), None);
        let three = own_skewness(&[0.0, 0.0, 1.0]).unwrap();
        assert!((three - 0.5f64.sqrt()).abs() < 1e-12, "the largest that three values can show: {three}");
        assert_eq!(own_skewness(&[5.0, 5e3, 9.995e3]).map(|s| s.abs() < 1e-9), Some(true));
    }

    #[test]
    fn tails_go_on_where_the_draws_end() {
        let null = Nulls::default().of(THREE, 1.0, f64::INFINITY, f64::INFINITY);
        let far: Vec<f64> = (4..12).map(|t| null.above(f64::from(t))).collect();
        assert!(far.windows(2).all(|w| w[1] < w[0] && w[1] > 0.0), "{far:?}");
    }

    #[test]
    fn what_was_drawn_is_kept() {
        let mut nulls = Nulls::default();
        for _ in 0..3 {
            nulls.of(THREE, 1.02, 128.0, 1e9);
            nulls.of(THREE, 0.98, 130.0, 1e9);
        }
        assert_eq!(nulls.drawn.len(), 1);
    }
}
