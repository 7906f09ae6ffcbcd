//! One sample of a workload: sets the workers up, waits for them, puts their results together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use mio::{Poll, Waker};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::desk::Output;
use super::endpoint::Endpoint;
use super::feed::{Feed, Filler};
use super::job;
use super::link::Link;
use super::probe::{self, calibrate_tokens};
use super::reactor::WAKE;
use super::stop::{Cap, Stop, StopGuard};
use super::worker::{self, Share, Shared, Start, WorkerOutput};
use super::{LoadError, LoadOptions, Target};
use crate::stats::{LoadShape, Progress, SampleData};
use crate::wire::request::{check_api, check_prompt};
use crate::wire::{Api, ApiSpec, Dialect};
use crate::workload::Workload;
use crate::workload::arrival::{Pacer, Schedule};
use crate::workload::prompts::{Form, Phase, Prompts};

/// Streams that one worker carries before a second one is worth its thread.
const STREAMS_PER_WORKER: u32 = 256;
/// Workers that are used at most unless more are asked for.
const MAX_WORKERS: usize = 4;
/// Failures in a row that end a sample, at least.
const MAX_FAILURES: u64 = 100;
/// Connections opened ahead of an open-loop sample, at most.
const MAX_AHEAD: u32 = 256;
/// Requests written out ahead of their time, at least.
const MIN_READY: u32 = 16;

