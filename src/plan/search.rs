//! Which value of its grid a search asks for next. Pure: what the probes said in, the next one out, so that a search that
//! was interrupted goes the same way again over the probes that it already has.

use std::collections::BTreeMap;

use crate::units::Objective;

/// The way of one search over its grid. Values are meant by their index.
#[derive(Clone, Debug)]
pub enum Course {
    Bisection(Bisection),
    Knee(Knee),
}

/// Looks for the largest value that passes: upwards from the first, each at least twice the one before, until one fails;
/// then the middle of the bracket, until its ends are neighbours on the grid. Takes it that whatever is above a value that
/// fails, fails.
#[derive(Clone, Debug)]
pub struct Bisection {
    grid: Vec<f64>,
    passed: Option<usize>,
    failed: Option<usize>,
}

/// Looks for the value with the largest score: upwards from the first, each at least twice the one before, until two in a
/// row score less than the best; then, on both sides of the best, the middle of the wider gap, until its neighbours on the
/// grid are known.
#[derive(Clone, Debug)]
pub struct Knee {
    grid: Vec<f64>,
    /// Negative infinity where a value could not be measured.
    scores: BTreeMap<usize, f64>,
}

impl Course {
    pub fn new(objective: Objective, grid: &[f64]) -> Course {
        let grid = grid.to_vec();
        match objective {
            Objective::Slo => Course::Bisection(Bisection { grid, passed: None, failed: None }),
            Objective::Knee => Course::Knee(Knee { grid, scores: BTreeMap::new() }),
        }
    }

    /// The next value to ask for; `None` when the search is over.
    pub fn next(&self) -> Option<usize> {
        match self {
            Course::Bisection(b) => b.next(),
            Course::Knee(k) => k.next(),
        }
    }

    /// The best value so far.
    pub fn best(&self) -> Option<usize> {
        match self {
            Course::Bisection(b) => b.passed,
            Course::Knee(k) => k.best(),
        }
    }
}

impl Bisection {
    pub fn note(&mut self, index: usize, passes: bool) {
        let end = if passes { &mut self.passed } else { &mut self.failed };
        *end = Some(index);
    }

    /// The smallest value that failed.
    pub fn failed(&self) -> Option<usize> {
        self.failed
    }

    fn next(&self) -> Option<usize> {
        match (self.passed, self.failed) {
            (None, None) => (!self.grid.is_empty()).then_some(0),
            (None, Some(_)) => None,
            (Some(passed), None) => doubled(&self.grid, passed),
            (Some(passed), Some(failed)) => (failed > passed + 1).then_some((passed + failed) / 2),
        }
    }
}

impl Knee {
    pub fn note(&mut self, index: usize, score: Option<f64>) {
        self.scores.insert(index, score.unwrap_or(f64::NEG_INFINITY));
    }

    /// The measured values beside the best.
    pub fn neighbours(&self) -> (Option<usize>, Option<usize>) {
        let Some(best) = self.best() else { return (None, None) };
        let below = self.scores.range(..best).next_back().map(|(i, _)| *i);
        (below, self.scores.range(best + 1..).next().map(|(i, _)| *i))
    }

    /// Of equal scores the smaller value's.
    fn best(&self) -> Option<usize> {
        let finite = self.scores.iter().filter(|(_, score)| score.is_finite());
        finite
            .fold(None, |best: Option<(usize, f64)>, (i, score)| match best {
                Some((_, least)) if *score <= least => best,
                _ => Some((*i, *score)),
            })
            .map(|(i, _)| i)
    }

    fn next(&self) -> Option<usize> {
        self.upwards().or_else(|| self.refine())
    }

    fn upwards(&self) -> Option<usize> {
        let (mut at, mut best, mut below) = (if self.grid.is_empty() { None } else { Some(0) }, f64::NEG_INFINITY, 0);
        while let Some(index) = at {
            let Some(score) = self.scores.get(&index) else { return Some(index) };
            (best, below) = if *score > best { (*score, 0) } else { (best, below + 1) };
            if below == 2 {
                return None;
            }
            at = doubled(&self.grid, index);
        }
        None
    }

    fn refine(&self) -> Option<usize> {
        let best = self.best()?;
        let (below, above) = self.neighbours();
        let left = below.map_or(1, |b| best - b);
        let right = above.map_or(1, |a| a - best);
        match left.max(right) {
            0 | 1 => None,
            _ if left >= right => Some(best - left / 2),
            _ => Some(best + right / 2),
        }
    }
}

/// The first value that is at least twice that at `index`, else the last one; `None` from the last.
fn doubled(grid: &[f64], index: usize) -> Option<usize> {
    let last = grid.len() - 1;
    (index < last).then(|| (index + 1..last).find(|i| grid[*i] >= 2.0 * grid[index]).unwrap_or(last))
}

