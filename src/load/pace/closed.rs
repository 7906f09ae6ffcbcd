//! The closed loop: a slot sends its next request as soon as the last one has ended.

use std::sync::Arc;

use super::super::LoadError;
use super::super::feed::Feed;
use super::super::link::Loaded;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;
use super::super::worker::Shared;

/// As many requests in flight as there are slots.
pub struct Closed {
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    flying: usize,
    /// No request starts then or later.
    until_ns: u64,
}

impl Closed {
    /// Takes the first request of each slot, so that the first wave is not spread by making them.
    pub fn first_wave(feed: &Feed, reactor: &mut Reactor) -> Result<Vec<Option<Loaded>>, LoadError> {
        (0..reactor.slots()).map(|slot| Ok(feed.take(reactor.used_buffer(slot))?)).collect()
    }

    /// Sends the first wave.
    pub fn begin(shared: Arc<Shared>, feed: Arc<Feed>, first: Vec<Option<Loaded>>, reactor: &mut Reactor) -> Closed {
        let until_ns = shared.duration.map_or(u64::MAX, |d| d.as_nanos() as u64);
        let mut this = Closed { shared, feed, flying: 0, until_ns };
        for (slot, request) in first.into_iter().enumerate() {
            if let Some(request) = request {
                this.flying += 1;
                reactor.send(slot, request, 0);
            }
        }
        this
    }
}

impl Pace for Closed {
    fn settled(&mut self, reactor: &mut Reactor, slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        let Outcome::Ended(record) = outcome else { return Ok(()) };
        self.flying -= 1;
        // The slot has been free since then.
        let intended_ns = record.end_ns;
        let on = self.shared.count(&record);
        reactor.desk.output.requests.push(*record);
        if on.is_break() || reactor.desk.timing.now() >= self.until_ns {
            return Ok(());
        }
        if let Some(request) = self.feed.take(reactor.used_buffer(slot))? {
            self.flying += 1;
            reactor.send(slot, request, intended_ns);
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.flying == 0
    }
}
