//! `gc`: removes old runs, and results that nothing refers to any more.

use std::path::Path;

use super::args::{GcArgs, Global};
use super::failure::Failure;
use super::output::Output;
use super::prepare;
use crate::store::Store;
use crate::store::gc::{Garbage, GcRequest};

pub fn command(args: &GcArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let GcArgs { keep_last, unreferenced, damaged, dry_run, simulated } = *args;
    if keep_last.is_none() && !unreferenced && !damaged {
        let what = "say what may go: `--keep-last N`, `--unreferenced`, `--damaged`. With `--dry-run` it is only shown";
        return Err(Failure::Usage(what.into()));
    }
    let layered = prepare::settings(Path::new("."), global)?;
    let store = Store::open(&layered.settings.artifacts, simulated);
    let request = GcRequest { keep_last, unreferenced, damaged };
    let garbage = store.collect_garbage(&request, dry_run).map_err(|e| Failure::Environment(e.to_string()))?;
    if output.json {
        let mut json = serde_json::to_value(&garbage).expect("garbage has a JSON form");
        json["dry_run"] = dry_run.into();
        output.json(&json);
    } else {
        show(&garbage, dry_run, output);
    }
    Ok(0)
}

fn show(garbage: &Garbage, dry_run: bool, output: &Output) {
    let Garbage { runs, units, files, bytes, kept } = garbage;
    for (path, why) in kept {
        output.warning(&format!("{} stays: {why}", path.display()));
    }
    let word = if dry_run { "would remove" } else { "removed" };
    runs.iter().for_each(|run| output.text(&format!("{word} run {run}")));
    units.iter().chain(files).for_each(|path| output.text(&format!("{word} {}", path.display())));
    let some = !(runs.is_empty() && units.is_empty() && files.is_empty());
    match some {
        true => output.note(&format!("{word} {:.1} MB", *bytes as f64 / 1e6)),
        false => output.note("there is nothing to remove"),
    }
}
