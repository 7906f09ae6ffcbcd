//! `plan`: what a run would do and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::json;

use super::args::{Global, PlanArgs};
use super::failure::{Failure, NOTHING};
use super::git::Revision;
use super::output::{self, Output};
use super::prepare::{self, Prepared};
use super::reach::{self, Reach};
use crate::plan::fit::{self, Fit};
use crate::plan::lock::is_local;
use crate::plan::status::{Changes, changes};
use crate::plan::{Cell, Plan, Reason, Search, Status, Unit, Unsupported};
use crate::spec::policy::Evict;
use crate::store::Store;
use crate::units::{Objective, format_duration};
use crate::value::Value;

/// Rows of a list that are shown before the rest is counted.
const SHOWN: usize = 40;

pub fn command(args: &PlanArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let mut code = 0;
    for file in prepare::files(&args.paths)? {
        let prepared = prepare::prepare(&file)?;
        code = code.max(one(&prepared, args, global, output)?);
    }
    Ok(code)
}

fn one(prepared: &Prepared, args: &PlanArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(&prepared.dir, global)?;
    let mut plan = prepared.plan(&args.selection, &args.run, &layered.settings)?;
    let store = Store::open(&layered.settings.artifacts, plan.simulated);
    plan.compare(&store, Timestamp::now());
    let base = match &args.base {
        None => None,
        Some(name) => {
            let revision = Revision::open(&prepared.dir, name)?;
            let old = match prepare::prepare_at(&prepared.path, &revision)? {
                Some(p) => Some(p.plan_at(&args.selection, &args.run, &revision)?),
                None => None,
            };
            Some((name.as_str(), old))
        }
    };
    let compared = base.as_ref().map(|(name, old)| (*name, old.as_ref(), old.as_ref().map(|o| changes(o, &plan))));
    let reach = reach::of(&plan, &prepared.dir);
    let fits = fit::of(&plan, &prepared.lock);
    let empty = plan.units.is_empty() && plan.searches.is_empty() && plan.unsupported.is_empty();
    if output.json {
        output.json(&PlanJson { plan: &plan, fits: &fits, reach: &reach, base: compared.as_ref() });
    } else if !empty || compared.is_some() {
        output.text(&human(&plan, &fits, &reach, compared.as_ref()));
    }
    if empty {
        output.warning("--only selects no cell");
    }
    Ok(if empty { NOTHING } else { 0 })
}

/// A name, the old plan where the file was there, and what differs.
type Compared<'a> = (&'a str, Option<&'a Plan>, Option<Changes>);

struct PlanJson<'a> {
    plan: &'a Plan,
    /// By deployment.
    fits: &'a [Option<Fit>],
    reach: &'a [Reach],
    base: Option<&'a Compared<'a>>,
}

impl Serialize for PlanJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let plan = self.plan;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("experiment", &plan.experiment)?;
        map.serialize_entry("simulated", &plan.simulated)?;
        map.serialize_entry("hardware", &hardware(plan))?;
        let sources: BTreeMap<&str, &str> = plan.hardware.iter().map(|(c, s)| (c.as_str(), s.as_str())).collect();
        map.serialize_entry("hardware_source", &sources)?;
        map.serialize_entry("units", &UnitsJson(plan))?;
        map.serialize_entry("deployments", &deployments_json(plan, self.fits))?;
        map.serialize_entry("searches", &plan.searches.iter().map(search_json).collect::<Vec<_>>())?;
        let mut summary = json!({ "units": total(plan), "deployments": plan.deployments.len() });
        for (status, n) in by_status(plan) {
            summary[status.as_str()] = n.into();
        }
        map.serialize_entry("summary", &summary)?;
        map.serialize_entry("estimate", &plan.estimate())?;
        map.serialize_entry("reach", self.reach)?;
        map.serialize_entry("evictions", &evictions(plan))?;
        map.serialize_entry("warnings", &plan.warnings)?;
        if let Some((name, old, differences)) = self.base {
            map.serialize_entry("base", &base_json(plan, name, *old, differences.as_ref()))?;
        }
        map.end()
    }
}

/// The class of hardware, or a list where the cells differ.
fn hardware(plan: &Plan) -> serde_json::Value {
    match plan.hardware.as_slice() {
        [(class, _)] => class.as_str().into(),
        several => several.iter().map(|(class, _)| class.as_str()).collect::<Vec<_>>().into(),
    }
}

