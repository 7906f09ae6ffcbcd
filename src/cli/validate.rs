//! `validate`: every problem of every file.

use super::args::{Global, ValidateArgs};
use super::failure::{Failure, INVALID};
use super::output::Output;
use super::prepare;
use crate::settings::Settings;

pub fn command(args: &ValidateArgs, _global: &Global, output: &Output) -> Result<u8, Failure> {
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
