//! The open loop: requests start by a schedule, whatever became of those before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::LoadError;
use super::super::conversation::Conversations;
use super::super::feed::Feed;
use super::super::link::Loaded;
use super::super::reactor::{Pace, Reactor};
use super::super::slot::Outcome;
use super::super::worker::{Share, Shared};
use crate::stats::{RequestRecord, Status};
use crate::workload::arrival::Schedule;
use crate::workload::prompts::Phase;

/// How long before its intended start a request takes a connection and is written out.
const LEAD_NS: u64 = Duration::from_millis(20).as_nanos() as u64;

/// Starts this worker's share of the schedule.
pub struct Scheduled {
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    worker: usize,
    arrivals: Arrivals,
    /// Requests that have a slot and wait for their time.
    ready: VecDeque<Ready>,
    /// Slots that no request uses; the one used last is taken first, so that connections stay warm.
    idle: Vec<usize>,
    flying: usize,
    /// The first one that is ready is due, but the cap does not let it start.
    blocked: bool,
    conversations: Conversations,
    /// No request starts then or later.
    until_ns: u64,
}

struct Ready {
    at_ns: u64,
    slot: usize,
    request: Loaded,
}

/// The share of the schedule that is still to come.
struct Arrivals {
    schedule: Schedule,
    /// Number of the schedule's next request, over all workers.
    number: u64,
    limit: u64,
    worker: u64,
    workers: u64,
    next: Option<(u64, u64)>,
}

impl Arrivals {
    fn new(schedule: Schedule, share: &Share, limit: u64) -> Arrivals {
        let (worker, workers) = (share.worker as u64, share.workers as u64);
        let mut this = Arrivals { schedule, number: 0, limit, worker, workers, next: None };
        this.advance();
        this
    }

    /// Goes to the next request of this worker: (number, intended start).
    fn advance(&mut self) -> Option<(u64, u64)> {
        let current = self.next.take();
        while self.number < self.limit
            && let Some(at_ns) = self.schedule.next()
        {
            let number = self.number;
            self.number += 1;
            if number % self.workers == self.worker {
                self.next = Some((number, at_ns));
                break;
            }
        }
        current
    }

    fn at_ns(&self) -> u64 {
        self.next.map_or(u64::MAX, |(_, at_ns)| at_ns)
    }

    fn end(&mut self) {
        self.limit = 0;
        self.next = None;
    }
}

impl Scheduled {
    pub fn new(shared: Arc<Shared>, feed: Arc<Feed>, schedule: Schedule, share: &Share, slots: usize) -> Scheduled {
        Scheduled {
            arrivals: Arrivals::new(schedule, share, shared.limit.div_ceil(shared.turns)),
            until_ns: shared.duration.map_or(u64::MAX, |d| d.as_nanos() as u64),
            feed,
            worker: share.worker,
            ready: VecDeque::new(),
            idle: (0..slots).rev().collect(),
            flying: 0,
            blocked: false,
            conversations: Conversations::default(),
            shared,
        }
    }

    /// Gives the next request a slot, and the slot a connection.
    fn prepare(&mut self, reactor: &mut Reactor) -> Result<(), LoadError> {
        let Some((number, at_ns)) = self.arrivals.advance() else { return Ok(()) };
        let slot = self.idle.pop().unwrap_or_else(|| reactor.add_slot());
        let request = self.feed.take(reactor.used_buffer(slot))?.expect("the feed and the schedule have one limit");
        debug_assert_eq!(request.index, number * self.shared.turns);
        if !reactor.is_open(slot) {
            // Where this fails, the request fails the same way, as data.
            reactor.open(slot, false);
        }
        self.ready.push_back(Ready { at_ns, slot, request });
        Ok(())
    }

    /// Starts what is due, as far as the cap allows.
    fn start(&mut self, reactor: &mut Reactor) {
        let now = reactor.desk.timing.now();
        while self.ready.front().is_some_and(|first| first.at_ns <= now) {
            if let Some(cap) = &self.shared.cap
                && !cap.take(self.worker)
            {
                self.blocked = true;
                return;
            }
            let Ready { at_ns, slot, request } = self.ready.pop_front().expect("there is a first one");
            self.flying += 1;
            reactor.send(slot, request, at_ns);
        }
    }

