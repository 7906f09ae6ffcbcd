//! `clean`: removes what dead runs left behind, in the artifacts and on the container engine.

use std::path::Path;

use super::args::{CleanArgs, Global};
use super::failure::{ENVIRONMENT, Failure};
use super::output::Output;
use super::{containers, prepare};
use crate::deploy::docker::{Leftovers, Owner};
use crate::store::Store;
use crate::store::recover::Recovered;

pub fn command(args: &CleanArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    // Artifacts first: they need no engine.
    let runs = if args.dry_run { Vec::new() } else { dead_runs(global)? };
    if !output.json {
        runs.iter().for_each(|run| output.text(&said(run)));
    }
    let (left, failed) = containers::with_engine(global, async |daemon, settings| {
        let left = Leftovers::find(&daemon.docker, &settings.cache, &Owner::this(), args.elsewhere).await;
        let left = left.map_err(|e| containers::engine_failure(&e))?;
        let failed = if args.dry_run { Vec::new() } else { left.remove(&daemon.docker).await };
        Ok((left, failed))
    })?;
    for (name, why) in &failed {
        output.warning(&format!("cannot remove {name}: {why}"));
    }
    if output.json {
        output.json(&serde_json::json!({
            "dry_run": args.dry_run,
            "runs": runs.iter().map(|r| &r.run).collect::<Vec<_>>(),
            "containers": left.containers,
            "directories": left.directories,
            "failed": failed.iter().map(|(name, why)| serde_json::json!({"name": name, "cause": why})).collect::<Vec<_>>(),
        }));
    } else if left.is_empty() && runs.is_empty() {
        output.note("nothing is left over");
    } else {
        let word = if args.dry_run { "would remove" } else { "removed" };
        let gone = left.containers.iter().filter(|c| failed.iter().all(|(name, _)| *name != c.name));
        gone.for_each(|c| output.text(&format!("{word} container {}", c.name)));
        left.directories.iter().for_each(|d| output.text(&format!("{word} {}", d.display())));
    }
    Ok(if failed.is_empty() { 0 } else { ENVIRONMENT })
}

/// Completes the runs that died, as the next run would.
fn dead_runs(global: &Global) -> Result<Vec<Recovered>, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let mut out = Vec::new();
    for simulated in [false, true] {
        let store = Store::open(&layered.settings.artifacts, simulated);
        if store.root().is_dir() {
            out.extend(store.recover().map_err(|e| Failure::Environment(e.to_string()))?);
        }
    }
    Ok(out)
}

fn said(run: &Recovered) -> String {
    match &run.problem {
        None => format!("completed run {}, which was killed: its {} samples are kept", run.run, run.samples),
        Some(problem) => format!("run {} cannot be completed: {problem}", run.run),
    }
}
