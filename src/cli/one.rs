//! `one`: an ad-hoc single cell through the same pipeline.

use std::path::Path;

use super::args::{Global, OneArgs, RunFlags, SelectionArgs};
use super::failure::Failure;
use super::load_flags;
use super::output::Output;
use super::prepare;
use super::run::{self, Job};
use super::signals::Signals;

pub fn command(args: &OneArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let dir = Path::new(".");
    let layered = prepare::settings(dir, global)?;
    let model = args.model.clone().unwrap_or_else(|| layered.settings.model.clone());
    let mut set = vec![format!("model={model}"), format!("method={}", args.method), format!("engine={}", args.engine)];
    set.extend(load_flags::assignments(&args.load));
    set.extend(args.set.iter().cloned());
    let prepared = load_flags::experiment("one", &set, dir)?;
    let selection = SelectionArgs { set, only: Vec::new() };
    let flags = RunFlags {
        simulate: args.simulate,
        force: args.force,
        retry_failed: args.retry_failed,
        repeats: args.repeats,
        ready_timeout: args.ready_timeout.clone(),
        ..RunFlags::default()
    };
    let plan = run::planned(&prepared, &selection, &flags, &layered.settings)?;
    if let Some(cell) = plan.unsupported.first() {
        return Err(Failure::Usage(format!("{} × {} cannot serve this: {}", args.method, args.engine, cell.reason)));
    }
    let signals = Signals::listen()?;
    let (code, _) = run::execute(Job::new(plan, dir, dir, layered.settings), signals.cancel(), output)?;
    Ok(u8::try_from(code).unwrap_or(70))
}
