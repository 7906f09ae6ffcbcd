//! The closed loop: a slot sends its next request as soon as the last one has ended. Where the concurrency changes over
//! time, a slot that is one too many rests until it is not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::super::LoadError;
use super::super::conversation::Conversations;
use super::super::feed::Feed;
use super::super::link::Loaded;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;
use super::super::worker::{Share, Shared};

/// As many requests in flight as there are slots, or as the profile of the sample says.
pub struct Closed {
    shared: Arc<Shared>,
    /// Number of the worker, and how many there are: slots are numbered across them.
    worker: (usize, usize),
    flying: usize,
    /// Slots that may send again later: (nanoseconds, slot).
    resting: BinaryHeap<Reverse<(u64, usize)>>,
    /// Requests taken for slots that rest at the start.
    taken: Vec<Option<Loaded>>,
    conversations: Conversations,
    /// No request starts then or later.
    until_ns: u64,
}

impl Closed {
    /// Takes the first request of each slot, so that the first wave is not spread by making them.
    pub fn first_wave(feed: &Feed, reactor: &mut Reactor) -> Result<Vec<Option<Loaded>>, LoadError> {
        (0..reactor.slots()).map(|slot| Ok(feed.take(reactor.used_buffer(slot))?)).collect()
    }

    /// Sends the first wave.
    pub fn begin(shared: Arc<Shared>, share: &Share, first: Vec<Option<Loaded>>, reactor: &mut Reactor) -> Closed {
        let until_ns = shared.duration.map_or(u64::MAX, |d| d.as_nanos() as u64);
        let worker = (share.worker, share.workers);
        let (resting, conversations) = (BinaryHeap::new(), Conversations::default());
        let mut this = Closed { shared, worker, flying: 0, resting, taken: first, conversations, until_ns };
        for slot in 0..this.taken.len() {
            match this.opens_at(slot, 0) {
                Some(0) => {
                    if let Some(request) = this.taken[slot].take() {
                        this.flying += 1;
                        reactor.send(slot, request, 0);
                    }
                }
                Some(at_ns) if this.taken[slot].is_some() => this.resting.push(Reverse((at_ns, slot))),
                _ => {}
            }
        }
        this
    }

    /// From when on, not before `now`, a slot may hold a request.
    fn opens_at(&self, slot: usize, now: u64) -> Option<u64> {
        let Some(profile) = &self.shared.profile else { return Some(now) };
        let number = slot * self.worker.1 + self.worker.0;
        let seconds = profile.above(number as f64, now as f64 / 1e9)?;
        Some(((seconds * 1e9).round() as u64).max(now))
    }

    fn send_next(&mut self, reactor: &mut Reactor, slot: usize, intended_ns: u64) -> Result<(), LoadError> {
        let request = match self.taken[slot].take() {
            Some(request) => Some(request),
            None => self.shared.feed.take(reactor.used_buffer(slot))?,
        };
        if let Some(request) = request {
            self.flying += 1;
            reactor.send(slot, request, intended_ns);
        }
        Ok(())
    }
}

impl Pace for Closed {
    fn settled(&mut self, reactor: &mut Reactor, slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        let Outcome::Ended(record) = outcome else { return Ok(()) };
        self.flying -= 1;
        // The slot has been free since then.
        let intended_ns = record.end_ns;
        let on = self.shared.count(&record);
        let turn = self.conversations.next_turn(&self.shared, reactor, slot, &record)?;
        reactor.desk.output.requests.push(*record);
        if on.is_break() {
            self.resting.clear();
        }
        if on.is_break() || reactor.desk.timing.now() >= self.until_ns {
            return Ok(());
        }
        // A conversation goes on where it is, also when its slot has become one too many.
        if let Some(request) = turn {
            self.flying += 1;
            reactor.send(slot, request, intended_ns);
            return Ok(());
        }
        match self.opens_at(slot, intended_ns) {
            Some(at_ns) if at_ns > intended_ns => self.resting.push(Reverse((at_ns, slot))),
            Some(_) => return self.send_next(reactor, slot, intended_ns),
            None => {}
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.flying == 0 && self.resting.is_empty()
    }

    fn due_ns(&self) -> u64 {
        self.resting.peek().map_or(u64::MAX, |Reverse((at_ns, _))| (*at_ns).min(self.until_ns))
    }

    fn on_time(&mut self, reactor: &mut Reactor) -> Result<(), LoadError> {
        let now = reactor.desk.timing.now();
        if now >= self.until_ns || self.shared.stopped.get().is_some() {
            self.resting.clear();
        }
        while let Some(Reverse((at_ns, slot))) = self.resting.peek().copied()
            && at_ns <= now
        {
            self.resting.pop();
            self.send_next(reactor, slot, at_ns)?;
        }
        Ok(())
    }
}
