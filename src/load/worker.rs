//! One load worker: a thread that drives its share of the streams.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::LoadError;
use super::alarm::Alarm;
use super::slot::{Link, Output, Slot, Timing};
use crate::stats::{Progress, RequestRecord, Status};
use crate::workload::arrival::Schedule;
use crate::workload::prompts::{Phase, Prompts};

/// Connections that a worker opens at the same time.
const OPENING: usize = 32;
/// How long before its intended start a scheduled request takes a connection and is written out.
const LEAD: Duration = Duration::from_millis(20);
/// From the agreement on the start to the start itself.
const COUNTDOWN: Duration = Duration::from_millis(5);

/// What the workers of a sample share. Touched once per request at most, never per token.
pub struct Shared {
    pub link: Arc<Link>,
    pub prompts: Prompts,
    pub progress: Arc<Progress>,
    pub request_timeout: Duration,
    pub drain_timeout: Duration,
    pub duration: Option<Duration>,
    /// Measured requests at most.
    pub limit: u64,
    pub warmup: u64,
    pub next: AtomicU64,
    pub next_warmup: AtomicU64,
    pub warmed: AtomicU64,
    /// Message of the last warm-up request that failed.
    pub warmup_failure: Mutex<Option<Box<str>>>,
    /// Failures since the last completed request.
    pub failures_in_a_row: AtomicU64,
    pub max_failures_in_a_row: u64,
    /// Why no further requests are sent.
    pub stopped: OnceLock<String>,
    pub barrier: Barrier,
    pub start: OnceLock<Start>,
    /// Open loop: the cap on requests in flight.
    pub cap: Option<Arc<Semaphore>>,
}

/// The moment the measured part begins, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub epoch: Instant,
    pub wall_ns: i64,
}

/// The share of one worker.
pub struct Share {
    pub worker: u64,
    pub workers: u64,
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

/// Runs a worker's share of a sample from the first connection to the last answer.
pub async fn run(shared: Arc<Shared>, share: Share) -> Result<WorkerOutput, LoadError> {
    let mut slots = open(&shared, share.slots).await?;
    slots = warm_up(&shared, slots).await?;
    shared.barrier.wait().await;
    check_warm_up(&shared)?;
    slots = reopen(slots).await?;
    for slot in &mut slots {
        slot.report_to(shared.progress.clone());
    }
    let first = if share.schedule.is_none() { load_first(&shared, &mut slots)? } else { Vec::new() };
    let start = agree_on_start(&shared).await;
    let cutoff = shared.duration.map(|d| start.epoch + d + shared.drain_timeout);
    let timing = Timing { epoch: start.epoch, request_timeout: shared.request_timeout, cutoff };
    let cpu = thread_cpu();
    let output = match share.schedule {
        None => closed_loop(&shared, slots, first, timing).await?,
        Some(schedule) => open_loop(&shared, slots, schedule, (share.worker, share.workers), timing).await?,
    };
    let wall = timing.epoch.elapsed();
    let cpu_fraction = cpu.zip(thread_cpu()).map(|(a, b)| b.saturating_sub(a).as_secs_f64() / wall.as_secs_f64());
    Ok(WorkerOutput { output, cpu_fraction })
}

/// CPU time of the calling thread.
fn thread_cpu() -> Option<Duration> {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(u64::try_from(t.tv_sec).ok()?, u32::try_from(t.tv_nsec).ok()?))
}

async fn open(shared: &Arc<Shared>, n: usize) -> Result<Vec<Slot>, LoadError> {
    let unreachable =
        |e: std::io::Error| LoadError::Unreachable { url: shared.link.endpoint.url.clone(), message: e.to_string() };
    let mut slots = Vec::with_capacity(n);
    let mut opening: JoinSet<std::io::Result<Slot>> = JoinSet::new();
    for _ in 0..n {
        if opening.len() >= OPENING {
            slots.push(joined(opening.join_next().await)?.map_err(unreachable)?);
        }
        let mut slot = Slot::new(shared.link.clone());
        opening.spawn(async move { slot.ready(true).await.map(|_| slot) });
    }
    while !opening.is_empty() {
        slots.push(joined(opening.join_next().await)?.map_err(unreachable)?);
    }
    Ok(slots)
}