/// Measures one sample. Requests that fail are in the result; the error is for what keeps the sample from being taken.
/// Cancelling the token, or dropping the future, ends all of it.
pub async fn run_sample(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<SampleData, LoadError> {
    if workload.api == Api::Batch {
        return job::run(target, workload, options, progress, cancel).await;
    }
    take_sample(target, workload, options, progress, cancel).await.map(|(data, _)| data)
}

/// The same, and when on the monotonic clock its measured part began.
pub(super) async fn take_sample(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<(SampleData, Start), LoadError> {
    workload.check()?;
    check_api(&target.api, workload.api)?;
    let prepared = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(LoadError::Cancelled),
        prepared = prepare(target, workload, options, progress) => prepared?,
    };
    let shared = prepared.shared.clone();
    let _stops_the_workers = StopGuard(shared.stop.clone());
    let workers = start_workers(prepared)?;
    let mut results = Vec::with_capacity(workers.len());
    for mut worker in workers {
        let result = tokio::select! {
            biased;
            result = &mut worker => result,
            () = cancel.cancelled() => {
                shared.stop.stop();
                worker.await
            }
        };
        results.push(result.unwrap_or(Err(LoadError::Worker)));
    }
    shared.feed.close();
    let outputs = first_cause(results)?;
    let start = *shared.start.get().expect("workers that are done had a start");
    Ok((merge(&shared, workload, start, outputs), start))
}

/// A sample before its threads are started.
struct Prepared {
    shared: Arc<Shared>,
    shares: Vec<(Share, Poll)>,
}

/// How synthetic prompts of this workload are made.
pub(super) fn sends_token_ids(api: &ApiSpec, workload: &Workload) -> bool {
    api.dialect == Dialect::Openai && api.online(workload.api) == Api::Completions && api.token_ids
}

pub(super) async fn form(target: &Target, workload: &Workload, options: &LoadOptions) -> Result<Form, LoadError> {
    if !super::sends_text(&target.api, workload) {
        return Ok(Form::Ids);
    }
    if let Some(tokenizer) = &target.tokenizer {
        let (api, timeout) = (workload.api, options.request_timeout);
        if let Some(overhead) = calibrate_tokens(target, tokenizer, api, &options.salt, timeout).await? {
            return Ok(Form::Tokens { text: tokenizer.text.clone(), overhead });
        }
    }
    Ok(Form::Text(match options.calibration {
        Some(calibration) => calibration,
        None => probe::calibrate_text(target, workload.api, &options.salt, options.request_timeout).await?,
    }))
}

async fn prepare(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
) -> Result<Prepared, LoadError> {
    let form = form(target, workload, options).await?;
    let prompts = Prompts::new(workload, form, target.dataset.as_deref(), &options.salt, options.sample)?;
    for row in prompts.rows() {
        check_prompt(&target.api, workload.api, &row.prompt)?;
    }
    let endpoint = Endpoint::resolve(target).await?;
    let mut link = Link::new(endpoint, target, workload.api, workload.temperature, workload.ignore_eos);
    let turns = u64::from(workload.tokens.turns.max(1));
    link.keeps_answers = turns > 1;
    let link = Arc::new(link);
    // Whatever the dialect cannot say is refused here, before anything is sent.
    link.load(0, &prompts.get(Phase::Measured, 0), Vec::new())?;

    let arrivals = prompts.arrivals();
    // A trace is not replayed twice.
    let recorded = arrivals.as_ref().filter(|_| workload.replays()).map(|a| a.len() as u64);
    let limit = [workload.request_limit(), recorded].into_iter().flatten().min();
    progress.planned.store(limit.unwrap_or(0), Relaxed);
    progress.planned_ms.store(workload.duration.map_or(0, |d| d.as_millis() as u64), Relaxed);
    let streams = streams(workload, limit);
    let workers = options.workers.unwrap_or_else(|| default_workers(streams)).clamp(1, streams.max(1) as usize);
    let (schedule, cap, profile) = match Pacer::new(workload, arrivals) {
        Pacer::Closed { profile, .. } => (None, None, profile),
        Pacer::Open { schedule, cap } => (Some(*schedule), cap, None),
    };
    let polls = (0..workers).map(|_| Poll::new()).collect::<Result<Vec<Poll>, _>>().map_err(LoadError::Thread)?;
    let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKE)).collect::<Result<Vec<Waker>, _>>();
    let stop = Arc::new(Stop::new(wakers.map_err(LoadError::Thread)?));
    let prompts = Arc::new(prompts);
    let numbers = (0, turns, limit.unwrap_or(u64::MAX));
    let ahead = streams.max(MIN_READY) as usize;
    let shared = Shared {
        feed: Arc::new(Feed::new(link.clone(), prompts.clone(), numbers, ahead)),
        link,
        prompts,
        progress,
        request_timeout: options.request_timeout,
        drain_timeout: options.drain_timeout,
        duration: workload.duration,
        limit: limit.unwrap_or(u64::MAX),
        turns,
        warmup: workload.warmup,
        next_warmup: AtomicU64::new(0),
        warmed: AtomicU64::new(0),
        warmup_failure: Mutex::new(None),
        failures_in_a_row: AtomicU64::new(0),
        max_failures_in_a_row: MAX_FAILURES.max(2 * u64::from(streams)),
        stopped: OnceLock::new(),
        start: OnceLock::new(),
        cap: cap.map(|n| Cap::new(n, stop.clone())),
        stop,
        ahead: ahead.div_ceil(workers),
        keep_gaps: options.keep_gaps,
        before_start: options.before_start.clone(),
        profile,
    };
    let shares = shares(workers, streams, schedule).into_iter().zip(polls).collect();
    Ok(Prepared { shared: Arc::new(shared), shares })
}

/// Streams that are opened before the start. An open loop opens as many as a second's arrivals; more are opened when
/// they are needed, a little ahead of their time.
fn streams(workload: &Workload, limit: Option<u64>) -> u32 {
    let most = limit.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX)).max(1);
    let wanted = match workload.rate {
        None if workload.is_open_loop() => workload.concurrency.unwrap_or(MAX_AHEAD).min(MAX_AHEAD),
        None => workload.concurrency.unwrap_or(1),
        Some(rate) => (rate.ceil().min(f64::from(MAX_AHEAD)) as u32).min(workload.concurrency.unwrap_or(u32::MAX)),
    };
    wanted.clamp(1, most)
}

fn default_workers(streams: u32) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (streams.div_ceil(STREAMS_PER_WORKER) as usize).clamp(1, cores.min(MAX_WORKERS))
}

