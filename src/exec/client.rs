//! The load generator as the executor's [`Loader`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use tokio::sync::Mutex;

use super::loader::{ClientError, Job, Loader, LoaderError, Measurement};
use super::tokenizers::Tokenizers;
use crate::deploy::Endpoint;
use crate::load::{self, BeforeStart, LoadError, LoadOptions, ProbeOutcome, Target, TlsConfig};
use crate::plan::TlsOptions;
use crate::stats::{self, Invalid, SampleContext, SampleData, Sanity, Summary, sanity};
use crate::telemetry::{Scraper, Seen, Watcher, Watching, Window, write_empty_csv};
use crate::wire::ApiSpec;
use crate::wire::answer::Answer;
use crate::workload::Workload;

/// How long one readiness request may take.
const PROBE: Duration = Duration::from_secs(120);
/// How long requests may run on after a sample's duration is over.
const DRAIN: Duration = Duration::from_secs(30);

/// How long the server's metrics may take to be read.
const SCRAPE: Duration = Duration::from_secs(2);
/// Streams of the largest calibration; above, its error stands for theirs.
const MOST_STREAMS: u32 = 1024;
/// Streams that an open loop without a cap is taken to have.
const OPEN_STREAMS: u32 = 64;

/// Measures with this program's own load generator. Before the first sample at a new order of concurrency, it is held
/// against a known truth for half a second.
#[derive(Clone, Debug)]
pub struct LoadClient {
    /// Load threads; by the number of streams when unset.
    workers: Option<usize>,
    calibrates: bool,
    tokenizers: Tokenizers,
    /// What was found out, by number of streams. `None` where it could not be.
    known: Arc<Mutex<BTreeMap<u32, Option<ClientError>>>>,
}

impl Default for LoadClient {
    fn default() -> Self {
        LoadClient::new(None)
    }
}

impl Loader for LoadClient {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, api: &'a ApiSpec) -> BoxFuture<'a, Result<(), LoaderError>> {
        Box::pin(async move {
            match load::one_token(&target(endpoint, api, None), PROBE).await {
                Ok(ProbeOutcome::Ready { .. }) => Ok(()),
                Ok(ProbeOutcome::NotReady { message }) => Err(LoaderError { cause: message, deterministic: false }),
                Ok(ProbeOutcome::Refused { status, message }) => Err(LoaderError {
                    cause: format!("it refuses a one-token request (HTTP {status}): {message}"),
                    deterministic: true,
                }),
                Err(e) => Err(failed(&e)),
            }
        })
    }

    fn sanity<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        api: &'a ApiSpec,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Sanity, LoaderError>> {
        Box::pin(async move {
            let target = target(endpoint, api, None);
            let answer = load::ask(&target, sanity::QUESTION, sanity::TOKENS, timeout).await.map_err(|e| failed(&e))?;
            let shown = endpoint.redactor.redact(&answer.text);
            let Answer { tokens, logprobs, finish, .. } = answer;
            Ok(Sanity { tokens, logprobs, finish, ..Sanity::of(api.default.as_str(), &shown) })
        })
    }

    fn measure<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Measurement, LoaderError>> {
        Box::pin(self.sample(job))
    }
}

impl LoadClient {
    pub fn new(workers: Option<usize>) -> LoadClient {
        LoadClient { workers, calibrates: true, tokenizers: Tokenizers::default(), known: Arc::default() }
    }

    /// One that calibrates only when it is asked to.
    pub fn uncalibrated(workers: Option<usize>) -> LoadClient {
        LoadClient { calibrates: false, ..LoadClient::new(workers) }
    }

    /// What the client's figures are off by at a load like this one. Found out once for each power of two of streams, by
    /// one measurement at a time.
    pub async fn error_at(&self, workload: &Workload) -> Option<ClientError> {
        let open = if workload.is_open_loop() { OPEN_STREAMS } else { 1 };
        let streams = workload.concurrency.unwrap_or(open).clamp(1, MOST_STREAMS).next_power_of_two();
        let mut known = self.known.lock().await;
        if let Some(error) = known.get(&streams) {
            return *error;
        }
        // Not to know it is no reason not to measure.
        let calibration = load::calibrate(streams, self.workers).await.ok();
        let error = calibration.map(|c| ClientError { ttft_ms: c.error_ttft_ms, itl_ms: c.error_itl_ms });
        known.insert(streams, error);
        error
    }

