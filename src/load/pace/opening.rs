//! Opening connections ahead of the requests, so that no TTFT holds one.

use super::super::LoadError;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;

/// Connections that a worker opens at the same time.
const AT_ONCE: usize = 32;

/// Opens the connections of slots, one after the other where there are many.
pub struct Opening {
    /// Slots still to be opened.
    left: Vec<usize>,
    opening: usize,
    /// One that cannot be opened is the end of it; otherwise it is opened when its next request wants it, and fails
    /// there, as data.
    strict: bool,
}

impl Opening {
    /// Opens all slots.
    pub fn all(reactor: &mut Reactor) -> Opening {
        Opening::begin(reactor, (0..reactor.slots()).rev().collect(), true)
    }

    /// Opens slots whose connections have gone stale.
    pub fn stale(reactor: &mut Reactor) -> Opening {
        let stale = (0..reactor.slots()).filter(|slot| !reactor.is_open(*slot)).collect();
        Opening::begin(reactor, stale, false)
    }

    fn begin(reactor: &mut Reactor, left: Vec<usize>, strict: bool) -> Opening {
        let mut this = Opening { left, opening: 0, strict };
        (0..AT_ONCE).for_each(|_| this.next(reactor));
        this
    }

    fn next(&mut self, reactor: &mut Reactor) {
        if let Some(slot) = self.left.pop() {
            self.opening += 1;
            reactor.open(slot, true);
        }
    }
}

impl Pace for Opening {
    fn settled(&mut self, reactor: &mut Reactor, _slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        if let Outcome::Opened(Err(e)) = outcome
            && self.strict
        {
            let url = reactor.desk.link.endpoint.url.clone();
            return Err(LoadError::Unreachable { url, message: e.to_string() });
        }
        self.opening -= 1;
        self.next(reactor);
        Ok(())
    }

    fn finished(&self) -> bool {
        self.opening == 0
    }
}
