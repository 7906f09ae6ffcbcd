//! The control of a run: one cell that is measured before all others and after them, on engine starts of its own, whether
//! it is cached or not. What it moved by in between is the machine's doing.

use std::collections::BTreeMap;

use tokio::sync::mpsc::unbounded_channel;

use super::dispatch::Dispatcher;
use super::group::{GroupContext, run_group};
use super::run::ExecError;
use super::work::{GroupWork, UnitWork};
use crate::event::Event;
use crate::plan::Plan;
use crate::store::Stored;
use crate::store::record::ControlRecord;
use crate::value::{Table, Value};

/// Why there is no control where one is asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlError {
    #[error("`control` of [gate] names no cell of this plan: {0}")]
    None(String),
    #[error("`control` of [gate] names {count} cells ({first}, {second}, …): give more of their parameters")]
    Several { count: usize, first: String, second: String },
}

/// The unit of a plan that its `[gate] control` names; `None` where it names none.
pub fn find(plan: &Plan) -> Result<Option<usize>, ControlError> {
    let Some(table) = plan.gate.control.as_ref().and_then(Value::as_map) else { return Ok(None) };
    let mut wanted = BTreeMap::new();
    flatten("", table, &mut wanted);
    let is = |unit: &crate::plan::Unit| wanted.iter().all(|(name, value)| unit.cell.get(name).as_ref() == Some(value));
    let found: Vec<usize> = (0..plan.units.len()).filter(|i| is(&plan.units[*i])).collect();
    let name = |i: usize| super::work::name(plan, &plan.units[i]);
    match found.as_slice() {
        [only] => Ok(Some(*only)),
        [] => {
            let said: Vec<String> = wanted.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            Err(ControlError::None(said.join(", ")))
        }
        [first, second, ..] => {
            Err(ControlError::Several { count: found.len(), first: name(*first), second: name(*second) })
        }
    }
}

fn flatten(prefix: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        match value {
            Value::Map(inner) => flatten(&path, inner, out),
            value => drop(out.insert(path, value.clone())),
        }
    }
}

/// A control in the course of its run.
pub struct Control {
    /// A group of the one unit, without searches.
    group: GroupWork,
    unit: UnitWork,
    repeats: u32,
    record: ControlRecord,
}

impl Control {
    pub fn new(group: GroupWork, unit: UnitWork) -> Control {
        let repeats = unit.policy.repeats;
        let record = ControlRecord { unit_id: unit.record.unit_id, first: Vec::new(), last: Vec::new() };
        Control { group, unit, repeats, record }
    }

    /// Measures it before the others.
    pub async fn first(&mut self, dispatcher: &mut Dispatcher, context: &GroupContext) -> Result<(), ExecError> {
        self.record.first = self.pass(0, dispatcher, context).await?;
        dispatcher.record.control = Some(self.record.clone());
        Ok(())
    }

    /// Measures it after the others.
    pub async fn last(&mut self, dispatcher: &mut Dispatcher, context: &GroupContext) -> Result<(), ExecError> {
        let starts = 1 + self.unit.policy.starts.max(1);
        self.record.last = self.pass(starts, dispatcher, context).await?;
        dispatcher.record.control = Some(self.record.clone());
        Ok(())
    }

    /// One engine start with all repeats; gives the numbers of the samples that count.
    async fn pass(
        &self,
        starts_before: u32,
        dispatcher: &mut Dispatcher,
        context: &GroupContext,
    ) -> Result<Vec<u32>, ExecError> {
        let before = self.samples(context);
        let mut unit = self.unit.clone();
        unit.policy.force = true;
        unit.policy.starts = 1;
        // That it cannot be measured is no reason to measure nothing.
        unit.policy.fail_fast = false;
        unit.policy.repeats = self.repeats + u32::try_from(before.len()).unwrap_or(u32::MAX);
        let work = GroupWork { units: vec![unit], starts_before, ..self.group.clone() };
        let (sender, mut events) = unbounded_channel();
        let group = context.clone();
        let running = tokio::spawn(async move { run_group(work, &group, &sender).await });
        let mut problem = None;
        while let Some(event) = events.recv().await {
            // The unit has its own place in the run, at which it ends.
            if matches!(event, Event::UnitFinished { .. } | Event::UnitTaken { .. }) || problem.is_some() {
                continue;
            }
            if let Err(e) = dispatcher.take(event) {
                context.cancel.interrupt();
                problem = Some(ExecError::Journal(e));
            }
        }
        running.await.map_err(|e| ExecError::Panic(e.to_string()))?;
        match problem {
            Some(e) => Err(e),
            None => Ok(self.samples(context).into_iter().filter(|n| !before.contains(n)).collect()),
        }
    }

    /// Numbers of the unit's valid samples of this run.
    fn samples(&self, context: &GroupContext) -> Vec<u32> {
        let directory = &self.group.deployment.directory;
        match context.store.read_unit(directory, &self.unit.record.unit_id) {
            Ok(Stored::Present { result, .. }) => {
                result.samples.iter().filter(|s| s.valid && s.run == self.group.run).map(|s| s.sample).collect()
            }
            _ => Vec::new(),
        }
    }
}
