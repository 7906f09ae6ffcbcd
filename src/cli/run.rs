//! `run`: plan, deploy, measure, resume; and what `one` shares with it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressDrawTarget;
use jiff::Timestamp;

use super::args::{Global, RunArgs, RunFlags, SelectionArgs};
use super::failure::{Failure, NOTHING};
use super::output::Output;
use super::prepare::{self, Prepared};
use super::{containers, results};
use crate::clock::SystemClock;
use crate::deploy::Deployers;
use crate::deploy::docker::DockerDeployer;
use crate::event::live::LiveUnits;
use crate::event::{Entry, Event};
use crate::exec::{self, Cancel, LoadClient, RunOutcome, RunRequest, Verdict};
use crate::host;
use crate::live::{Display, JsonLines, Plain, Terminal};
use crate::plan::Plan;
use crate::settings::Settings;
use crate::store::Store;

/// Which of several exit codes stands: the first of these that occurred.
const PRECEDENCE: [i32; 11] = [70, 130, 2, 3, 4, 7, 6, 9, 5, 8, 0];

pub fn command(args: &RunArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    // Every file is checked before the first one costs anything.
    let prepared: Vec<Prepared> =
        prepare::files(&args.paths)?.iter().map(|f| prepare::prepare(f)).collect::<Result<_, _>>()?;
    let mut ready = Vec::new();
    for p in &prepared {
        let layered = prepare::settings(&p.dir, global)?;
        let plan = planned(p, &args.selection, &args.run, &layered.settings)?;
        confirm(&plan, args.yes, output)?;
        ready.push((p, plan, layered.settings));
    }
    let cancel = Cancel::default();
    let mut codes = Vec::new();
    for (p, plan, settings) in ready {
        codes.push(execute(plan, &p.path, &p.dir, &settings, cancel.clone(), output)?);
        if cancel.is_interrupted() {
            break;
        }
    }
    let code = PRECEDENCE.into_iter().find(|c| codes.contains(c)).unwrap_or(0);
    Ok(u8::try_from(code).unwrap_or(70))
}

/// The plan with its statuses.
pub fn planned(
    p: &Prepared,
    selection: &SelectionArgs,
    flags: &RunFlags,
    settings: &Settings,
) -> Result<Plan, Failure> {
    let mut plan = p.plan(selection, flags, settings)?;
    plan.compare(&Store::open(&settings.artifacts, plan.simulated), Timestamp::now());
    Ok(plan)
}

/// A plan larger than `max_units` is asked about, on a terminal; elsewhere it needs `--yes`.
fn confirm(plan: &Plan, yes: bool, output: &Output) -> Result<(), Failure> {
    let probes = plan.searches.iter().map(|s| u64::from(s.max_probes)).sum::<u64>();
    let work = plan.units.iter().filter(|u| u.status.needs_work()).count() as u64 + probes;
    if work <= plan.policy.max_units || yes {
        return Ok(());
    }
    let question =
        format!("{} has {work} units to measure, more than max_units = {}", plan.experiment, plan.policy.max_units);
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() || output.json {
        return Err(Failure::Usage(format!("{question}; give --yes to run it all the same")));
    }
    let _ = write!(io::stderr(), "{question}. Run it? [y/N] ");
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Usage("not confirmed; nothing was run".into())),
    }
}

