//! `explain`: everything about one unit.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::args::{ExplainArgs, Global, RunFlags};
use super::failure::Failure;
use super::output::Output;
use super::plan::reason;
use super::prepare;
use super::rerun::{self, Recipe};
use crate::hub::model::HubSettings;
use crate::plan::catalog::{Catalog, StoredUnit};
use crate::plan::fit::{self, Fit};
use crate::plan::{Deployment, Plan, Unit};
use crate::store::{Store, Stored};

pub fn command(args: &ExplainArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let prefix = args.unit.to_ascii_lowercase();
    if prefix.len() < 4 || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!(
            "`{}` is not a unit id: give at least four of its hexadecimal digits",
            args.unit
        )));
    }
    if args.paths.is_empty() { stored(&prefix, args, global, output) } else { planned(&prefix, args, global, output) }
}

fn planned(prefix: &str, args: &ExplainArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let flags = RunFlags { simulate: args.simulate, ..RunFlags::default() };
    let mut found = Vec::new();
    for file in prepare::files(&args.paths)? {
        let prepared = prepare::prepare(&file)?;
        let layered = prepare::settings(&prepared.dir, global)?;
        let mut plan = prepared.plan(&Default::default(), &flags, &layered.settings)?;
        if let Some(u) = plan.unsupported.iter().find(|u| u.unit_id.to_string().starts_with(prefix)) {
            if args.rerun {
                return Err(Failure::Nothing(format!("unit {} cannot be measured: {}", u.unit_id.short(16), u.reason)));
            }
            output.text(&format!("unit {}\nstatus unsupported: {}", u.unit_id, u.reason));
            return Ok(0);
        }
        plan.compare(&Store::open(&layered.settings.artifacts, plan.simulated), Timestamp::now());
        let hits: Vec<usize> =
            (0..plan.units.len()).filter(|i| plan.units[*i].id.to_string().starts_with(prefix)).collect();
        let fits = if hits.is_empty() { Vec::new() } else { fit::of(&plan, &prepared.lock) };
        let places = (prepared.dir.clone(), layered.settings.cache.clone());
        let found_here = |i: usize| (plan.clone(), i, fits[plan.units[i].deployment].clone(), places.clone());
        found.extend(hits.into_iter().map(found_here));
    }
    unique(found.len(), prefix, "planned unit")?;
    let (plan, i, fit, (dir, cache)) = &found[0];
    let unit = &plan.units[*i];
    if args.rerun {
        script(&Recipe::planned(plan, unit, dir), cache, output)?;
        return Ok(0);
    }
    print(plan, unit, fit.as_ref(), output);
    Ok(0)
}

fn script(recipe: &Recipe, cache: &Path, output: &Output) -> Result<(), Failure> {
    let hub = HubSettings::from(|name| std::env::var(name).ok());
    recipe.print(&rerun::Host { cache, hub: &hub }, output)
}

fn unique(n: usize, prefix: &str, what: &str) -> Result<(), Failure> {
    match n {
        0 => Err(Failure::Nothing(format!("no {what} has an id that begins with {prefix}"))),
        1 => Ok(()),
        n => Err(Failure::Usage(format!("{n} {what}s have ids that begin with {prefix}; give more digits"))),
    }
}

fn print(plan: &Plan, unit: &Unit, fit: Option<&Fit>, output: &Output) {
    let d = &plan.deployments[unit.deployment];
    if output.json {
        output.json(&json!({
            "unit_id": unit.id, "deploy_id": d.id, "status": unit.status, "note": unit.note, "reasons": unit.reasons,
            "container": d.container, "directory": d.directory, "valid_samples": unit.valid_samples,
            "unit": plan.unit_document(unit), "deploy": d.document, "fit": fit,
        }));
        return;
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "unit        {}\ndeployment  {}  ({})\nstatus      {}",
        unit.id,
        d.id,
        d.container,
        unit.status.as_str()
    );
    let _ = writeln!(out, "samples     {} valid of {} wanted", unit.valid_samples, plan.policy_of(unit).repeats);
    unit.note.iter().for_each(|n| _ = writeln!(out, "            {n}"));
    unit.reasons.iter().for_each(|r| _ = writeln!(out, "            {}", reason(unit.status, r)));
    let _ = writeln!(out, "files       {}/units/{}/", d.directory, unit.id.short(16));
    match fit {
        Some(fit) => {
            let _ = writeln!(out, "memory      {}: {}", fit.verdict.as_str(), fit.made_of());
            let _ = writeln!(out, "            the weights are {}", fit.weights_are);
            fit.notes.iter().for_each(|n| _ = writeln!(out, "            {n}"));
            fit.remedies.iter().for_each(|r| _ = writeln!(out, "            better with {r}"));
        }
        None => _ = writeln!(out, "memory      not estimated: {}", unweighed(d)),
    }
    out.push_str("\ncell\n");
    unit.cell.0.iter().for_each(|(k, v)| _ = writeln!(out, "  {k} = {v}"));
    unit.labels.iter().for_each(|(axis, label)| _ = writeln!(out, "  {axis} = {label}   (label)"));
    let _ = writeln!(out, "\nwhat the unit's id is made from\n{}", pretty(&plan.unit_document(unit)));
    let _ = writeln!(out, "\nwhat the deployment's id is made from\n{}", pretty(&d.document));
    output.text(&out);
}

