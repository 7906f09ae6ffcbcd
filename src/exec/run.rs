//! One run, from a plan to a finished directory: the worklist, the groups, the units that another run holds, the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::ahead::{Ahead, Busy};
use super::cancel::{Cancel, Halt};
use super::control::{self, Control};
use super::dispatch::Dispatcher;
use super::exit::{self, Circumstances, Verdict};
use super::group::{GroupContext, INTERRUPTED, run_group};
use super::loader::Loader;
use super::search::SearchWork;
use super::work::{GroupWork, UnitWork, cached, cell_record, expected, label_record, name};
use crate::clock::{Clock, rfc3339};
use crate::deploy::Deployer;
use crate::digest::{DeployId, UnitId};
use crate::event::live::LiveUnits;
use crate::event::{Counts, Entry, Event, Outcome};
use crate::host::git::Repository;
use crate::host::{self, HostInfo, hardware};
use crate::plan::catalog::{Catalog, UnitState};
use crate::plan::{Deployment, Plan, Search, Status, Unit};
use crate::spec::policy::{Evict, RunPolicy};
use crate::store::record::{GpuRecord, Provenance, RunRecord, RunUnit, RunUnsupported, SCHEMA, UnitFacts};
use crate::store::run_dir::RunFiles;
use crate::store::{RunOver, Store, StoreError, Stored};

/// Hears every event, in order.
pub type Reporter = Box<dyn FnMut(&Entry) + Send>;
/// Judges a run that is over but for its exit code: the regression gate.
pub type Judge = Box<dyn FnOnce(&RunRecord, &Store) -> Verdict + Send>;

/// A group that has ended, and what of it another run holds.
type Ended = (DeployId, Option<GroupWork>);

/// Between two looks at a unit that another run holds.
const LOOK: Duration = Duration::from_millis(500);

/// Everything a run needs.
pub struct RunRequest {
    pub plan: Arc<Plan>,
    pub store: Store,
    /// Where data-set paths of the experiment start: its directory.
    pub base: PathBuf,
    pub deployer: Arc<dyn Deployer>,
    pub loader: Arc<dyn Loader>,
    pub clock: Arc<dyn Clock>,
    pub cancel: Cancel,
    pub reporter: Reporter,
    /// What a display reads between events.
    pub live: LiveUnits,
    pub host: HostInfo,
    /// Where the experiment's file stands in git.
    pub repository: Option<Repository>,
    pub judge: Option<Judge>,
    /// Text of the lock that the plan was made with, where it is not the committed one; kept in the run's directory.
    pub lock: Option<String>,
    /// Deployments that come after this run: what they need is not removed.
    pub later: Vec<Deployment>,
}

/// How a run ended.
#[derive(Debug)]
pub struct RunOutcome {
    pub counts: Counts,
    pub exit_code: i32,
    pub verdict: Verdict,
    /// What `plan.json` now holds.
    pub record: RunRecord,
    pub files: RunFiles,
    /// Results files with rows.
    pub csv: Vec<PathBuf>,
    /// To be sealed when everything of the run is written.
    pub over: RunOver,
    /// Earlier runs that had been killed and were completed.
    pub recovered: Vec<String>,
}

