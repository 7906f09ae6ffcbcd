//! One sample of a workload: sets the workers up, waits for them, puts their results together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{Barrier, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::probe;
use super::slot::{Link, Output};
use super::worker::{self, Share, Shared, WorkerOutput};
use super::{LoadError, LoadOptions, Target};
use crate::stats::{LoadShape, Progress, SampleData};
use crate::wire::request::{check_api, check_prompt};
use crate::wire::{Api, Dialect};
use crate::workload::Workload;
use crate::workload::arrival::{Pacer, Schedule};
use crate::workload::prompts::{Form, Phase, Prompts};

/// Streams that one worker carries before a second one is worth its thread.
const STREAMS_PER_WORKER: u32 = 64;
/// Workers that are used at most unless more are asked for.
const MAX_WORKERS: usize = 2;
/// Failures in a row that end a sample, at least.
const MAX_FAILURES: u64 = 100;
/// Connections opened ahead of an open-loop sample, at most.
const MAX_AHEAD: u32 = 256;

/// Measures one sample. Requests that fail are in the result; the error is for what keeps the sample from being taken.
/// Cancelling the token, or dropping the future, ends all of it.
pub async fn run_sample(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<SampleData, LoadError> {
    workload.check()?;
    check_api(&target.api, workload.api)?;
    let token = cancel.child_token();
    let _stops_the_workers = token.clone().drop_guard();
    let prepared = prepare(target, workload, options, progress);
    let (shared, shares) = tokio::select! {
        biased;
        () = token.cancelled() => return Err(LoadError::Cancelled),
        prepared = prepared => prepared?,
    };
    let workers = start_workers(&shared, shares, &token)?;
    let mut results = Vec::with_capacity(workers.len());
    for worker in workers {
        results.push(worker.await.unwrap_or(Err(LoadError::Worker)));
    }
    Ok(merge(&shared, workload, first_cause(results)?))
}

/// How synthetic prompts of this workload are made.
pub(super) fn sends_token_ids(target: &Target, workload: &Workload) -> bool {
    target.api.dialect == Dialect::Openai && workload.api == Api::Completions && target.api.token_ids
}

async fn prepare(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
) -> Result<(Arc<Shared>, Vec<Share>), LoadError> {
    let form = if workload.dataset.is_some() || sends_token_ids(target, workload) {
        Form::Ids
    } else {
        let known = options.calibration;
        Form::Text(match known {
            Some(calibration) => calibration,
            None => probe::calibrate_text(target, workload.api, &options.salt, options.request_timeout).await?,
        })
    };
    let prompts = Prompts::new(workload, form, target.dataset.as_deref(), &options.salt, options.sample)?;
    for row in prompts.rows() {
        check_prompt(&target.api, workload.api, &row.prompt)?;
    }
    let endpoint = Endpoint::resolve(target).await?;
    let link = Arc::new(Link::new(endpoint, target, workload.api, workload.temperature, workload.ignore_eos));
    // Whatever the dialect cannot say is refused here, before anything is sent.
    link.encode(&prompts.get(Phase::Measured, 0), &mut Vec::new())?;

    let limit = workload.request_limit();
    progress.planned.store(limit.unwrap_or(0), Relaxed);
    progress.planned_ms.store(workload.duration.map_or(0, |d| d.as_millis() as u64), Relaxed);
    let streams = streams(workload, limit);
    let workers = options.workers.unwrap_or_else(|| default_workers(streams)).clamp(1, streams.max(1) as usize);
    let (schedule, cap) = match Pacer::new(workload) {
        Pacer::Closed { .. } => (None, None),
        Pacer::Open { schedule, cap } => (Some(*schedule), cap),
    };
    let shared = Shared {
        link,
        prompts,
        progress,
        request_timeout: options.request_timeout,
        drain_timeout: options.drain_timeout,
        duration: workload.duration,
        limit: limit.unwrap_or(u64::MAX),
        warmup: workload.warmup,
        next: AtomicU64::new(0),
        next_warmup: AtomicU64::new(0),
        warmed: AtomicU64::new(0),
        warmup_failure: Mutex::new(None),
        failures_in_a_row: AtomicU64::new(0),
        max_failures_in_a_row: MAX_FAILURES.max(2 * u64::from(streams)),
        stopped: OnceLock::new(),
        barrier: Barrier::new(workers),
        start: OnceLock::new(),
        cap: cap.map(|n| Arc::new(Semaphore::new(n as usize))),
    };
    Ok((Arc::new(shared), shares(workers, streams, schedule)))
}

/// Streams that are opened before the start. An open loop opens as many as a second's arrivals; more are opened when
/// they are needed, a little ahead of their time.
fn streams(workload: &Workload, limit: Option<u64>) -> u32 {
    let most = limit.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX)).max(1);
    let wanted = match workload.rate {
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
        .map(|w| Share {
            worker: w as u64,
            workers: workers as u64,
            slots: streams as usize / workers + usize::from(w < streams as usize % workers),
            schedule: schedule.clone(),
        })
        .collect()
}

type Started = Vec<oneshot::Receiver<Result<WorkerOutput, LoadError>>>;

/// Each worker is a thread with a runtime of its own. One that fails stops the others.
fn start_workers(shared: &Arc<Shared>, shares: Vec<Share>, token: &CancellationToken) -> Result<Started, LoadError> {
    let mut started = Vec::with_capacity(shares.len());
    for share in shares {
        let (send, receive) = oneshot::channel();
        let (shared, token) = (shared.clone(), token.clone());
        let body = move || {
            let result = run_worker(shared, share, &token);
            if result.is_err() {
                token.cancel();
            }
            // Nobody waits for it when the sample was given up.
            let _ = send.send(result);
        };
        std::thread::Builder::new().name("load".into()).spawn(body).map_err(LoadError::Thread)?;
        started.push(receive);
    }
    Ok(started)
}

fn run_worker(shared: Arc<Shared>, share: Share, token: &CancellationToken) -> Result<WorkerOutput, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Thread)?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = token.cancelled() => Err(LoadError::Cancelled),
            result = worker::run(shared, share) => result,
        }
    })
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

fn merge(shared: &Shared, workload: &Workload, outputs: Vec<WorkerOutput>) -> SampleData {
    let client_cpu_fraction = outputs.iter().filter_map(|o| o.cpu_fraction).reduce(f64::max);
    let mut all = Output::default();
    for mut worker in outputs {
        all.take_from(&mut worker.output);
    }
    all.requests.sort_unstable_by_key(|r| r.index);
    let shape = match workload.rate {
        None => LoadShape::Closed { concurrency: workload.concurrency.unwrap_or(1) },
        Some(rate) => LoadShape::Open { rate, cap: workload.concurrency },
    };
    SampleData {
        shape,
        requests: all.requests,
        gaps: all.gaps,
        connect_ns: all.connect_ns,
        started_wall_ns: shared.start.get().map_or(0, |s| s.wall_ns),
        exact_output: workload.ignore_eos,
        client_cpu_fraction,
        recv_lag_ns: Vec::new(),
        stopped_early: shared.stopped.get().cloned(),
    }
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
