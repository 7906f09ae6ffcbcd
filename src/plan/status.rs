//! A plan against the artifacts: the status of every unit, and the fields that differ from what was measured before.
//! New units meet existing ones through an index on axis values, never pairwise.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::catalog::{Catalog, StoredUnit, UnitState};
use super::identity::default_of;
use super::{Plan, Reason, Status, Unit};
use crate::digest::DeployId;
use crate::event::FailureClass;
use crate::spec::policy::RunPolicy;
use crate::value::{Table, Value};

/// Fields of a document by their names in messages.
type Fields = BTreeMap<String, Value>;

/// What a run of the plan would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Engine starts.
    pub starts: u64,
    pub samples: u64,
    /// Seconds, from the history of these units where there is any; `None` without any.
    pub seconds: Option<f64>,
    /// Share of the samples whose length is known from their own history.
    pub known: f64,
    pub usd: Option<f64>,
}

impl Plan {
    /// Gives every unit its status. `now` decides only about `max_age`.
    pub fn compare(&mut self, catalog: &dyn Catalog, now: Timestamp) {
        let wanted: Vec<(&str, crate::digest::UnitId)> =
            self.units.iter().map(|u| (self.deployments[u.deployment].directory.as_str(), u.id)).collect();
        let states = catalog.states(&wanted);
        let mut fresh = Vec::new();
        for (i, state) in states.into_iter().enumerate() {
            let (status, note) = status(state.as_ref(), self.policy_of(&self.units[i]), now);
            let unit = &mut self.units[i];
            unit.status = status;
            unit.note = note;
            unit.valid_samples = state.as_ref().map_or(0, |s| s.valid_samples.len() as u32);
            unit.history_seconds = state.and_then(|s| s.mean_sample_seconds);
            if status == Status::New {
                fresh.push(i);
            }
        }
        self.compare_probes(catalog, now);
        if !fresh.is_empty() {
            let stored = catalog.documents();
            self.relate(&fresh, &stored);
        }
    }

    /// Gives every unit that a search may ask for its status, without the reasons.
    fn compare_probes(&mut self, catalog: &dyn Catalog, now: Timestamp) {
        let probes = self.searches.iter().flat_map(|s| s.probes.iter().map(|p| (s.deployment, p.unit.id)));
        let wanted: Vec<(&str, crate::digest::UnitId)> =
            probes.map(|(deployment, id)| (self.deployments[deployment].directory.as_str(), id)).collect();
        let mut states = catalog.states(&wanted).into_iter();
        let policy = &self.policy;
        for probe in self.searches.iter_mut().flat_map(|s| &mut s.probes) {
            let state = states.next().flatten();
            let unit = &mut probe.unit;
            (unit.status, unit.note) = status(state.as_ref(), unit.policy.as_deref().unwrap_or(policy), now);
            unit.valid_samples = state.as_ref().map_or(0, |s| s.valid_samples.len() as u32);
            unit.history_seconds = state.and_then(|s| s.mean_sample_seconds);
        }
    }

    /// Finds for each of `fresh` the nearest stored unit with the same axis values; it is then `changed`, with reasons.
    pub fn relate(&mut self, fresh: &[usize], stored: &[StoredUnit]) {
        if stored.is_empty() {
            return;
        }
        let planned: HashSet<_> = self.units.iter().map(|u| u.id).collect();
        let old: Vec<&StoredUnit> = stored.iter().filter(|s| !planned.contains(&s.unit_id)).collect();
        let mut index = AxisIndex::new(&old, stored);
        let mut differ = Differ::default();
        let mut found = Vec::new();
        let mut shapes = Shapes::default();
        for &i in fresh {
            let unit = &self.units[i];
            let shape = shapes.of(unit, &self.axes);
            let candidates = index.same_axes(&shape, unit);
            let new_deploy = &self.deployments[unit.deployment];
            let nearest = candidates
                .iter()
                .take(64)
                .map(|&c| (differ.count(old[c], new_deploy.id, &new_deploy.document, &self.unit_document(unit)), c))
                .min_by_key(|(n, c)| (*n, old[*c].unit_id));
            match nearest {
                Some((_, c)) => {
                    let reasons =
                        differ.reasons(old[c], new_deploy.id, &new_deploy.document, &self.unit_document(unit));
                    found.push((i, Status::Changed, reasons));
                }
                None => found.push((i, Status::New, index.unseen(&shape, unit))),
            }
        }
        for (i, status, reasons) in found {
            self.units[i].status = status;
            self.units[i].reasons = reasons;
        }
    }

