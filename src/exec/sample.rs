//! Measuring one sample of one unit: tries, limits, commit.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ahead::Since;
use super::group::{Flow, Group};
use super::loader::{Job, LoaderError, Measurement, Watch};
use super::usage::{UsageSeries, resources};
use crate::clock::{Clock, Stopwatch, rfc3339};
use crate::deploy::{Engine, Failure};
use crate::event::live::LiveUnit;
use crate::event::{Event, FailureClass, Outcome, Stage};
use crate::stats::Invalid;
use crate::store::record::{AttemptRecord, Provenance, SampleRecord};
use crate::store::{SampleDraft, StoreError};
use crate::telemetry::Window;
use crate::telemetry::gpu::GpuOptions;
use crate::units::format_duration;

/// Lines of the engine's log that are kept with a sample, and with a failure.
const LOG_LINES: usize = 2000;
const FAILURE_LINES: usize = 50;
/// How long a cancelled measurement may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// A machine that was suspended for less has only been looked at twice.
const ASLEEP: Duration = Duration::from_millis(500);
/// How long after a sample with errors an engine's death may become known.
const DEATH_NOTICE: Duration = Duration::from_secs(2);

/// How one try ended.
enum Attempt {
    /// Committed; valid, or not for this reason.
    Done(Option<Invalid>),
    Interrupted,
    Failed {
        failure: Failure,
        engine_died: bool,
    },
}

/// A sample as it was measured, before it is committed.
struct Measured {
    measurement: Measurement,
    /// What the container used.
    usage: UsageSeries,
}

/// A try that is under way.
struct Try {
    sample: u32,
    attempt: u32,
    round: u32,
    started_at: String,
    watch: tokio::time::Instant,
    /// How long the machine had been suspended until then.
    suspended: Duration,
    downloads: Since,
}