/// Why there is no verdict on memory.
fn unweighed(d: &Deployment) -> &'static str {
    match d.spec.container {
        _ if d.flavor.is_some() => "the engine is simulated",
        None => "nothing is started",
        Some(_) => "the lock has no size of the model (`llmatrix lock` writes it), or its hardware class no memory",
    }
}

fn stored(prefix: &str, args: &ExplainArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let kinds = if args.simulate { vec![true] } else { vec![false, true] };
    let found: Vec<(Store, StoredUnit)> = kinds
        .into_iter()
        .map(|simulated| Store::open(&layered.settings.artifacts, simulated))
        .flat_map(|store| {
            let hits: Vec<StoredUnit> =
                store.documents().into_iter().filter(|u| u.unit_id.to_string().starts_with(prefix)).collect();
            hits.into_iter().map(move |u| (store.clone(), u))
        })
        .collect();
    unique(found.len(), prefix, "measured unit")?;
    let (store, unit) = &found[0];
    if args.rerun {
        return stored_script(store, unit, &layered.settings.cache, output);
    }
    let state = store.states(&[(&unit.directory, unit.unit_id)]).pop().flatten();
    let dir = store.unit_dir(&unit.directory, &unit.unit_id);
    if output.json {
        let samples: Vec<u32> = state.iter().flat_map(|s| &s.valid_samples).map(|(n, _)| *n).collect();
        output.json(&json!({
            "unit_id": unit.unit_id, "deploy_id": unit.deploy_id, "files": dir, "valid_samples": samples,
            "labels": unit.labels, "unit": unit.unit, "deploy": unit.deploy,
        }));
        return Ok(0);
    }
    let mut out = String::new();
    let _ =
        writeln!(out, "unit        {}\ndeployment  {}\nfiles       {}", unit.unit_id, unit.deploy_id, dir.display());
    if let Some(state) = state {
        let samples: Vec<String> = state.valid_samples.iter().map(|(n, at)| format!("{n} ({at})")).collect();
        let _ =
            writeln!(out, "samples     {}", if samples.is_empty() { "none valid".into() } else { samples.join(", ") });
        state.last_invalid.iter().for_each(|r| _ = writeln!(out, "invalid     {r}"));
        state.last_failure.iter().for_each(|f| _ = writeln!(out, "failed      {}", f.cause));
    }
    let _ = writeln!(out, "\nwhat the unit's id is made from\n{}", pretty(&unit.unit));
    let _ = writeln!(out, "\nwhat the deployment's id is made from\n{}", pretty(&unit.deploy));
    output.text(&out);
    Ok(0)
}

/// The script of a measured unit.
fn stored_script(store: &Store, unit: &StoredUnit, cache: &Path, output: &Output) -> Result<u8, Failure> {
    let cannot = |why: String| Failure::Environment(format!("unit {} cannot be read: {why}", unit.unit_id.short(16)));
    match store.read_unit(&unit.directory, &unit.unit_id).map_err(|e| cannot(e.to_string()))? {
        Stored::Present { unit, result } => script(&Recipe::stored(&unit, &result)?, cache, output)?,
        Stored::Absent => return Err(cannot("it is not there any more".into())),
        Stored::Damaged(why) => return Err(cannot(why)),
    }
    Ok(0)
}

fn pretty(value: &crate::value::Value) -> String {
    serde_json::to_string_pretty(value).expect("a document is JSON")
}