    /// What a run would take, from each unit's own history, else the mean of the others'.
    pub fn estimate(&self) -> Estimate {
        let mut starts: HashMap<usize, u32> = HashMap::new();
        let mut samples = 0u64;
        let mut known = 0u64;
        let mut per_deployment: HashMap<usize, f64> = HashMap::new();
        let history: Vec<f64> = self.units.iter().filter_map(|u| u.history_seconds).collect();
        let mean = (!history.is_empty()).then(|| history.iter().sum::<f64>() / history.len() as f64);
        for unit in self.units.iter().filter(|u| u.status.needs_work()) {
            let policy = self.policy_of(unit);
            let missing = policy.repeats.saturating_sub(unit.valid_samples).max(1);
            let start = starts.entry(unit.deployment).or_default();
            *start = (*start).max(policy.starts.min(missing));
            samples += u64::from(missing);
            known += if unit.history_seconds.is_some() { u64::from(missing) } else { 0 };
            if let Some(seconds) = unit.history_seconds.or(mean) {
                *per_deployment.entry(unit.deployment).or_default() += seconds * f64::from(missing);
            }
        }
        let seconds = (mean.is_some() || samples == 0).then(|| per_deployment.values().sum());
        let price = |(d, seconds): (&usize, &f64)| {
            let deployment = &self.deployments[*d];
            Some(self.cost.hour(&deployment.hardware, deployment.gpus)? * seconds / 3600.0)
        };
        let priced = seconds.is_some() && !self.cost.is_empty();
        let usd = if priced { per_deployment.iter().map(price).sum() } else { None };
        Estimate {
            starts: starts.values().map(|n| u64::from(*n)).sum(),
            samples,
            seconds,
            known: if samples == 0 { 1.0 } else { known as f64 / samples as f64 },
            usd,
        }
    }
}

fn status(state: Option<&UnitState>, policy: &RunPolicy, now: Timestamp) -> (Status, Option<String>) {
    let Some(state) = state else { return (Status::New, None) };
    let damage = state.damaged.as_ref().map(|damage| format!("what was there does not count: {damage}"));
    if damage.is_some() && state.valid_samples.is_empty() {
        return (Status::New, damage);
    }
    let young = |t: &Timestamp| {
        policy.max_age.is_none_or(|max| Duration::try_from(now.duration_since(*t)).map_or(true, |age| age <= max))
    };
    let fresh = state.valid_samples.iter().filter(|(_, t)| young(t)).count() as u32;
    let all = state.valid_samples.len() as u32;
    if fresh >= policy.repeats {
        return (Status::Cached, damage);
    }
    if damage.is_some() {
        return (Status::Partial, damage);
    }
    if let Some(failure) = &state.last_failure {
        if failure.class == FailureClass::Invalid {
            return (Status::Invalid, Some(failure.cause.clone()));
        }
        let again = match failure.class {
            FailureClass::Deterministic if !policy.retry_failed => " (not tried again without --retry-failed)",
            _ => "",
        };
        return (Status::Failed, Some(format!("{}{again}", failure.cause)));
    }
    if let Some(reason) = &state.last_invalid {
        return (Status::Invalid, Some(reason.clone()));
    }
    if all >= policy.repeats {
        return (Status::Expired, Some(format!("{fresh} of {all} samples are young enough")));
    }
    match all {
        0 => (Status::New, None),
        n => (Status::Partial, Some(format!("{n} of {} samples", policy.repeats))),
    }
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Cached => "cached",
            Status::Partial => "partial",
            Status::New => "new",
            Status::Changed => "changed",
            Status::Expired => "expired",
            Status::Failed => "failed",
            Status::Invalid => "invalid",
            Status::Unsupported => "unsupported",
        }
    }

    pub const ALL: [Status; 8] = [
        Status::Cached,
        Status::Partial,
        Status::New,
        Status::Changed,
        Status::Expired,
        Status::Failed,
        Status::Invalid,
        Status::Unsupported,
    ];

    /// Whether a run would measure a unit of this status.
    pub fn needs_work(self) -> bool {
        !matches!(self, Status::Cached | Status::Unsupported)
    }
}