/// Probes that a search needs at most.
pub fn most_probes(objective: Objective, grid: &[f64]) -> u32 {
    if grid.is_empty() {
        return 0;
    }
    let mut coarse = vec![0];
    while let Some(next) = doubled(grid, coarse[coarse.len() - 1]) {
        coarse.push(next);
    }
    let gaps: Vec<usize> = coarse.windows(2).map(|w| w[1] - w[0]).collect();
    let refined = match objective {
        // The failing value of a bracket is one of the coarse ones: a later bracket has more of them before it.
        Objective::Slo => {
            let within = |(i, gap): (usize, &usize)| i as u32 + 2 + ceil_log2(*gap);
            return gaps.iter().enumerate().map(within).chain([coarse.len() as u32]).max().unwrap_or(1);
        }
        Objective::Knee => {
            let beside =
                |i: usize| most_refinements(i.checked_sub(1).map_or(1, |i| gaps[i]), *gaps.get(i).unwrap_or(&1));
            (0..coarse.len()).map(beside).max().unwrap_or(0)
        }
    };
    coarse.len() as u32 + refined
}

fn ceil_log2(n: usize) -> u32 {
    n.next_power_of_two().trailing_zeros()
}

/// Steps of [`Knee::refine`] between two gaps, at most: the middle of the wider one is either the new best or its new end.
fn most_refinements(left: usize, right: usize) -> u32 {
    let (wide, narrow) = (left.max(right), left.min(right));
    if wide <= 1 {
        return 0;
    }
    let near = wide / 2;
    1 + most_refinements(near, narrow).max(most_refinements(wide - near, near))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::search::grid;

    /// Goes the whole way; gives the values asked for and the best one.
    fn walk(objective: Objective, grid: &[f64], truth: impl Fn(f64) -> f64) -> (Vec<f64>, Option<f64>) {
        let mut course = Course::new(objective, grid);
        let mut asked = Vec::new();
        while let Some(i) = course.next() {
            asked.push(grid[i]);
            assert!(asked.len() <= grid.len(), "no value is asked for twice");
            match &mut course {
                Course::Bisection(b) => b.note(i, truth(grid[i]) > 0.0),
                Course::Knee(k) => k.note(i, Some(truth(grid[i]))),
            }
        }
        (asked, course.best().map(|i| grid[i]))
    }

    #[test]
    fn bisection_brackets_by_doubling_and_then_halves() {
        let grid: Vec<f64> = (1..=64).map(f64::from).collect();
        let (asked, best) = walk(Objective::Slo, &grid, |v| 11.5 - v);
        assert_eq!(asked, [1.0, 2.0, 4.0, 8.0, 16.0, 12.0, 10.0, 11.0]);
        assert_eq!(best, Some(11.0));
        assert_eq!(walk(Objective::Slo, &grid, |_| 1.0), (vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], Some(64.0)));
        assert_eq!(walk(Objective::Slo, &grid, |_| -1.0), (vec![1.0], None));
        assert_eq!(walk(Objective::Slo, &[3.0], |_| 1.0), (vec![3.0], Some(3.0)));
    }

    #[test]
    fn the_knee_is_refined_and_what_lies_far_beyond_is_not_measured() {
        let grid: Vec<f64> = (1..=1024).map(f64::from).collect();
        // Throughput c/(1 + c/20), latency by Little's law: power is largest at c = 20.
        let power = |c: f64| (c / (1.0 + c / 20.0)).powi(2) / c;
        let (asked, best) = walk(Objective::Knee, &grid, power);
        assert_eq!(asked[..7], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        assert!(asked.iter().all(|c| *c <= 64.0), "{asked:?}");
        assert_eq!(best, Some(20.0));
    }

    #[test]
    fn a_knee_whose_values_cannot_be_measured_is_none() {
        let mut knee = Knee { grid: vec![1.0, 2.0, 4.0, 8.0], scores: BTreeMap::new() };
        knee.note(0, None);
        knee.note(1, None);
        assert_eq!((knee.next(), knee.best()), (None, None));
    }

    proptest! {
        #[test]
        fn bisection_is_exact_and_within_its_bound(to in 1.0..500f64, within in 0.01..0.5f64, at in 0.0..600f64, whole: bool) {
            let grid = grid(1.0, if whole { to.round() } else { to }, within, whole).unwrap();
            let (asked, best) = walk(Objective::Slo, &grid, |v| if v <= at { 1.0 } else { -1.0 });
            prop_assert_eq!(best, grid.iter().copied().rfind(|v| *v <= at));
            prop_assert!(asked.len() <= most_probes(Objective::Slo, &grid) as usize);
        }

        #[test]
        fn a_single_peak_is_found_within_the_bound(to in 1.0..500f64, within in 0.01..0.5f64, peak in 1.0..600f64) {
            let grid = grid(1.0, to, within, false).unwrap();
            let score = |v: f64| -(v / peak).ln().abs();
            let (asked, best) = walk(Objective::Knee, &grid, score);
            let highest = grid.iter().map(|v| score(*v)).fold(f64::NEG_INFINITY, f64::max);
            prop_assert_eq!(score(best.unwrap()), highest);
            prop_assert!(asked.len() <= most_probes(Objective::Knee, &grid) as usize, "{} of {}", asked.len(), most_probes(Objective::Knee, &grid));
        }

        #[test]
        fn the_bound_of_a_bisection_is_met(to in 2.0..300f64, within in 0.02..0.5f64) {
            let grid = grid(1.0, to, within, false).unwrap();
            let longest = (0..grid.len()).map(|n| walk(Objective::Slo, &grid, |v| if v < grid[n] { 1.0 } else { -1.0 }).0.len());
            prop_assert!(longest.max().unwrap() + 1 >= most_probes(Objective::Slo, &grid) as usize);
        }
    }
}
