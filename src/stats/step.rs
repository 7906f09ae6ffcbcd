//! Where a series steps from one level to another: the night since which a number is different. The most likely place of
//! one step is that which explains most of the scatter (the profile likelihood under normal noise). Whether there is one at
//! all is judged by permuting the nights, which asks nothing of the noise but that nights could be exchanged if nothing had
//! happened. Series that share an engine are searched together first: what steps in all of them is placed better than any
//! of them alone could, and the permutation keeps what they have in common.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::multiple::adjusted;
use super::special::t_above;

/// Share of series without a step in which one may be reported.
pub const LEVEL: f64 = 0.035;
/// A shorter stretch is not searched.
pub const NIGHTS: usize = 6;
const PERMUTATIONS: u32 = 999;
/// Level, over the series of a joint step, at which one takes part.
const PART: f64 = 0.05;
/// Nights around an estimate within which it is nearly as good, and what an exact one is worth more.
const NEAR: usize = 2;
const EXACT: f64 = 0.5;
/// Logarithm of how many times likelier a series may step on another night and still take part.
const ELSEWHERE: f64 = 4.0;

/// The values of one series, night by night, natural logarithms; `None` where a night has none.
pub type Series = Vec<Option<f64>>;

/// A change of level.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The first night of the new level.
    pub night: usize,
    /// The series that step there, with their change (log scale).
    pub changes: Vec<(usize, f64)>,
    /// By permutation: of this or more in nights that could be exchanged.
    pub p: f64,
}

/// All steps of series that may step together, by night. All have the same length.
pub fn steps(series: &[Series]) -> Vec<Step> {
    let nights = series.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = Vec::new();
    search(series, &(0..series.len()).collect::<Vec<_>>(), 0..nights, &mut out);
    out.sort_by_key(|s| s.night);
    out
}

/// Finds the steps of a stretch, and then those on both sides of each.
fn search(series: &[Series], members: &[usize], nights: std::ops::Range<usize>, out: &mut Vec<Step>) {
    if nights.len() < NIGHTS {
        return;
    }
    let cut: Vec<Series> = members.iter().map(|m| series[*m][nights.clone()].to_vec()).collect();
    let mut alone: Vec<usize> = (0..members.len()).collect();
    let share = if members.len() > 1 { LEVEL / 2.0 } else { LEVEL };
    // What steps together goes first, and then what else does among the rest.
    while alone.len() > 1
        && let Some((night, p)) = place(&cut, &alone).filter(|(_, p)| *p <= share)
    {
        let part = taking_part(&cut, &alone, night);
        if part.is_empty() {
            break;
        }
        let night = place_only(&cut, &part).unwrap_or(night);
        alone.retain(|i| !part.contains(i));
        record(&cut, members, &part, (nights.start, night), p, out);
        let part: Vec<usize> = part.iter().map(|i| members[*i]).collect();
        search(series, &part, nights.start..nights.start + night, out);
        search(series, &part, nights.start + night..nights.end, out);
    }
    let found: Vec<Option<(usize, f64)>> = alone.iter().map(|i| place(&cut, &[*i])).collect();
    let q = adjusted(&found.iter().map(|f| f.map_or(1.0, |(_, p)| p)).collect::<Vec<_>>());
    for ((i, found), q) in alone.into_iter().zip(found).zip(q) {
        let Some((night, p)) = found.filter(|_| q <= share) else { continue };
        record(&cut, members, &[i], (nights.start, night), p, out);
        search(series, &[members[i]], nights.start..nights.start + night, out);
        search(series, &[members[i]], nights.start + night..nights.end, out);
    }
}

fn record(
    cut: &[Series],
    members: &[usize],
    part: &[usize],
    (start, night): (usize, usize),
    p: f64,
    out: &mut Vec<Step>,
) {
    let changes = part.iter().filter_map(|i| Some((members[*i], levels(&cut[*i], night)?.change()))).collect();
    out.push(Step { night: start + night, changes, p });
}