/// Which parameters and labelled axes are the coordinates of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    paths: Vec<Arc<str>>,
    labels: Vec<Arc<str>>,
}

/// Shapes by block and number of labels: units of one block mostly share one.
#[derive(Default)]
struct Shapes(HashMap<(u32, Vec<Arc<str>>), Arc<Shape>>);

impl Shapes {
    fn of(&mut self, unit: &Unit, axes: &[Vec<Arc<str>>]) -> Arc<Shape> {
        let labels: Vec<Arc<str>> = unit.labels.iter().map(|(axis, _)| axis.clone()).collect();
        let make = || Arc::new(Shape::of(unit, &axes[unit.block as usize]));
        self.0.entry((unit.block, labels)).or_insert_with(make).clone()
    }
}

impl Shape {
    fn of(unit: &Unit, axes: &[Arc<str>]) -> Shape {
        let mut paths: Vec<Arc<str>> = ["model", "method", "engine"].map(Arc::from).to_vec();
        paths.extend(axes.iter().filter(|a| !matches!(&***a, "model" | "method" | "engine")).cloned());
        let mut labels: Vec<Arc<str>> = unit.labels.iter().map(|(axis, _)| axis.clone()).collect();
        labels.sort();
        Shape { paths, labels }
    }

    /// The coordinates as one text.
    fn key<'a>(&self, value: impl Fn(&str) -> Option<Value>, label: impl Fn(&str) -> Option<&'a str>) -> Vec<u8> {
        let mut key = Vec::with_capacity(128);
        for path in &self.paths {
            match value(path).or_else(|| default_of(path)) {
                Some(v) => v.write_canonical(&mut key),
                None => key.push(b'-'),
            }
            key.push(0);
        }
        for axis in &self.labels {
            key.extend_from_slice(label(axis).unwrap_or("-").as_bytes());
            key.push(0);
        }
        key
    }
}

fn unit_key(shape: &Shape, unit: &Unit) -> Vec<u8> {
    shape.key(|p| unit.cell.get(p), |axis| unit.labels.iter().find(|(a, _)| &**a == axis).map(|(_, l)| &**l))
}

/// Stored units by their coordinates, one map per shape that occurs.
struct AxisIndex<'a> {
    old: &'a [&'a StoredUnit],
    all: &'a [StoredUnit],
    by_shape: HashMap<Arc<Shape>, HashMap<Vec<u8>, Vec<usize>>>,
    /// Values that occur on an axis, canonical.
    values: HashMap<Arc<str>, HashSet<Vec<u8>>>,
}

impl<'a> AxisIndex<'a> {
    fn new(old: &'a [&'a StoredUnit], all: &'a [StoredUnit]) -> Self {
        AxisIndex { old, all, by_shape: HashMap::new(), values: HashMap::new() }
    }

    fn same_axes(&mut self, shape: &Arc<Shape>, unit: &Unit) -> Vec<usize> {
        let old = self.old;
        let map = self.by_shape.entry(shape.clone()).or_insert_with(|| {
            let mut map: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
            for (i, stored) in old.iter().enumerate() {
                let label = |axis: &str| stored.labels.iter().find(|(a, _)| a == axis).map(|(_, l)| l.as_str());
                map.entry(shape.key(|p| parameter(stored, p), label)).or_default().push(i);
            }
            map
        });
        map.get(&unit_key(shape, unit)).cloned().unwrap_or_default()
    }

    /// For a unit that is new: its coordinates that no stored unit has.
    fn unseen(&mut self, shape: &Shape, unit: &Unit) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for path in &shape.paths {
            let Some(value) = unit.cell.get(path) else { continue };
            let all = self.all;
            let known = self.values.entry(path.clone()).or_insert_with(|| {
                all.iter().filter_map(|s| parameter(s, path).or_else(|| default_of(path))).map(|v| bytes(&v)).collect()
            });
            if !known.contains(&bytes(&value)) {
                reasons.push(Reason { field: path.to_string(), old: None, new: Some(value) });
            }
        }
        reasons
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.write_canonical(&mut out);
    out
}

