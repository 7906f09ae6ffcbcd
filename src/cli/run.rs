//! `run`: plan, deploy, measure, resume; and what `one` shares with it.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressDrawTarget;
use jiff::Timestamp;

use super::args::{Global, RunArgs, RunFlags, SelectionArgs};
use super::failure::{Failure, NOTHING};
use super::git::Revision;
use super::output::Output;
use super::prepare::{self, Prepared};
use super::signals::Signals;
use super::summary::{self, Summary};
use super::webhook::Webhook;
use super::{containers, float, gate, results};
use crate::clock::SystemClock;
use crate::compare::Comparison;
use crate::deploy::Deployers;
use crate::deploy::docker::{DockerDeployer, DockerOptions, Downloads};
use crate::diag::Diagnostic;
use crate::event::live::LiveUnits;
use crate::event::{Entry, Event};
use crate::exec::control::ControlError;
use crate::exec::{self, Cancel, LoadClient, RunOutcome, RunRequest};
use crate::host;
use crate::live::{Display, JsonLines, Plain, Terminal};
use crate::plan::{Deployment, Plan};
use crate::report::Report;
use crate::settings::Settings;
use crate::store::run_dir::RunFiles;
use crate::store::{Store, StoreError};

/// Which of several exit codes stands: the first of these that occurred.
const PRECEDENCE: [i32; 11] = [70, 130, 2, 3, 4, 7, 6, 9, 5, 8, 0];

pub fn command(args: &RunArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let mut summary = Summary::begin(args.summary.as_deref(), &args.paths)?;
    let ended = run(args, global, output, &mut summary);
    summary.end(&ended)?;
    ended
}

