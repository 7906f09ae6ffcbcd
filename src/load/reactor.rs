//! The event loop of one worker: one poll, its slots, one timer. Between two waits it first reads everything that is there,
//! and then does what comes of it, so that the start of a request does not keep an arrived token from its stamp.
//!
//! It knows nothing of workloads: what is sent when is a [`Pace`]'s business.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::LoadError;
use super::desk::{Desk, Timing};
use super::link::{Link, Loaded};
use super::scheduler::RunDelay;
use super::slot::{Outcome, Slot};
use super::stop::Stop;
use super::timer::Timer;

/// Tokens below are slots.
pub const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Outcomes that are dealt with between two looks at the sockets.
const OUTCOMES: usize = 4;
/// A wait that was shorter found its events there already.
const NO_WAIT: u64 = 5_000;
/// How long bytes lay unread is looked at in the first waits of a phase, and in one of so many after that: the looks at the
/// clock which that takes are a fiftieth of what a token costs.
const LOOKED_AT: (u64, u64) = (4096, 8);
/// A look at the scheduler costs as much as half a token: between two there are at least so many nanoseconds.
const DELAYS: u64 = 5_000_000;

/// Says what is sent when. Called between reads; must not wait.
pub trait Pace {
    /// A slot came to something.
    fn settled(&mut self, reactor: &mut Reactor, slot: usize, outcome: Outcome) -> Result<(), LoadError>;

    /// All is done.
    fn finished(&self) -> bool;

    /// When [`on_time`](Pace::on_time) wants to be called next, nanoseconds after the epoch.
    fn due_ns(&self) -> u64 {
        u64::MAX
    }

    fn on_time(&mut self, _reactor: &mut Reactor) -> Result<(), LoadError> {
        Ok(())
    }

    /// Another worker woke this one.
    fn woken(&mut self) {}
}

/// One worker's event loop.
pub struct Reactor {
    poll: Poll,
    timer: Timer,
    stop: Arc<Stop>,
    slots: Vec<Slot>,
    settled: VecDeque<(usize, Outcome)>,
    pub desk: Desk,
    /// No slot's deadline is before this.
    next_deadline_ns: u64,
    /// Waits of this phase so far.
    waits: u64,
    /// When the last wait ended that was looked at.
    woke_ns: u64,
    run_delay: RunDelay,
    /// When the scheduler was last looked at.
    delays_until_ns: u64,
}

impl Reactor {
    pub fn new(poll: Poll, link: Arc<Link>, stop: Arc<Stop>, timing: Timing) -> std::io::Result<Reactor> {
        let registry = poll.registry().try_clone()?;
        Ok(Reactor {
            timer: Timer::new(&registry, TIMER),
            desk: Desk::new(link, registry, timing),
            poll,
            stop,
            slots: Vec::new(),
            settled: VecDeque::new(),
            next_deadline_ns: u64::MAX,
            waits: 0,
            woke_ns: 0,
            run_delay: RunDelay::of_this_thread(),
            delays_until_ns: 0,
        })
    }