    async fn sample(&self, job: Job<'_>) -> Result<Measurement, LoaderError> {
        let dataset = match job.dataset {
            None => None,
            Some(path) => {
                let unreadable = |e| LoaderError {
                    cause: format!("the data set {} cannot be read: {e}", path.display()),
                    deterministic: true,
                };
                Some(Arc::from(tokio::fs::read(path).await.map_err(unreadable)?))
            }
        };
        let tokenizer = self.tokenizer(&job).await?;
        let target = Target { tokenizer, ..target(job.endpoint, job.api, dataset) };
        let watcher = watcher(&target, &job).await;
        let options = LoadOptions {
            salt: job.unit.to_string().into_bytes(),
            sample: job.sample,
            request_timeout: job.request_timeout,
            drain_timeout: DRAIN,
            workers: self.workers,
            before_start: watcher.clone().map(before_start),
            ..LoadOptions::default()
        };
        // What is discarded needs no error.
        let handed_over = load::is_handed_over(job.api, job.workload);
        let client_error = match self.calibrates && job.files.is_some() && !handed_over {
            true => tokio::select! {
                biased;
                () = job.cancel.cancelled() => None,
                error = self.error_at(job.workload) => error,
            },
            false => None,
        };
        let mut data = load::run_sample(&target, job.workload, &options, job.progress, job.cancel)
            .await
            .map_err(|e| failed(&e))?;
        // A server may say back what it was sent.
        for error in data.requests.iter_mut().filter_map(|r| r.error.as_mut()) {
            *error = job.endpoint.redactor.redact(error).into();
        }
        if let Some(dir) = job.files {
            write_file(&dir.join("requests.csv"), |out| stats::write_requests_csv(&data, out))?;
        }
        let summary = stats::summarize(&data, &job.slo.0, job.gpus);
        let seen = match &watcher {
            Some(watcher) => watcher.end(window(&data, &summary)).await,
            None => Seen::default(),
        };
        if let Some(dir) = job.files {
            write_file(&dir.join("telemetry.csv"), |out| match &watcher {
                Some(_) => seen.series.write_csv(out),
                None => write_empty_csv(out),
            })?;
        }
        let restarted = seen.means.restarted;
        let context = SampleContext { restarted, handed_over, ..context(job.workload, job.max_error_rate) };
        let invalid = stats::validity(&summary, &context).or_else(|| seen.gpus.problem().map(Invalid::passing));
        Ok(Measurement { summary, seen, invalid, client_error })
    }
}

/// What a sample of this workload was supposed to be.
fn context(workload: &Workload, max_error_rate: f64) -> SampleContext {
    let tokens = &workload.tokens;
    // Texts of others may repeat themselves, and each turn of a conversation repeats those before it.
    let own = workload.dataset.is_none() && tokens.turns <= 1;
    let common = |input| f64::from(tokens.shared_prefix) / f64::from(input);
    SampleContext {
        max_error_rate,
        open_loop: workload.is_open_loop(),
        exact_output: workload.ignore_eos,
        common_input: tokens.input.filter(|n| own && *n > 0).map(common),
        duration: workload.duration.filter(|_| workload.requests.is_none() && workload.profile.is_none()),
        concurrency: workload.concurrency.filter(|_| !workload.is_open_loop()),
        ..SampleContext::default()
    }
}

impl LoadClient {
    /// The tokenizer of a sample, where it is of use.
    async fn tokenizer(&self, job: &Job<'_>) -> Result<Option<load::Tokenizer>, LoaderError> {
        let Some(wanted) = job.tokenizer.filter(|_| load::sends_text(job.api, job.workload)).cloned() else {
            return Ok(None);
        };
        let tokenizers = self.tokenizers.clone();
        let read = tokio::task::spawn_blocking(move || tokenizers.read(&wanted)).await;
        let ended = |_| LoaderError { cause: "reading the tokenizer ended in a panic".into(), deterministic: true };
        read.map_err(ended)?
    }
}

fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), LoaderError> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut out| {
        write(&mut out)?;
        out.flush()
    });
    written.map_err(|e| LoaderError { cause: format!("cannot write {}: {e}", path.display()), deterministic: false })
}

/// The measured part on the clock of `requests.csv`.
fn window(data: &SampleData, summary: &Summary) -> Window {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let (from_s, to_s) = data.window().map_or((0.0, summary.duration_s), |(from, to)| (seconds(from), seconds(to)));
    Window { zero_wall_ns: data.started_wall_ns, from_s, to_s, requests: summary.n_ok }
}

/// What watches the engine, its GPUs and the host during a sample. A server without metrics is measured all the same.
async fn watcher(target: &Target, job: &Job<'_>) -> Option<Watcher> {
    // What is discarded is not watched.
    if job.files.is_none() && job.watch.interval.is_zero() {
        return None;
    }
    let engine = match target.api.metrics {
        Some(_) => {
            let client = load::control_client(target, SCRAPE).await.ok();
            client.and_then(|client| Scraper::new(client, &target.base_url, &target.api))
        }
        None => None,
    };
    Watcher::start(Watching { engine, gpus: job.watch.gpus.clone(), interval: job.watch.interval })
}

/// The look before the measured part, from a load thread.
fn before_start(watcher: Watcher) -> BeforeStart {
    BeforeStart(Arc::new(move || watcher.begin()))
}

/// The endpoint as the load generator takes it.
pub fn target(endpoint: &Endpoint, api: &ApiSpec, dataset: Option<Arc<[u8]>>) -> Target {
    Target {
        base_url: endpoint.base_url.clone(),
        api: api.clone(),
        model: endpoint.model.clone(),
        headers: endpoint.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_string())).collect(),
        tls: tls(&endpoint.tls),
        dataset,
        tokenizer: None,
    }
}

fn tls(options: &TlsOptions) -> TlsConfig {
    let path = |p: &Option<String>| p.as_ref().map(PathBuf::from);
    TlsConfig { ca: path(&options.ca), cert: path(&options.cert), key: path(&options.key), insecure: options.insecure }
}

/// What the same inputs would meet again is deterministic; a server that cannot be reached may come back.
fn failed(e: &LoadError) -> LoaderError {
    let deterministic = e.is_deterministic();
    let mut cause = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(inner) = source {
        let text = inner.to_string();
        if !cause.contains(&text) {
            cause = format!("{cause}: {text}");
        }
        source = inner.source();
    }
    LoaderError { cause, deterministic }
}
