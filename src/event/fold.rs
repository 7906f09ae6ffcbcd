//! The fold that turns the events of a run into its state. Live displays and replay of a journal use the same one.

use std::collections::{BTreeMap, BTreeSet};

use super::search::SearchResult;
use super::{Counts, Entry, Event, FailureClass, Outcome, Stage};
use crate::digest::{DeployId, UnitId};

/// What is known of a run after some prefix of its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    pub run: String,
    pub experiment: String,
    pub simulated: bool,
    /// Units of the plan, cached ones included.
    pub units: u64,
    pub samples_planned: u64,
    pub starts_planned: u64,
    pub samples_done: u64,
    pub starts_done: u64,
    pub deployments: BTreeMap<DeployId, DeploymentState>,
    pub outcomes: BTreeMap<UnitId, Outcome>,
    /// Units that only a search asked for.
    pub probes: BTreeSet<UnitId>,
    /// Searches that have ended.
    pub searches: Vec<SearchResult>,
    /// Samples in flight: (unit, name, sample, attempt).
    pub measuring: Vec<Measuring>,
    pub notices: Vec<String>,
    /// Set by the last event.
    pub finished: Option<(Counts, i32)>,
    /// Sequence number that the next entry must have.
    pub next_seq: u64,
}

/// A sample in flight.
#[derive(Clone, Debug, PartialEq)]
pub struct Measuring {
    pub unit_id: UnitId,
    pub name: String,
    pub sample: u32,
    pub attempt: u32,
}

/// What is known of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentState {
    pub container: String,
    pub start: u32,
    pub phase: Phase,
}

/// Where a deployment is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    Starting { stage: Option<Stage>, message: String, fraction: Option<f64> },
    Ready { engine_version: Option<String> },
    Failed { stage: Stage, class: FailureClass, cause: String },
    Stopped,
}

impl RunState {
    /// Folds a sequence of entries.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> RunState {
        let mut state = RunState::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Units counted by how they ended; those that have not ended yet are in none.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.outcomes.values().for_each(|outcome| counts.add(outcome));
        counts
    }

    /// Takes the next entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.next_seq = entry.seq + 1;
        match &entry.event {
            Event::RunStarted { run, experiment, units, cached: _, samples, starts, simulated } => {
                self.run.clone_from(run);
                self.experiment.clone_from(experiment);
                self.simulated = *simulated;
                self.units = *units;
                self.samples_planned = *samples;
                self.starts_planned = *starts;
            }
            Event::DeploymentStarting { deploy_id, container, start, units: _ } => {
                let phase = Phase::Starting { stage: None, message: String::new(), fraction: None };
                let state = DeploymentState { container: container.clone(), start: *start, phase };
                self.deployments.insert(*deploy_id, state);
            }
            Event::DeploymentProgress { deploy_id, stage, message, fraction } => self.phase(
                deploy_id,
                Phase::Starting { stage: Some(*stage), message: message.clone(), fraction: *fraction },
            ),
            Event::DeploymentReady { deploy_id, engine_version, start: _, seconds: _ } => {
                self.starts_done += 1;
                self.phase(deploy_id, Phase::Ready { engine_version: engine_version.clone() });
            }
            Event::DeploymentFailed { deploy_id, stage, class, cause, .. } => {
                self.phase(deploy_id, Phase::Failed { stage: *stage, class: *class, cause: cause.clone() });
            }
            Event::DeploymentStopped { deploy_id, start: _ } => self.phase(deploy_id, Phase::Stopped),
            Event::SampleStarted { unit_id, sample, attempt, name, round: _ } => self.measuring.push(Measuring {
                unit_id: *unit_id,
                name: name.clone(),
                sample: *sample,
                attempt: *attempt,
            }),
            Event::SampleFinished { unit_id, .. } => {
                self.samples_done += 1;
                self.leave(unit_id);
            }
            Event::AttemptFailed { unit_id, .. } => self.leave(unit_id),
            Event::UnitFinished { unit_id, outcome } => {
                self.leave(unit_id);
                self.outcomes.insert(*unit_id, outcome.clone());
            }
            Event::UnitBlocked { .. } | Event::UnitTaken { .. } => {}
            Event::SearchStarted { .. } => {}
            Event::ProbeChosen { unit_id, joins, .. } => {
                if *joins && self.probes.insert(*unit_id) {
                    self.units += 1;
                }
            }
            Event::SearchFinished { result } => self.searches.push(result.clone()),
            Event::Notice { message } => self.notices.push(message.clone()),
            Event::RunFinished { counts, exit_code } => {
                self.measuring.clear();
                self.finished = Some((*counts, *exit_code));
            }
        }
    }

    fn phase(&mut self, deploy_id: &DeployId, phase: Phase) {
        if let Some(deployment) = self.deployments.get_mut(deploy_id) {
            deployment.phase = phase;
        }
    }

    fn leave(&mut self, unit_id: &UnitId) {
        self.measuring.retain(|m| m.unit_id != *unit_id);
    }
}
