//! `validate`: every problem of every experiment file, and every file of the artifacts that is not what was written.

use std::path::Path;

use super::args::{Global, ValidateArgs};
use super::failure::{Failure, INVALID};
use super::output::Output;
use super::prepare;
use crate::exec::exit::SOME_FAILED;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::verify::Verification;

pub fn command(args: &ValidateArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let code = experiments(args, output)?;
    if !args.paths.is_empty() && global.artifacts.is_none() {
        return Ok(code);
    }
    let whole = artifacts(global, output)?;
    Ok(if code == 0 { whole } else { code })
}

/// Reads every file of the results, real and simulated.
fn artifacts(global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let root = &layered.settings.artifacts;
    if !root.is_dir() {
        return Err(Failure::Nothing(format!("there are no artifacts in {}", root.display())));
    }
    let mut total = Verification::default();
    for simulated in [false, true] {
        let found = Store::open(root, simulated).verify().map_err(|e| Failure::Environment(e.to_string()))?;
        total.units += found.units;
        total.samples += found.samples;
        total.runs += found.runs;
        total.set_aside += found.set_aside;
        total.problems.extend(found.problems);
    }
    if output.json {
        output.json(&total);
    } else {
        total.problems.iter().for_each(|p| output.text(&format!("{}: {}", p.path.display(), p.problem)));
        let Verification { units, samples, runs, set_aside, problems } = &total;
        let aside = if *set_aside > 0 { format!("; {set_aside} files were set aside earlier") } else { String::new() };
        let found = match problems.len() {
            0 => "no problem".to_string(),
            1 => "1 problem: the next run says more, measures again what is lost and keeps what is damaged".into(),
            n => format!("{n} problems: the next run says more, measures again what is lost and keeps what is damaged"),
        };
        output.note(&format!("{}: {units} units, {samples} samples, {runs} runs, {found}{aside}", root.display()));
    }
    Ok(if total.problems.is_empty() { 0 } else { u8::try_from(SOME_FAILED).unwrap_or(70) })
}

fn experiments(args: &ValidateArgs, output: &Output) -> Result<u8, Failure> {
    let files = prepare::files(&args.paths)?;
    let mut bad = 0;
    for file in &files {
        // Planning finds what reading alone cannot: rules without a cell, cycles, template errors.
        let outcome = prepare::prepare(file)
            .and_then(|p| p.plan(&Default::default(), &Default::default(), &Settings::default()).map(|plan| (p, plan)));
        match outcome {
            Ok((prepared, plan)) => {
                let count = plan.units.len();
                output.note(&format!("{}: {} units, no problem", prepared.path.display(), count));
            }
            Err(Failure::Invalid(problems)) => {
                bad += 1;
                if output.json {
                    problems.iter().for_each(|p| output.json(&p.to_json()));
                } else {
                    output.failure(&Failure::Invalid(problems));
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok(if bad == 0 { 0 } else { INVALID })
}