struct UnitsJson<'a>(&'a Plan);

impl Serialize for UnitsJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(total(self.0)))?;
        for unit in &self.0.units {
            seq.serialize_element(&UnitJson { plan: self.0, unit })?;
        }
        for cell in &self.0.unsupported {
            seq.serialize_element(&unsupported_json(cell))?;
        }
        seq.end()
    }
}

struct UnitJson<'a> {
    plan: &'a Plan,
    unit: &'a Unit,
}

impl Serialize for UnitJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let unit = self.unit;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("unit_id", &unit.id)?;
        map.serialize_entry("deploy_id", &self.plan.deployments[unit.deployment].id)?;
        map.serialize_entry("status", unit.status.as_str())?;
        map.serialize_entry("cell", &CellJson(&unit.cell))?;
        map.serialize_entry("labels", &PairsJson(&unit.labels))?;
        map.serialize_entry("reasons", &unit.reasons)?;
        if let Some(note) = &unit.note {
            map.serialize_entry("note", note)?;
        }
        map.end()
    }
}

struct CellJson<'a>(&'a Cell);

impl Serialize for CellJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.0.len()))?;
        for (k, v) in &self.0.0 {
            map.serialize_entry(&**k, v)?;
        }
        map.end()
    }
}

struct PairsJson<'a>(&'a [(std::sync::Arc<str>, std::sync::Arc<str>)]);

impl Serialize for PairsJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (k, v) in self.0 {
            map.serialize_entry(&**k, &**v)?;
        }
        map.end()
    }
}

fn unsupported_json(u: &Unsupported) -> serde_json::Value {
    json!({
        "unit_id": u.unit_id,
        "deploy_id": u.deploy_id,
        "status": "unsupported",
        "cell": CellJson(&u.cell),
        "labels": PairsJson(&u.labels),
        "reasons": [],
        "note": u.reason,
    })
}

fn search_json(s: &Search) -> serde_json::Value {
    json!({
        "parameter": s.parameter,
        "from": s.from,
        "to": s.to,
        "until": s.until.as_str(),
        "within": s.within,
        "max_probes": s.max_probes,
        "cached_probes": cached_probes(s),
        "cell": CellJson(&s.cell),
        "labels": PairsJson(&s.labels),
    })
}

fn deployments_json(plan: &Plan, fits: &[Option<Fit>]) -> Vec<serde_json::Value> {
    let mut members: Vec<Vec<String>> = vec![Vec::new(); plan.deployments.len()];
    for unit in &plan.units {
        members[unit.deployment].push(unit.id.to_string());
    }
    let entries = plan.deployments.iter().zip(members).zip(fits);
    entries
        .map(|((d, units), fit)| {
            json!({
                "deploy_id": d.id, "container": d.container, "model": d.model, "method": d.method, "engine": d.engine,
                "hardware": d.hardware, "gpus": d.gpus, "units": units, "host_mounts": host_mounts(d), "fit": fit,
            })
        })
        .collect()
}

/// Host directories that a container would see; their paths are not hashed, so they are shown.
fn host_mounts(d: &crate::plan::Deployment) -> Vec<String> {
    let mounts = d.spec.container.iter().flat_map(|c| &c.mounts);
    mounts.filter(|m| !m.source.starts_with("cache:")).map(|m| format!("{} → {}", m.source, m.target)).collect()
}

fn base_json(plan: &Plan, name: &str, old: Option<&Plan>, differences: Option<&Changes>) -> serde_json::Value {
    let Some((old, c)) = old.zip(differences) else {
        return json!({ "ref": name, "present": false, "added": plan.units.iter().map(|u| u.id).collect::<Vec<_>>() });
    };
    let ids = |list: &[usize], p: &Plan| list.iter().map(|i| p.units[*i].id).collect::<Vec<_>>();
    let changed: Vec<_> =
        c.changed.iter().map(|(i, r)| json!({ "unit_id": plan.units[*i].id, "reasons": r })).collect();
    json!({
        "ref": name,
        "present": true,
        "added": ids(&c.added, plan),
        "changed": changed,
        "removed": ids(&c.removed, old),
        "unchanged": c.unchanged.len(),
    })
}

fn total(plan: &Plan) -> usize {
    plan.units.len() + plan.unsupported.len()
}