fn shares(workers: usize, streams: u32, schedule: Option<Schedule>) -> Vec<Share> {
    (0..workers)
        .map(|worker| Share {
            worker,
            workers,
            slots: streams as usize / workers + usize::from(worker < streams as usize % workers),
            schedule: schedule.clone(),
        })
        .collect()
}

type Started = Vec<oneshot::Receiver<Result<WorkerOutput, LoadError>>>;

/// Each worker is a thread; where the loop is closed, one more writes requests out ahead of their time. A worker that
/// fails stops the others.
fn start_workers(prepared: Prepared) -> Result<Started, LoadError> {
    let Prepared { shared, shares } = prepared;
    let filler = match shares.iter().all(|(share, _)| share.schedule.is_none()) {
        true => Some(Arc::new(Filler::start(shared.feed.clone()).map_err(LoadError::Thread)?)),
        false => None,
    };
    let mut started = Vec::with_capacity(shares.len());
    for (share, poll) in shares {
        let (send, receive) = oneshot::channel();
        let (shared, filler) = (shared.clone(), filler.clone());
        let body = move || {
            // The feed is filled as long as one worker needs it.
            let _filler = filler;
            let _stops_the_others_in_a_panic = PanicGuard(&shared.stop);
            let result = worker::run(&shared, &share, poll);
            if result.is_err() {
                shared.stop.stop();
            }
            // Nobody waits for it when the sample was given up.
            let _ = send.send(result);
        };
        std::thread::Builder::new().name("load".into()).spawn(body).map_err(LoadError::Thread)?;
        started.push(receive);
    }
    Ok(started)
}

/// Stops the sample when its thread panics, so that no other worker waits for that one.
struct PanicGuard<'a>(&'a Stop);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// All results, or the error that made the others stop.
fn first_cause(results: Vec<Result<WorkerOutput, LoadError>>) -> Result<Vec<WorkerOutput>, LoadError> {
    let mut outputs = Vec::with_capacity(results.len());
    let mut cancelled = false;
    for result in results {
        match result {
            Ok(output) => outputs.push(output),
            Err(LoadError::Cancelled) => cancelled = true,
            Err(cause) => return Err(cause),
        }
    }
    if cancelled { Err(LoadError::Cancelled) } else { Ok(outputs) }
}

fn merge(shared: &Shared, workload: &Workload, start: Start, outputs: Vec<WorkerOutput>) -> SampleData {
    let client_cpu_fraction = outputs.iter().filter_map(|o| o.cpu_fraction).reduce(f64::max);
    let mut all = Output::default();
    for worker in outputs {
        all.take_from(worker.output);
    }
    all.requests.sort_unstable_by_key(|r| r.index);
    let shape = match workload.rate {
        None if workload.is_open_loop() => LoadShape::Open { rate: mean_rate(&all), cap: workload.concurrency },
        None => LoadShape::Closed { concurrency: workload.concurrency.unwrap_or(1) },
        Some(rate) => LoadShape::Open { rate, cap: workload.concurrency },
    };
    SampleData {
        shape,
        requests: all.requests,
        gaps: all.gaps,
        connect_ns: all.connect_ns,
        started_wall_ns: start.wall_ns,
        exact_output: workload.ignore_eos,
        client_cpu_fraction,
        recv_lag: all.recv_lag,
        answers: all.answers,
        stopped_early: shared.stopped.get().cloned(),
        makespan_ns: None,
    }
}

/// Arrivals per second, as they were meant.
fn mean_rate(all: &Output) -> f64 {
    let last = all.requests.iter().map(|r| r.intended_ns).max().unwrap_or(0);
    all.requests.len() as f64 / (last as f64 / 1e9).max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_spread_over_the_workers() {
        let slots: Vec<usize> = shares(3, 8, None).iter().map(|s| s.slots).collect();
        assert_eq!(slots, [3, 3, 2]);
    }
}
