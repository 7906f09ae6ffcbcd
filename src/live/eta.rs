//! How much longer a run takes, from what its samples and engine starts took so far.

use std::time::Duration;

use crate::event::Event;
use crate::event::fold::RunState;

/// Lengths seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Eta {
    samples: Mean,
    starts: Mean,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    n: u32,
}

impl Mean {
    fn push(&mut self, seconds: f64) {
        self.sum += seconds;
        self.n += 1;
    }

    fn get(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / f64::from(self.n))
    }
}

impl Eta {
    pub fn see(&mut self, event: &Event) {
        match event {
            Event::SampleFinished { seconds, .. } => self.samples.push(*seconds),
            Event::DeploymentReady { seconds, .. } => self.starts.push(*seconds),
            _ => {}
        }
    }

    /// `None` until a sample was measured. Units are taken to be alike, which they are not: an estimate, no promise.
    pub fn remaining(&self, state: &RunState) -> Option<Duration> {
        let samples = state.samples_planned.saturating_sub(state.samples_done) as f64;
        let starts = state.starts_planned.saturating_sub(state.starts_done) as f64;
        let seconds = samples * self.samples.get()? + starts * self.starts.get().unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::UnitId;
    use crate::value::Value;

    #[test]
    fn samples_and_starts_are_extrapolated_apart() {
        let mut eta = Eta::default();
        let state =
            RunState { samples_planned: 10, samples_done: 2, starts_planned: 3, starts_done: 1, ..<_>::default() };
        assert_eq!(eta.remaining(&state), None);
        for seconds in [2.0, 4.0] {
            eta.see(&Event::SampleFinished {
                unit_id: UnitId::of(&Value::str("u")),
                sample: 1,
                valid: true,
                reason: None,
                seconds,
                ttft_ms: None,
                tpot_ms: None,
                output_throughput: None,
            });
        }
        assert_eq!(eta.remaining(&state), Some(Duration::from_secs(24)));
        let ready = Event::DeploymentReady {
            deploy_id: crate::digest::DeployId::of(&Value::str("d")),
            start: 1,
            seconds: 30.0,
            engine_version: None,
        };
        eta.see(&ready);
        assert_eq!(eta.remaining(&state), Some(Duration::from_secs(84)));
    }
}