/// How many units have each status, in the statuses' order, zeros left out.
pub fn by_status(plan: &Plan) -> Vec<(Status, usize)> {
    let count = |s: Status| match s {
        Status::Unsupported => plan.unsupported.len(),
        s => plan.units.iter().filter(|u| u.status == s).count(),
    };
    Status::ALL.into_iter().map(|s| (s, count(s))).filter(|(_, n)| *n > 0).collect()
}

fn human(plan: &Plan, fits: &[Option<Fit>], reach: &[Reach], base: Option<&Compared>) -> String {
    let mut out = String::new();
    let simulated = if plan.simulated { " (simulated)" } else { "" };
    let _ = writeln!(
        out,
        "{}{simulated}: {} in {}",
        plan.experiment,
        plural(total(plan), "unit"),
        plural(plan.deployments.len(), "deployment")
    );
    let statuses: Vec<String> = by_status(plan).iter().map(|(s, n)| format!("{n} {}", s.as_str())).collect();
    if !statuses.is_empty() {
        let _ = writeln!(out, "  {}", statuses.join(" · "));
    }
    for (class, source) in &plan.hardware {
        let _ = writeln!(out, "  hardware {class} ({})", hardware_source(source));
    }
    out.push('\n');
    out.push_str(&deployments(plan, fits));
    out.push_str(&reached(reach));
    out.push_str(&reasons(plan));
    out.push_str(&searches(plan));
    out.push_str(&unsupported(plan));
    out.push_str(&estimate(plan));
    out.push_str(&evicted(plan));
    if let Some(compared) = base {
        out.push_str(&against(plan, compared));
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "\nwarning: {warning}");
    }
    out
}

fn hardware_source(source: &str) -> &str {
    match source {
        "file" => "from the file",
        "lock" => "from the lock",
        "method" => "by its method",
        "simulated" => "a rehearsal",
        "detected" => "this host",
        other => other,
    }
}

fn deployments(plan: &Plan, fits: &[Option<Fit>]) -> String {
    if plan.deployments.is_empty() {
        return String::new();
    }
    let differences = differences(plan);
    let told = differences.iter().any(|d| !d.is_empty());
    let weighed = fits.iter().any(Option::is_some);
    let memory = weighed.then_some("MEMORY");
    let header: Vec<&str> =
        ["DEPLOYMENT", "ID", "UNITS", "STATUS"].into_iter().chain(memory).chain(told.then_some("DIFFERS BY")).collect();
    let mut table = output::table(&header);
    let mut counts: Vec<BTreeMap<Status, usize>> = vec![BTreeMap::new(); plan.deployments.len()];
    for unit in &plan.units {
        *counts[unit.deployment].entry(unit.status).or_default() += 1;
    }
    let rows = plan.deployments.iter().zip(&counts).zip(differences).zip(fits);
    for (((d, count), difference), fit) in rows.take(SHOWN) {
        let units: usize = count.values().sum();
        let text: Vec<String> = count.iter().map(|(s, n)| format!("{n} {}", s.as_str())).collect();
        let mut row = vec![d.container.clone(), d.id.short(8), units.to_string(), text.join(", ")];
        row.extend(weighed.then(|| fit.as_ref().map_or("–", |f| f.verdict.as_str()).to_string()));
        row.extend(told.then_some(difference));
        table.add_row(row);
    }
    let mut out = format!("{table}\n");
    more(&mut out, plan.deployments.len(), "deployments");
    out
}

/// What is reached outside, by kind.
fn reached(reach: &[Reach]) -> String {
    let mut out = String::new();
    for same in reach.chunk_by(|a, b| a.kind == b.kind) {
        let _ = writeln!(out, "\n{}:", same[0].kind.heading());
        same.iter().take(SHOWN).for_each(|r| _ = writeln!(out, "  {}", r.what));
        more(&mut out, same.len(), "lines");
    }
    out
}

