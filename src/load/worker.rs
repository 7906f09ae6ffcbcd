//! One load worker: a thread that drives its share of the streams from the first connection to the last answer.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::Poll;

use super::desk::{Output, Timing};
use super::feed::{Feed, Filler};
use super::link::Link;
use super::pace::{Closed, Opening, Scheduled, WarmUp};
use super::reactor::Reactor;
use super::scheduler;
use super::slot::unmeasured;
use super::stop::{Cap, Stop};
use super::{BeforeStart, LoadError};
use crate::clock::thread_cpu;
use crate::stats::{Histogram, Progress, RequestRecord, Status};
use crate::workload::arrival::Schedule;
use crate::workload::profile::Profile;
use crate::workload::prompts::Prompts;

/// From the agreement on the start to the start itself.
const COUNTDOWN: Duration = Duration::from_millis(5);

/// What the workers of a sample share. Touched once per request at most, never per token.
pub struct Shared {
    pub link: Arc<Link>,
    pub prompts: Arc<Prompts>,
    pub progress: Arc<Progress>,
    pub request_timeout: Duration,
    pub drain_timeout: Duration,
    pub duration: Option<Duration>,
    /// Measured requests at most.
    pub limit: u64,
    /// Turns of a conversation; the requests that start by themselves are the first turns.
    pub turns: u64,
    pub warmup: u64,
    pub next_warmup: AtomicU64,
    pub warmed: AtomicU64,
    /// Message of the last warm-up request that failed.
    pub warmup_failure: Mutex<Option<Box<str>>>,
    /// Failures since the last completed request.
    pub failures_in_a_row: AtomicU64,
    pub max_failures_in_a_row: u64,
    /// Why no further requests are sent.
    pub stopped: OnceLock<String>,
    pub stop: Arc<Stop>,
    pub start: OnceLock<Start>,
    /// Closed loop: the requests that all workers take from.
    pub feed: Arc<Feed>,
    /// Open loop: the cap on requests in flight.
    pub cap: Option<Cap>,
    /// Requests written out ahead of their time, over all workers.
    pub ahead: usize,
    pub keep_gaps: bool,
    pub before_start: Option<BeforeStart>,
    /// Closed loop: the slots that may hold a request, over time.
    pub profile: Option<Profile>,
}

/// The moment the measured part begins, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub epoch: Instant,
    pub wall_ns: i64,
}

/// The share of one worker.
pub struct Share {
    pub worker: usize,
    pub workers: usize,
    /// Streams that are opened before the start.
    pub slots: usize,
    /// Open loop: when requests start.
    pub schedule: Option<Schedule>,
}

/// What a worker hands over.
pub struct WorkerOutput {
    pub output: Output,
    /// CPU time of the worker's thread over the measured part, as a share of one core.
    pub cpu_fraction: Option<f64>,
}

/// Runs a worker's share of a sample.
pub fn run(shared: &Arc<Shared>, share: &Share, poll: Poll) -> Result<WorkerOutput, LoadError> {
    scheduler::go_first();
    let timing = unmeasured(shared.request_timeout);
    let mut reactor =
        Reactor::new(poll, shared.link.clone(), shared.stop.clone(), timing).map_err(LoadError::Thread)?;
    (0..share.slots).for_each(|_| _ = reactor.add_slot());
    let mut opening = Opening::all(&mut reactor);
    reactor.drive(&mut opening)?;
    let mut warm_up = WarmUp::begin(shared.clone(), &mut reactor)?;
    reactor.drive(&mut warm_up)?;
    if shared.stop.meet()?
        && let Some(BeforeStart(call)) = &shared.before_start
    {
        call();
    }
    shared.check_warm_up()?;
    // Connections may have gone stale while others warmed up.
    let mut opening = Opening::stale(&mut reactor);
    reactor.drive(&mut opening)?;
    reactor.desk.progress = Some(shared.progress.clone());
    reactor.desk.keep_gaps = shared.keep_gaps;
    let cpu_fraction = measure(shared, share, &mut reactor)?;
    Ok(WorkerOutput { output: std::mem::take(&mut reactor.desk.output), cpu_fraction })
}

fn measure(shared: &Arc<Shared>, share: &Share, reactor: &mut Reactor) -> Result<Option<f64>, LoadError> {
    match &share.schedule {
        None => {
            let first = Closed::first_wave(&shared.feed, reactor)?;
            let begun = begin(shared, reactor)?;
            let mut pace = Closed::begin(shared.clone(), share, first, reactor);
            reactor.drive(&mut pace)?;
            Ok(begun.cpu_fraction(reactor))
        }
        Some(schedule) => {
            let turns = shared.turns;
            let numbers = (share.worker as u64 * turns, share.workers as u64 * turns, shared.limit);
            let feed = Feed::new(shared.link.clone(), shared.prompts.clone(), numbers, shared.ahead);
            let feed = Arc::new(feed);
            let _filler = Filler::start(feed.clone()).map_err(LoadError::Thread)?;
            let mut pace = Scheduled::new(shared.clone(), feed, schedule.clone(), share, reactor.slots());
            let begun = begin(shared, reactor)?;
            reactor.drive(&mut pace)?;
            Ok(begun.cpu_fraction(reactor))
        }
    }
}

/// Where a worker stood when the measured part began.
struct Begun {
    cpu: Option<Duration>,
}

impl Begun {
    fn cpu_fraction(&self, reactor: &Reactor) -> Option<f64> {
        let wall = reactor.desk.timing.epoch.elapsed();
        let (before, after) = self.cpu.zip(thread_cpu())?;
        Some(after.saturating_sub(before).as_secs_f64() / wall.as_secs_f64())
    }
}

/// All workers are ready: they agree on a moment shortly ahead, and wait for it.
fn begin(shared: &Shared, reactor: &mut Reactor) -> Result<Begun, LoadError> {
    if shared.stop.meet()? {
        let wall = SystemTime::now() + COUNTDOWN;
        let wall_ns = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
        let start = Start { epoch: Instant::now() + COUNTDOWN, wall_ns };
        shared.start.set(start).expect("one worker is the last, once");
    }
    shared.stop.meet()?;
    let epoch = shared.start.get().expect("the last worker has set the start").epoch;
    let cutoff = shared.duration.map(|d| (d + shared.drain_timeout).as_nanos() as u64);
    reactor.sleep_until(epoch);
    let begun = Begun { cpu: thread_cpu() };
    // Only the connections of what came before count.
    reactor.desk.output.gaps = Histogram::default();
    reactor.desk.output.recv_lag = Histogram::default();
    reactor.set_timing(Timing { epoch, request_timeout: shared.request_timeout, cutoff });
    Ok(begun)
}

impl Shared {
    /// A server that answers no warm-up request will answer no other.
    fn check_warm_up(&self) -> Result<(), LoadError> {
        let failure = self.warmup_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failure {
            Some(message) if self.warmed.load(Relaxed) == 0 => Err(LoadError::Warmup {
                url: self.link.endpoint.url.clone(),
                n: self.warmup,
                message: message.into_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Counts failures in a row; too many end the sample.
    pub fn count(&self, record: &RequestRecord) -> ControlFlow<()> {
        match record.status {
            Status::Ok => self.failures_in_a_row.store(0, Relaxed),
            Status::Cancelled => {}
            Status::Error => {
                let n = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
                if n >= self.max_failures_in_a_row {
                    let last = record.error.as_deref().unwrap_or_default();
                    self.stopped.get_or_init(|| format!("{n} requests in a row failed, the last one with: {last}"));
                }
            }
        }
        if self.stopped.get().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
