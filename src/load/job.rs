//! A job of fixed size (`api = "batch"`): how long a server takes for so many requests. Where the server takes jobs, it is
//! handed the whole one as a file, over OpenAI's batch API; else its online API is kept full until the last answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::sample::{form, take_sample};
use super::{LoadError, LoadOptions, Target, batch};
use crate::stats::{Histogram, LoadShape, Progress, RequestRecord, SampleData, Status};
use crate::wire::batch::{End, LineAnswer};
use crate::wire::request::{RequestError, RequestSpec, check_api, path};
use crate::wire::{Api, ApiSpec};
use crate::workload::Workload;
use crate::workload::prompts::{Phase, PlannedRequest, Prompts};

/// Bytes of a job's file at most: it is made in memory.
const MOST_BYTES: usize = 512 << 20;
/// Warm-up requests in flight at most; a job that is handed over has no number of its own.
const WARMUP_STREAMS: u32 = 64;

/// Whether the whole job is handed to the server, so that single requests have no times of their own.
pub fn is_handed_over(api: &ApiSpec, workload: &Workload) -> bool {
    workload.api == Api::Batch && api.batch.is_some()
}

/// Measures a job.
pub(super) async fn run(
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<SampleData, LoadError> {
    workload.check()?;
    let api = target.api.online(Api::Batch);
    check_api(&target.api, api)?;
    match &target.api.batch {
        Some(path) => {
            let server = batch::Server::new(target, path, options.request_timeout).await?;
            handed_over(&server, target, &Workload { api, ..workload.clone() }, options, progress, cancel).await
        }
        None => {
            let all_at_once = workload.saturating(api);
            let (mut data, _) = take_sample(target, &all_at_once, options, progress, cancel).await?;
            data.makespan_ns = makespan(&data.requests);
            Ok(data)
        }
    }
}

/// First start to the last complete answer.
fn makespan(requests: &[RequestRecord]) -> Option<u64> {
    let from = requests.iter().map(|r| r.start_ns).min()?;
    let to = requests.iter().filter(|r| r.status == Status::Ok).map(|r| r.end_ns).max()?;
    Some(to.saturating_sub(from))
}

async fn handed_over(
    server: &batch::Server,
    target: &Target,
    workload: &Workload,
    options: &LoadOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<SampleData, LoadError> {
    let prepare = async {
        let job = written(target, workload, options).await?;
        warm_up(target, workload, options).await?;
        Ok::<_, LoadError>(job)
    };
    let job = or_cancelled(prepare, &cancel).await?;
    if let Some(before) = options.before_start.clone() {
        // It may block.
        let _ = tokio::task::spawn_blocking(move || (before.0)()).await;
    }
    progress.planned.store(job.requests.len() as u64, Relaxed);
    let started_wall_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    let start = Instant::now();
    let running = or_cancelled(server.submit(job.file, &job.url), &cancel).await?;
    let (end, over) = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            running.give_up().await;
            return Err(LoadError::Cancelled);
        }
        ended = running.wait(start, &progress) => ended?,
    };
    running.forget();
    let makespan_ns = over.saturating_duration_since(start).as_nanos() as u64;
    let answers = or_cancelled(server.answers(&end), &cancel).await?;
    Ok(SampleData {
        shape: LoadShape::Job,
        requests: records(&job.requests, answers, &end, makespan_ns),
        gaps: Histogram::default(),
        connect_ns: Vec::new(),
        started_wall_ns,
        exact_output: workload.ignore_eos,
        client_cpu_fraction: None,
        recv_lag: Histogram::default(),
        answers: Vec::new(),
        stopped_early: None,
        makespan_ns: Some(makespan_ns),
    })
}

async fn or_cancelled<T>(
    work: impl Future<Output = Result<T, LoadError>>,
    cancel: &CancellationToken,
) -> Result<T, LoadError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(LoadError::Cancelled),
        done = work => done,
    }
}

/// A job as it is handed over.
struct Written {
    file: Vec<u8>,
    /// Path that all its requests go to.
    url: String,
    requests: Vec<Asked>,
}

