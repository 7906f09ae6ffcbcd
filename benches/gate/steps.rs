//! Series with a step, and without.

use llmatrix::stats::step::{Series, steps};
use rand::RngExt;
use rayon::prelude::*;

use super::world::{Noise, rng};

const NIGHTS: usize = 60;
const SCATTER: f64 = 0.03;
const STEP: f64 = 0.05;

fn series(noise: Noise, at: usize, seed: u64) -> Series {
    let mut rng = rng(seed);
    (0..NIGHTS)
        .map(|night| {
            let level = if night >= at { 1.0 + STEP } else { 1.0 };
            Some((level * (1.0 + SCATTER * noise.draw(&mut rng))).ln())
        })
        .collect()
}

/// Nights at which a step may be.
pub type Range = std::ops::RangeInclusive<usize>;
/// Neither among the first ten nor among the last.
pub const INNER: Range = 10..=50;
pub const ANY: Range = 1..=59;

fn night(range: &Range, seed: u64) -> usize {
    rng(seed ^ 0x57e9).random_range(range.clone())
}

fn count(all: usize, hit: impl Fn(u64) -> bool + Sync + Send) -> (usize, usize) {
    ((0..all as u64).into_par_iter().filter(|seed| hit(*seed)).count(), all)
}

/// Series whose one step is found within two nights.
pub fn alone(noise: Noise, range: &Range, all: usize) -> (usize, usize) {
    count(all, |seed| {
        let at = night(range, seed);
        let found = steps(&[series(noise, at, seed)]);
        found.iter().any(|s| s.night.abs_diff(at) <= 2)
    })
}

/// Eight series that step together, whose night is found exactly.
pub fn together(noise: Noise, range: &Range, all: usize) -> (usize, usize) {
    count(all, |seed| {
        let at = night(range, seed);
        let cells: Vec<Series> = (0..8).map(|i| series(noise, at, (seed << 8) + i)).collect();
        steps(&cells).iter().any(|s| s.night == at && s.changes.len() > 4)
    })
}

/// Flat series in which a step is reported.
pub fn flat(noise: Noise, all: usize) -> (usize, usize) {
    count(all, |seed| !steps(&[series(noise, NIGHTS, seed)]).is_empty())
}
