//! Starting the engine of a group: tries, readiness, one discarded warm-up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::group::{Flow, Group};
use super::loader::Job;
use super::work::UnitWork;
use crate::clock::rfc3339;
use crate::deploy::{Engine, Failure, Progress};
use crate::event::{Event, FailureClass, Stage};
use crate::units::format_duration;
use crate::workload::Workload;

/// Requests of the discarded warm-up, at most.
const WARMUP_REQUESTS: u64 = 16;
/// One-token requests that may fail before the engine counts as not working.
const PROBES: u32 = 5;
const PROBE_PAUSE: Duration = Duration::from_secs(1);

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
                Ok((started, seconds)) => {
                    self.starts += 1;
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

    /// An engine that has given its first token and has worked for a moment, and the seconds to that token.
    async fn start_and_warm_up(&self) -> Result<(Box<dyn Engine>, f64), Failure> {
        // What it waits for here is no part of what the engine takes.
        self.context.deployer.prepare(&self.work.deployment, &|p| self.tell_progress(p)).await?;
        let begun = tokio::time::Instant::now();
        let engine = self.start_in_time().await?;
        let seconds = begun.elapsed().as_secs_f64();
        let died = tokio::select! {
            biased;
            failure = engine.crashed() => Some(failure),
            () = self.warm_up(&*engine) => engine.crashed().now_or_never(),
        };
        match died {
            None => Ok((engine, seconds)),
            Some(failure) => {
                let _ = engine.stop().await;
                Err(Failure { stage: Stage::Warmup, ..failure })
            }
        }
    }

    async fn start_in_time(&self) -> Result<Box<dyn Engine>, Failure> {
        let limit = self.ready_timeout();
        let deployment = &self.work.deployment;
        match tokio::time::timeout(limit, self.start_once()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::infrastructure(
                Stage::Ready,
                format!(
                    "{} is not ready after {}. Raise `ready_timeout`, or look at what it is doing",
                    deployment.container,
                    format_duration(limit)
                ),
            )
            .with_log(self.context.deployer.last_words(deployment).unwrap_or_default())),
        }
    }

    fn tell_progress(&self, progress: Progress) {
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
        // Over the API that the units use: a server that is not ours may have no other.
        let mut api = self.work.deployment.spec.api.clone();
        api.default = self.units.first().map_or(api.default, |u| u.work.workload.api);
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
            rate: None,
            duration: None,
            warmup: 0,
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
