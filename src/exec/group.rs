//! Running one group: one deployment, all units that share it. Data in, events out; what is measured is committed to the
//! artifacts on the way. Rounds: each runs every unit once, in an order of its own, so that drift does not pass for a
//! difference.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc::UnboundedSender;

use super::ahead::Busy;
use super::cancel::{Cancel, Halt};
use super::loader::Loader;
use super::throttle::Throttle;
use super::work::{GroupWork, UnitWork};
use crate::clock::Clock;
use crate::deploy::{Deployer, Engine, Failure};
use crate::digest::UnitId;
use crate::event::live::LiveUnits;
use crate::event::{Event, FailureClass, Outcome, Stage};
use crate::stats::Sanity;
use crate::store::record::{AttemptRecord, StartRecord};
use crate::store::{Lookup, Reservation, Store, StoreError};

/// Everything a group needs beside its worklist.
#[derive(Clone)]
pub struct GroupContext {
    pub store: Store,
    pub deployer: Arc<dyn Deployer>,
    pub loader: Arc<dyn Loader>,
    pub clock: Arc<dyn Clock>,
    pub cancel: Cancel,
    pub halt: Halt,
    pub live: LiveUnits,
    /// Whether something for a later group is being downloaded.
    pub downloads: Busy,
}

/// First pause before another try; doubled from try to try.
const BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// How long an engine may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(180);
pub(super) const INTERRUPTED: &str = "the run was interrupted";

/// Runs a group and tells `events` what happens. Every unit ends in a `unit_finished`, but for those that another live
/// run holds: they are given back.
pub async fn run_group(work: GroupWork, context: &GroupContext, events: &UnboundedSender<Event>) -> Option<GroupWork> {
    let (mut group, taken) = Group::reserve(work, context, events);
    if group.has_work() || !group.work.searches.is_empty() {
        group.measure().await;
    }
    group.abandon_searches();
    let reason = group.stop_reason().unwrap_or_else(|| "the run ended before it".into());
    group.finish_rest(|_| Outcome::NotRun { reason: reason.clone() });
    taken
}

/// A group at work.
pub(super) struct Group<'a> {
    pub(super) work: GroupWork,
    pub(super) units: Vec<Held>,
    pub(super) context: &'a GroupContext,
    events: &'a UnboundedSender<Event>,
    /// Engine starts so far that became ready.
    pub(super) starts: u32,
    /// What the engine that was started last answered to the fixed question.
    pub(super) sanity: Option<Sanity>,
    /// How the engine that was started last came up.
    pub(super) startup: StartRecord,
    /// Why the deployment failed for good, once it has.
    pub(super) failure: Option<String>,
    /// Units that a search has brought into the run.
    pub(super) joined: BTreeSet<UnitId>,
    /// How often the progress of starts is told.
    pub(super) progress: Throttle,
}

/// A unit that this group holds.
pub(super) struct Held {
    pub(super) work: UnitWork,
    /// Given up when the unit is finished.
    pub(super) reservation: Option<Box<Reservation>>,
    /// Samples to measure at each engine start.
    shares: Vec<u32>,
    /// Samples still to be measured, valid or not.
    pub(super) left: u32,
    pub(super) invalid: Option<String>,
    /// A search asked for it.
    pub(super) probe: bool,
}

/// How it goes on after a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// No new sample may start, or no engine can be had.
    Stop,
}

impl<'a> Group<'a> {
    /// Takes every unit that is free and needs work; the others are finished or given back.
    fn reserve(
        mut work: GroupWork,
        context: &'a GroupContext,
        events: &'a UnboundedSender<Event>,
    ) -> (Group<'a>, Option<GroupWork>) {
        let units = std::mem::take(&mut work.units);
        let mut taken = GroupWork { units: Vec::new(), searches: Vec::new(), ..work.clone() };
        let starts = work.starts_before;
        let mut group = Group {
            work,
            units: Vec::new(),
            context,
            events,
            starts,
            sanity: None,
            startup: StartRecord::default(),
            failure: None,
            joined: BTreeSet::new(),
            progress: Throttle::default(),
        };
        for mut unit in units {
            match context.store.reserve(&group.work.deployment.directory, &unit.record) {
                Ok(Lookup::Reserved(reservation)) => group.take(unit, reservation, false),
                Ok(Lookup::Taken) => {
                    if !std::mem::replace(&mut unit.announced_taken, true) {
                        group.tell(Event::UnitTaken { unit_id: unit.record.unit_id });
                    }
                    taken.units.push(unit);
                }
                Err(e) => group.cannot_store(&unit, &e),
            }
        }
        (group, (!taken.units.is_empty()).then_some(taken))
    }