/// Runs one plan to its end and shows it.
pub fn execute(
    plan: Plan,
    file: &Path,
    base: &Path,
    settings: &Settings,
    cancel: Cancel,
    output: &Output,
) -> Result<i32, Failure> {
    if plan.units.is_empty() && plan.unsupported.is_empty() && plan.searches.is_empty() {
        output.warning(&format!("{}: nothing is selected", plan.experiment));
        return Ok(i32::from(NOTHING));
    }
    for warning in warnings(&plan) {
        output.warning(&warning);
    }
    let store = Store::open(&settings.artifacts, plan.simulated);
    let live = LiveUnits::default();
    let display = Arc::new(std::sync::Mutex::new(display(&live, output)));
    let shown = display.clone();
    let with_display = move |f: &mut dyn FnMut(&mut Display)| f(&mut shown.lock().unwrap_or_else(|e| e.into_inner()));
    let hear = with_display.clone();
    let gate = plan.policy.gate.clone();
    let containers = containers::options(&plan, base, settings);
    let named = containers.run.clone();
    let containers = DockerDeployer::new(containers);
    let variables = Arc::new(|name: &str| std::env::var(name).ok());
    let request = RunRequest {
        plan: Arc::new(plan),
        store: store.clone(),
        base: base.to_path_buf(),
        deployer: Arc::new(Deployers::new(variables).with_containers(Box::new(containers.clone()))),
        loader: Arc::new(LoadClient::new(Some(settings.load_threads).filter(|n| *n > 0))),
        clock: Arc::new(SystemClock),
        cancel: cancel.clone(),
        reporter: Box::new(move |entry: &Entry| {
            if let Event::RunStarted { run, .. } = &entry.event {
                let _ = named.set(run.clone());
            }
            hear(&mut |d| d.entry(entry));
        }),
        live,
        host: host::detect(),
        repository: host::git::repository(file),
        judge: gate.map(without_baseline),
    };
    let runtime = containers::runtime()?;
    let outcome = runtime.block_on(async {
        let signals = tokio::spawn(forward_signals(cancel));
        let outcome = exec::run(request).await;
        // What a second interrupt left behind goes before the process does.
        containers.settle().await;
        signals.abort();
        outcome
    });
    with_display(&mut |d| {
        d.finish();
        if let Some(e) = d.failure()
            && e.kind() != io::ErrorKind::BrokenPipe
        {
            output.note(&format!("the display was switched off: {e}"));
        }
    });
    let outcome = outcome.map_err(|e| match e {
        exec::ExecError::Panic(_) => Failure::Internal(e.to_string()),
        e => Failure::Environment(e.to_string()),
    })?;
    finish(&outcome, &store, settings, output)?;
    Ok(outcome.exit_code)
}

/// Ctrl-C and SIGTERM: the first ends in good order, the second at once.
async fn forward_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.interrupt();
    }
}

fn display(live: &LiveUnits, output: &Output) -> Display {
    let mut display = Display::quiet();
    if output.json {
        display = display.with(JsonLines::new(io::stdout()));
    }
    match (output.quiet, io::stderr().is_terminal()) {
        (true, _) => display,
        (false, true) => display.with(Terminal::new(ProgressDrawTarget::stderr(), live.clone(), output.color)),
        (false, false) if output.json => display,
        (false, false) => display.with(Plain::new(io::stderr())),
    }
}

/// The gate of a version that keeps no baselines: a first night has nothing to compare with, a named one is missing.
fn without_baseline(name: String) -> exec::Judge {
    Box::new(move |_, _| {
        let first = matches!(name.as_str(), "last" | "last-good");
        let text = match first {
            true => format!("no baseline `{name}` yet, so nothing is compared: this version keeps none"),
            false => format!("the baseline `{name}` is not there, so nothing can be compared with it"),
        };
        let _ = writeln!(io::stderr(), "{text}");
        if first { Verdict::None } else { Verdict::Undecidable }
    })
}

/// What the plan says of itself, and settings that this version takes but does not act on.
fn warnings(plan: &Plan) -> Vec<String> {
    let mut out = plan.warnings.clone();
    let p = &plan.policy;
    let inert = [("evict", p.evict), ("float", !p.float.is_empty()), ("webhook", p.webhook.is_some())];
    for (key, _) in inert.into_iter().filter(|(_, set)| *set) {
        out.push(format!("`{key}` of [run] has no effect in this version"));
    }
    out
}

/// The files of the run, the table, and where everything is.
fn finish(outcome: &RunOutcome, store: &Store, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let report = results::of_run(store, outcome.record.clone());
    results::write_run_files(&report, &outcome.files)?;
    if output.json || output.quiet {
        return Ok(());
    }
    let measured = outcome.counts.measured + outcome.counts.invalid + outcome.counts.failed + outcome.counts.blocked;
    if measured == 0 && outcome.counts.not_run == 0 {
        output.note(&format!("every unit is cached ({}); nothing was measured", outcome.counts.cached));
    } else {
        results::print(&report, &Default::default(), output)?;
    }
    output.note(&format!("results  {}/", settings.artifacts.display()));
    outcome.csv.iter().for_each(|csv| output.note(&format!("         {}", csv.display())));
    output.note(&format!("report   {}", outcome.files.report().display()));
    Ok(())
}
