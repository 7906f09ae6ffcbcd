//! The one owner of a run's state: it stamps every event, appends it to the journal, folds it, writes the results rows
//! and feeds the reporter. A journal that cannot be written ends the run; a display that fails is only switched off.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::run::Reporter;
use crate::clock::{Clock, rfc3339};
use crate::digest::{DeployId, UnitId};
use crate::event::fold::RunState;
use crate::event::{Counts, Entry, Event, Outcome};
use crate::store::journal::JournalWriter;
use crate::store::record::{AttemptRecord, RunRecord, RunUnit, UnitResult};
use crate::store::row::{Measured, Row, RowSource};
use crate::store::{RunDir, Store, StoreError, Stored};

pub struct Dispatcher {
    store: Store,
    clock: Arc<dyn Clock>,
    journal: JournalWriter,
    reporter: Option<Reporter>,
    pub dir: RunDir,
    /// `plan.json` in the making.
    pub record: RunRecord,
    index: BTreeMap<UnitId, usize>,
    /// Units that searches may ask for; those that they do ask for move into the record.
    candidates: BTreeMap<UnitId, RunUnit>,
    pub state: RunState,
    /// Deployments whose start was tried, and whether the host lacked what they need.
    tried: BTreeMap<DeployId, bool>,
    /// Units with rows that could not be written.
    rows_missing: BTreeSet<UnitId>,
}

impl Dispatcher {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        reporter: Reporter,
        dir: RunDir,
        record: RunRecord,
        candidates: Vec<RunUnit>,
    ) -> Result<Dispatcher, StoreError> {
        let journal = dir.journal()?;
        let index = record.units.iter().enumerate().map(|(i, u)| (u.unit_id, i)).collect();
        Ok(Dispatcher {
            store,
            clock,
            journal,
            reporter: Some(reporter),
            dir,
            record,
            index,
            candidates: candidates.into_iter().map(|u| (u.unit_id, u)).collect(),
            state: RunState::default(),
            tried: BTreeMap::new(),
            rows_missing: BTreeSet::new(),
        })
    }

    /// Takes the next event. The error is the journal's.
    pub fn take(&mut self, event: Event) -> Result<(), StoreError> {
        let entry = Entry { seq: self.state.next_seq, at: rfc3339(self.clock.now()), event };
        self.journal.append(&entry)?;
        self.state.apply(&entry);
        self.report(&entry);
        match &entry.event {
            Event::SampleFinished { unit_id, sample, .. } => {
                let sample = *sample;
                self.row(unit_id, |unit, result| Some(row(unit, Measured::Sample(result.sample(sample)?))))
            }
            Event::AttemptFailed { unit_id, sample, attempt, .. } => {
                let (sample, attempt) = (*sample, *attempt);
                self.failure_row(unit_id, move |a| !a.blocked && a.sample == sample && a.attempt == attempt)
            }
            Event::ProbeChosen { unit_id, joins: true, .. } => self.join(*unit_id),
            Event::SearchFinished { result } => {
                self.record.searches.push(result.clone());
                Ok(())
            }
            Event::UnitBlocked { unit_id, .. } => self.failure_row(unit_id, |a| a.blocked),
            Event::DeploymentStarting { deploy_id, .. } => {
                self.tried.entry(*deploy_id).or_insert(false);
                Ok(())
            }
            Event::DeploymentFailed { deploy_id, environment, .. } => {
                self.tried.insert(*deploy_id, *environment);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A unit that a search asks for becomes one of the run's. That is written down before it is measured, so that the
    /// next start can complete the run from its units if it is killed.
    fn join(&mut self, unit_id: UnitId) -> Result<(), StoreError> {
        let Some(unit) = self.candidates.remove(&unit_id) else { return Ok(()) };
        self.index.insert(unit_id, self.record.units.len());
        self.record.units.push(unit);
        self.dir.save(&self.record)
    }

    /// Whether every deployment that was tried lacked what this host does not have.
    pub fn no_environment(&self) -> bool {
        !self.tried.is_empty() && self.tried.values().all(|environment| *environment)
    }

    /// The counts that the exit code is made from: that a value is too much for the engine is what a search looks for.
    pub fn without_failed_probes(&self, mut counts: Counts) -> Counts {
        for outcome in self.state.probes.iter().filter_map(|id| self.state.outcomes.get(id)) {
            match outcome {
                Outcome::Invalid { .. } => counts.invalid -= 1,
                Outcome::Failed { .. } => counts.failed -= 1,
                _ => {}
            }
        }
        counts
    }

    /// Tries once more to write the rows that are missing. Where that fails the run is not over: the next start completes it.
    pub fn complete_rows(&mut self) -> Result<(), StoreError> {
        for unit_id in std::mem::take(&mut self.rows_missing) {
            let unit = &self.record.units[self.index[&unit_id]];
            if let Stored::Present { result, .. } = self.store.read_unit(&unit.directory, &unit_id)? {
                self.dir.complete_csv(unit, &result, &self.record.run)?;
            }
        }
        Ok(())
    }

    fn failure_row(&mut self, unit_id: &UnitId, is: impl Fn(&AttemptRecord) -> bool) -> Result<(), StoreError> {
        let run = self.record.run.clone();
        self.row(unit_id, |unit, result| {
            let attempt = result.attempts.iter().rev().find(|a| a.run == run && is(a))?;
            Some(row(unit, Measured::Attempt(attempt)))
        })
    }

    /// Writes the row of what was just committed. What cannot be written is tried again at the end: the truth is with
    /// the unit.
    fn row(&mut self, unit_id: &UnitId, make: impl Fn(&RunUnit, &UnitResult) -> Option<Row>) -> Result<(), StoreError> {
        let Some(unit) = self.index.get(unit_id).map(|i| &self.record.units[*i]) else { return Ok(()) };
        let written = match self.store.read_unit(&unit.directory, unit_id) {
            Ok(Stored::Present { result, .. }) => match (make(unit, &result), self.dir.csv(&unit.directory)) {
                (Some(row), Some(csv)) => csv.append(&row),
                _ => Ok(()),
            },
            Ok(Stored::Absent | Stored::Damaged(_)) => Ok(()),
            Err(e) => Err(e),
        };
        let Err(e) = written else { return Ok(()) };
        if self.rows_missing.insert(*unit_id) {
            let message = format!("a results row could not be written and is tried again at the end: {e}");
            self.take(Event::Notice { message })?;
        }
        Ok(())
    }

    fn report(&mut self, entry: &Entry) {
        let Some(reporter) = &mut self.reporter else { return };
        // A display that panics must not take the measurement with it.
        if catch_unwind(AssertUnwindSafe(|| reporter(entry))).is_err() {
            self.reporter = None;
        }
    }
}

fn row(unit: &RunUnit, measured: Measured<'_>) -> Row {
    let (unit_id, deploy_id) = (Some(unit.unit_id), Some(unit.deploy_id));
    Row::new(&RowSource { unit_id, deploy_id, facts: &unit.facts, measured })
}
