//! What a group of units needs to be measured, as plain data: any process that reaches the artifacts and the devices can
//! execute it. Built from a plan; the names and facts that records and displays show are decided here.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::search::SearchWork;
use super::tokenizers::TokenizerPath;
use crate::clock;
use crate::event::FailureClass;
use crate::plan::catalog::{LastFailure, UnitState};
use crate::plan::{Cell, Deployment, Plan, Search, Unit};
use crate::spec::policy::{RunPolicy, Slo};
use crate::store::record::{CellRecord, Provenance, SCHEMA, SampleRecord, UnitFacts, UnitRecord, UnitResult};
use crate::workload::Workload;

/// The worklist of one deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupWork {
    /// `{timestamp}-{experiment}`.
    pub run: String,
    pub simulated: bool,
    pub deployment: Deployment,
    pub units: Vec<UnitWork>,
    /// Run on the last engine start, after the units.
    pub searches: Vec<SearchWork>,
    /// What is known before the engine runs.
    pub provenance: Provenance,
    /// US dollars per hour of the deployment.
    pub usd_per_hour: Option<f64>,
    /// Engine starts of the deployment that the run has made elsewhere: theirs are the numbers up to it.
    #[serde(default)]
    pub starts_before: u32,
}

/// A unit that may need samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnitWork {
    pub record: UnitRecord,
    /// What people call it.
    pub name: String,
    pub workload: Workload,
    /// File of the data set, resolved.
    pub dataset: Option<PathBuf>,
    pub tokenizer: Option<TokenizerPath>,
    pub policy: RunPolicy,
    pub slo: Slo,
    /// Samples that ended before this do not count: RFC 3339, from `max_age`.
    pub fresh_after: Option<String>,
    /// That another run holds it has been said.
    pub announced_taken: bool,
}

impl UnitWork {
    pub fn new(plan: &Plan, unit: &Unit, now: Timestamp, base: &Path) -> UnitWork {
        let deployment = &plan.deployments[unit.deployment];
        let workload = plan.workload(unit);
        let policy = plan.policy_of(unit).clone();
        UnitWork {
            record: UnitRecord {
                schema: SCHEMA,
                unit_id: unit.id,
                deploy_id: deployment.id,
                unit: plan.unit_document(unit),
                deploy: deployment.document.clone(),
                simulated: plan.simulated,
                facts: facts(plan, unit, &workload),
            },
            name: name(plan, unit),
            tokenizer: TokenizerPath::of(deployment, &unit.cell, base),
            dataset: workload.dataset.as_ref().map(|d| base.join(&d.path)),
            fresh_after: fresh_after(&policy, now).map(clock::rfc3339),
            workload,
            slo: plan.slo_of(unit).clone(),
            policy,
            announced_taken: false,
        }
    }

    /// Whether a sample counts towards the repeats that this run asks for.
    pub fn counts(&self, sample: &SampleRecord, run: &str) -> bool {
        let fresh = || match (&self.fresh_after, sample.finished_at.parse::<Timestamp>()) {
            (None, _) => true,
            (Some(after), Ok(end)) => after.parse::<Timestamp>().is_ok_and(|after| end >= after),
            (Some(_), Err(_)) => false,
        };
        sample.valid && (!self.policy.force || sample.run == run) && fresh()
    }

    /// Valid samples that are still to be measured.
    pub fn missing(&self, result: &UnitResult, run: &str) -> u32 {
        let have = result.samples.iter().filter(|s| self.counts(s, run)).count();
        self.policy.repeats.saturating_sub(u32::try_from(have).unwrap_or(u32::MAX))
    }

    /// The samples that the run stands on: the newest that count, as many as were asked for.
    pub fn used(&self, result: &UnitResult, run: &str) -> Vec<u32> {
        let counting: Vec<u32> = result.samples.iter().filter(|s| self.counts(s, run)).map(|s| s.sample).collect();
        newest(counting, self.policy.repeats)
    }
}

/// The samples that a unit needs no other for; `None` when it needs more.
pub fn cached(state: &UnitState, policy: &RunPolicy, now: Timestamp) -> Option<Vec<u32>> {
    let numbers = counting(state, policy, now);
    let enough = state.damaged.is_none() && numbers.len() >= policy.repeats as usize && !policy.force;
    enough.then(|| newest(numbers, policy.repeats))
}

/// Samples that a run would have to measure, as far as the artifacts tell now.
pub fn expected(state: Option<&UnitState>, policy: &RunPolicy, now: Timestamp) -> u32 {
    let Some(state) = state else { return policy.repeats };
    let stands = |f: &LastFailure| f.class == FailureClass::Deterministic && !policy.retry_failed;
    let have = match policy.force {
        true => 0,
        false => u32::try_from(counting(state, policy, now).len()).unwrap_or(u32::MAX),
    };
    if state.last_failure.as_ref().is_some_and(stands) { 0 } else { policy.repeats.saturating_sub(have) }
}