    /// The sending time is over. Requests that were due, but that the cap let wait so long, count as cancelled, so that
    /// their delay shows.
    fn close(&mut self, reactor: &mut Reactor) {
        let mut late: Vec<(u64, u64)> = self.ready.drain(..).map(|r| (r.request.index, r.at_ns)).collect();
        while self.arrivals.at_ns() < self.until_ns {
            late.extend(self.arrivals.advance().map(|(number, at_ns)| (number * self.shared.turns, at_ns)));
        }
        self.arrivals.end();
        self.blocked = false;
        let now = reactor.desk.timing.now();
        for (index, at_ns) in late.into_iter().filter(|(_, at_ns)| *at_ns < self.until_ns) {
            reactor.desk.output.requests.push(self.never_started(index, at_ns, now));
        }
    }

    fn never_started(&self, index: u64, intended_ns: u64, now: u64) -> RequestRecord {
        let planned = self.shared.prompts.get(Phase::Measured, index);
        let now = now.max(intended_ns);
        RequestRecord {
            index,
            status: Status::Cancelled,
            http_status: 0,
            intended_ns,
            start_ns: now,
            first_token_ns: None,
            first_visible_ns: None,
            last_token_ns: None,
            end_ns: now,
            max_gap_us: 0,
            requested_input: planned.input_tokens,
            requested_output: planned.output_tokens,
            input_tokens: None,
            output_tokens: None,
            cached_tokens: None,
            token_events: 0,
            error: None,
        }
    }
}

impl Pace for Scheduled {
    fn settled(&mut self, reactor: &mut Reactor, slot: usize, outcome: Outcome) -> Result<(), LoadError> {
        let Outcome::Ended(record) = outcome else { return Ok(()) };
        let stops = self.shared.count(&record).is_break();
        let turn = self.conversations.next_turn(&self.shared, reactor, slot, &record)?;
        let intended_ns = record.end_ns;
        reactor.desk.output.requests.push(*record);
        // The next turn is due when the one before it has ended; it keeps its place under the cap.
        if let Some(request) = turn.filter(|_| !stops && reactor.desk.timing.now() < self.until_ns) {
            reactor.send(slot, request, intended_ns);
            return Ok(());
        }
        self.flying -= 1;
        self.idle.push(slot);
        if let Some(cap) = &self.shared.cap {
            cap.give();
            self.blocked = false;
        }
        if stops {
            self.arrivals.end();
            self.ready.clear();
        }
        Ok(())
    }

    fn finished(&self) -> bool {
        self.flying == 0 && self.ready.is_empty() && self.arrivals.next.is_none()
    }

    fn due_ns(&self) -> u64 {
        if self.ready.is_empty() && self.arrivals.next.is_none() {
            return u64::MAX;
        }
        if self.blocked {
            return self.until_ns;
        }
        let start = self.ready.front().map_or(u64::MAX, |r| r.at_ns);
        start.min(self.arrivals.at_ns().saturating_sub(LEAD_NS)).min(self.until_ns)
    }

    fn on_time(&mut self, reactor: &mut Reactor) -> Result<(), LoadError> {
        let now = reactor.desk.timing.now();
        self.start(reactor);
        if now >= self.until_ns {
            self.close(reactor);
            return Ok(());
        }
        while !self.blocked && self.arrivals.at_ns().saturating_sub(LEAD_NS) <= now {
            if self.arrivals.at_ns() >= self.until_ns {
                self.arrivals.end();
                break;
            }
            self.prepare(reactor)?;
            self.start(reactor);
        }
        Ok(())
    }

    fn woken(&mut self) {
        self.blocked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Arrival;

    #[test]
    fn workers_share_the_schedule_without_gap_or_overlap() {
        let schedule = Schedule::new(1000.0, Arrival::Constant, 1.0, 0);
        let share = |worker| Share { worker, workers: 3, slots: 1, schedule: None };
        let mut all: Vec<(u64, u64)> = (0..3)
            .flat_map(|worker| {
                let mut arrivals = Arrivals::new(schedule.clone(), &share(worker), 10);
                std::iter::from_fn(move || arrivals.advance())
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).map(|i| (i, i * 1_000_000)).collect::<Vec<_>>());
    }
}
