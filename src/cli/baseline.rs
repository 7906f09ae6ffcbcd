//! `baseline`: what was measured, kept under a name.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::args::{BaselineAction, BaselineArgs, Global};
use super::failure::Failure;
use super::output::{self, Output};
use super::sides::{Found, NotFound, Sides};
use super::{prepare, results};
use crate::compare::{Side, baseline, import};
use crate::store::Store;

pub fn command(args: &BaselineArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let artifacts = &layered.settings.artifacts;
    let sides = Sides::new(artifacts, args.simulated);
    match &args.action {
        BaselineAction::Set { name, run, nights } => {
            let found = find(&sides, run, *nights)?;
            set(artifacts, name, found.side, output)?;
        }
        BaselineAction::List => list(artifacts, output),
        BaselineAction::Rm { name } => {
            let stores = [args.simulated, !args.simulated].map(|simulated| Store::open(artifacts, simulated));
            remove(&stores, name, output)?;
        }
        BaselineAction::Export { name, output: file, nights } => {
            let text = baseline::write(&find(&sides, name, *nights)?.side);
            match file {
                Some(path) => {
                    let written = results::create(path)?.write_all(text.as_bytes());
                    written.map_err(|e| Failure::io("write", path, &e))?;
                    output.note(&format!("wrote {}", path.display()));
                }
                None => output.text(&text),
            }
        }
    }
    Ok(0)
}

fn find(sides: &Sides, name: &str, nights: Option<u32>) -> Result<Found, Failure> {
    sides.find(name, None, nights.map(|n| n as usize)).map_err(NotFound::into_failure)
}

fn set(artifacts: &Path, name: &str, side: Side, output: &Output) -> Result<(), Failure> {
    // What other tools measured has no tree of its own.
    let store = Store::open(artifacts, side.simulated == Some(true));
    let reserved = matches!(name, "last" | "last-good");
    let path = store.baseline_path(name).filter(|_| !reserved).ok_or_else(|| {
        Failure::Usage(format!(
            "`{name}` cannot be a baseline's name: letters, digits, `.`, `_` and `-`, and not last or last-good"
        ))
    })?;
    let samples: usize = side.cells.iter().map(|c| c.samples.len()).sum();
    if samples == 0 {
        return Err(Failure::Nothing(format!("{} has no valid sample to keep", side.described())));
    }
    let replaced = path.is_file();
    let (cells, runs) = (side.cells.len(), side.runs.len());
    let of = side.described();
    store
        .write_baseline(&path, &baseline::write(&Side { name: name.to_string(), ..side }))
        .map_err(|e| Failure::Environment(e.to_string()))?;
    let done = if replaced { "replaced" } else { "set" };
    if output.json {
        output.json(&json!({ "name": name, "path": path, "cells": cells, "samples": samples, "runs": runs, "replaced": replaced }));
    }
    output.note(&format!("{done} baseline {name} from {of}: {cells} cells, {samples} samples"));
    Ok(())
}

fn list(artifacts: &Path, output: &Output) {
    let mut table = output::table(&["baseline", "cells", "samples", "nights", "newest run", "simulated"]);
    for simulated in [false, true] {
        let store = Store::open(artifacts, simulated);
        for name in store.baselines() {
            let Some(path) = store.baseline_path(&name) else { continue };
            let read = std::fs::read_to_string(&path).map_err(|e| e.to_string());
            match read.and_then(|text| import::read(&text, &name).map_err(|e| e.to_string())) {
                Err(problem) => output.warning(&format!("{}: {problem}", path.display())),
                Ok(side) => {
                    let samples: usize = side.cells.iter().map(|c| c.samples.len()).sum();
                    let newest = side.runs.last().map(|r| r.run.clone()).unwrap_or_default();
                    if output.json {
                        output.json(&json!({
                            "name": name, "path": path, "cells": side.cells.len(), "samples": samples,
                            "runs": side.runs.iter().map(|r| &r.run).collect::<Vec<_>>(), "simulated": simulated,
                        }));
                    }
                    table.add_row(vec![
                        name,
                        side.cells.len().to_string(),
                        samples.to_string(),
                        side.runs.len().to_string(),
                        newest,
                        if simulated { "yes" } else { "" }.to_string(),
                    ]);
                }
            }
        }
    }
    if output.json {
        return;
    }
    match table.row_count() {
        0 => output.note("there is no baseline; `llmatrix baseline set NAME RUN` makes one"),
        _ => output.text(&table.to_string()),
    }
}

fn remove(stores: &[Store; 2], name: &str, output: &Output) -> Result<(), Failure> {
    for store in stores {
        let Some(path) = store.baseline_path(name) else { continue };
        if store.remove_baseline(&path).map_err(|e| Failure::Environment(e.to_string()))? {
            output.note(&format!("removed {}", path.display()));
            return Ok(());
        }
    }
    let known: Vec<String> = stores.iter().flat_map(Store::baselines).collect();
    let known = if known.is_empty() { "there is none".to_string() } else { format!("there are {}", known.join(", ")) };
    Err(Failure::Nothing(format!("no baseline is called `{name}`; {known}")))
}