/// The series whose level differs before and after a night, and which do not step elsewhere by far more likely.
fn taking_part(cut: &[Series], of: &[usize], night: usize) -> Vec<usize> {
    let p: Vec<f64> = of.iter().map(|i| levels(&cut[*i], night).map_or(1.0, |l| l.p())).collect();
    let q = adjusted(&p);
    let here = |i: usize| {
        let scaled = scaled(&cut[i])?;
        let order: Vec<usize> = (0..cut[i].len()).collect();
        let gains = gains(std::slice::from_ref(&scaled), &order);
        let best = gains.iter().copied().fold(0.0, f64::max);
        Some(gains.get(night)? + ELSEWHERE >= best)
    };
    of.iter().zip(q).filter(|(i, q)| *q <= PART && here(**i) == Some(true)).map(|(i, _)| *i).collect()
}

/// Two stretches of a series.
struct Levels {
    n: [f64; 2],
    mean: [f64; 2],
    within: f64,
}

fn levels(series: &Series, night: usize) -> Option<Levels> {
    let side = |values: &[Option<f64>]| {
        let (n, mean, std) = super::dist::moments(values.iter().flatten().copied());
        Some((n as f64, mean?, std.map_or(0.0, |s| s * s * (n - 1) as f64)))
    };
    let ((n0, m0, w0), (n1, m1, w1)) = (side(&series[..night])?, side(&series[night..])?);
    Some(Levels { n: [n0, n1], mean: [m0, m1], within: w0 + w1 })
}

impl Levels {
    fn change(&self) -> f64 {
        self.mean[1] - self.mean[0]
    }

    /// Two-sided, by Student's test.
    fn p(&self) -> f64 {
        let degrees = self.n[0] + self.n[1] - 2.0;
        if degrees < 1.0 {
            return 1.0;
        }
        let variance = (self.within / degrees).max(1e-24) * (1.0 / self.n[0] + 1.0 / self.n[1]);
        (2.0 * t_above(self.change().abs() / variance.sqrt(), degrees)).min(1.0)
    }
}

/// A series with mean 0 and sum of squares 1, and the values that it has.
struct Scaled(Vec<Option<f64>>, f64);

fn scaled(series: &Series) -> Option<Scaled> {
    let (n, mean, std) = super::dist::moments(series.iter().flatten().copied());
    let root = std? * ((n - 1) as f64).sqrt();
    let mean = mean?;
    (n as usize >= NIGHTS && root > 1e-9)
        .then(|| Scaled(series.iter().map(|v| v.map(|x| (x - mean) / root)).collect(), n as f64))
}

/// The most likely night of a step, without asking whether there is one.
fn place_only(cut: &[Series], part: &[usize]) -> Option<usize> {
    let scaled: Vec<Scaled> = part.iter().filter_map(|i| scaled(&cut[*i])).collect();
    let order: Vec<usize> = (0..cut.first()?.len()).collect();
    best(&scaled, &order).map(|(night, _)| night)
}

/// The most likely night of a step, and the share of permutations that look at least as much like one.
fn place(cut: &[Series], part: &[usize]) -> Option<(usize, f64)> {
    let scaled: Vec<Scaled> = part.iter().filter_map(|i| scaled(&cut[*i])).collect();
    let mut order: Vec<usize> = (0..cut.first()?.len()).collect();
    let (night, seen) = best(&scaled, &order)?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(order.len() as u64);
    // Sequential (J. Besag and P. Clifford, Biometrika 78 (1991)): what is far from any level is not drawn out.
    let enough = (1.5 * LEVEL * f64::from(PERMUTATIONS)) as u32;
    let (mut beyond, mut drawn) = (0, 0);
    while drawn < PERMUTATIONS && beyond < enough {
        order.shuffle(&mut rng);
        drawn += 1;
        beyond += u32::from(best(&scaled, &order).is_some_and(|(_, s)| s >= seen * (1.0 - 1e-12)));
    }
    let p = if beyond == enough {
        f64::from(beyond) / f64::from(drawn)
    } else {
        f64::from(beyond + 1) / f64::from(drawn + 1)
    };
    Some((night, p))
}

