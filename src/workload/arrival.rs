//! The one pacer: when requests are meant to start. Pure: a workload in, nanoseconds after the sample's start out.

use rand_chacha::ChaCha8Rng;

use super::seeded::{exponential, gamma, generator};
use super::{Arrival, Workload};

/// Yields intended start times.
#[derive(Clone, Debug)]
pub enum Pacer {
    /// A request starts as soon as one of `concurrency` slots is free.
    Closed { concurrency: u32 },
    /// Requests start by a schedule, at most `cap` at a time; a request that has to wait keeps its intended time.
    Open { schedule: Box<Schedule>, cap: Option<u32> },
}

impl Pacer {
    pub fn new(workload: &Workload) -> Pacer {
        match workload.rate {
            Some(rate) => Pacer::Open {
                schedule: Box::new(Schedule::new(rate, workload.arrival, workload.burstiness, workload.seed)),
                cap: workload.concurrency,
            },
            None => Pacer::Closed { concurrency: workload.concurrency.unwrap_or(1).max(1) },
        }
    }
}

/// An endless sequence of intended start times, nanoseconds after the start, never decreasing. The first request starts
/// at once. The same workload and seed give the same schedule in every sample, so that two configurations are measured
/// under the same arrivals.
#[derive(Clone, Debug)]
pub struct Schedule {
    mean_gap_ns: f64,
    shape: Shape,
    rng: ChaCha8Rng,
    index: u64,
    /// Sum of unit-mean gaps so far.
    elapsed: f64,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Constant,
    Exponential,
    Gamma(f64),
}

impl Schedule {
    pub fn new(rate: f64, arrival: Arrival, burstiness: f64, seed: u64) -> Schedule {
        let shape = match arrival {
            Arrival::Constant => Shape::Constant,
            Arrival::Poisson => Shape::Exponential,
            Arrival::Gamma => Shape::Gamma(burstiness),
        };
        let rng = generator("arrival", &[&seed.to_le_bytes()]);
        Schedule { mean_gap_ns: 1e9 / rate, shape, rng, index: 0, elapsed: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at = match self.shape {
            // From the index, so that no rounding error adds up.
            Shape::Constant => self.index as f64,
            _ => self.elapsed,
        };
        self.index += 1;
        match self.shape {
            Shape::Constant => {}
            Shape::Exponential => self.elapsed += exponential(&mut self.rng),
            Shape::Gamma(k) => self.elapsed += gamma(&mut self.rng, k),
        }
        Some((at * self.mean_gap_ns).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_exact() {
        let times: Vec<u64> = Schedule::new(3.0, Arrival::Constant, 1.0, 0).take(4).collect();
        assert_eq!(times, [0, 333_333_333, 666_666_667, 1_000_000_000]);
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_are_reproducible() {
        for arrival in [Arrival::Poisson, Arrival::Gamma] {
            let times: Vec<u64> = Schedule::new(100.0, arrival, 4.0, 7).take(20_001).collect();
            assert!(times.is_sorted());
            let rate = 20_000.0 / (*times.last().unwrap() as f64 / 1e9);
            assert!((rate - 100.0).abs() < 2.5, "{rate}");
            assert_eq!(times, Schedule::new(100.0, arrival, 4.0, 7).take(20_001).collect::<Vec<_>>());
            assert_ne!(times, Schedule::new(100.0, arrival, 4.0, 8).take(20_001).collect::<Vec<_>>());
        }
    }
}
