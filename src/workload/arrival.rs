//! The one pacer: when requests are meant to start. Pure: a workload in, nanoseconds after the sample's start out.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::profile::Profile;
use super::seeded::{exponential, gamma, generator};
use super::{Arrival, Workload};

/// Yields intended start times.
#[derive(Clone, Debug)]
pub enum Pacer {
    /// A request starts as soon as one of `concurrency` slots is free; with a profile, one of as many as it has just then.
    Closed { concurrency: u32, profile: Option<Profile> },
    /// Requests start by a schedule, at most `cap` at a time; a request that has to wait keeps its intended time.
    Open { schedule: Box<Schedule>, cap: Option<u32> },
}

impl Pacer {
    /// `arrivals`: when the requests of a trace came, nanoseconds after the first.
    pub fn new(workload: &Workload, arrivals: Option<Arc<[u64]>>) -> Pacer {
        let cap = workload.concurrency;
        if workload.replays()
            && let Some(arrivals) = arrivals
        {
            return Pacer::Open { schedule: Box::new(Schedule::replay(arrivals, workload.replay_speed)), cap };
        }
        match (workload.rate, &workload.profile) {
            (Some(rate), profile) => {
                let mut schedule = Schedule::new(rate, workload.arrival, workload.burstiness, workload.seed);
                if let Some(profile) = profile {
                    schedule.pace = Pace::Profile(profile.clone());
                }
                Pacer::Open { schedule: Box::new(schedule), cap }
            }
            (None, profile) => Pacer::Closed { concurrency: cap.unwrap_or(1).max(1), profile: profile.clone() },
        }
    }
}

/// A sequence of intended start times, nanoseconds after the start, never decreasing. The first request starts at once. The
/// same workload and seed give the same schedule in every sample, so that two configurations are measured under the same
/// arrivals.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    shape: Shape,
    rng: ChaCha8Rng,
    index: u64,
    /// Sum of unit-mean gaps so far.
    elapsed: f64,
}

/// How unit-mean gaps become time.
#[derive(Clone, Debug)]
enum Pace {
    /// Endless, at one rate.
    Steady { mean_gap_ns: f64 },
    /// At the rates of a profile, until it ends.
    Profile(Profile),
    /// Not at all: these are the times.
    Replay { arrivals: Arc<[u64]>, speed: f64 },
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
        Schedule { pace: Pace::Steady { mean_gap_ns: 1e9 / rate }, shape, rng, index: 0, elapsed: 0.0 }
    }

    fn replay(arrivals: Arc<[u64]>, speed: f64) -> Schedule {
        Schedule { pace: Pace::Replay { arrivals, speed }, ..Schedule::new(1.0, Arrival::Constant, 1.0, 0) }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.index;
        self.index += 1;
        let at = match self.shape {
            // From the index, so that no rounding error adds up.
            Shape::Constant => index as f64,
            _ => self.elapsed,
        };
        match self.shape {
            Shape::Constant => {}
            Shape::Exponential => self.elapsed += exponential(&mut self.rng),
            Shape::Gamma(k) => self.elapsed += gamma(&mut self.rng, k),
        }
        match &self.pace {
            Pace::Steady { mean_gap_ns } => Some((at * mean_gap_ns).round() as u64),
            Pace::Profile(profile) => profile.reaches(at).map(|seconds| (seconds * 1e9).round() as u64),
            Pace::Replay { arrivals, speed } => {
                let at_ns = *arrivals.get(usize::try_from(index).ok()?)?;
                Some(if *speed == 1.0 { at_ns } else { (at_ns as f64 / speed).round() as u64 })
            }
        }
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

    #[test]
    fn random_arrivals_follow_a_profile() {
        use std::time::Duration;

        use crate::workload::profile::{Level, Stage};

        let stage = |from, to, seconds| Stage { from, to, duration: Duration::from_secs(seconds) };
        let stages = vec![stage(100.0, 100.0, 50), stage(100.0, 300.0, 50), stage(50.0, 50.0, 100)];
        let mut schedule = Schedule::new(300.0, Arrival::Poisson, 1.0, 3);
        schedule.pace = Pace::Profile(Profile { level: Level::Rate, stages, then: None });
        let times: Vec<u64> = schedule.collect();
        assert!(times.is_sorted());
        let within =
            |from: f64, to: f64| times.iter().filter(|t| (from..to).contains(&(**t as f64 / 1e9))).count() as f64;
        for (from, to, expected) in
            [(0.0, 50.0, 5000.0), (50.0, 75.0, 3750.0), (75.0, 100.0, 6250.0), (100.0, 200.0, 5000.0)]
        {
            let found = within(from, to);
            assert!((found - expected).abs() < 4.0 * expected.sqrt(), "{from}–{to}: {found} of {expected}");
        }
        assert_eq!(within(200.0, f64::INFINITY), 0.0);
    }

    #[test]
    fn a_trace_is_replayed_at_its_speed() {
        let arrivals: Arc<[u64]> = [0, 1_000, 5_000].into();
        assert_eq!(Schedule::replay(arrivals.clone(), 1.0).collect::<Vec<_>>(), [0, 1_000, 5_000]);
        assert_eq!(Schedule::replay(arrivals, 4.0).collect::<Vec<_>>(), [0, 250, 1_250]);
    }
}