    /// Another slot, without a connection; gives its number.
    pub fn add_slot(&mut self) -> usize {
        let number = self.slots.len();
        self.slots.push(Slot::new(Token(number), &self.desk.link));
        number
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Its connection is open and as good as new.
    pub fn is_open(&mut self, slot: usize) -> bool {
        self.slots[slot].is_open()
    }

    /// The buffer of the slot's last request, to be used again.
    pub fn used_buffer(&mut self, slot: usize) -> Vec<u8> {
        self.slots[slot].used_buffer()
    }

    /// The stream of the slot's last answer, where answers are kept.
    pub fn kept_answer(&self, slot: usize) -> &[u8] {
        self.slots[slot].kept_answer()
    }

    /// Opens a slot's connection; an outcome follows.
    pub fn open(&mut self, slot: usize, touch: bool) {
        let outcome = self.slots[slot].open(&mut self.desk, touch);
        self.note(slot, outcome);
    }

    /// Sends a request on a slot; an outcome follows.
    pub fn send(&mut self, slot: usize, request: Loaded, intended_ns: u64) {
        let outcome = self.slots[slot].send(&mut self.desk, request, intended_ns);
        self.note(slot, outcome);
    }

    /// Begins a phase: clock points are counted anew. No request may be under way.
    pub fn set_timing(&mut self, timing: Timing) {
        self.desk.timing = timing;
        self.next_deadline_ns = u64::MAX;
        self.waits = 0;
        self.woke_ns = timing.now();
        self.delays_until_ns = 0;
        self.run_delay.grown();
    }

    fn note(&mut self, slot: usize, outcome: Option<Outcome>) {
        self.next_deadline_ns = self.next_deadline_ns.min(self.slots[slot].deadline_ns());
        self.settled.extend(outcome.map(|outcome| (slot, outcome)));
    }

    /// Runs until the pace is finished. A sample that is over ends it early.
    pub fn drive(&mut self, pace: &mut impl Pace) -> Result<(), LoadError> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if pace.due_ns() < u64::MAX {
                self.be_on_time(self.desk.timing.now(), pace)?;
            }
            for _ in 0..OUTCOMES {
                let Some((slot, outcome)) = self.settled.pop_front() else { break };
                pace.settled(self, slot, outcome)?;
            }
            if self.settled.is_empty() && pace.finished() {
                return Ok(());
            }
            self.wait(&mut events, pace)?;
            let mut rang = events.is_empty();
            for event in &events {
                match event.token() {
                    WAKE => pace.woken(),
                    TIMER => rang = true,
                    Token(slot) => {
                        let outcome = self.slots[slot].ready(&mut self.desk, event);
                        self.note(slot, outcome);
                        // A scheduled start does not wait for all that is to be read.
                        if self.desk.stamp >= pace.due_ns() {
                            self.be_on_time(self.desk.stamp, pace)?;
                        }
                    }
                }
            }
            self.desk.tell_tokens();
            if rang {
                self.timer.rang();
                self.desk.stamp = self.desk.timing.now();
            }
            self.expire(self.desk.stamp);
        }
    }

    fn be_on_time(&mut self, now_ns: u64, pace: &mut impl Pace) -> Result<(), LoadError> {
        if now_ns >= pace.due_ns() { pace.on_time(self) } else { Ok(()) }
    }

    /// Waits for sockets, the next time of the pace, or the next deadline.
    fn wait(&mut self, events: &mut Events, pace: &impl Pace) -> Result<(), LoadError> {
        let timeout = self.timeout(pace.due_ns());
        self.waits += 1;
        let (first, one_of) = LOOKED_AT;
        // The wait before has to be looked at as well: bytes that are there at once may have come at any time since.
        let phase = if self.waits < first { 0 } else { self.waits % one_of };
        let before = (phase == 0).then(|| self.desk.timing.now());
        match self.poll.poll(events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(LoadError::Poll(e)),
            _ => {}
        }
        self.stop.check()?;
        self.desk.there_since = None;
        if phase == 0 || phase == one_of - 1 {
            let now = self.desk.timing.now();
            self.desk.there_since = before.map(|before| {
                let there = if now - before < NO_WAIT { self.woke_ns } else { now };
                there.saturating_sub(self.run_delay_until(now))
            });
            self.woke_ns = now;
        }
        Ok(())
    }

    /// How long this thread was kept from running since the last look at the scheduler, so that no delay is missed: 0 where
    /// that was a moment ago.
    fn run_delay_until(&mut self, now_ns: u64) -> u64 {
        if now_ns < self.delays_until_ns + DELAYS {
            return 0;
        }
        self.delays_until_ns = now_ns;
        self.run_delay.grown()
    }

    /// How long the poll may wait at most, where the timer does not see to it. The poll's own timeout is set up and taken down
    /// in every wait; the timer only when it changes.
    fn timeout(&mut self, due_ns: u64) -> Option<Duration> {
        if !self.settled.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = due_ns.min(self.next_deadline_ns);
        if next == u64::MAX {
            return None;
        }
        self.timer.sleep(self.desk.timing.epoch + Duration::from_nanos(next))
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now: u64) {
        if now < self.next_deadline_ns {
            return;
        }
        self.next_deadline_ns = u64::MAX;
        for slot in 0..self.slots.len() {
            let outcome =
                if self.slots[slot].deadline_ns() <= now { self.slots[slot].expire(&mut self.desk) } else { None };
            self.note(slot, outcome);
        }
    }

    /// Waits for a moment, doing nothing.
    pub fn sleep_until(&self, moment: Instant) {
        while let left = moment.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            std::thread::sleep(left);
        }
    }
}
