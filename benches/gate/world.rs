//! How the numbers of a night come about.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, LogNormal, StandardNormal};

/// The shape of noise between samples; all have mean 0 and variance 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    Normal,
    /// Skewness 1.
    Gamma,
    /// Skewness 2.
    Exponential,
    /// Skewness 3.7.
    Heavy,
}

/// What engine starts differ by, beside their samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deviation {
    None,
    /// 1 %, each cell on its own.
    PerCell,
    /// 1 %, the cells of a stack together: they share the start.
    PerStack,
}

#[derive(Clone, Copy, Debug)]
pub struct World {
    pub noise: Noise,
    pub deviation: Deviation,
}

pub const SAMPLE_NOISE: f64 = 0.02;
pub const START_NOISE: f64 = 0.01;

impl Noise {
    pub const ALL: [Noise; 3] = [Noise::Gamma, Noise::Exponential, Noise::Heavy];

    pub fn name(self) -> &'static str {
        match self {
            Noise::Normal => "normal",
            Noise::Gamma => "gamma, skewness 1",
            Noise::Exponential => "exponential, skewness 2",
            Noise::Heavy => "log-normal, skewness 3.7",
        }
    }

    pub fn draw(self, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Noise::Normal => StandardNormal.sample(rng),
            Noise::Gamma => (Gamma::new(4.0, 1.0).expect("positive").sample(rng) - 4.0) / 2.0,
            Noise::Exponential => <Exp1 as Distribution<f64>>::sample(&Exp1, rng) - 1.0,
            Noise::Heavy => {
                let s: f64 = 0.8;
                let mean = (s * s / 2.0).exp();
                let deviation = (((s * s).exp() - 1.0) * (s * s).exp()).sqrt();
                (LogNormal::new(0.0, s).expect("positive").sample(rng) - mean) / deviation
            }
        }
    }
}

impl Deviation {
    pub const ALL: [Deviation; 3] = [Deviation::None, Deviation::PerCell, Deviation::PerStack];

    pub fn name(self) -> &'static str {
        match self {
            Deviation::None => "nothing",
            Deviation::PerCell => "1 %, each cell",
            Deviation::PerStack => "1 %, each stack",
        }
    }
}

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Standard normal.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}