/// Writes all requests out. Long prompts take a while, so it is done aside.
async fn written(target: &Target, workload: &Workload, options: &LoadOptions) -> Result<Written, LoadError> {
    let form = form(target, workload, options).await?;
    let prompts = Prompts::new(workload, form, target.dataset.as_deref(), &options.salt, options.sample)?;
    let (spec, model, workload) = (target.api.clone(), target.model.clone(), workload.clone());
    let write = move || {
        let n = workload.request_limit().unwrap_or(0);
        let url = path(&spec, workload.api, &model, false);
        let mut job = Written { file: Vec::new(), url, requests: Vec::new() };
        for index in 0..n {
            let planned = prompts.get(Phase::Measured, index);
            job.file.extend(line(&spec, &workload, &model, index, &planned)?);
            job.requests.push((planned.input_tokens, planned.output_tokens));
            if job.file.len() > MOST_BYTES {
                return Err(LoadError::JobSize { bytes: MOST_BYTES, written: index, asked: n });
            }
        }
        Ok(job)
    };
    tokio::task::spawn_blocking(write).await.unwrap_or(Err(LoadError::Worker))
}

fn line(
    spec: &ApiSpec,
    workload: &Workload,
    model: &str,
    index: u64,
    planned: &PlannedRequest,
) -> Result<Vec<u8>, RequestError> {
    let request = RequestSpec {
        model,
        prompt: &planned.prompt,
        max_tokens: planned.output_tokens,
        temperature: workload.temperature,
        seed: planned.seed,
        ignore_eos: workload.ignore_eos,
        stream: false,
    };
    crate::wire::batch::line(spec, workload.api, index, &request)
}

/// Over the online API, with prompts that the job does not have.
async fn warm_up(target: &Target, workload: &Workload, options: &LoadOptions) -> Result<(), LoadError> {
    if workload.warmup == 0 {
        return Ok(());
    }
    let n = workload.warmup;
    let streams = u32::try_from(n).unwrap_or(u32::MAX).min(WARMUP_STREAMS);
    let before = Workload { requests: Some(n), warmup: 0, concurrency: Some(streams), ..workload.clone() };
    let salt = [&options.salt, b"warm-up".as_slice()].concat();
    let apart = LoadOptions { salt, before_start: None, ..options.clone() };
    let (data, _) = take_sample(target, &before, &apart, Arc::default(), CancellationToken::new()).await?;
    if data.completed().next().is_some() {
        return Ok(());
    }
    let message = data.requests.into_iter().find_map(|r| r.error).map_or("no answer".into(), String::from);
    Err(LoadError::Warmup { url: target.base_url.clone(), n, message })
}

/// Lengths that a request asked for: input, where it is known, and output.
type Asked = (Option<u32>, u32);

/// A record for every request, with the answer that came or why none did.
fn records(requests: &[Asked], answers: Vec<LineAnswer>, end: &End, makespan_ns: u64) -> Vec<RequestRecord> {
    let mut found: Vec<Option<LineAnswer>> = vec![None; requests.len()];
    for answer in answers {
        if let Some(place) = usize::try_from(answer.index).ok().and_then(|i| found.get_mut(i)) {
            *place = Some(answer);
        }
    }
    let pairs = (0..).zip(requests.iter().zip(found));
    pairs.map(|(index, (asked, answer))| record(index, *asked, answer, end, makespan_ns)).collect()
}

/// Nobody saw when it was answered: its clock points are those of the job.
fn record(index: u64, asked: Asked, answer: Option<LineAnswer>, end: &End, makespan_ns: u64) -> RequestRecord {
    let answer = answer.unwrap_or_else(|| LineAnswer {
        index,
        status: 0,
        input_tokens: None,
        output_tokens: None,
        cached_tokens: None,
        error: Some(end.unanswered.clone()),
    });
    RequestRecord {
        index,
        status: if answer.error.is_none() { Status::Ok } else { Status::Error },
        http_status: answer.status,
        intended_ns: 0,
        start_ns: 0,
        first_token_ns: None,
        first_visible_ns: None,
        last_token_ns: None,
        end_ns: makespan_ns,
        max_gap_us: 0,
        requested_input: asked.0,
        requested_output: asked.1,
        input_tokens: answer.input_tokens,
        output_tokens: answer.output_tokens,
        cached_tokens: answer.cached_tokens,
        token_events: 0,
        error: answer.error.map(String::into_boxed_str),
    }
}

/// Between two looks at a job: a fiftieth of what it has taken so far, so that its length is known to 2 %.
pub(super) fn pause(elapsed: Duration) -> Duration {
    (elapsed / 50).clamp(Duration::from_millis(20), Duration::from_secs(2))
}
