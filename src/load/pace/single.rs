//! One request, for a probe.

use super::super::LoadError;
use super::super::link::Loaded;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;
use crate::stats::RequestRecord;

/// Waits for the end of one request.
#[derive(Default)]
pub struct Single {
    pub record: Option<RequestRecord>,
}

impl Single {
    pub fn begin(reactor: &mut Reactor, request: Loaded) -> Single {
        let slot = reactor.add_slot();
        reactor.send(slot, request, 0);
        Single::default()
    }
}

impl Pace for Single {
    fn settled(&mut self, _reactor: &mut Reactor, _slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        if let Outcome::Ended(record) = outcome {
            self.record = Some(*record);
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.record.is_some()
    }
}
