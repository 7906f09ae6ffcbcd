//! Starting the engine of a group: tries, readiness, one discarded warm-up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::group::{Flow, Group};
use super::loader::{Job, Watch};
use super::startup;
use super::work::UnitWork;
use crate::clock::rfc3339;
use crate::deploy::{Engine, Failure, Progress};
use crate::event::{Event, FailureClass, Stage};
use crate::spec::policy::SanityCheck;
use crate::stats::Sanity;
use crate::units::format_duration;
use crate::wire::ApiSpec;
use crate::workload::Workload;

/// Requests of the discarded warm-up, at most.
const WARMUP_REQUESTS: u64 = 16;
/// One-token requests that may fail before the engine counts as not working.
const PROBES: u32 = 5;
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// An engine that is ready to be measured.
struct Started {
    engine: Box<dyn Engine>,
    /// To get what it needs.
    prepare_s: f64,
    /// From there to its first token.
    seconds: f64,
    /// What it answered to the fixed question.
    sanity: Option<Sanity>,
}

impl Group<'_> {
    /// Starts the engine, within the attempts of the policy. `Stop` when there is none: then every unit has been told why.
    pub(super) async fn start(&mut self, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let attempts = self.start_attempts();
        for attempt in 1..=attempts {
            let started_at = rfc3339(self.context.clock.now());
            self.tell(Event::DeploymentStarting {
                deploy_id: self.work.deployment.id,
                container: self.work.deployment.container.clone(),
                start: self.starts + 1,
                units: self.waiting().count() as u64,
            });
            let cancel = self.context.cancel.clone();
            let Some(result) = cancel.or_interrupted(self.start_and_warm_up()).await else { return Flow::Stop };
            match result {
                Ok(Started { engine: started, prepare_s, seconds, sanity }) => {
                    self.starts += 1;
                    self.startup = startup::record(started.startup(), prepare_s, seconds);
                    self.sanity = sanity;
                    self.tell(Event::DeploymentReady {
                        deploy_id: self.work.deployment.id,
                        start: self.starts,
                        seconds,
                        engine_version: started.version(),
                    });
                    *engine = Some(started);
                    return Flow::On;
                }
                Err(failure) => {
                    let again = failure.class == FailureClass::Infrastructure && !failure.environment;
                    let retry = again && attempt < attempts;
                    self.tell_failed_start(&failure, attempt, retry);
                    if !retry {
                        self.block(&failure, attempt, &started_at);
                        return Flow::Stop;
                    }
                    if self.back_off(attempt).await == Flow::Stop {
                        return Flow::Stop;
                    }
                }
            }
        }
        Flow::Stop
    }

    fn tell_failed_start(&self, failure: &Failure, attempt: u32, retry: bool) {
        self.tell(Event::DeploymentFailed {
            deploy_id: self.work.deployment.id,
            start: self.starts + 1,
            stage: failure.stage,
            class: failure.class,
            cause: failure.cause.clone(),
            attempt,
            retry,
            environment: failure.environment,
            log_tail: failure.log_tail.clone(),
        });
    }

    /// An engine that has given its first token, makes sense and has worked for a moment.
    async fn start_and_warm_up(&self) -> Result<Started, Failure> {
        // What it waits for here is no part of what the engine takes.
        let preparing = tokio::time::Instant::now();
        self.context.deployer.prepare(&self.work.deployment, &|p| self.tell_progress(p)).await?;
        let prepare_s = preparing.elapsed().as_secs_f64();
        let begun = tokio::time::Instant::now();
        let engine = self.start_in_time().await?;
        let seconds = begun.elapsed().as_secs_f64();
        let ready = tokio::select! {
            biased;
            failure = engine.crashed() => Err(Failure { stage: Stage::Warmup, ..failure }),
            made = self.make_sure(&*engine) => made,
        };
        match ready {
            Ok(sanity) => Ok(Started { engine, prepare_s, seconds, sanity }),
            Err(failure) => {
                let _ = engine.stop().await;
                Err(failure)
            }
        }
    }

    async fn make_sure(&self, engine: &dyn Engine) -> Result<Option<Sanity>, Failure> {
        let sanity = self.sane(engine).await?;
        self.warm_up(engine).await;
        match engine.crashed().now_or_never() {
            None => Ok(sanity),
            Some(failure) => Err(Failure { stage: Stage::Warmup, ..failure }),
        }
    }

    /// Asks the fixed question. An engine that gives no answer at all is no matter of sense: the samples will show what is
    /// wrong with it.
    async fn sane(&self, engine: &dyn Engine) -> Result<Option<Sanity>, Failure> {
        let check = self.waiting().map(|u| u.policy.sanity).max().unwrap_or_default();
        if check == SanityCheck::Off {
            return Ok(None);
        }
        let timeout = self.waiting().map(|u| u.policy.request_timeout).max().unwrap_or_default();
        let container = &self.work.deployment.container;
        let sanity = match self.context.loader.sanity(engine.endpoint(), &self.asked_api(), timeout).await {
            Ok(sanity) => sanity,
            Err(e) => {
                let why = engine.endpoint().redactor.redact(&e.cause);
                self.tell(Event::Notice {
                    message: format!("{container} gave no answer to the fixed question: {why}"),
                });
                return Ok(None);
            }
        };
        let Some(complaint) = sanity.complaint() else { return Ok(Some(sanity)) };
        let message = format!("{container} makes no sense: {complaint}");
        if check == SanityCheck::Warn {
            self.tell(Event::Notice { message });
            return Ok(Some(sanity));
        }
        let cause = format!(
            "{message}. Look at `quantization`, `kv_cache_dtype` and the checkpoint; for weights that are random on \
             purpose, set `sanity = \"warn\"` under [run]"
        );
        let failure = Failure { class: FailureClass::Invalid, ..Failure::infrastructure(Stage::Sanity, cause) };
        Err(failure.with_log(engine.log_tail(50)))
    }

    /// The API of the units: a server that is not ours may have no other.
    fn asked_api(&self) -> ApiSpec {
        let mut api = self.work.deployment.spec.api.clone();
        api.default = self.units.first().map_or(api.default, |u| api.online(u.work.workload.api));
        api
    }

    async fn start_in_time(&self) -> Result<Box<dyn Engine>, Failure> {
        let limit = self.ready_timeout();
        let deployment = &self.work.deployment;
        match tokio::time::timeout(limit, self.start_once()).await {
            Ok(result) => result,
            Err(_) => {
                let deployer = &self.context.deployer;
                let look = deployer.last_look(deployment).map(|seen| format!(": {seen}")).unwrap_or_default();
                let cause = format!(
                    "{} is not ready after {}{look}. Raise `ready_timeout`, or look at what it is doing",
                    deployment.container,
                    format_duration(limit)
                );
                let failure = Failure::infrastructure(Stage::Ready, cause);
                Err(failure.with_log(deployer.last_words(deployment).unwrap_or_default()))
            }
        }
    }

    fn tell_progress(&self, progress: Progress) {
        if !self.progress.lets_through() {
            return;
        }
        let Progress { stage, message, fraction } = progress;
        let deploy_id = self.work.deployment.id;
        self.tell(Event::DeploymentProgress { deploy_id, stage, message, fraction });
    }

    /// Starts, and asks for one token.
    async fn start_once(&self) -> Result<Box<dyn Engine>, Failure> {
        let engine = self.context.deployer.start(&self.work.deployment, &|p| self.tell_progress(p)).await?;
        let answers = tokio::select! {
            biased;
            failure = engine.crashed() => Err(failure),
            answers = self.probe(&*engine) => answers,
        };
        match answers {
            Ok(()) => Ok(engine),
            Err(failure) => {
                let _ = engine.stop().await;
                Err(failure)
            }
        }
    }

    /// A refusal is final; anything else may be an engine that is not quite there yet.
    async fn probe(&self, engine: &dyn Engine) -> Result<(), Failure> {
        let api = self.asked_api();
        let mut seen = String::new();
        for probe in 0..PROBES {
            if probe > 0 {
                tokio::time::sleep(PROBE_PAUSE).await;
            }
            match self.context.loader.probe(engine.endpoint(), &api).await {
                Ok(()) => return Ok(()),
                Err(e) if e.deterministic => {
                    return Err(Failure { class: FailureClass::Deterministic, ..self.no_token(engine, &e.cause) });
                }
                Err(e) => seen = e.cause,
            }
        }
        Err(self.no_token(engine, &seen))
    }

    fn no_token(&self, engine: &dyn Engine, seen: &str) -> Failure {
        let container = &self.work.deployment.container;
        let seen = engine.endpoint().redactor.redact(seen);
        let cause = format!("{container} is up but does not answer a one-token request: {seen}");
        Failure::infrastructure(Stage::Probe, cause).with_log(engine.log_tail(50))
    }

    /// The first requests of an engine pay for what is compiled, captured and allocated on demand. What they measure is
    /// discarded, and so is their failure: the samples will show it.
    async fn warm_up(&self, engine: &dyn Engine) {
        let Some(unit) = self.heaviest() else { return };
        let workload = &unit.workload;
        let requests = u64::from(workload.concurrency.unwrap_or(1)).min(WARMUP_REQUESTS);
        let workload = Workload {
            requests: Some(requests),
            concurrency: Some(u32::try_from(requests).unwrap_or(1)),
            // A trace is not replayed at its own times: these requests are sent at once.
            rate: workload.replays().then_some(1e3),
            duration: None,
            warmup: 0,
            profile: None,
            cancel: None,
            ..workload.clone()
        };
        let job = Job {
            endpoint: engine.endpoint(),
            api: &self.work.deployment.spec.api,
            workload: &workload,
            dataset: unit.dataset.as_deref(),
            tokenizer: unit.tokenizer.as_ref(),
            slo: &unit.slo,
            gpus: self.work.deployment.gpus,
            request_timeout: unit.policy.request_timeout,
            max_error_rate: 1.0,
            unit: unit.record.unit_id,
            // Counted from the other end: never the prompts of a real sample.
            sample: u32::MAX - self.starts,
            progress: Arc::default(),
            cancel: CancellationToken::new(),
            watch: Watch::default(),
            files: None,
        };
        let _ = tokio::time::timeout(unit.policy.measure_timeout, self.context.loader.measure(job)).await;
    }

    /// The most patient of the units' policies: one engine serves them all.
    fn ready_timeout(&self) -> Duration {
        self.waiting().map(|u| u.policy.ready_timeout).max().unwrap_or_default()
    }

    fn start_attempts(&self) -> u32 {
        self.waiting().map(|u| u.policy.attempts).max().unwrap_or(1).max(1)
    }

    /// Units that have not ended.
    fn waiting(&self) -> impl Iterator<Item = &UnitWork> {
        self.units.iter().filter(|u| u.reservation.is_some()).map(|u| &u.work)
    }

    /// The unit with the most requests in flight among those that wait.
    fn heaviest(&self) -> Option<&UnitWork> {
        self.waiting().max_by_key(|u| u.workload.concurrency)
    }
}