/// Replaces connections that have gone stale while others warmed up. One that cannot be replaced now is opened when its
/// next request wants it, and fails there, as data.
async fn reopen(slots: Vec<Slot>) -> Result<Vec<Slot>, LoadError> {
    let mut fresh = Vec::with_capacity(slots.len());
    let mut opening = JoinSet::new();
    for mut slot in slots {
        if opening.len() >= OPENING {
            fresh.push(joined(opening.join_next().await)?);
        }
        opening.spawn(async move {
            let _ = slot.ready(true).await;
            slot
        });
    }
    while !opening.is_empty() {
        fresh.push(joined(opening.join_next().await)?);
    }
    Ok(fresh)
}

/// The result of a task; one that panicked ends the sample.
fn joined<T>(result: Option<Result<T, tokio::task::JoinError>>) -> Result<T, LoadError> {
    result.ok_or(LoadError::Worker)?.map_err(|_| LoadError::Worker)
}

/// Sends the warm-up requests over all slots; their results are discarded.
async fn warm_up(shared: &Arc<Shared>, slots: Vec<Slot>) -> Result<Vec<Slot>, LoadError> {
    let timing = Timing { epoch: Instant::now(), request_timeout: shared.request_timeout, cutoff: None };
    let mut tasks = JoinSet::new();
    for mut slot in slots {
        let shared = shared.clone();
        tasks.spawn(async move {
            loop {
                let index = shared.next_warmup.fetch_add(1, Relaxed);
                if index >= shared.warmup || shared.stopped.get().is_some() {
                    return Ok(slot);
                }
                slot.load(index, &shared.prompts.get(Phase::Warmup, index))?;
                let record = slot.exchange(&timing, timing.now()).await;
                match record.error {
                    None => _ = shared.warmed.fetch_add(1, Relaxed),
                    Some(error) => {
                        *shared.warmup_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            }
        });
    }
    let mut slots = Vec::new();
    while !tasks.is_empty() {
        slots.push(joined::<Result<Slot, LoadError>>(tasks.join_next().await)??);
    }
    Ok(slots)
}

/// A server that answers no warm-up request will answer no other.
fn check_warm_up(shared: &Shared) -> Result<(), LoadError> {
    let failure = shared.warmup_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match failure {
        Some(message) if shared.warmed.load(Relaxed) == 0 => Err(LoadError::Warmup {
            url: shared.link.endpoint.url.clone(),
            n: shared.warmup,
            message: message.into_string(),
        }),
        _ => Ok(()),
    }
}

/// All workers are ready: they agree on a moment shortly ahead.
async fn agree_on_start(shared: &Shared) -> Start {
    if shared.barrier.wait().await.is_leader() {
        let wall = SystemTime::now() + COUNTDOWN;
        let wall_ns = wall.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
        let start = Start { epoch: Instant::now() + COUNTDOWN, wall_ns };
        shared.start.set(start).expect("the barrier has one leader");
    }
    shared.barrier.wait().await;
    let start = *shared.start.get().expect("the leader has set the start");
    Alarm::default().at(start.epoch).await;
    start
}

/// Writes out the first request of each slot, so that the first wave is not spread by it. Gives the slots' first numbers.
fn load_first(shared: &Shared, slots: &mut [Slot]) -> Result<Vec<Option<u64>>, LoadError> {
    slots.iter_mut().map(|slot| load_next(shared, slot)).collect()
}

/// Takes the next number and writes its request; `None` when all are taken.
fn load_next(shared: &Shared, slot: &mut Slot) -> Result<Option<u64>, LoadError> {
    let index = shared.next.fetch_add(1, Relaxed);
    if index >= shared.limit {
        return Ok(None);
    }
    slot.load(index, &shared.prompts.get(Phase::Measured, index))?;
    Ok(Some(index))
}

async fn closed_loop(
    shared: &Arc<Shared>,
    slots: Vec<Slot>,
    first: Vec<Option<u64>>,
    timing: Timing,
) -> Result<Output, LoadError> {
    let until = shared.duration.map(|d| timing.epoch + d);
    let mut tasks = JoinSet::new();
    for (mut slot, first) in slots.into_iter().zip(first) {
        let shared = shared.clone();
        tasks.spawn(async move {
            let mut loaded = first;
            let mut intended = 0;
            while loaded.is_some() && until.is_none_or(|end| Instant::now() < end) {
                let record = slot.exchange(&timing, intended).await;
                let on = count(&shared, &record);
                slot.keep(record);
                intended = timing.now();
                if on.is_break() {
                    break;
                }
                loaded = load_next(&shared, &mut slot)?;
            }
            Ok(slot.output)
        });
    }
    let mut output = Output::default();
    while !tasks.is_empty() {
        output.take_from(&mut joined::<Result<Output, LoadError>>(tasks.join_next().await)??);
    }
    Ok(output)
}

/// Counts failures in a row; too many end the sample.
fn count(shared: &Shared, record: &RequestRecord) -> ControlFlow<()> {
    match record.status {
        Status::Ok => shared.failures_in_a_row.store(0, Relaxed),
        Status::Cancelled => {}
        Status::Error => {
            let n = shared.failures_in_a_row.fetch_add(1, Relaxed) + 1;
            if n >= shared.max_failures_in_a_row {
                let last = record.error.as_deref().unwrap_or_default();
                shared.stopped.get_or_init(|| format!("{n} requests in a row failed, the last one with: {last}"));
            }
        }
    }
    if shared.stopped.get().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Slots that no request uses at the moment; the one used last is taken first, so that connections stay warm.
type Pool = Arc<Mutex<Vec<Slot>>>;

async fn open_loop(
    shared: &Arc<Shared>,
    slots: Vec<Slot>,
    schedule: Schedule,
    (worker, workers): (u64, u64),
    timing: Timing,
) -> Result<Output, LoadError> {
    let pool: Pool = Arc::new(Mutex::new(slots));
    let until = shared.duration.map(|d| timing.epoch + d);
    let mut output = Output::default();
    let mut flying: JoinSet<Result<(), LoadError>> = JoinSet::new();
    let numbered = (0..shared.limit).zip(schedule).filter(|(index, _)| index % workers == worker);
    for (index, at) in numbered {
        let due = timing.epoch + Duration::from_nanos(at);
        if until.is_some_and(|end| due >= end) || shared.stopped.get().is_some() {
            break;
        }
        sleep_until(due.checked_sub(LEAD).unwrap_or(due).into()).await;
        while let Some(landed) = flying.try_join_next() {
            joined(Some(landed))??;
        }
        let permit = match &shared.cap {
            None => None,
            Some(cap) => match permit_before(cap.clone(), until).await {
                Some(permit) => Some(permit),
                None => {
                    output.requests.push(never_started(shared, index, at, &timing));
                    continue;
                }
            },
        };
        let mut slot = take(&pool).unwrap_or_else(|| {
            let mut slot = Slot::new(shared.link.clone());
            slot.report_to(shared.progress.clone());
            slot
        });
        let (shared, pool) = (shared.clone(), pool.clone());
        flying.spawn(async move {
            slot.load(index, &shared.prompts.get(Phase::Measured, index))?;
            // Where this fails, the exchange fails the same way, as data.
            let _ = slot.ready(false).await;
            slot.alarm.at(due).await;
            let record = slot.exchange(&timing, at).await;
            let _ = count(&shared, &record);
            slot.keep(record);
            drop(permit);
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
            Ok(())
        });
    }
    while !flying.is_empty() {
        joined(flying.join_next().await)??;
    }
    for slot in pool.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
        output.take_from(&mut slot.output);
    }
    Ok(output)
}

fn take(pool: &Pool) -> Option<Slot> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// A permit of the cap; `None` when the sending time ends first.
async fn permit_before(cap: Arc<Semaphore>, until: Option<Instant>) -> Option<tokio::sync::OwnedSemaphorePermit> {
    match until {
        None => cap.acquire_owned().await.ok(),
        Some(end) => tokio::time::timeout_at(end.into(), cap.acquire_owned()).await.ok()?.ok(),
    }
}

/// A request that was due, but the cap let it wait until the sending time was over. It counts as cancelled, so that its
/// delay shows.
fn never_started(shared: &Shared, index: u64, intended_ns: u64, timing: &Timing) -> RequestRecord {
    let planned = shared.prompts.get(Phase::Measured, index);
    let now = timing.now().max(intended_ns);
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
        wall_start_ns: shared.start.get().map_or(0, |s| s.wall_ns.saturating_add(now as i64)),
        requested_input: planned.input_tokens,
        requested_output: planned.output_tokens,
        input_tokens: None,
        output_tokens: None,
        cached_tokens: None,
        token_events: 0,
        error: None,
    }
}
