//! Load that changes: stages, each with a constant or linearly changing level. A level is requests per second, or requests
//! in flight. Pure arithmetic over seconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stretch of time over which the level goes from `from` to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub from: f64,
    pub to: f64,
    pub duration: Duration,
}

/// What the level of a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Requests per second.
    Rate,
    /// Requests in flight.
    Concurrency,
}

/// Stages one after the other, and the level that stays after them; without one it ends with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub level: Level,
    pub stages: Vec<Stage>,
    pub then: Option<f64>,
}

impl Stage {
    fn seconds(&self) -> f64 {
        self.duration.as_secs_f64()
    }

    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds()
    }

    /// The integral of the level over the whole stage.
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds()
    }

    /// When the integral of the level reaches `n`, seconds after the stage's start; `n` is at most the area.
    fn reaches(&self, n: f64) -> f64 {
        // The root of from·t + slope·t²/2 = n in the form that loses no digits when the slope is small.
        let root = (self.from * self.from + 2.0 * self.slope() * n).max(0.0).sqrt();
        let sum = self.from + root;
        if sum > 0.0 { (2.0 * n / sum).min(self.seconds()) } else { 0.0 }
    }
}

impl Profile {
    /// From zero to a level that then stays.
    pub fn ramp(level: Level, to: f64, duration: Duration) -> Profile {
        Profile { level, stages: vec![Stage { from: 0.0, to, duration }], then: Some(to) }
    }

    /// The highest level.
    pub fn peak(&self) -> f64 {
        self.stages.iter().flat_map(|s| [s.from, s.to]).chain(self.then).fold(0.0, f64::max)
    }

    /// How long the stages take together.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|s| s.duration).sum()
    }

    /// When the integral of the level reaches `n`: the arrival time of request `n` at these rates, seconds. `None` when it
    /// never does.
    pub fn reaches(&self, n: f64) -> Option<f64> {
        let (mut begun, mut left) = (0.0, n);
        for stage in &self.stages {
            if left < stage.area() {
                return Some(begun + stage.reaches(left));
            }
            left -= stage.area();
            begun += stage.seconds();
        }
        self.then.filter(|level| *level > 0.0).map(|level| begun + left / level)
    }

    /// From when on, not before `from` seconds, the level is above `floor`: when slot number `floor` may hold a request.
    /// `None` when it never is.
    pub fn above(&self, floor: f64, from: f64) -> Option<f64> {
        let mut begun = 0.0;
        for stage in &self.stages {
            let ended = begun + stage.seconds();
            if from < ended
                && let Some(at) = above_within(stage, floor, (from - begun).max(0.0))
            {
                return Some(begun + at);
            }
            begun = ended;
        }
        self.then.filter(|level| *level > floor).map(|_| begun.max(from))
    }
}

/// The first time of a stage, not before `from` seconds after its start, at which its level is above `floor`.
fn above_within(stage: &Stage, floor: f64, from: f64) -> Option<f64> {
    let level = stage.from + stage.slope() * from;
    if level > floor {
        return Some(from);
    }
    // It rises through the floor later, or never. A level that only touches the floor is not above it.
    (stage.slope() > 0.0 && stage.to > floor).then(|| (floor - stage.from) / stage.slope()).map(|at| at.max(from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage(from: f64, to: f64, seconds: f64) -> Stage {
        Stage { from, to, duration: Duration::from_secs_f64(seconds) }
    }

    fn rates(stages: Vec<Stage>, then: Option<f64>) -> Profile {
        Profile { level: Level::Rate, stages, then }
    }

    #[test]
    fn arrivals_follow_the_integral_of_the_rate() {
        let p = rates(vec![stage(2.0, 2.0, 10.0), stage(2.0, 6.0, 10.0)], None);
        assert_eq!(p.reaches(0.0), Some(0.0));
        assert_eq!(p.reaches(10.0), Some(5.0));
        assert_eq!(p.reaches(20.0), Some(10.0));
        // 20 + 2t + 0.2t² = 45 at t = 7.247…
        assert!((p.reaches(45.0).unwrap() - 17.247_448_713_9).abs() < 1e-9);
        assert_eq!(p.reaches(60.0), None, "all that arrive have arrived");
        let ramp = Profile::ramp(Level::Rate, 10.0, Duration::from_secs(4));
        assert_eq!(ramp.reaches(20.0), Some(4.0));
        assert_eq!(ramp.reaches(30.0), Some(5.0));
        assert_eq!((ramp.peak(), ramp.length()), (10.0, Duration::from_secs(4)));
        let pause = rates(vec![stage(1.0, 1.0, 2.0), stage(0.0, 0.0, 3.0), stage(1.0, 1.0, 2.0)], None);
        assert_eq!(pause.reaches(2.0), Some(5.0), "nothing arrives in a stage of rate 0");
    }

    #[test]
    fn slots_open_and_close_with_the_level() {
        let p = Profile {
            level: Level::Concurrency,
            stages: vec![stage(0.0, 4.0, 8.0), stage(4.0, 4.0, 2.0), stage(1.0, 1.0, 5.0), stage(1.0, 3.0, 4.0)],
            then: None,
        };
        assert_eq!(
            (0..5).map(|slot| p.above(f64::from(slot), 0.0)).collect::<Vec<_>>(),
            [Some(0.0), Some(2.0), Some(4.0), Some(6.0), None]
        );
        assert_eq!(p.above(3.0, 9.9), Some(9.9));
        assert_eq!(p.above(3.0, 10.0), None);
        assert_eq!(p.above(1.0, 12.0), Some(15.0), "again when it rises");
        assert_eq!(p.above(0.0, 12.0), Some(12.0));
        assert_eq!(p.above(0.0, 19.0), None);
        let ramp = Profile::ramp(Level::Concurrency, 2.0, Duration::from_secs(1));
        assert_eq!((ramp.above(1.0, 7.0), ramp.above(2.0, 0.0)), (Some(7.0), None));
    }

    proptest! {
        #[test]
        fn arrivals_ascend_and_end_with_the_stages(
            levels in prop::collection::vec((0.0..50.0f64, 0.0..50.0f64, 0.1..20.0f64), 1..6),
        ) {
            let p = rates(levels.iter().map(|(a, b, t)| stage(*a, *b, *t)).collect(), None);
            let area: f64 = p.stages.iter().map(Stage::area).sum();
            let times: Vec<f64> = (0..=200).map_while(|i| p.reaches(area * f64::from(i) / 200.0)).collect();
            prop_assert!(times.windows(2).all(|w| w[0] <= w[1] + 1e-9));
            prop_assert!(times.len() >= 200);
            prop_assert!(times.iter().all(|t| *t <= p.length().as_secs_f64() + 1e-9));
            // The integral up to an arrival is its number.
            for (i, t) in times.iter().enumerate() {
                let mut begun = 0.0;
                let integral: f64 = p.stages.iter().map(|s| {
                    let t = (t - begun).clamp(0.0, s.seconds());
                    begun += s.seconds();
                    s.from * t + s.slope() * t * t / 2.0
                }).sum();
                prop_assert!((integral - area * i as f64 / 200.0).abs() < 1e-6 * (1.0 + area), "{integral}");
            }
        }
    }
}
