//! A counter's current rate, smoothed over the last looks at it.

use std::time::Duration;

/// Weight of a second of new observations against what was seen before.
const PER_SECOND: f64 = 0.5;

/// The rate of a counter that only grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    last: Option<(Duration, u64)>,
    value: Option<f64>,
}

impl Rate {
    /// Takes the counter's value `now`, a time since any fixed point, and gives the rate per second.
    pub fn see(&mut self, now: Duration, count: u64) -> Option<f64> {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_sub(then).as_secs_f64();
            if seconds <= 0.0 {
                return self.value;
            }
            let fresh = count.saturating_sub(before) as f64 / seconds;
            let keep = PER_SECOND.powf(seconds);
            // Nothing before the first token: the wait for it is not a rate of zero.
            self.value = match self.value {
                Some(old) => Some(old * keep + fresh * (1.0 - keep)),
                None => (fresh > 0.0).then_some(fresh),
            };
        }
        self.last = Some((now, count));
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_counter_has_its_rate_and_a_halt_lets_it_sink() {
        let mut rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!(rate.see(at(0), 0), None);
        assert_eq!(rate.see(at(500), 0), None);
        assert_eq!(rate.see(at(1000), 50), Some(100.0));
        assert_eq!(rate.see(at(2000), 150), Some(100.0));
        assert_eq!(rate.see(at(3000), 150), Some(50.0));
        assert_eq!(rate.see(at(3000), 150), Some(50.0));
    }
}