fn run(args: &RunArgs, global: &Global, output: &Output, summary: &mut Summary) -> Result<u8, Failure> {
    // Every file is checked before the first one costs anything.
    let mut prepared: Vec<Prepared> =
        prepare::files(&args.paths)?.iter().map(|f| prepare::prepare(f)).collect::<Result<_, _>>()?;
    let mut ready = VecDeque::new();
    for p in &mut prepared {
        let settings = prepare::settings(&p.dir, global)?.settings;
        let mut plan = wanted(p, args, &settings)?;
        if let Some(base) = args.base.as_ref().filter(|_| is_empty(&plan)) {
            let nothing = format!("{}: nothing differs from {base}, so nothing is measured", plan.experiment);
            output.note(&nothing);
            summary.say(&nothing);
            continue;
        }
        Webhook::read(&plan.policy)?;
        let lock = float::lock(p, &plan, &settings, output)?;
        if let Some(lock) = lock.clone() {
            p.lock = lock;
            let kept = plan;
            plan = planned(p, &args.selection, &args.run, &settings)?;
            // That a tag moved meanwhile is none of a branch's changes.
            if args.base.is_some() {
                plan.keep_cells_of(&kept);
            }
        }
        check_control(&plan, !args.selection.only.is_empty() || args.base.is_some(), output)?;
        confirm(&plan, args.yes, output)?;
        let lock = lock.map(|lock| lock.to_text());
        ready.push_back(Job { lock, ..Job::new(plan, &p.path, &p.dir, settings) });
    }
    let signals = Signals::listen()?;
    let downloads = Arc::<Downloads>::default();
    let mut codes = Vec::new();
    while let Some(job) = ready.pop_front() {
        let later = ready.iter().flat_map(|j| j.plan.deployments.iter().cloned()).collect();
        let job = Job { later, downloads: downloads.clone(), ..job };
        let (code, files) = execute(job, signals.cancel(), output)?;
        files.iter().for_each(|files| summary.add(files));
        codes.push(code);
        if signals.cancel().is_interrupted() {
            if !ready.is_empty() {
                // It may have come after the last sample of a run, which then ended as if nothing had been.
                output.warning(&format!("interrupted: {} more of the experiments are not begun", ready.len()));
                codes.push(exec::exit::INTERRUPTED);
            }
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

/// The plan with its statuses; with `--base`, of the cells that differ from it.
fn wanted(p: &Prepared, args: &RunArgs, settings: &Settings) -> Result<Plan, Failure> {
    let mut plan = planned(p, &args.selection, &args.run, settings)?;
    if let Some(base) = &args.base {
        keep_changed(&mut plan, p, base, args)?;
    }
    Ok(plan)
}

fn is_empty(plan: &Plan) -> bool {
    plan.units.is_empty() && plan.unsupported.is_empty() && plan.searches.is_empty()
}

/// Keeps the cells that differ from the experiment as it was at a revision; a file that was not there differs altogether.
fn keep_changed(plan: &mut Plan, p: &Prepared, base: &str, args: &RunArgs) -> Result<(), Failure> {
    let revision = Revision::open(&p.dir, base)?;
    if let Some(old) = prepare::prepare_at(&p.path, &revision)? {
        plan.keep_what_differs(&old.plan_at(&args.selection, &args.run, &revision)?);
    }
    Ok(())
}

/// A control that is no cell, or several, is a mistake of the file; one that is not selected is left out.
fn check_control(plan: &Plan, selected: bool, output: &Output) -> Result<(), Failure> {
    match exec::control::find(plan) {
        Ok(_) => Ok(()),
        Err(e @ ControlError::None(_)) if selected || plan.units.is_empty() => {
            output.warning(&format!("{e}; drift is not told"));
            Ok(())
        }
        Err(e) => Err(Failure::Invalid(vec![Diagnostic::new("bad_control", e.to_string())])),
    }
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

/// One plan to be run.
pub struct Job {
    pub plan: Plan,
    /// The experiment's file, and where its relative paths start.
    pub file: PathBuf,
    pub base: PathBuf,
    pub settings: Settings,
    /// Text of the lock that this run goes by, where it is not the committed one.
    pub lock: Option<String>,
    /// Deployments of the plans that follow.
    pub later: Vec<Deployment>,
    /// What was downloaded by this command so far.
    pub downloads: Arc<Downloads>,
}

impl Job {
    /// A plan on its own.
    pub fn new(plan: Plan, file: &Path, base: &Path, settings: Settings) -> Job {
        let (file, base) = (file.to_path_buf(), base.to_path_buf());
        Job { plan, file, base, settings, lock: None, later: Vec::new(), downloads: Arc::default() }
    }
}

/// Runs one plan to its end and shows it. Gives the exit code, and the run's files where there was a run.
pub fn execute(job: Job, cancel: Cancel, output: &Output) -> Result<(i32, Option<RunFiles>), Failure> {
    let Job { plan, file, base, settings, lock, later, downloads } = job;
    let webhook = Webhook::read(&plan.policy)?;
    if is_empty(&plan) {
        output.warning(&format!("{}: nothing is selected", plan.experiment));
        return Ok((i32::from(NOTHING), None));
    }
    for warning in &plan.warnings {
        output.warning(warning);
    }
    let store = Store::open(&settings.artifacts, plan.simulated);
    let live = LiveUnits::default();
    let display = Arc::new(std::sync::Mutex::new(display(&live, output)));
    let shown = display.clone();
    let with_display = move |f: &mut dyn FnMut(&mut Display)| f(&mut shown.lock().unwrap_or_else(|e| e.into_inner()));
    let hear = with_display.clone();
    let said = gate::Said::default();
    let judge = match plan.policy.gate.clone() {
        Some(name) => {
            gate::look_ahead(&name, &store, output)?;
            Some(gate::judge(name, &plan.gate, said.clone(), *output)?)
        }
        None => None,
    };
    let offline = plan.policy.offline;
    let containers = DockerOptions { downloads, ..containers::options(&plan, &base, &settings) };
    let named = containers.run.clone();
    let begun = store.clone();
    let what = format!("`{}`", file.display());
    let containers = DockerDeployer::new(containers);
    let variables = Arc::new(|name: &str| std::env::var(name).ok());
    let request = RunRequest {
        plan: Arc::new(plan),
        store: store.clone(),
        base,
        lock,
        deployer: Arc::new(Deployers::new(variables).with_containers(Box::new(containers.clone()))),
        loader: Arc::new(LoadClient::new(Some(settings.load_threads).filter(|n| *n > 0))),
        clock: Arc::new(SystemClock),
        cancel,
        reporter: Box::new(move |entry: &Entry| {
            if let Event::RunStarted { run, .. } = &entry.event {
                let _ = named.set(run.clone());
                // Replaced when the run ends. That it cannot be written will be told then.
                let _ = results::write(&begun.run_files(run).summary(), &summary::begun(&what));
            }
            hear(&mut |d| d.entry(entry));
        }),
        live,
        host: host::detect(),
        repository: host::git::repository(&file),
        judge,
        later,
    };
    let runtime = containers::runtime()?;
    let outcome = runtime.block_on(async {
        let outcome = exec::run(request).await;
        // What a second interrupt left behind goes before the process does.
        containers.settle().await;
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
    let mut outcome = outcome.map_err(|e| match e {
        exec::ExecError::Panic(_) => Failure::Internal(e.to_string()),
        e => Failure::Environment(e.to_string()),
    })?;
    let gated = said.take();
    let report = finish(&outcome, gated.as_ref(), &store, &settings, output)?;
    outcome.over.seal().map_err(|e| Failure::Environment(e.to_string()))?;
    match webhook {
        Some(_) if offline => output.warning("the webhook is not told: this run is offline"),
        Some(webhook) => webhook.send(&outcome, &report, gated.as_ref(), &runtime, output),
        None => {}
    }
    Ok((outcome.exit_code, Some(outcome.files)))
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

/// The files of the run, the table, and where everything is.
fn finish(
    outcome: &RunOutcome,
    gated: Option<&Comparison>,
    store: &Store,
    settings: &Settings,
    output: &Output,
) -> Result<Report, Failure> {
    let cannot = |e: StoreError| Failure::Environment(e.to_string());
    for run in &outcome.recovered {
        // A run that was killed left the summary of its beginning.
        let Some(mut over) = store.take_again(run).map_err(cannot)? else { continue };
        if let Ok(record) = store.read_run(run) {
            results::write_run_files(store, &mut results::of_run(store, record), &store.run_files(run), None)?;
            over.seal().map_err(cannot)?;
        }
    }
    let mut report = results::of_run(store, outcome.record.clone());
    results::write_run_files(store, &mut report, &outcome.files, gated)?;
    gated.map_or(Ok(()), |g| gate::write(g, &outcome.files))?;
    if output.json || output.quiet {
        return Ok(report);
    }
    let measured = outcome.counts.measured + outcome.counts.invalid + outcome.counts.failed + outcome.counts.blocked;
    if measured == 0 && outcome.counts.not_run == 0 {
        output.note(&format!("every unit is cached ({}); nothing was measured", outcome.counts.cached));
    } else {
        results::print(&report, &Default::default(), output)?;
    }
    gated.iter().for_each(|g| gate::show(g, output));
    output.note(&format!("results  {}/", settings.artifacts.display()));
    outcome.csv.iter().for_each(|csv| output.note(&format!("         {}", csv.display())));
    report.sweep_cost().iter().for_each(|cost| output.note(&format!("cost     {cost}")));
    output.note(&format!("report   {}", outcome.files.report().display()));
    gated.iter().for_each(|_| output.note(&format!("gate     {}", outcome.files.gate_markdown().display())));
    Ok(report)
}