    /// Decides what a reserved unit needs. What is committed now is the truth, whatever the plan saw.
    pub(super) fn take(&mut self, work: UnitWork, reservation: Box<Reservation>, probe: bool) {
        if let Some(reason) = reservation.set_aside() {
            let message =
                format!("{}: {reason}. What was damaged is set aside, what was lost is measured again", work.name);
            self.tell(Event::Notice { message });
        }
        let missing = work.missing(reservation.result(), &self.work.run);
        let outcome = if missing == 0 { Some(Outcome::Cached) } else { failed_before(&work, &reservation) };
        let shares = shares(missing, work.policy.starts);
        let unit_id = work.record.unit_id;
        match outcome {
            Some(outcome) => self.tell(Event::UnitFinished { unit_id, outcome }),
            None => {
                let reservation = Some(reservation);
                self.units.push(Held { work, reservation, shares, left: missing, invalid: None, probe });
            }
        }
    }

    pub(super) fn cannot_store(&self, unit: &UnitWork, e: &StoreError) {
        let outcome = Outcome::Failed {
            stage: Stage::Commit,
            class: FailureClass::Infrastructure,
            cause: format!("the unit's artifacts cannot be used: {e}"),
        };
        self.tell(Event::UnitFinished { unit_id: unit.record.unit_id, outcome });
    }

    pub(super) fn tell(&self, event: Event) {
        // The dispatcher listens until every group has ended; when it cannot go on it interrupts the run, which is
        // heard at the next step.
        let _ = self.events.send(event);
    }

    pub(super) fn has_work(&self) -> bool {
        self.units.iter().any(|u| u.reservation.is_some())
    }

    /// Why no new sample may start, if so.
    pub(super) fn stop_reason(&self) -> Option<String> {
        if self.context.cancel.is_interrupted() {
            return Some(INTERRUPTED.into());
        }
        self.context.halt.reason()
    }

    /// Goes through the engine starts that the units' shares ask for; the searches run on the last one.
    async fn measure(&mut self) {
        let starts = self.units.iter().map(|u| u.shares.len()).max().unwrap_or(0).max(1);
        for start in 0..starts {
            let mut engine = None;
            let mut flow = self.rounds(start, &mut engine).await;
            if flow == Flow::On && start + 1 == starts {
                flow = self.searches(&mut engine).await;
            }
            if let Some(engine) = engine {
                self.stop(engine).await;
            }
            if flow == Flow::Stop {
                return;
            }
        }
    }

    async fn rounds(&mut self, start: usize, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let share = |unit: &Held| unit.shares.get(start).copied().unwrap_or(0);
        let rounds = self.units.iter().map(share).max().unwrap_or(0);
        for round in 1..=rounds {
            for index in self.order(start, round) {
                let unit = &self.units[index];
                if unit.reservation.is_none() || share(unit) < round {
                    continue;
                }
                if self.sample(index, round, engine).await == Flow::Stop {
                    return Flow::Stop;
                }
            }
        }
        Flow::On
    }

    /// The order of a round: the same for the same seed, deployment, start and round.
    fn order(&self, start: usize, round: u32) -> Vec<usize> {
        let seed = self.units.first().map_or(0, |u| u.work.policy.seed);
        let text = format!("{seed} {} {start} {round}", self.work.deployment.id);
        let mut rng = ChaCha8Rng::from_seed(*blake3::hash(text.as_bytes()).as_bytes());
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.sort_by_key(|i| self.units[*i].work.record.unit_id);
        order.shuffle(&mut rng);
        order
    }

