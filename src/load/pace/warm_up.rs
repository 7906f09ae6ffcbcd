//! Requests before the measurement, their results discarded.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::super::LoadError;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;
use super::super::worker::Shared;
use crate::workload::prompts::Phase;

/// Sends the warm-up requests over all slots.
pub struct WarmUp {
    shared: Arc<Shared>,
    flying: usize,
}

impl WarmUp {
    pub fn begin(shared: Arc<Shared>, reactor: &mut Reactor) -> Result<WarmUp, LoadError> {
        let mut this = WarmUp { shared, flying: 0 };
        for slot in 0..reactor.slots() {
            this.next(reactor, slot)?;
        }
        Ok(this)
    }

    fn next(&mut self, reactor: &mut Reactor, slot: usize) -> Result<(), LoadError> {
        let shared = &self.shared;
        let index = shared.next_warmup.fetch_add(1, Relaxed);
        if index < shared.warmup {
            let planned = shared.prompts.get(Phase::Warmup, index);
            let request = shared.link.load(index, &planned, reactor.used_buffer(slot))?;
            self.flying += 1;
            reactor.send(slot, request, 0);
        }
        Ok(())
    }
}

impl Pace for WarmUp {
    fn settled(&mut self, reactor: &mut Reactor, slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        let Outcome::Ended(record) = outcome else { return Ok(()) };
        self.flying -= 1;
        match record.error {
            None => _ = self.shared.warmed.fetch_add(1, Relaxed),
            Some(error) => {
                *self.shared.warmup_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        }
        self.next(reactor, slot)
    }

    fn finished(&self) -> bool {
        self.flying == 0
    }
}
