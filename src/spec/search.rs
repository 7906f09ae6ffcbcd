//! Search axes: what is looked for, and the grid of values that may be asked on the way. Every search of a range walks the
//! same grid, so that its probes are the same units in every run and in every experiment.

use std::ops::Range;
use std::sync::Arc;

use crate::units::Objective;

/// Grid points of one search, at most.
pub const MAX_GRID: usize = 20_000;
/// Steps tried for them: rounding lets many fall on one value.
const MAX_STEPS: i32 = 1_000_000;

/// `{ from, to, until, within }` of `rate` or `concurrency`.
#[derive(Clone, Debug)]
pub struct SearchAxis {
    pub path: Arc<str>,
    pub span: Range<usize>,
    pub from: f64,
    pub to: f64,
    pub until: Objective,
    /// Relative distance of neighbouring grid values.
    pub within: f64,
    /// The values that may be probed, ascending; `from` is the first, `to` the last.
    pub grid: Arc<[f64]>,
}

/// `from × (1 + within)^k` up to `to`, each rounded to three significant digits, or to a whole number where `whole`. Both
/// ends are as written. `None` when there would be more than [`MAX_GRID`] values.
pub fn grid(from: f64, to: f64, within: f64, whole: bool) -> Option<Arc<[f64]>> {
    let mut values = vec![from];
    let mut x = from;
    for step in 1.. {
        let next = from * (1.0 + within).powi(step);
        if next <= x || step > MAX_STEPS || values.len() > MAX_GRID {
            return None;
        }
        x = next;
        let value = if whole { next.round() } else { three_digits(next) };
        if value >= to {
            break;
        }
        if value > values[values.len() - 1] {
            values.push(value);
        }
    }
    if to > values[values.len() - 1] {
        values.push(to);
    }
    Some(values.into())
}

fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().expect("a formatted float is a float")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_grids_hold_every_small_number_once() {
        let values = grid(1.0, 64.0, 0.05, true).unwrap();
        assert_eq!(values[..6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values[values.len() - 1], 64.0);
        assert!(values.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 0.05 * w[0] + 1.0));
    }

    #[test]
    fn rates_have_three_significant_digits() {
        assert_eq!(grid(1.0, 1.3, 0.05, false).unwrap()[..], [1.0, 1.05, 1.1, 1.16, 1.22, 1.28, 1.3]);
        assert_eq!(grid(0.125, 0.13, 0.05, false).unwrap()[..], [0.125, 0.13]);
        assert_eq!(grid(4.0, 4.0, 0.05, false).unwrap()[..], [4.0]);
        assert_eq!(grid(1.0, 1e6, 1e-5, true), None);
        assert_eq!(grid(1.0, 1e9, 1e-18, false), None, "a step below the precision of the number never ends");
    }

    proptest! {
        #[test]
        fn grids_ascend_between_their_ends(from in 0.01..100f64, times in 1.0..1000f64, within in 0.01..1.0f64) {
            let to = from * times;
            let values = grid(from, to, within, false).unwrap();
            prop_assert!(values.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(values[0], from);
            prop_assert!(values[values.len() - 1] == to || values.len() == 1);
            // No two neighbours are further apart than asked, but for rounding.
            prop_assert!(values.windows(2).all(|w| w[1] / w[0] <= (1.0 + within) * 1.012));
        }
    }
}