/// What ends a run before its time. Units keep what was committed; the next start completes the rest.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the run's directory cannot be made: {0}")]
    Start(#[source] StoreError),
    #[error(
        "the run ended because its journal cannot be written: {0}. What was measured is kept; free the disk and run again"
    )]
    Journal(#[source] StoreError),
    #[error("the run's end cannot be written: {0}. What was measured is kept; the next start completes the run")]
    End(#[source] StoreError),
    #[error("a group of the run ended in a panic: {0}")]
    Panic(String),
}

/// Runs a plan to its end. Calls of this function in any number of processes may share an artifacts directory.
pub async fn run(request: RunRequest) -> Result<RunOutcome, ExecError> {
    host::raise_open_files();
    let recovered = request.store.recover().map_err(ExecError::Start)?;
    let changed = request.store.inspect_runs().map_err(ExecError::Start)?;
    let completed = recovered.iter().filter(|r| r.problem.is_none()).map(|r| r.run.clone()).collect();
    let prepared = Prepared::new(&request);
    let (dir, record) = request
        .store
        .create_run(&request.plan.experiment, request.clock.now(), &prepared.stacks(&request.plan), |run, timestamp| {
            prepared.record(&request, run, timestamp)
        })
        .map_err(ExecError::Start)?;
    if let Some(lock) = &request.lock {
        dir.keep_lock(lock).map_err(ExecError::Start)?;
    }
    let RunRequest { store, clock, reporter, .. } = request;
    let halt = Halt::new(request.plan.policy.budget);
    let context = GroupContext {
        store: store.clone(),
        deployer: request.deployer,
        loader: request.loader,
        clock: clock.clone(),
        cancel: request.cancel,
        halt,
        live: request.live,
        downloads: Busy::default(),
    };
    let candidates = prepared.candidates(&request.plan);
    let mut dispatcher =
        Dispatcher::new(store.clone(), clock, reporter, dir, record, candidates).map_err(ExecError::Journal)?;
    begin(&mut dispatcher, &prepared, &request.plan, recovered, changed).map_err(ExecError::Journal)?;
    let mut control = prepared.control(&request.plan, &dispatcher.record.run);
    let groups = prepared.into_groups(&request.plan, &dispatcher.record);
    let probes =
        |g: &GroupWork| g.searches.iter().flat_map(|s| s.probes.iter().map(|p| p.unit.clone())).collect::<Vec<_>>();
    let used = groups.iter().flat_map(|g| g.units.iter().cloned().chain(probes(g))).collect::<Vec<_>>();
    if let Some(control) = &mut control {
        control.first(&mut dispatcher, &context).await?;
    }
    dispatch(&mut dispatcher, &context, groups, &request.plan.policy, &request.later).await?;
    if let Some(control) = &mut control {
        control.last(&mut dispatcher, &context).await?;
    }
    let outcome = end(dispatcher, &context, &used, request.judge)?;
    Ok(RunOutcome { recovered: completed, ..outcome })
}

/// A unit's part in a run, decided before it starts.
enum Part {
    Cached(Vec<u32>),
    Work(Box<UnitWork>),
    Unsupported(String),
}

struct Prepared {
    parts: Vec<Part>,
    /// By search of the plan; the error says why it cannot be run here.
    searches: Vec<Result<SearchWork, String>>,
    samples: u64,
    starts: u64,
    provenance: Provenance,
    /// The unit that is measured first and last, unless this host cannot.
    control: Option<(usize, Box<UnitWork>)>,
}

impl Prepared {
    fn new(request: &RunRequest) -> Prepared {
        let plan = &request.plan;
        let now = request.clock.now();
        let here = hardware::hardware_class(&request.host);
        let wanted: Vec<(&str, UnitId)> =
            plan.units.iter().map(|u| (plan.deployments[u.deployment].directory.as_str(), u.id)).collect();
        let states = request.store.states(&wanted);
        let mut starts = vec![0; plan.deployments.len()];
        let mut samples = 0;
        let mut part = |unit: &Unit, state: Option<UnitState>| {
            let policy = plan.policy_of(unit);
            if let Some(samples) = state.as_ref().and_then(|s| cached(s, policy, now)) {
                return Part::Cached(samples);
            }
            if let Some(reason) = unsupported(&plan.deployments[unit.deployment], unit, &here) {
                return Part::Unsupported(reason);
            }
            let expected = expected(state.as_ref(), policy, now);
            let start = &mut starts[unit.deployment];
            *start = u64::from(policy.starts.max(1).min(expected)).max(*start);
            samples += u64::from(expected);
            Part::Work(Box::new(UnitWork::new(plan, unit, now, &request.base)))
        };
        let parts: Vec<Part> = plan.units.iter().zip(states).map(|(unit, state)| part(unit, state)).collect();
        let prepare = |search: &Search| {
            let first = search.probes.first().map(|p| &p.unit).ok_or("it has no value to ask for")?;
            match unsupported(&plan.deployments[search.deployment], first, &here) {
                Some(reason) => Err(reason),
                None => Ok(SearchWork::new(plan, search, now, &request.base)),
            }
        };
        let searches: Vec<Result<SearchWork, String>> = plan.searches.iter().map(prepare).collect();
        for (search, _) in plan.searches.iter().zip(&searches).filter(|(_, work)| work.is_ok()) {
            let start = &mut starts[search.deployment];
            *start = (*start).max(1);
        }
        let mut starts = starts.into_iter().sum();
        let provenance = provenance(&request.host, request.repository.as_ref());
        let control = control::find(plan).ok().flatten().and_then(|i| {
            let unit = &plan.units[i];
            let here = unsupported(&plan.deployments[unit.deployment], unit, &here).is_none();
            here.then(|| (unit.deployment, Box::new(UnitWork::new(plan, unit, now, &request.base))))
        });
        if let Some((_, unit)) = &control {
            (starts, samples) = (starts + 2, samples + 2 * u64::from(unit.policy.repeats));
        }
        Prepared { parts, searches, samples, starts, provenance, control }
    }

    /// Directories of stacks that may be measured.
    fn stacks(&self, plan: &Plan) -> Vec<String> {
        let work = plan.units.iter().zip(&self.parts).filter(|(_, part)| matches!(part, Part::Work(_)));
        let searches = plan.searches.iter().zip(&self.searches).filter(|(_, work)| work.is_ok());
        let deployments = work.map(|(u, _)| u.deployment).chain(searches.map(|(s, _)| s.deployment));
        let deployments = deployments.chain(self.control.iter().map(|(deployment, _)| *deployment));
        let directories: BTreeSet<&String> = deployments.map(|d| &plan.deployments[d].directory).collect();
        directories.into_iter().cloned().collect()
    }

    fn cached(&self) -> u64 {
        self.parts.iter().filter(|p| matches!(p, Part::Cached(_))).count() as u64
    }

    /// The first `plan.json` of the run.
    fn record(&self, request: &RunRequest, run: &str, timestamp: &str) -> RunRecord {
        let plan = &request.plan;
        RunRecord {
            schema: SCHEMA,
            run: run.to_string(),
            timestamp: timestamp.to_string(),
            experiment: plan.experiment.clone(),
            description: plan.description.clone(),
            tags: plan.tags.clone(),
            simulated: plan.simulated,
            started_at: rfc3339(request.clock.now()),
            finished_at: None,
            died: false,
            hardware: plan.hardware.clone(),
            units: plan.units.iter().zip(&self.parts).map(|(u, part)| run_unit(plan, u, part)).collect(),
            searches: Vec::new(),
            unsupported: plan
                .unsupported
                .iter()
                .map(|u| RunUnsupported {
                    cell: cell_record(&u.cell),
                    labels: label_record(&u.labels),
                    reason: u.reason.clone(),
                })
                .collect(),
            slo: plan.slo.clone(),
            cost: plan.cost.clone(),
            gate: plan.gate.clone(),
            control: None,
            warnings: plan.warnings.clone(),
            counts: None,
            exit_code: None,
            provenance: self.provenance.clone(),
        }
    }

    /// The control, ready to be measured.
    fn control(&self, plan: &Plan, run: &str) -> Option<Control> {
        let (deployment, unit) = self.control.as_ref()?;
        let group = group_work(plan, &plan.deployments[*deployment], run, &self.provenance);
        Some(Control::new(group, (**unit).clone()))
    }

    /// Units that the searches may ask for, beside those of the plan.
    fn candidates(&self, plan: &Plan) -> Vec<RunUnit> {
        let planned: BTreeSet<UnitId> = plan.units.iter().map(|u| u.id).collect();
        let probes = plan.searches.iter().flat_map(|s| &s.probes).map(|p| &p.unit);
        let unit = |unit: &Unit| {
            let facts = super::work::facts(plan, unit, &plan.workload(unit));
            RunUnit { probe: true, ..run_unit_of(plan, unit, Vec::new(), facts) }
        };
        probes.filter(|u| !planned.contains(&u.id)).map(unit).collect()
    }

    /// One worklist per deployment that has work, in the order of the plan.
    fn into_groups(self, plan: &Plan, record: &RunRecord) -> VecDeque<GroupWork> {
        let mut units: Vec<Vec<UnitWork>> = plan.deployments.iter().map(|_| Vec::new()).collect();
        for (unit, part) in plan.units.iter().zip(self.parts) {
            if let Part::Work(work) = part {
                units[unit.deployment].push(*work);
            }
        }
        let mut searches: Vec<Vec<SearchWork>> = plan.deployments.iter().map(|_| Vec::new()).collect();
        for (search, work) in plan.searches.iter().zip(self.searches) {
            searches[search.deployment].extend(work);
        }
        let work = units.into_iter().zip(searches);
        let groups = plan
            .deployments
            .iter()
            .zip(work)
            .filter(|(_, (units, searches))| !(units.is_empty() && searches.is_empty()));
        let controlled = self.control.as_ref().map(|(deployment, _)| &plan.deployments[*deployment].id);
        let group = |(deployment, (units, searches)): (&Deployment, (Vec<UnitWork>, Vec<SearchWork>))| GroupWork {
            units,
            searches,
            starts_before: u32::from(controlled == Some(&deployment.id)),
            ..group_work(plan, deployment, &record.run, &self.provenance)
        };
        groups.map(group).collect()
    }
}

/// The worklist of a deployment, without work.
fn group_work(plan: &Plan, deployment: &Deployment, run: &str, provenance: &Provenance) -> GroupWork {
    GroupWork {
        run: run.to_string(),
        simulated: plan.simulated,
        deployment: as_started(deployment),
        units: Vec::new(),
        searches: Vec::new(),
        provenance: Provenance { template: toml::to_string(&deployment.spec).ok(), ..provenance.clone() },
        usd_per_hour: plan.cost.hour(&deployment.hardware, deployment.gpus),
        starts_before: 0,
    }
}

/// The deployment as it is started: a simulated engine has its metrics on its own port, whatever it stands in for.
fn as_started(deployment: &Deployment) -> Deployment {
    let mut deployment = deployment.clone();
    if deployment.flavor.is_some() {
        deployment.spec.api.metrics_port = None;
    }
    deployment
}

fn run_unit(plan: &Plan, unit: &Unit, part: &Part) -> RunUnit {
    let (samples, facts) = match part {
        Part::Cached(samples) => (samples.clone(), super::work::facts(plan, unit, &plan.workload(unit))),
        Part::Work(work) => (Vec::new(), work.record.facts.clone()),
        Part::Unsupported(_) => (Vec::new(), super::work::facts(plan, unit, &plan.workload(unit))),
    };
    run_unit_of(plan, unit, samples, facts)
}

fn run_unit_of(plan: &Plan, unit: &Unit, samples: Vec<u32>, facts: UnitFacts) -> RunUnit {
    let deployment = &plan.deployments[unit.deployment];
    RunUnit {
        unit_id: unit.id,
        deploy_id: deployment.id,
        directory: deployment.directory.clone(),
        container: deployment.container.clone(),
        name: name(plan, unit),
        facts,
        slo: unit.slo.as_deref().cloned(),
        repeats: plan.policy_of(unit).repeats,
        status: unit.status,
        samples,
        invalid_samples: Vec::new(),
        probe: false,
        outcome: None,
    }
}

/// Why a unit cannot be measured here, if so. The simulator and servers that already run need nothing of this host.
fn unsupported(deployment: &Deployment, unit: &Unit, here: &str) -> Option<String> {
    if unit.status == Status::Unsupported {
        return Some(unit.note.clone().unwrap_or_else(|| "the stack cannot honour the cell".into()));
    }
    let needs_host =
        deployment.flavor.is_none() && deployment.spec.sim.is_none() && deployment.spec.container.is_some();
    let differs = needs_host && !deployment.hardware.is_empty() && deployment.hardware != here;
    differs.then(|| format!("it is planned for {}; this host is {here}", deployment.hardware))
}

fn provenance(host: &HostInfo, repository: Option<&Repository>) -> Provenance {
    let HostInfo { hostname, kernel, cpu, cpus, memory_bytes, gpus, driver } = host.clone();
    Provenance {
        tool_version: host::tool_version().to_string(),
        tool_commit: host::tool_commit().map(str::to_string),
        experiment_commit: repository.map(|r| r.commit.clone()),
        experiment_dirty: repository.map(|r| r.dirty),
        host: hostname,
        kernel,
        cpu,
        cpus,
        memory_bytes,
        gpus: gpus.into_iter().map(|g| GpuRecord { name: g.name, uuid: g.uuid }).collect(),
        driver,
        ..Provenance::default()
    }
}

/// The first events: what is planned, what died before, what needs no work.
fn begin(
    dispatcher: &mut Dispatcher,
    prepared: &Prepared,
    plan: &Plan,
    recovered: Vec<crate::store::recover::Recovered>,
    changed: Vec<String>,
) -> Result<(), StoreError> {
    dispatcher.take(Event::RunStarted {
        run: dispatcher.record.run.clone(),
        experiment: plan.experiment.clone(),
        units: plan.units.len() as u64,
        cached: prepared.cached(),
        samples: prepared.samples,
        starts: prepared.starts,
        simulated: plan.simulated,
    })?;
    for dead in recovered {
        let message = match &dead.problem {
            None => format!("run {} was killed: its {} samples are kept", dead.run, dead.samples),
            Some(problem) => format!("run {} was killed and cannot be completed: {problem}", dead.run),
        };
        dispatcher.take(Event::Notice { message })?;
    }
    for sentence in changed {
        dispatcher.take(Event::Notice { message: format!("of an earlier run, {sentence}") })?;
    }
    for (unit, part) in plan.units.iter().zip(&prepared.parts) {
        let outcome = match part {
            Part::Cached(_) => Outcome::Cached,
            Part::Unsupported(reason) => Outcome::Unsupported { reason: reason.clone() },
            Part::Work(_) => continue,
        };
        dispatcher.take(Event::UnitFinished { unit_id: unit.id, outcome })?;
    }
    for (search, work) in plan.searches.iter().zip(&prepared.searches) {
        if let Err(reason) = work {
            let result = super::search::not_run(plan, search, reason.clone());
            dispatcher.take(Event::SearchFinished { result })?;
        }
    }
    Ok(())
}

/// Runs the groups, then those units that were held elsewhere, and listens until all have ended.
async fn dispatch(
    dispatcher: &mut Dispatcher,
    context: &GroupContext,
    mut groups: VecDeque<GroupWork>,
    policy: &RunPolicy,
    after: &[Deployment],
) -> Result<(), ExecError> {
    let (sender, mut events) = unbounded_channel();
    let mut running = JoinSet::new();
    let mut later = VecDeque::new();
    let mut ahead = Ahead::new(context, &sender);
    let mut at_work: Vec<Deployment> = Vec::new();
    loop {
        while running.len() < policy.parallel.max(1) as usize
            && let Some(work) = groups.pop_front()
        {
            at_work.push(work.deployment.clone());
            start_group(&mut running, work, context, &sender);
        }
        if running.is_empty() {
            if later.is_empty() {
                break;
            }
            match wait_for_release(&mut later, context).await {
                Ok(free) => groups = free,
                Err(reason) => {
                    let units = later.drain(..).flat_map(|group: GroupWork| group.units);
                    for unit_id in units.map(|u| u.record.unit_id) {
                        let outcome = Outcome::NotRun { reason: reason.clone() };
                        dispatcher.take(Event::UnitFinished { unit_id, outcome }).map_err(ExecError::Journal)?;
                    }
                }
            }
            continue;
        }
        tokio::select! {
            biased;
            Some(event) = events.recv() => {
                let measures = matches!(event, Event::DeploymentReady { .. });
                take(dispatcher, event, context, &mut running, &mut events).await?;
                if measures && policy.prefetch {
                    ahead.look(&groups);
                }
            }
            Some(ended) = running.join_next() => match ended {
                Ok((id, taken)) => {
                    later.extend(taken);
                    let done = at_work.iter().position(|d| d.id == id).map(|i| at_work.swap_remove(i));
                    let queued = groups.iter().chain(&later).map(|g| &g.deployment);
                    let needed: Vec<Deployment> = queued.chain(&at_work).chain(after).cloned().collect();
                    evict(context, policy.evict, done.as_ref(), &needed, &sender).await;
                }
                Err(e) => {
                    context.cancel.interrupt();
                    while running.join_next().await.is_some() {}
                    return Err(ExecError::Panic(e.to_string()));
                }
            },
        }
    }
    while let Ok(event) = events.try_recv() {
        dispatcher.take(event).map_err(ExecError::Journal)?;
    }
    Ok(())
}

/// Makes room where that is asked for, once a deployment is done for good.
async fn evict(
    context: &GroupContext,
    policy: Evict,
    done: Option<&Deployment>,
    needed: &[Deployment],
    sender: &UnboundedSender<Event>,
) {
    let Some(done) = done.filter(|d| policy != Evict::No && needed.iter().all(|n| n.id != d.id)) else { return };
    // Whoever interrupts a run most likely goes on with it.
    if context.cancel.is_interrupted() {
        return;
    }
    let gone = context.deployer.evict(done, needed, policy == Evict::All).await;
    if !gone.is_empty() {
        let message = format!("removed what no later deployment needs: {}", gone.join(", "));
        let _ = sender.send(Event::Notice { message });
    }
}

fn start_group(running: &mut JoinSet<Ended>, work: GroupWork, context: &GroupContext, sender: &UnboundedSender<Event>) {
    let (context, sender) = (context.clone(), sender.clone());
    let id = work.deployment.id;
    running.spawn(async move { (id, run_group(work, &context, &sender).await) });
}

/// Takes an event; when the journal cannot be written, ends the groups in good order first.
async fn take(
    dispatcher: &mut Dispatcher,
    event: Event,
    context: &GroupContext,
    running: &mut JoinSet<Ended>,
    events: &mut UnboundedReceiver<Event>,
) -> Result<(), ExecError> {
    let Err(e) = dispatcher.take(event) else { return Ok(()) };
    context.cancel.interrupt();
    while running.join_next().await.is_some() {}
    events.close();
    Err(ExecError::Journal(e))
}

/// Waits until a unit that another run held is free and gives the groups back to be run; or, when nothing new may start,
/// says why.
async fn wait_for_release(
    later: &mut VecDeque<GroupWork>,
    context: &GroupContext,
) -> Result<VecDeque<GroupWork>, String> {
    let free = |unit: &UnitWork| !context.store.is_taken(&unit.record.unit_id).unwrap_or(false);
    loop {
        if context.cancel.is_interrupted() {
            return Err(INTERRUPTED.into());
        }
        if let Some(reason) = context.halt.reason() {
            return Err(reason);
        }
        if later.iter().any(|g| g.units.iter().any(free)) {
            return Ok(std::mem::take(later));
        }
        let _ = context.cancel.or_interrupted(tokio::time::sleep(LOOK)).await;
    }
}

/// Fills `plan.json` in, lets the gate judge, says the last word.
fn end(
    mut dispatcher: Dispatcher,
    context: &GroupContext,
    worked: &[UnitWork],
    judge: Option<Judge>,
) -> Result<RunOutcome, ExecError> {
    dispatcher.complete_rows().map_err(ExecError::End)?;
    fill_in(&mut dispatcher, context, worked).map_err(ExecError::Journal)?;
    let mut counts = dispatcher.state.counts();
    counts.unsupported += dispatcher.record.unsupported.len() as u64;
    let record = &mut dispatcher.record;
    record.finished_at = Some(rfc3339(context.clock.now()));
    record.counts = Some(counts);
    let verdict = judge.map(|judge| judge(record, &context.store)).unwrap_or_default();
    let interrupted = context.cancel.is_interrupted();
    let only_elsewhere = counts.unsupported > 0 && counts.total() == counts.unsupported && worked.is_empty();
    let elsewhere = only_elsewhere && record.unsupported.is_empty();
    let circumstances = Circumstances {
        interrupted,
        no_environment: dispatcher.no_environment() || elsewhere,
        unfinished: dispatcher.record.searches.iter().any(|s| s.unfinished.is_some()),
    };
    let exit_code = exit::code(&dispatcher.without_failed_probes(counts), circumstances, &verdict);
    dispatcher.record.exit_code = Some(exit_code);
    dispatcher.take(Event::RunFinished { counts, exit_code }).map_err(ExecError::Journal)?;
    let Dispatcher { dir, record, .. } = dispatcher;
    let csv = dir.csv_paths();
    let over = dir.finish(&record).map_err(ExecError::End)?;
    let csv = csv.into_iter().filter(|path| path.exists()).collect();
    Ok(RunOutcome { counts, exit_code, verdict, record, files: over.files(), csv, over, recovered: Vec::new() })
}

/// The samples that each unit stands on, and how it ended.
fn fill_in(dispatcher: &mut Dispatcher, context: &GroupContext, worked: &[UnitWork]) -> Result<(), StoreError> {
    let works: BTreeMap<UnitId, &UnitWork> = worked.iter().map(|w| (w.record.unit_id, w)).collect();
    let mut lost = Vec::new();
    for i in 0..dispatcher.record.units.len() {
        let unit_id = dispatcher.record.units[i].unit_id;
        if !dispatcher.state.outcomes.contains_key(&unit_id) {
            lost.push(unit_id);
        }
    }
    for unit_id in lost {
        let outcome = Outcome::NotRun { reason: INTERRUPTED.into() };
        dispatcher.take(Event::UnitFinished { unit_id, outcome })?;
    }
    let run = dispatcher.record.run.clone();
    for unit in &mut dispatcher.record.units {
        unit.outcome = dispatcher.state.outcomes.get(&unit.unit_id).cloned();
        let Some(work) = works.get(&unit.unit_id) else { continue };
        if let Ok(Stored::Present { result, .. }) = context.store.read_unit(&unit.directory, &unit.unit_id) {
            unit.samples = work.used(&result, &run);
            let own = result.samples.iter().filter(|s| s.run == run && !s.valid);
            unit.invalid_samples = own.map(|s| s.sample).collect();
        }
    }
    Ok(())
}