/// Numbers of the valid samples that are young enough.
fn counting(state: &UnitState, policy: &RunPolicy, now: Timestamp) -> Vec<u32> {
    let after = fresh_after(policy, now);
    let fresh = state.valid_samples.iter().filter(|(_, end)| after.is_none_or(|after| *end >= after));
    fresh.map(|(number, _)| *number).collect()
}

fn newest(mut numbers: Vec<u32>, repeats: u32) -> Vec<u32> {
    numbers.sort_unstable();
    numbers.split_off(numbers.len().saturating_sub(repeats as usize))
}

fn fresh_after(policy: &RunPolicy, now: Timestamp) -> Option<Timestamp> {
    let age = SignedDuration::try_from(policy.max_age?).unwrap_or(SignedDuration::MAX);
    Some(now.saturating_sub(age).unwrap_or(Timestamp::MIN))
}

/// A cell as it stands in files.
pub fn cell_record(cell: &Cell) -> CellRecord {
    cell.0.iter().map(|(path, value)| (path.to_string(), value.clone())).collect()
}

/// Labels as they stand in files.
pub fn label_record(labels: &[(std::sync::Arc<str>, std::sync::Arc<str>)]) -> Vec<(String, String)> {
    labels.iter().map(|(axis, label)| (axis.to_string(), label.to_string())).collect()
}

/// What result rows say of a unit.
pub fn facts(plan: &Plan, unit: &Unit, workload: &Workload) -> UnitFacts {
    let deployment = &plan.deployments[unit.deployment];
    let cell = &unit.cell;
    let text = |path: &str| cell.get(path).and_then(|v| v.as_str().map(str::to_string));
    let count = |path: &str| cell.get(path).and_then(|v| u32::try_from(v.as_i64()?).ok());
    let open_loop = workload.is_open_loop();
    UnitFacts {
        experiment: plan.experiment.clone(),
        labels: label_record(&unit.labels),
        cell: cell_record(cell),
        model: deployment.model.clone(),
        revision: text("revision"),
        method: deployment.method.clone(),
        engine: deployment.engine.clone(),
        image: deployment.spec.container.as_ref().map(|c| c.image.clone()),
        hardware: deployment.hardware.clone(),
        gpus: deployment.gpus,
        tensor_parallel: count("tensor_parallel"),
        pipeline_parallel: count("pipeline_parallel"),
        data_parallel: count("data_parallel"),
        dtype: text("dtype"),
        quantization: text("quantization"),
        api: Some(workload.api.as_str().to_string()),
        isl: workload.tokens.input,
        osl: workload.tokens.output,
        concurrency: workload.concurrency,
        request_rate: workload.rate,
        arrival: text("arrival").filter(|_| open_loop),
        requests: workload.requests,
        seed: Some(workload.seed),
    }
}

/// The container's name, each labelled axis, and each axis of the unit's block beside the stack itself, the usual ones
/// in the field's short form: `llama-hf-vllm precision=fp8 ISL 1024 OSL 128 conc 8`.
pub fn name(plan: &Plan, unit: &Unit) -> String {
    cell_name(plan, (unit.deployment, unit.block), &unit.cell, &unit.labels)
}

/// As [`name`], with the range that is searched in place of a value.
pub fn search_name(plan: &Plan, search: &Search) -> String {
    let block = search.probes.first().map_or(0, |p| p.unit.block);
    let name = cell_name(plan, (search.deployment, block), &search.cell, &search.labels);
    let short = SHORT.iter().find(|(axis, _)| *axis == search.parameter).map_or(&*search.parameter, |(_, short)| short);
    format!("{name} {short} {}…{} until {}", search.from, search.to, search.until.as_str())
}

fn cell_name(
    plan: &Plan,
    (deployment, block): (usize, u32),
    cell: &Cell,
    labels: &[(std::sync::Arc<str>, std::sync::Arc<str>)],
) -> String {
    let mut name = plan.deployments[deployment].container.clone();
    for (axis, label) in labels {
        name.push_str(&format!(" {axis}={label}"));
    }
    let axes = plan.axes.get(block as usize).map(Vec::as_slice).unwrap_or_default();
    for (axis, short) in SHORT {
        if axes.iter().any(|a| &**a == axis)
            && let Some(value) = cell.get(axis)
        {
            name.push_str(&format!(" {short} {value}"));
        }
    }
    let said = |axis: &str| SHORT.iter().any(|(a, _)| *a == axis) || matches!(axis, "model" | "method" | "engine");
    for axis in axes.iter().filter(|a| !said(a)) {
        if let Some(value) = cell.get(axis) {
            name.push_str(&format!(" {axis}={value}"));
        }
    }
    name
}

/// Axes with a short name.
const SHORT: [(&str, &str); 4] =
    [("tokens.input", "ISL"), ("tokens.output", "OSL"), ("concurrency", "conc"), ("rate", "rate")];
