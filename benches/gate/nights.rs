//! Nights with 64 cells, gated.

use std::collections::BTreeMap;

use llmatrix::compare::gate::{Measure, Rules};
use llmatrix::compare::pair::{Reach, pair};
use llmatrix::compare::{Side, SideCell, SideSample, Verdict, compare};
use llmatrix::value::Value;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::world::{Deviation, SAMPLE_NOISE, START_NOISE, World, normal, rng};

const STACKS: usize = 8;
const CELLS: usize = 8;
const REPEATS: usize = 3;

/// Where the error term comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Design {
    /// One night against one, each repeat on an engine start of its own.
    Starts,
    /// Five nights against one, one start each.
    Nights,
    /// One night against one, one start each: nothing tells what starts differ by.
    Neither,
}

impl Design {
    pub const ALL: [Design; 3] = [Design::Starts, Design::Nights, Design::Neither];

    pub fn name(self) -> &'static str {
        match self {
            Design::Starts => "3 starts",
            Design::Nights => "5 nights",
            Design::Neither => "neither",
        }
    }

    fn nights(self) -> usize {
        if self == Design::Nights { 5 } else { 1 }
    }

    fn starts(self) -> usize {
        if self == Design::Starts { REPEATS } else { 1 }
    }
}

pub struct Nights {
    world: World,
    design: Design,
    effect: f64,
    rules: Rules,
}

/// What came of many nights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Nights on which at least 7 of the 8 slower cells were called worse.
    pub found: usize,
    /// Nights on which a cell was called worse that was not.
    pub alarms: usize,
    /// Cells on which nothing was decided.
    pub undecided: usize,
}

impl Nights {
    pub fn new(world: World, design: Design, effect: f64) -> Nights {
        let measures = vec![Measure::parse("mean_ttft", "+5%").expect("a limit")];
        Nights { world, design, effect, rules: Rules { measures, fdr: 0.01, gate: true, ..Rules::default() } }
    }

    pub fn tally(&self, nights: usize) -> Tally {
        let one = |night: usize| self.night(night as u64);
        (0..nights).into_par_iter().map(one).reduce(Tally::default, |a, b| Tally {
            found: a.found + b.found,
            alarms: a.alarms + b.alarms,
            undecided: a.undecided + b.undecided,
        })
    }

    fn night(&self, seed: u64) -> Tally {
        let mut rng = rng(seed);
        let means: Vec<f64> = (0..STACKS * CELLS).map(|_| 20.0 * (1.0 + 20.0 * rng.random::<f64>())).collect();
        let a = self.side("a", &means, self.design.nights(), 0.0, &mut rng);
        let b = self.side("b", &means, 1, self.effect, &mut rng);
        let pairs = pair(&a.cells, &b.cells, Reach::Stack);
        let comparison = compare(&a, &b, &pairs, &self.rules, &|_, _| None);
        let verdicts: Vec<Verdict> = comparison.cells.iter().map(|c| c.findings[0].verdict).collect();
        assert_eq!(verdicts.len(), STACKS * CELLS, "every cell was compared");
        let worse = |part: &[Verdict]| part.iter().filter(|v| **v == Verdict::Worse).count();
        let slower = if self.effect > 0.0 { CELLS } else { 0 };
        Tally {
            found: usize::from(slower > 0 && worse(&verdicts[..slower]) + 1 >= slower),
            alarms: usize::from(worse(&verdicts[slower..]) > 0),
            undecided: verdicts.iter().filter(|v| **v == Verdict::Undecided).count(),
        }
    }

    /// The effect is in the cells of the first stack.
    fn side(&self, name: &str, means: &[f64], nights: usize, effect: f64, rng: &mut ChaCha8Rng) -> Side {
        let mut cells: Vec<SideCell> = means.iter().enumerate().map(|(i, _)| blank(i)).collect();
        for night in 0..nights {
            for stack in 0..STACKS {
                for start in 0..self.design.starts() {
                    let shared = START_NOISE * normal(rng);
                    for (i, cell) in cells.iter_mut().enumerate().skip(stack * CELLS).take(CELLS) {
                        let deviation = match self.world.deviation {
                            Deviation::None => 0.0,
                            Deviation::PerCell => START_NOISE * normal(rng),
                            Deviation::PerStack => shared,
                        };
                        let mean = means[i] * (1.0 + deviation) * if i < CELLS { 1.0 + effect } else { 1.0 };
                        for _ in 0..REPEATS / self.design.starts() {
                            let value = mean * (1.0 + SAMPLE_NOISE * self.world.noise.draw(rng));
                            cell.samples.push(SideSample {
                                run: format!("{name}{night}"),
                                start: Some(start as u32 + 1),
                                values: BTreeMap::from([("mean_ttft".to_string(), value)]),
                                ..SideSample::default()
                            });
                        }
                    }
                }
            }
        }
        Side { name: name.into(), simulated: Some(false), cells, ..Side::default() }
    }
}

fn blank(i: usize) -> SideCell {
    let cell = BTreeMap::from([
        ("engine".to_string(), Value::str(format!("stack-{}", i / CELLS))),
        ("concurrency".to_string(), Value::Int((i % CELLS) as i64 + 1)),
    ]);
    SideCell { name: format!("cell {i}"), cell, ..SideCell::default() }
}