/// For each deployment, the parameters that tell it from others of its name.
fn differences(plan: &Plan) -> Vec<String> {
    let parameters = |d: &crate::plan::Deployment| -> BTreeMap<String, String> {
        let params = d.document.as_map().and_then(|m| m.get("params")).and_then(Value::as_map);
        params.into_iter().flatten().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    let all: Vec<BTreeMap<String, String>> = plan.deployments.iter().map(parameters).collect();
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    plan.deployments.iter().enumerate().for_each(|(i, d)| by_name.entry(&d.container).or_default().push(i));
    let mut out = vec![String::new(); all.len()];
    for group in by_name.values().filter(|g| g.len() > 1) {
        let paths: BTreeSet<&String> = group.iter().flat_map(|i| all[*i].keys()).collect();
        let varies = |path: &&&String| group.iter().any(|i| all[*i].get(**path) != all[group[0]].get(**path));
        let varying: Vec<&&String> = paths.iter().filter(varies).collect();
        for i in group {
            let told = varying.iter().filter_map(|p| Some(format!("{p}={}", all[*i].get(**p)?)));
            out[*i] = told.collect::<Vec<_>>().join(" ");
        }
    }
    out
}

/// Units that need work for a reason, those with equal reasons together.
fn reasons(plan: &Plan) -> String {
    let mut groups: BTreeMap<(Status, String), Vec<&Unit>> = BTreeMap::new();
    for unit in plan.units.iter().filter(|u| u.status.needs_work()) {
        let mut lines: Vec<String> = unit.reasons.iter().map(|r| reason(unit.status, r)).collect();
        lines.extend(unit.note.clone());
        if !lines.is_empty() {
            groups.entry((unit.status, lines.join("\n    "))).or_default().push(unit);
        }
    }
    let mut out = String::new();
    for ((status, why), units) in groups.iter().take(SHOWN) {
        let _ = writeln!(out, "\n{} {}:\n    {why}", plural(units.len(), "unit"), status.as_str());
        let ids: Vec<String> = units.iter().take(6).map(|u| u.id.short(8)).collect();
        let dots = if units.len() > 6 { " …" } else { "" };
        let _ = writeln!(out, "    ({}{dots})", ids.join(" "));
    }
    more(&mut out, groups.len(), "groups of reasons");
    out
}

/// A value on one line, shortened.
fn short(v: &Value) -> String {
    let full = v.to_string();
    match full.char_indices().nth(96) {
        Some((at, _)) => format!("{}…", &full[..at]),
        None => full,
    }
}

/// "field old → new", long values shortened. A unit that is new has no old values, only ones that nothing had before.
pub fn reason(status: Status, r: &Reason) -> String {
    let text = |v: &Option<Value>| v.as_ref().map_or_else(|| "unset".to_string(), short);
    match (status, &r.old) {
        (Status::New, None) => format!("{} = {}", r.field, text(&r.new)),
        _ => format!("{} {} → {}", r.field, text(&r.old), text(&r.new)),
    }
}

fn searches(plan: &Plan) -> String {
    let mut out = String::new();
    for s in plan.searches.iter().take(SHOWN) {
        let d = &plan.deployments[s.deployment];
        let (from, to) = (Value::number(s.from), Value::number(s.to));
        let (from, to) = (from.unwrap_or(Value::Int(0)), to.unwrap_or(Value::Int(0)));
        let wanted = match s.until {
            Objective::Slo => format!("largest `{}` in {from}–{to} that meets the SLOs", s.parameter),
            Objective::Knee => format!("knee of the load curve over `{}` in {from}–{to}", s.parameter),
        };
        let cached = match cached_probes(s) {
            0 => String::new(),
            n => format!(", {n} of its values are measured already"),
        };
        let _ = writeln!(out, "\nsearch on {}: {wanted}, ≤ {} probes{cached}", d.container, s.max_probes);
    }
    more(&mut out, plan.searches.len(), "searches");
    out
}

fn cached_probes(s: &Search) -> usize {
    s.probes.iter().filter(|p| p.unit.status == Status::Cached).count()
}

/// What `evict` removes, and after which deployment.
#[derive(serde::Serialize)]
struct Eviction {
    after: String,
    kind: &'static str,
    name: String,
    /// Also when it was here before the run.
    whatever: bool,
}

/// The images and models that a run may remove when it is done with the last deployment that needs them.
fn evictions(plan: &Plan) -> Vec<Eviction> {
    let whatever = match plan.policy.evict {
        Evict::No => return Vec::new(),
        Evict::Own => false,
        Evict::All => true,
    };
    let at_work: BTreeSet<usize> = plan.units.iter().filter(|u| u.status.needs_work()).map(|u| u.deployment).collect();
    let mut last: BTreeMap<(&'static str, &str), &str> = BTreeMap::new();
    for d in at_work.iter().map(|i| &plan.deployments[*i]).filter(|d| d.flavor.is_none()) {
        let Some(container) = &d.spec.container else { continue };
        last.insert(("image", &container.image), &d.container);
        if !is_local(&d.model) && container.mounts.iter().any(|m| m.source == "cache:huggingface") {
            last.insert(("model", &d.model), &d.container);
        }
        let remote = d.assets.iter().filter(|(_, reference)| reference.contains("://"));
        remote.for_each(|(_, reference)| _ = last.insert(("asset", reference), &d.container));
    }
    let entry = |((kind, name), after): ((&'static str, &str), &str)| Eviction {
        after: after.to_string(),
        kind,
        name: name.to_string(),
        whatever,
    };
    last.into_iter().map(entry).collect()
}

fn evicted(plan: &Plan) -> String {
    let all = evictions(plan);
    if all.is_empty() {
        return String::new();
    }
    let which = if all[0].whatever { "whether or not it was here before" } else { "where the run itself downloads it" };
    let mut out = format!("\nremoved once no later deployment needs it, {which}:\n");
    all.iter().take(SHOWN).for_each(|e| _ = writeln!(out, "  {} {}, after {}", e.kind, e.name, e.after));
    more(&mut out, all.len(), "of them");
    out
}

fn unsupported(plan: &Plan) -> String {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    plan.unsupported.iter().for_each(|u| *groups.entry(&u.reason).or_default() += 1);
    let mut out = String::new();
    for (reason, n) in groups.iter().take(SHOWN) {
        let _ = writeln!(out, "\n{} unsupported:\n    {reason}", plural(*n, "unit"));
    }
    more(&mut out, groups.len(), "reasons");
    out
}

fn estimate(plan: &Plan) -> String {
    let e = plan.estimate();
    if e.samples == 0 && !plan.searches.is_empty() {
        return String::new();
    }
    if e.samples == 0 {
        let why = if plan.units.is_empty() { "no unit is selected" } else { "every unit is cached" };
        return format!("\nnothing to measure: {why}\n");
    }
    let mut out =
        format!("\nto do: {}, {}", plural(e.starts as usize, "engine start"), plural(e.samples as usize, "sample"));
    match e.seconds {
        Some(seconds) => {
            let rounded = std::time::Duration::from_secs(seconds.ceil() as u64);
            let _ = write!(out, ", about {} of measuring", format_duration(rounded));
            if e.known == 0.0 {
                out.push_str(" (going by the other units)");
            } else if e.known < 1.0 {
                let _ = write!(out, " ({:.0} % of it by the units' own history)", e.known * 100.0);
            }
        }
        None => out.push_str(", no history to tell how long"),
    }
    if let Some(usd) = e.usd {
        let _ = write!(out, ", about ${usd:.2}");
    }
    out.push('\n');
    out
}

fn against(plan: &Plan, (name, old, differences): &Compared) -> String {
    let Some((old, c)) = old.zip(differences.as_ref()) else {
        return format!(
            "\nagainst {name}: the file is not there, so all {} are added\n",
            plural(plan.units.len(), "unit")
        );
    };
    let mut out = format!(
        "\nagainst {name}: {} added · {} changed · {} removed · {} unchanged\n",
        c.added.len(),
        c.changed.len(),
        c.removed.len(),
        c.unchanged.len()
    );
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for (_, reasons) in &c.changed {
        let lines: Vec<String> = reasons.iter().map(|r| reason(Status::Changed, r)).collect();
        *groups.entry(lines.join("; ")).or_default() += 1;
    }
    for (why, n) in groups.iter().take(SHOWN) {
        let _ = writeln!(out, "  ~ {}: {why}", plural(*n, "unit"));
    }
    for (sign, list, from) in [("+", &c.added, plan), ("-", &c.removed, old)] {
        for i in list.iter().take(SHOWN) {
            let unit = &from.units[*i];
            let _ = writeln!(out, "  {sign} {} {}", unit.id.short(8), from.deployments[unit.deployment].container);
        }
    }
    out
}

fn more(out: &mut String, n: usize, what: &str) {
    if n > SHOWN {
        let _ = writeln!(out, "… and {} more {what} (--json lists all)", n - SHOWN);
    }
}

pub fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
