//! Time: wall-clock stamps for people and provenance, a monotonic stopwatch for everything that is compared.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Gives the time; a fixed one in tests.
pub trait Clock: Send + Sync {
    /// The wall clock, for stamps and ages; nothing is timed with it.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// `20261124T061500Z`: the form that stands in names.
pub fn stamp(t: Timestamp) -> String {
    t.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// RFC 3339 with milliseconds: the form that stands in records.
pub fn rfc3339(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Measures monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