/// A parameter as a stored unit's documents have it.
fn parameter(stored: &StoredUnit, path: &str) -> Option<Value> {
    let of = |document: &Value| document.as_map()?.get("params")?.as_map()?.get(path).cloned();
    of(&stored.unit).or_else(|| of(&stored.deploy))
}

/// Compares documents field by field, flattening each deployment once.
#[derive(Default)]
struct Differ {
    deployments: HashMap<DeployId, Arc<Fields>>,
    pairs: HashMap<(DeployId, DeployId), Arc<Vec<Reason>>>,
}

impl Differ {
    fn count(&mut self, old: &StoredUnit, new_id: DeployId, new_deploy: &Value, new_unit: &Value) -> usize {
        self.reasons(old, new_id, new_deploy, new_unit).len()
    }

    fn reasons(&mut self, old: &StoredUnit, new_id: DeployId, new_deploy: &Value, new_unit: &Value) -> Vec<Reason> {
        let mut reasons = (*self.deployment(old, new_id, new_deploy)).clone();
        reasons.extend(differences(&unit_fields(&old.unit), &unit_fields(new_unit)));
        reasons
    }

    fn deployment(&mut self, old: &StoredUnit, new_id: DeployId, new_deploy: &Value) -> Arc<Vec<Reason>> {
        if let Some(known) = self.pairs.get(&(old.deploy_id, new_id)) {
            return known.clone();
        }
        let old_fields =
            self.deployments.entry(old.deploy_id).or_insert_with(|| Arc::new(deploy_fields(&old.deploy))).clone();
        let new_fields = self.deployments.entry(new_id).or_insert_with(|| Arc::new(deploy_fields(new_deploy))).clone();
        let mut reasons = differences(&old_fields, &new_fields);
        // A changed parameter shows in the rendered text too; the parameter is the reason.
        let template = |r: &Reason| r.field.starts_with(TEMPLATE);
        if reasons.iter().any(|r| !template(r)) {
            reasons.retain(|r| !template(r));
        }
        let reasons = Arc::new(reasons);
        self.pairs.insert((old.deploy_id, new_id), reasons.clone());
        reasons
    }
}

/// Starts the name of a field that a template rendered.
const TEMPLATE: &str = "template: ";

/// Fields that differ between two documents of the same kind.
pub fn differences(old: &Fields, new: &Fields) -> Vec<Reason> {
    let mut out = Vec::new();
    for (field, value) in old {
        let now = new.get(field);
        if now != Some(value) {
            out.push(Reason { field: field.clone(), old: Some(value.clone()), new: now.cloned() });
        }
    }
    for (field, value) in new.iter().filter(|(f, _)| !old.contains_key(*f)) {
        out.push(Reason { field: field.clone(), old: None, new: Some(value.clone()) });
    }
    out.sort_by(|a, b| a.field.cmp(&b.field));
    out
}

/// A deployment's document as named fields.
pub fn deploy_fields(document: &Value) -> Fields {
    let mut out = Fields::new();
    for (key, value) in document.as_map().unwrap_or(&Table::new()) {
        match &**key {
            "params" => flatten("", value, &mut out),
            "spec" => flatten(TEMPLATE, value, &mut out),
            "locked" => {
                for (name, value) in value.as_map().unwrap_or(&Table::new()) {
                    match &**name {
                        "image" => _ = out.insert("image digest".into(), value.clone()),
                        "model" => _ = out.insert("model commit".into(), value.clone()),
                        name => flatten(&format!("{name}."), value, &mut out),
                    }
                }
            }
            "simulated" | "simulator" => flatten("simulator.", value, &mut out),
            "version" => {}
            other => _ = out.insert(other.to_string(), value.clone()),
        }
    }
    out
}

