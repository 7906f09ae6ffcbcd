//! How often progress may be told: a journal keeps every event, and what an engine says while it starts has no end.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Events that may come at once, and how many more each second.
const BURST: f64 = 100.0;
const PER_SECOND: f64 = 1.0;

/// Lets a burst through, and one event a second after it.
#[derive(Debug)]
pub struct Throttle(Mutex<(f64, Instant)>);

impl Default for Throttle {
    fn default() -> Self {
        Throttle(Mutex::new((BURST, Instant::now())))
    }
}

impl Throttle {
    /// Whether one more may be told now.
    pub fn lets_through(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *state;
        let now = Instant::now();
        let left = (left + PER_SECOND * (now - since).as_secs_f64()).min(BURST);
        let goes = left >= 1.0;
        *state = (if goes { left - 1.0 } else { left }, now);
        goes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_then_one_a_second() {
        let throttle = Throttle::default();
        assert_eq!((0..1000).filter(|_| throttle.lets_through()).count(), 100);
        let mut more = 0;
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            more += usize::from(throttle.lets_through());
        }
        assert!((9..=10).contains(&more), "{more}");
    }
}