    /// Stops an engine, without waiting for it after a second interrupt.
    pub(super) async fn stop(&mut self, engine: Box<dyn Engine>) {
        let (deploy_id, start) = (self.work.deployment.id, self.starts);
        let stopped = tokio::select! {
            biased;
            stopped = tokio::time::timeout(STOP_LIMIT, engine.stop()) => stopped,
            () = self.context.cancel.forced() => Ok(Ok(())),
        };
        let problem = match stopped {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(_) => Some(format!("it takes more than {}", crate::units::format_duration(STOP_LIMIT))),
        };
        if let Some(problem) = problem {
            let message = format!("{} did not stop: {problem}", self.work.deployment.container);
            self.tell(Event::Notice { message });
        }
        self.tell(Event::DeploymentStopped { deploy_id, start });
    }

    /// Ends a unit and lets go of it.
    pub(super) fn finish(&mut self, index: usize, outcome: Outcome) {
        let unit = &mut self.units[index];
        unit.reservation = None;
        let failed = matches!(outcome, Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Invalid { .. });
        // A value beyond what the engine can bear is what a search looks for.
        if failed && !unit.probe && unit.work.policy.fail_fast {
            self.context.halt.set(format!("fail-fast: {} is {}", unit.work.name, outcome.as_str()));
        }
        let unit_id = unit.work.record.unit_id;
        self.tell(Event::UnitFinished { unit_id, outcome });
    }

    /// Ends every unit that has not ended.
    fn finish_rest(&mut self, outcome: impl Fn(&Held) -> Outcome) {
        for index in 0..self.units.len() {
            if self.units[index].reservation.is_some() {
                let outcome = outcome(&self.units[index]);
                self.finish(index, outcome);
            }
        }
    }

    /// The deployment failed for good: keeps that with every unit that waits for it.
    pub(super) fn block(&mut self, failure: &Failure, attempt: u32, started_at: &str) {
        self.failure = Some(failure.cause.clone());
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            let Some(reservation) = &mut unit.reservation else { continue };
            let record = AttemptRecord {
                sample: reservation.next_sample(),
                run: self.work.run.clone(),
                attempt,
                start: self.starts + 1,
                started_at: started_at.to_string(),
                finished_at: crate::clock::rfc3339(self.context.clock.now()),
                stage: failure.stage,
                class: failure.class,
                cause: failure.cause.clone(),
                blocked: true,
                simulated: self.work.simulated,
                log_tail: failure.log_tail.clone(),
                provenance: self.work.provenance.clone(),
            };
            let kept = reservation.record_failure(record);
            let unit_id = unit.work.record.unit_id;
            if let Err(e) = kept {
                self.tell(Event::Notice { message: format!("the failure of {unit_id} could not be kept: {e}") });
            }
            self.tell(Event::UnitBlocked { unit_id, cause: failure.cause.clone() });
            let cause = failure.cause.clone();
            let outcome = match failure.class {
                FailureClass::Invalid => Outcome::Invalid { reason: cause },
                FailureClass::Infrastructure | FailureClass::Deterministic => Outcome::Blocked { cause },
            };
            self.finish(index, outcome);
        }
    }

    /// Waits before another try; `Stop` when there is to be none.
    pub(super) async fn back_off(&self, attempt: u32) -> Flow {
        let pause = BACKOFF.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_BACKOFF);
        match self.context.cancel.or_interrupted(tokio::time::sleep(pause)).await {
            Some(()) if self.stop_reason().is_none() => Flow::On,
            _ => Flow::Stop,
        }
    }
}

/// A failure that would only repeat itself stands until `--retry-failed`.
fn failed_before(work: &UnitWork, reservation: &Reservation) -> Option<Outcome> {
    let result = reservation.result();
    let last = result.attempts.last().filter(|a| a.sample > result.last_sample())?;
    if last.class != FailureClass::Deterministic || work.policy.retry_failed {
        return None;
    }
    Some(match last.blocked {
        true => Outcome::Blocked { cause: last.cause.clone() },
        false => Outcome::Failed { stage: last.stage, class: last.class, cause: last.cause.clone() },
    })
}

/// Spreads samples over engine starts as evenly as it goes, the first starts having one more.
fn shares(missing: u32, starts: u32) -> Vec<u32> {
    let starts = starts.clamp(1, missing.max(1));
    (0..starts).map(|i| missing / starts + u32::from(i < missing % starts)).collect()
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn samples_are_spread_over_starts() {
        assert_eq!(shares(3, 1), [3]);
        assert_eq!(shares(5, 2), [3, 2]);
        assert_eq!(shares(2, 5), [1, 1]);
        assert_eq!(shares(3, 0), [3]);
    }
}