fn unit_fields(document: &Value) -> Fields {
    let mut out = Fields::new();
    for (key, value) in document.as_map().unwrap_or(&Table::new()) {
        match &**key {
            "params" => flatten("", value, &mut out),
            "dataset" => _ = out.insert("data set content".into(), value.clone()),
            "protocol" => _ = out.insert("measurement protocol".into(), value.clone()),
            // The deployment's fields say why its id differs.
            _ => {}
        }
    }
    out
}

fn flatten(prefix: &str, value: &Value, out: &mut Fields) {
    let Some(table) = value.as_map() else { return };
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match value {
            Value::Map(inner) if !inner.is_empty() => flatten(&format!("{name}."), value, out),
            _ => _ = out.insert(name, value.clone()),
        }
    }
}

impl Plan {
    /// Keeps the units, searches and unsupported cells that an older plan has not.
    pub fn keep_what_differs(&mut self, old: &Plan) {
        let units: HashSet<_> = old.units.iter().map(|u| u.id).collect();
        let probes: HashSet<_> = old.searches.iter().flat_map(|s| &s.probes).map(|p| p.unit.id).collect();
        let unsupported: HashSet<_> = old.unsupported.iter().map(|u| u.unit_id).collect();
        self.units.retain(|u| !units.contains(&u.id));
        self.searches.retain(|s| s.probes.iter().any(|p| !probes.contains(&p.unit.id)));
        self.unsupported.retain(|u| !unsupported.contains(&u.unit_id));
    }

    /// Keeps the cells that another plan of the same experiment has, whatever their ids are.
    pub fn keep_cells_of(&mut self, other: &Plan) {
        self.units.retain(|u| other.units.iter().any(|o| o.cell == u.cell));
        self.searches.retain(|s| other.searches.iter().any(|o| o.cell == s.cell && o.parameter == s.parameter));
        self.unsupported.retain(|u| other.unsupported.iter().any(|o| o.cell == u.cell));
    }
}

/// How a plan differs from another one: `plan --base`.
#[derive(Debug, Default)]
pub struct Changes {
    /// Indices into the new plan's units.
    pub added: Vec<usize>,
    pub changed: Vec<(usize, Vec<Reason>)>,
    pub unchanged: Vec<usize>,
    /// Indices into the old plan's units.
    pub removed: Vec<usize>,
}

/// Compares two plans of one experiment: units are matched by id, then by axis values.
pub fn changes(old: &Plan, new: &Plan) -> Changes {
    let stored: Vec<StoredUnit> = old
        .units
        .iter()
        .map(|u| StoredUnit {
            unit_id: u.id,
            deploy_id: old.deployments[u.deployment].id,
            directory: old.deployments[u.deployment].directory.clone(),
            unit: old.unit_document(u),
            deploy: old.deployments[u.deployment].document.clone(),
            labels: u.labels.iter().map(|(a, l)| (a.to_string(), l.to_string())).collect(),
        })
        .collect();
    let before: HashSet<_> = old.units.iter().map(|u| u.id).collect();
    let after: HashSet<_> = new.units.iter().map(|u| u.id).collect();
    let mut related = new.clone();
    let fresh: Vec<usize> = (0..new.units.len()).filter(|i| !before.contains(&new.units[*i].id)).collect();
    related.relate(&fresh, &stored);
    let mut out = Changes {
        unchanged: (0..new.units.len()).filter(|i| before.contains(&new.units[*i].id)).collect(),
        ..Changes::default()
    };
    let mut replaced: HashSet<Vec<u8>> = HashSet::new();
    for i in fresh {
        let unit = &related.units[i];
        match unit.status {
            Status::Changed => {
                replaced.insert(unit_key(&Shape::of(unit, &related.axes[unit.block as usize]), unit));
                out.changed.push((i, unit.reasons.clone()));
            }
            _ => out.added.push(i),
        }
    }
    for (i, unit) in old.units.iter().enumerate().filter(|(_, u)| !after.contains(&u.id)) {
        if !replaced.contains(&unit_key(&Shape::of(unit, &old.axes[unit.block as usize]), unit)) {
            out.removed.push(i);
        }
    }
    out
}