impl Group<'_> {
    /// Measures one sample of a unit, within the attempts of its policy. An engine is started where there is none.
    pub(super) async fn sample(&mut self, index: usize, round: u32, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let attempts = self.units[index].work.policy.attempts.max(1);
        for attempt in 1..=attempts {
            if self.stop_reason().is_some() {
                return Flow::Stop;
            }
            if engine.is_none() && self.start(engine).await == Flow::Stop {
                return Flow::Stop;
            }
            let running = engine.as_deref().expect("it has just been started");
            match self.attempt(index, attempt, round, running).await {
                Attempt::Interrupted => return Flow::Stop,
                // The host was in the way: the sample is kept as invalid, and another one is taken.
                Attempt::Done(Some(Invalid { passing: true, .. })) if attempt < attempts => {
                    if self.back_off(attempt).await == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                Attempt::Done(invalid) => return self.after_sample(index, invalid.map(|i| i.reason)).await,
                Attempt::Failed { failure, engine_died } => {
                    let retry = failure.class == FailureClass::Infrastructure && attempt < attempts;
                    self.tell_failed(index, attempt, &failure, retry);
                    if engine_died && let Some(dead) = engine.take() {
                        self.stop(dead).await;
                    }
                    if !retry {
                        let Failure { stage, class, cause, .. } = failure;
                        self.finish(index, Outcome::Failed { stage, class, cause });
                        return Flow::On;
                    }
                    if self.back_off(attempt).await == Flow::Stop {
                        return Flow::Stop;
                    }
                }
            }
        }
        Flow::On
    }

    /// Ends the unit when it was its last sample, and lets the engine settle.
    async fn after_sample(&mut self, index: usize, invalid: Option<String>) -> Flow {
        let unit = &mut self.units[index];
        unit.left = unit.left.saturating_sub(1);
        unit.invalid = invalid.or(unit.invalid.take());
        if unit.left == 0 {
            let outcome = match unit.invalid.take() {
                Some(reason) => Outcome::Invalid { reason },
                None => Outcome::Measured,
            };
            self.finish(index, outcome);
        }
        let settle = self.units[index].work.policy.settle;
        if (self.has_work() || self.units[index].probe) && !settle.is_zero() {
            let pause = tokio::time::sleep(settle);
            if self.context.cancel.or_interrupted(pause).await.is_none() {
                return Flow::Stop;
            }
        }
        Flow::On
    }

    /// One try, from the draft to the commit. A failed one is kept with the unit.
    async fn attempt(&mut self, index: usize, attempt: u32, round: u32, engine: &dyn Engine) -> Attempt {
        let reservation = self.units[index].reservation.as_ref().expect("only held units are measured");
        let this = Try {
            sample: reservation.next_sample(),
            attempt,
            round,
            started_at: rfc3339(self.context.clock.now()),
            watch: tokio::time::Instant::now(),
            suspended: self.context.clock.suspended(),
            downloads: self.context.downloads.now(),
        };
        let drafted = reservation.draft();
        let work = &self.units[index].work;
        self.tell(Event::SampleStarted {
            unit_id: work.record.unit_id,
            sample: this.sample,
            attempt,
            round,
            name: work.name.clone(),
        });
        let result = match drafted {
            Ok(draft) => self.measure_and_commit(index, &this, draft, engine).await,
            Err(e) => Attempt::Failed { failure: not_stored(&e), engine_died: false },
        };
        if let Attempt::Failed { failure, .. } = &result {
            self.keep_failure(index, &this, failure, engine);
        }
        result
    }

    async fn measure_and_commit(
        &mut self,
        index: usize,
        this: &Try,
        draft: SampleDraft,
        engine: &dyn Engine,
    ) -> Attempt {
        let measured = self.measure_in_time(index, this, &draft, engine).await;
        let measured = match measured {
            Ok(Some(measured)) => measured,
            Ok(None) => return Attempt::Interrupted,
            Err((failure, engine_died)) => return Attempt::Failed { failure, engine_died },
        };
        match self.commit(index, this, draft, measured, engine) {
            Ok(invalid) => Attempt::Done(invalid),
            Err(e) => Attempt::Failed { failure: not_stored(&e), engine_died: false },
        }
    }

    /// Measures until it is done, the engine dies, the time is up or the run is interrupted (`None`).
    async fn measure_in_time(
        &self,
        index: usize,
        this: &Try,
        draft: &SampleDraft,
        engine: &dyn Engine,
    ) -> Result<Option<Measured>, (Failure, bool)> {
        let work = &self.units[index].work;
        let progress = Arc::default();
        let live = LiveUnit {
            unit_id: work.record.unit_id,
            name: work.name.as_str().into(),
            sample: this.sample,
            progress: Arc::clone(&progress),
            since: Stopwatch::start(),
        };
        let _live = self.context.live.enter(live);
        let cancel = CancellationToken::new();
        // Whatever way this function is left, the measurement stops.
        let _cancelled = cancel.clone().drop_guard();
        let job = Job {
            endpoint: engine.endpoint(),
            api: &self.work.deployment.spec.api,
            workload: &work.workload,
            dataset: work.dataset.as_deref(),
            tokenizer: work.tokenizer.as_ref(),
            slo: &work.slo,
            gpus: self.work.deployment.gpus,
            request_timeout: work.policy.request_timeout,
            max_error_rate: work.policy.max_error_rate,
            unit: work.record.unit_id,
            sample: this.sample,
            progress,
            cancel: cancel.clone(),
            watch: self.watch(index, engine),
            files: Some(draft.path()),
        };
        let mut measuring = self.context.loader.measure(job);
        let limit = work.policy.measure_timeout;
        let usage = Mutex::default();
        let measured = tokio::select! {
            biased;
            () = self.context.cancel.interrupted() => {
                cancel.cancel();
                let _ = tokio::time::timeout(GRACE, &mut measuring).await;
                return Ok(None);
            }
            failure = engine.crashed() => return Err((at_measure(failure), true)),
            measured = tokio::time::timeout(limit, &mut measuring) => measured,
            () = watch_usage(engine, &*self.context.clock, work.policy.scrape_interval, &usage) => unreachable!("it is watched until the measurement ends"),
        };
        let Ok(measured) = measured else {
            let cause = format!(
                "the sample was not done after {}. Raise `measure_timeout`, or ask for less",
                format_duration(limit)
            );
            return Err((
                Failure::infrastructure(Stage::Measure, cause).with_log(engine.log_tail(FAILURE_LINES)),
                false,
            ));
        };
        let measurement = self.judge(measured, engine).await?;
        Ok(Some(Measured { measurement, usage: usage.into_inner().unwrap_or_else(PoisonError::into_inner) }))
    }

    /// What is looked at meanwhile.
    fn watch(&self, index: usize, engine: &dyn Engine) -> Watch {
        let policy = &self.units[index].work.policy;
        // A simulated engine uses none.
        let real = !self.work.simulated && self.work.deployment.gpus > 0;
        let dcgm = policy.dcgm.clone().filter(|_| real);
        let gpus = GpuOptions { ids: engine.gpus(), dcgm, owner: engine.control_group() };
        Watch { gpus, interval: policy.scrape_interval }
    }

    /// Errors of a sample whose engine died meanwhile are the engine's, and tell nothing about the unit.
    async fn judge(
        &self,
        measured: Result<Measurement, LoaderError>,
        engine: &dyn Engine,
    ) -> Result<Measurement, (Failure, bool)> {
        let troubled = match &measured {
            Ok(measurement) => measurement.invalid.is_some() && measurement.summary.n_error > 0,
            Err(_) => true,
        };
        if troubled && let Ok(failure) = tokio::time::timeout(DEATH_NOTICE, engine.crashed()).await {
            return Err((at_measure(failure), true));
        }
        measured.map_err(|e| {
            let cause = engine.endpoint().redactor.redact(&e.cause);
            let failure = match e.deterministic {
                true => Failure::deterministic(Stage::Measure, cause),
                false => Failure::infrastructure(Stage::Measure, cause),
            };
            (failure.with_log(engine.log_tail(FAILURE_LINES)), false)
        })
    }

    /// Commits a measurement and says so. Returns why it does not count, if so.
    fn commit(
        &mut self,
        index: usize,
        this: &Try,
        draft: SampleDraft,
        measured: Measured,
        engine: &dyn Engine,
    ) -> Result<Option<Invalid>, StoreError> {
        let Measured { measurement, usage } = measured;
        append_usage(&draft.path().join("telemetry.csv"), &usage, &measurement.seen.window)?;
        let log = engine.log_tail(LOG_LINES);
        if !log.is_empty() {
            let path = draft.path().join("engine.log");
            std::fs::write(&path, log).map_err(StoreError::io("write", &path))?;
        }
        let redactor = &engine.endpoint().redactor;
        let asleep = self.context.clock.suspended().saturating_sub(this.suspended);
        let invalid = match asleep > ASLEEP {
            true => Some(Invalid::passing(format!(
                "the machine was suspended for {} during the sample",
                format_duration(Duration::from_secs(asleep.as_secs().max(1)))
            ))),
            false => measurement.invalid.map(|i| Invalid { reason: redactor.redact(&i.reason), ..i }),
        };
        let invalid_reason = invalid.as_ref().map(|i| i.reason.clone());
        let mut summary = measurement.summary;
        for (message, _) in &mut summary.errors {
            *message = redactor.redact(message);
        }
        let seconds = this.watch.elapsed().as_secs_f64();
        let finished = Event::SampleFinished {
            unit_id: self.units[index].work.record.unit_id,
            sample: this.sample,
            valid: invalid.is_none(),
            reason: invalid_reason.clone(),
            seconds,
            ttft_ms: summary.ttft.mean,
            tpot_ms: summary.tpot.mean,
            output_throughput: summary.output_throughput,
        };
        let record = SampleRecord {
            sample: this.sample,
            run: self.work.run.clone(),
            attempt: this.attempt,
            start: self.starts,
            round: this.round,
            started_at: this.started_at.clone(),
            finished_at: rfc3339(self.context.clock.now()),
            seconds,
            valid: invalid.is_none(),
            invalid_reason,
            simulated: self.work.simulated,
            cost_usd: self.work.usd_per_hour.map(|usd| usd * summary.duration_s / 3600.0),
            summary,
            resources: resources(&measurement.seen, &usage),
            sanity: self.sanity.clone(),
            prefetching: self.context.downloads.was(this.downloads),
            server: measurement.seen.means,
            load: measurement.seen.load,
            watch: measurement.seen.cost,
            startup: self.startup.clone(),
            client_error_ttft_ms: measurement.client_error.map(|e| e.ttft_ms),
            client_error_itl_ms: measurement.client_error.map(|e| e.itl_ms),
            provenance: self.provenance(engine),
            files: Default::default(),
        };
        let reservation = self.units[index].reservation.as_mut().expect("only held units are measured");
        reservation.commit(draft, record)?;
        self.tell(finished);
        Ok(invalid)
    }

    fn provenance(&self, engine: &dyn Engine) -> Provenance {
        Provenance {
            engine_version: engine.version(),
            image_digest: engine.image_digest(),
            model_commit: engine.model_commit(),
            docker_version: engine.container_engine(),
            image_labels: engine.image_labels(),
            network_path: Some(engine.endpoint().network_path.clone()),
            ..self.work.provenance.clone()
        }
    }

    fn keep_failure(&mut self, index: usize, this: &Try, failure: &Failure, engine: &dyn Engine) {
        let record = AttemptRecord {
            sample: this.sample,
            run: self.work.run.clone(),
            attempt: this.attempt,
            start: self.starts,
            started_at: this.started_at.clone(),
            finished_at: rfc3339(self.context.clock.now()),
            stage: failure.stage,
            class: failure.class,
            cause: failure.cause.clone(),
            blocked: false,
            simulated: self.work.simulated,
            log_tail: failure.log_tail.clone(),
            provenance: self.provenance(engine),
        };
        let reservation = self.units[index].reservation.as_mut().expect("only held units are measured");
        if let Err(e) = reservation.record_failure(record) {
            let message = format!("the failure of {} could not be kept: {e}", self.units[index].work.name);
            self.tell(Event::Notice { message });
        }
    }

    fn tell_failed(&self, index: usize, attempt: u32, failure: &Failure, retry: bool) {
        let unit = &self.units[index];
        let reservation = unit.reservation.as_ref().expect("only held units are measured");
        self.tell(Event::AttemptFailed {
            unit_id: unit.work.record.unit_id,
            sample: reservation.next_sample(),
            attempt,
            stage: failure.stage,
            class: failure.class,
            cause: failure.cause.clone(),
            retry,
        });
    }
}

/// Looks at what the container uses, for as long as it is polled.
async fn watch_usage(engine: &dyn Engine, clock: &dyn Clock, interval: Duration, into: &Mutex<UsageSeries>) {
    let mut counted = false;
    loop {
        match engine.usage().await {
            Some(usage) => {
                counted = true;
                let now = i64::try_from(clock.now().as_nanosecond()).unwrap_or(0);
                into.lock().unwrap_or_else(PoisonError::into_inner).push(now, usage);
            }
            // Nobody counts. One that has counted before may do so again.
            None if !counted => std::future::pending().await,
            None => {}
        }
        if interval.is_zero() {
            std::future::pending().await
        }
        tokio::time::sleep(interval).await;
    }
}

fn append_usage(path: &Path, usage: &UsageSeries, window: &Window) -> Result<(), StoreError> {
    if usage.is_empty() {
        return Ok(());
    }
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|file| usage.append_csv(window, file)).map_err(StoreError::io("write", path))
}

/// A death is told with the stage it happened in.
fn at_measure(failure: Failure) -> Failure {
    Failure { stage: Stage::Measure, ..failure }
}

fn not_stored(e: &StoreError) -> Failure {
    Failure::infrastructure(Stage::Commit, format!("the sample could not be stored: {e}"))
}
