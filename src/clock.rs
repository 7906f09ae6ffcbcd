//! Time: wall-clock stamps for people and provenance, a monotonic stopwatch for everything that is compared.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Gives the time; a fixed one in tests.
pub trait Clock: Send + Sync {
    /// The wall clock, for stamps and ages; nothing is timed with it.
    fn now(&self) -> Timestamp;

    /// How long the machine has been suspended since it was started. What was going on when that grew has not gone on
    /// all the time: the monotonic clock stands still meanwhile, and a server elsewhere does not.
    fn suspended(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[cfg(target_os = "linux")]
    fn suspended(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let read = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
        // Read in this order, a pause in between makes it larger for this look only.
        let awake = read(ClockId::Monotonic);
        read(ClockId::Boottime).saturating_sub(awake)
    }

    #[cfg(not(target_os = "linux"))]
    fn suspended(&self) -> Duration {
        Duration::ZERO
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

/// CPU time of the calling thread.
pub fn thread_cpu() -> Option<Duration> {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(u64::try_from(t.tv_sec).ok()?, u32::try_from(t.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_awake_machine_is_not_suspended_any_further() {
        let before = SystemClock.suspended();
        std::thread::sleep(Duration::from_millis(5));
        assert!(SystemClock.suspended().abs_diff(before) < Duration::from_secs(1));
    }
}