/// The night at which the nights in this order are best cut in two, with the logarithm of how much better it is to cut
/// somewhere than not to cut. Weighed by likelihood, the night is that with the most of it near, and a little more for its
/// own: an estimate that is off by a night or two is worth almost as much as an exact one.
fn best(series: &[Scaled], order: &[usize]) -> Option<(usize, f64)> {
    let gains = gains(series, order);
    let most = gains.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let weights: Vec<f64> = gains.iter().map(|g| if *g > 0.0 { (g - most).exp() } else { 0.0 }).collect();
    let score = |night: usize| {
        let near = &weights[night.saturating_sub(NEAR)..(night + NEAR + 1).min(weights.len())];
        near.iter().sum::<f64>() + EXACT * weights[night]
    };
    let night = (1..order.len()).max_by(|a, b| score(*a).total_cmp(&score(*b)))?;
    Some((night, most + weights.iter().sum::<f64>().ln()))
}

/// By night, what a cut before it gains: for each series `−n/2 ln(1 − R²)`, `R²` the share of the scatter that the cut
/// explains.
fn gains(series: &[Scaled], order: &[usize]) -> Vec<f64> {
    let mut gain = vec![0.0; order.len()];
    for Scaled(values, n) in series {
        let (mut sum, mut before) = (0.0, 0.0);
        for (cut, night) in order.iter().enumerate() {
            if before > 0.0 && before < *n {
                let explained = sum * sum * n / (before * (n - before));
                gain[cut] -= n / 2.0 * (1.0 - explained).max(1e-12).ln();
            }
            if let Some(x) = values[*night] {
                sum += x;
                before += 1.0;
            }
        }
    }
    gain
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn noisy(nights: usize, noise: f64, change: f64, at: usize, rng: &mut Xoshiro256PlusPlus) -> Series {
        let normal = StandardNormal;
        (0..nights)
            .map(|i| {
                let x: f64 = normal.sample(rng);
                Some(noise * x + if i >= at { change } else { 0.0 })
            })
            .collect()
    }

    #[test]
    fn one_step_is_placed() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let found = steps(&[noisy(60, 0.01, 0.05, 25, &mut rng)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].night, 25);
        assert!((found[0].changes[0].1 - 0.05).abs() < 0.01 && found[0].p < 0.005);
    }

    #[test]
    fn a_gap_is_no_step_and_a_second_step_is_found() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(6);
        let mut series = noisy(60, 0.01, 0.05, 20, &mut rng);
        for (i, value) in series.iter_mut().enumerate() {
            if i % 7 == 3 {
                *value = None;
            } else if i >= 40 {
                *value = value.map(|x| x - 0.08);
            }
        }
        let found = steps(&[series]);
        assert_eq!(found.iter().map(|s| s.night).collect::<Vec<_>>(), [20, 40]);
    }

    #[test]
    fn together_and_apart() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        // Six step together, one elsewhere, one not at all.
        let mut series: Vec<Series> = (0..6).map(|_| noisy(60, 0.03, 0.05, 33, &mut rng)).collect();
        series.push(noisy(60, 0.01, -0.06, 12, &mut rng));
        series.push(noisy(60, 0.01, 0.0, 0, &mut rng));
        let found = steps(&series);
        let joint = found.iter().find(|s| s.changes.len() > 1).unwrap();
        assert_eq!(joint.night, 33);
        assert!(joint.changes.len() >= 5 && joint.changes.iter().all(|(_, c)| *c > 0.0), "{found:?}");
        let own = found.iter().find(|s| s.changes[0].0 == 6 && s.changes.len() == 1).unwrap();
        assert_eq!(own.night, 12);
    }

    #[test]
    fn what_cannot_step() {
        assert!(steps(&[vec![Some(1.0); 60]]).is_empty(), "no scatter at all");
        assert!(steps(&[vec![None; 60]]).is_empty());
        assert!(steps(&[vec![Some(0.0), Some(1.0), Some(2.0)]]).is_empty(), "too short");
        assert!(steps(&[]).is_empty());
    }
}
