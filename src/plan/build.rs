//! From expanded cells to a plan: checks, deployments, units, `--only`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::expand::{self, Expanded, SearchPoint};
use super::fit;
use super::identity::{self, Contents, Pairs, Resolver, Unresolved, get};
use super::lock::{Lock, Reference, ReferenceKind};
use super::paths::Paths;
use super::search::most_probes;
use super::shape;
use super::{Cell, Plan, Probe, Search, Status, Unit, Unsupported, words};
use crate::diag::{self, Diagnostic};
use crate::digest::{Digest, UnitId};
use crate::spec::Spec;
use crate::spec::block::Assignment;
use crate::spec::policy::{RunPolicy, Slo};
use crate::spec::predicate::Predicate;
use crate::spec::sections::RunSetting;
use crate::spec::types::Vocabulary;
use crate::template::Templates;
use crate::units::Objective;
use crate::value::Value;
use crate::wire::{Api, Dialect};
use crate::workload::job_streams;

/// Requests of a unit that has neither a number of them nor a duration, at least.
const DEFAULT_REQUESTS: i64 = 100;
/// Most distinct parameter paths that one experiment may use.
const MAX_PATHS: usize = 4096;

/// Everything a plan is made from.
pub struct PlanRequest<'a> {
    pub spec: &'a Spec,
    pub words: &'a Vocabulary,
    pub templates: &'a Templates,
    pub lock: &'a Lock,
    pub contents: &'a dyn Contents,
    /// Hardware class of this host, for cells that neither the file nor the lock give one.
    pub detected_hardware: &'a str,
    /// `--set`.
    pub set: &'a [Assignment],
    /// `--only`: a cell is kept when any of them matches.
    pub only: &'a [Predicate],
    /// Flags that stand over `[run]`.
    pub settings: &'a [RunSetting],
    pub simulate: bool,
    /// Version of the simulator's timing model.
    pub sim_version: u32,
}

/// Builds the plan; all statuses are `new` until it is compared with artifacts.
pub fn build(request: &PlanRequest) -> Result<Plan, Vec<Diagnostic>> {
    let spec = request.spec;
    let paths = Paths::collect(spec, request.set, request.only.iter(), MAX_PATHS).map_err(|n| {
        let message = format!("the experiment uses {n} different parameter paths; the limit is {MAX_PATHS}");
        vec![Diagnostic::new("too_many_paths", message).at(&spec.source, 0..0)]
    })?;
    let cells = expand::expand(spec, request.words, &paths, request.set).map_err(tidied)?;
    let mut builder = Builder::new(request);
    for cell in cells {
        builder.cell(cell, &paths);
    }
    builder.finish()
}

fn tidied(mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diag::tidy(&mut problems);
    problems
}

struct Builder<'a> {
    request: &'a PlanRequest<'a>,
    resolver: Resolver<'a>,
    plan: Plan,
    /// Canonical deploy parameters → index into `resolved`.
    tuples: HashMap<Vec<u8>, usize>,
    resolved: Vec<Result<usize, String>>,
    deploy_ids: HashMap<crate::digest::DeployId, usize>,
    seen: HashSet<UnitId>,
    datasets: HashMap<Arc<str>, Result<Digest, String>>,
    policies: HashMap<Arc<[u16]>, Policies>,
    /// By the number of the search: its index in the plan, and where it stands in the file.
    searches: HashMap<u32, (usize, Range<usize>)>,
    references: BTreeMap<Reference, bool>,
    hardware: BTreeSet<(String, String)>,
    problems: Vec<Diagnostic>,
}

type Policies = (Option<Arc<RunPolicy>>, Option<Arc<Slo>>);

impl<'a> Builder<'a> {
    fn new(request: &'a PlanRequest<'a>) -> Builder<'a> {
        let spec = request.spec;
        let mut policy = spec.run.clone();
        request.settings.iter().for_each(|s| s.apply(&mut policy));
        let mut axes = Vec::with_capacity(spec.blocks.len());
        for block in &spec.blocks {
            let mut set = BTreeSet::new();
            block.product.axis_paths(&mut set);
            axes.push(set.into_iter().collect::<Vec<_>>());
        }
        Builder {
            request,
            resolver: Resolver::new(
                request.templates,
                request.lock,
                request.contents,
                request.detected_hardware,
                request.simulate,
                request.sim_version,
            ),
            plan: Plan {
                experiment: spec.name.clone(),
                description: spec.description.clone(),
                tags: spec.tags.clone(),
                hardware: Vec::new(),
                units: Vec::new(),
                deployments: Vec::new(),
                unsupported: Vec::new(),
                searches: Vec::new(),
                references: Vec::new(),
                axes,
                warnings: Vec::new(),
                policy,
                slo: spec.slo.clone(),
                cost: spec.cost.clone(),
                gate: spec.gate.clone(),
                simulated: request.simulate,
            },
            tuples: HashMap::new(),
            resolved: Vec::new(),
            deploy_ids: HashMap::new(),
            seen: HashSet::new(),
            datasets: HashMap::new(),
            policies: HashMap::new(),
            searches: HashMap::new(),
            references: BTreeMap::new(),
            hardware: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    fn cell(&mut self, mut cell: Expanded, paths: &Paths) {
        if self.problems.len() >= 50 {
            return;
        }
        engine_default(&mut cell.values);
        if let Err((path, problem)) = check(&cell) {
            let spec = self.request.spec;
            self.problems.push(problem.at(&spec.source, place(spec, cell.block, path, None)));
            return;
        }
        let keep = |p: &Predicate| expand::matches(&cell.values, &cell.labels, p, paths, self.request.words);
        let wanted = self.request.only.is_empty() || self.request.only.iter().any(keep);
        let (deploy, unit) = identity::split(&cell.values);
        match self.deployment(&deploy, cell.block, wanted) {
            Some(Ok(index)) => self.unit(cell, unit, index, wanted),
            Some(Err(reason)) if wanted => self.unsupported(cell, &deploy, &unit, reason),
            _ => {}
        }
    }

    /// The deployment of these parameters: resolved once per distinct set. `None` when it is broken.
    fn deployment(&mut self, deploy: &Pairs, block: u32, wanted: bool) -> Option<Result<usize, String>> {
        let key = identity::canonical(deploy);
        if let Some(i) = self.tuples.get(&key) {
            return Some(self.resolved[*i].clone());
        }
        let outcome = match self.resolver.resolve(deploy) {
            Ok(resolved) => {
                let d = resolved.deployment;
                if wanted {
                    self.hardware.insert((d.hardware.clone(), resolved.hardware_source.to_string()));
                    for (reference, locked) in resolved.references {
                        self.references.insert(reference, locked);
                    }
                }
                let next = self.plan.deployments.len();
                let index = *self.deploy_ids.entry(d.id).or_insert(next);
                if index == next {
                    self.plan.deployments.push(d);
                }
                Ok(index)
            }
            Err(Unresolved::Unsupported(reason)) => Err(reason),
            Err(Unresolved::Broken(code, message, help)) => {
                let span = self.request.spec.blocks[block as usize].span.clone();
                let problem = Diagnostic::new(code, message).at(&self.request.spec.source, span).maybe_help(help);
                if !self.problems.iter().any(|p| p.message == problem.message) {
                    self.problems.push(problem);
                }
                return None;
            }
        };
        self.tuples.insert(key, self.resolved.len());
        self.resolved.push(outcome.clone());
        Some(outcome)
    }

    fn unit(&mut self, cell: Expanded, mut unit: Pairs, deployment: usize, wanted: bool) {
        let api = &self.plan.deployments[deployment].spec.api;
        let (dialect, takes_jobs) = (api.dialect, api.batch.is_some());
        let chosen = get(&unit, "api").and_then(Value::as_str).unwrap_or(api.default.as_str()).to_string();
        let derived = derive(&mut unit, &chosen, takes_jobs);
        let dataset = match get(&unit, "dataset").and_then(Value::as_str).map(Arc::from) {
            None => None,
            Some(path) => match self.dataset(&path, cell.block) {
                Some(digest) => Some(digest),
                None => return,
            },
        };
        if let Some(reason) = unmeasurable(&chosen, dialect, takes_jobs, &unit) {
            if wanted {
                let (deploy, _) = identity::split(&cell.values);
                self.unsupported(cell, &deploy, &unit, reason);
            }
            return;
        }
        let hashed: Pairs = unit.into_iter().filter(|(p, _)| &**p != "dataset").collect();
        let id = UnitId::of_canonical(&identity::unit_document(
            &self.plan.deployments[deployment].id,
            &hashed,
            dataset.as_ref(),
        ));
        if !wanted || (cell.search.is_none() && !self.seen.insert(id)) {
            return;
        }
        let (policy, slo) = self.policies(&cell.policies);
        let mut values = cell.values;
        for (path, value) in derived {
            if let Err(at) = values.binary_search_by(|(p, _)| (**p).cmp(path)) {
                values.insert(at, (path.into(), value));
            }
        }
        let unit = Unit {
            id,
            deployment,
            cell: Cell(values),
            labels: cell.labels,
            block: cell.block,
            dataset,
            policy,
            slo,
            status: Status::New,
            reasons: Vec::new(),
            note: None,
            valid_samples: 0,
            history_seconds: None,
        };
        match cell.search {
            None => self.plan.units.push(unit),
            Some(point) => self.probe(&point, unit),
        }
    }

    fn dataset(&mut self, path: &Arc<str>, block: u32) -> Option<Digest> {
        let contents = self.request.contents;
        let digest = self.datasets.entry(path.clone()).or_insert_with(|| contents.digest(path)).clone();
        match digest {
            Ok(digest) => Some(digest),
            Err(e) => {
                let spec = self.request.spec;
                let span = place(spec, block, "dataset", Some(&Value::str(path)));
                let message = format!("the data set `{path}` cannot be read: {e}");
                let help = "a data set's path is relative to the experiment file";
                self.problems.push(Diagnostic::new("unreadable_file", message).at(&spec.source, span).help(help));
                None
            }
        }
    }

    fn unsupported(&mut self, mut cell: Expanded, deploy: &Pairs, unit: &Pairs, reason: String) {
        let mut unit = unit.clone();
        // A search that cannot be is one thing, not one for each of its values.
        if let Some(point) = &cell.search {
            unit.retain(|(path, _)| *path != point.axis.path);
            cell.values.retain(|(path, _)| *path != point.axis.path);
        }
        let deploy_id = Resolver::unsupported_id(deploy);
        let unit_id = UnitId::of_canonical(&identity::unit_document(&deploy_id, &unit, None));
        if self.seen.insert(unit_id) {
            self.plan.unsupported.push(Unsupported {
                unit_id,
                deploy_id,
                cell: Cell(cell.values),
                labels: cell.labels,
                reason,
            });
        }
    }

    /// Adds a unit to its search.
    fn probe(&mut self, point: &SearchPoint, unit: Unit) {
        let axis = &point.axis;
        let next = self.plan.searches.len();
        let index = self.searches.entry(point.search).or_insert_with(|| (next, axis.span.clone())).0;
        if index == next {
            let rest = unit.cell.0.iter().filter(|(path, _)| *path != axis.path).cloned().collect();
            self.plan.searches.push(Search {
                cell: Cell(rest),
                labels: unit.labels.clone(),
                deployment: unit.deployment,
                parameter: axis.path.to_string(),
                from: axis.from,
                to: axis.to,
                until: axis.until,
                within: axis.within,
                probes: Vec::new(),
                max_probes: 0,
            });
        }
        let search = &mut self.plan.searches[index];
        if search.deployment == unit.deployment {
            search.probes.push(Probe { value: point.value.as_f64().unwrap_or_default(), unit });
            return;
        }
        let message = format!("`{}` is searched, and a deploy parameter depends on it", axis.path);
        let help = "all probes of a search run on one engine start; make the deploy parameter independent of it";
        self.search_problem("search_deployment", message, help, axis.span.clone());
    }

    fn search_problem(&mut self, code: &'static str, message: String, help: &str, span: Range<usize>) {
        if !self.problems.iter().any(|p| p.message == message) {
            self.problems.push(Diagnostic::new(code, message).at(&self.request.spec.source, span).help(help));
        }
    }

    /// Searches without probes or that are there already go; the others learn how many probes they need, and must have
    /// something to judge by.
    fn settle_searches(&mut self) {
        let spans: HashMap<usize, Range<usize>> = std::mem::take(&mut self.searches).into_values().collect();
        let mut kept: Vec<Search> = Vec::new();
        let searches = std::mem::take(&mut self.plan.searches);
        for (index, mut search) in searches.into_iter().enumerate() {
            let grid: Vec<f64> = search.probes.iter().map(|p| p.value).collect();
            let ids = |s: &Search| s.probes.iter().map(|p| p.unit.id).collect::<Vec<_>>();
            if kept.iter().any(|k| k.until == search.until && ids(k) == ids(&search)) {
                continue;
            }
            search.max_probes = most_probes(search.until, &grid);
            let unjudged = search.probes.first().filter(|p| self.plan.slo_of(&p.unit).0.is_empty());
            if search.until == Objective::Slo && unjudged.is_some() {
                let message = format!("`{}` is searched until the SLOs are met, and there are none", search.parameter);
                let help = "set aggregate limits under [slo], such as p95_ttft = \"500ms\"";
                self.search_problem("missing_slo", message, help, spans[&index].clone());
            }
            kept.push(search);
        }
        self.plan.searches = kept;
    }

    /// The experiment's policy with the matching overrides, then the flags.
    fn policies(&mut self, matched: &Arc<[u16]>) -> Policies {
        if matched.is_empty() {
            return (None, None);
        }
        let request = self.request;
        self.policies
            .entry(matched.clone())
            .or_insert_with(|| {
                let mut run = request.spec.run.clone();
                let mut slo = request.spec.slo.clone();
                for i in matched.iter() {
                    let rule = &request.spec.overrides[usize::from(*i)];
                    rule.run.iter().for_each(|s| s.apply(&mut run));
                    slo.0.extend(rule.slo.iter().flat_map(|s| s.0.clone()));
                }
                request.settings.iter().for_each(|s| s.apply(&mut run));
                (Some(Arc::new(run)), Some(Arc::new(slo)))
            })
            .clone()
    }

    fn finish(mut self) -> Result<Plan, Vec<Diagnostic>> {
        self.settle_searches();
        if !self.problems.is_empty() {
            return Err(tidied(self.problems));
        }
        let spec = self.request.spec;
        if self.request.only.is_empty() && self.plan.units.is_empty() && self.plan.searches.is_empty() {
            let reasons: BTreeSet<&str> = self.plan.unsupported.iter().map(|u| u.reason.as_str()).collect();
            let message = "no stack can honour any cell of this experiment".to_string();
            let help = reasons.into_iter().take(5).collect::<Vec<_>>().join("\n");
            let span = spec.blocks.first().map_or(0..0, |b| b.span.clone());
            return Err(vec![Diagnostic::new("all_unsupported", message).at(&spec.source, span).help(help)]);
        }
        self.drop_unused();
        self.plan.hardware = std::mem::take(&mut self.hardware).into_iter().collect();
        self.warn();
        self.plan.references = std::mem::take(&mut self.references).into_iter().collect();
        Ok(self.plan)
    }

    /// Deployments that `--only` left without a unit go.
    fn drop_unused(&mut self) {
        let used: BTreeSet<usize> = self
            .plan
            .units
            .iter()
            .map(|u| u.deployment)
            .chain(self.plan.searches.iter().map(|s| s.deployment))
            .collect();
        let new_index: HashMap<usize, usize> = used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let mut i = 0;
        self.plan.deployments.retain(|_| {
            i += 1;
            used.contains(&(i - 1))
        });
        self.plan.units.iter_mut().for_each(|u| u.deployment = new_index[&u.deployment]);
        for search in &mut self.plan.searches {
            search.deployment = new_index[&search.deployment];
            search.probes.iter_mut().for_each(|p| p.unit.deployment = search.deployment);
        }
    }

    fn warn(&mut self) {
        let unlocked = |kind: ReferenceKind| {
            let names = self.references.iter().filter(move |(r, locked)| r.kind == kind && !**locked);
            names.map(|(r, _)| r.name.clone()).collect::<Vec<_>>()
        };
        if self.request.simulate {
            return;
        }
        let images = unlocked(ReferenceKind::Image);
        if !images.is_empty() {
            let message = format!("a tag can move: the lock has no digest for {}", images.join(", "));
            self.plan.warnings.push(format!("{message} (`llmatrix lock` resolves it)"));
        }
        let models = unlocked(ReferenceKind::Model);
        if !models.is_empty() {
            self.plan.warnings.push(format!("a branch can move: the lock has no commit for {}", models.join(", ")));
        }
        let mut classes: Vec<String> = Vec::new();
        for (class, source) in &self.plan.hardware {
            if source != "detected"
                && !matches!(class.as_str(), "sim" | "external")
                && class != self.request.detected_hardware
            {
                classes.push(class.clone());
            }
        }
        if !classes.is_empty() {
            let here = self.request.detected_hardware;
            self.plan.warnings.push(format!("planned for {}; this host is {here}", classes.join(", ")));
        }
        self.without_gpu();
        let fits = fit::of(&self.plan, self.request.lock);
        self.plan.warnings.extend(fit::warnings(&self.plan, &fits));
        if !self.plan.policy.float.is_empty() && !self.plan.simulated {
            let kinds = self.plan.policy.float.join(", ");
            self.plan.warnings.push(format!("`float`: a run resolves every {kinds} anew, so units may be new then"));
        }
    }

    /// A class that nobody wrote down is this host's; a host without GPU is most likely not the one that is meant.
    fn without_gpu(&mut self) {
        if !self.plan.hardware.iter().any(|(class, source)| class == "cpu" && source == "detected") {
            return;
        }
        let of_gpus = |d: &&super::Deployment| {
            d.spec.container.is_some() && d.flavor.is_none() && d.gpus > 0 && d.hardware == "cpu"
        };
        let n = self.plan.deployments.iter().filter(of_gpus).count();
        if n > 0 {
            let what = if n == 1 { "1 deployment is".to_string() } else { format!("{n} deployments are") };
            self.plan.warnings.push(format!(
                "{what} planned for `cpu`, because this host has no GPU: set `hardware` to plan for the host that is meant"
            ));
        }
    }
}

/// `engine` of an external endpoint is `openai` unless said otherwise.
fn engine_default(values: &mut Vec<(Arc<str>, Value)>) {
    if get(values, "engine").is_none() && get(values, "method").and_then(Value::as_str) == Some("external") {
        let at = values.binary_search_by(|(p, _)| (**p).cmp("engine")).unwrap_or_else(|i| i);
        values.insert(at, ("engine".into(), "openai".into()));
    }
}

/// Adds what is derived and takes out what has no effect; returns what was derived. A server that takes jobs decides itself
/// how many of a job's requests are in flight.
fn derive(unit: &mut Pairs, api: &str, takes_jobs: bool) -> Vec<(&'static str, Value)> {
    let has = |unit: &Pairs, name: &str| get(unit, name).is_some();
    let mut derived = vec![("api", Value::str(api))];
    let stages = get(unit, "stages").cloned();
    let trace = is_trace(unit);
    let rates = has(unit, "rate") || shape::has_stages_of(stages.as_ref(), "rate");
    // The load of these comes from elsewhere: from the stages, or from the trace.
    let elsewhere = stages.is_some() || (trace && !rates);
    let job = api == Api::Batch.as_str();
    let handed_over = job && takes_jobs;
    if !(rates || elsewhere || handed_over) {
        let all = get(unit, "requests").and_then(Value::as_u64).unwrap_or(DEFAULT_REQUESTS as u64);
        let default = if job { Value::Int(job_streams(all).into()) } else { Value::Int(1) };
        derived.push(("concurrency", get(unit, "concurrency").cloned().unwrap_or(default)));
    }
    if !rates {
        unit.retain(|(p, _)| !matches!(&**p, "arrival" | "burstiness"));
    }
    if get(unit, "arrival").and_then(Value::as_str) != Some("gamma") {
        unit.retain(|(p, _)| &**p != "burstiness");
    }
    if !has(unit, "tokens.shared_prefix") {
        unit.retain(|(p, _)| &**p != "tokens.prefix_groups");
    }
    if !has(unit, "cancel_rate") {
        unit.retain(|(p, _)| &**p != "cancel_after");
    }
    if !has(unit, "requests") && !has(unit, "duration") && !elsewhere {
        let concurrency = get(unit, "concurrency").and_then(Value::as_i64).unwrap_or(1);
        derived.push(("requests", Value::Int(concurrency.saturating_mul(10).max(DEFAULT_REQUESTS))));
    }
    if let Some(path) = get(unit, "dataset").and_then(Value::as_str)
        && !has(unit, "format")
    {
        let format = match path {
            path if path.ends_with(".json") => "sharegpt",
            path if path.ends_with(".csv") => "azure",
            _ => "jsonl",
        };
        derived.push(("format", format.into()));
    }
    for (path, value) in &derived {
        match unit.binary_search_by(|(p, _)| (**p).cmp(path)) {
            Ok(_) => {}
            Err(at) => unit.insert(at, ((*path).into(), value.clone())),
        }
    }
    derived
}

/// Whether the data set says when requests start.
fn is_trace(pairs: &[(Arc<str>, Value)]) -> bool {
    let text = |name: &str| get(pairs, name).and_then(Value::as_str);
    match text("format") {
        Some(format) => matches!(format, "trace" | "azure"),
        None => text("dataset").is_some_and(|path| path.ends_with(".csv")),
    }
}

/// The unit parameters as they are hashed, from those that are set and not default.
pub fn hashed(mut unit: Pairs, api: &crate::wire::ApiSpec) -> Pairs {
    let chosen = get(&unit, "api").and_then(Value::as_str).unwrap_or(api.default.as_str()).to_string();
    derive(&mut unit, &chosen, api.batch.is_some());
    unit.retain(|(p, _)| &**p != "dataset");
    unit
}

/// What the load generator of this version does not send.
fn unmeasurable(api: &str, dialect: Dialect, takes_jobs: bool, unit: &Pairs) -> Option<String> {
    let generate = dialect != Dialect::Openai;
    match api {
        "batch" if takes_jobs && generate => return Some("only an OpenAI server has a batch API".into()),
        "batch" if takes_jobs && get(unit, "concurrency").is_some() => {
            return Some(
                "this stack's batch API decides itself how many requests are in flight: unset `concurrency`".into(),
            );
        }
        "batch" => return None,
        "generate" if !generate => return Some("this stack has no `generate` API; use `chat` or `completions`".into()),
        "chat" | "completions" if generate => return Some(format!("this stack has no `{api}` API; use `generate`")),
        _ => {}
    }
    let turns = get(unit, "tokens.turns").and_then(Value::as_i64).unwrap_or(1);
    (turns > 1 && api != "chat").then(|| format!("conversations (`tokens.turns`) go over the chat API, not `{api}`"))
}

/// What a batch cell sets and a job cannot have.
fn no_part_of_a_job(v: &[(Arc<str>, Value)]) -> Option<&'static str> {
    if get(v, "api").and_then(Value::as_str) != Some(Api::Batch.as_str()) {
        return None;
    }
    let number = |name: &str| get(v, name).and_then(Value::as_f64).unwrap_or(0.0);
    let set = |name: &&str| match *name {
        "tokens.turns" => number(name) > 1.0,
        "cancel_rate" => number(name) > 0.0,
        "dataset" => is_trace(v),
        name => get(v, name).is_some(),
    };
    ["rate", "stages", "ramp", "duration", "tokens.turns", "cancel_rate", "dataset"].into_iter().find(set)
}

/// Where the cells of a block get a parameter from, for a message about it; the block when nothing there sets it.
fn place(spec: &Spec, block: u32, path: &str, value: Option<&Value>) -> Range<usize> {
    let block = &spec.blocks[block as usize];
    let mut set = Vec::new();
    block.product.assignments(&mut set);
    set.extend(spec.overrides.iter().flat_map(|o| &o.set));
    set.extend(&spec.defaults);
    let fits = |a: &&Assignment| *a.path == *path && value.is_none_or(|v| a.term.fixed() == Some(v));
    set.into_iter().find(fits).map_or_else(|| block.span.clone(), |a| a.span.clone())
}

/// What a cell must have, and what cannot stand together: the parameter to blame, and why.
fn check(cell: &Expanded) -> Result<(), (&'static str, Diagnostic)> {
    let v = &cell.values;
    let has = |name: &str| get(v, name).is_some();
    let number = |name: &str| get(v, name).and_then(Value::as_f64);
    for name in ["model", "method", "engine"] {
        if !has(name) {
            let message = format!("the cells of this block have no `{name}`");
            let help = format!("set `{name}` in the block or under [defaults]");
            return Err((name, Diagnostic::new("missing_parameter", message).help(help)));
        }
    }
    if let Some((path, given, meant)) = words::slip(v) {
        let message = format!("`{given}` is not a value of `{path}` that is known here");
        let help = format!("did you mean `{meant}`? A word of the engine's own goes through engine_args");
        return Err((path, Diagnostic::new("unknown_value", message).help(help)));
    }
    let conflict = |path, message: &str, help: &str| Err((path, Diagnostic::new("conflict", message).help(help)));
    let method = get(v, "method").and_then(Value::as_str).unwrap_or_default();
    if (method == "external") != has("endpoint") {
        return match method {
            "external" => Err((
                "method",
                Diagnostic::new("missing_parameter", "the method `external` needs an `endpoint`")
                    .help("for example endpoint = \"http://127.0.0.1:8000\""),
            )),
            _ => conflict(
                "endpoint",
                "`endpoint` is for the method `external` only",
                "remove it, or set method = \"external\"",
            ),
        };
    }
    if has("dataset") && (has("tokens.input") || has("tokens.input_range")) {
        return conflict("dataset", "`dataset` gives the prompts, so `tokens.input` cannot", "remove one of them");
    }
    if !has("dataset") {
        for (name, ok) in [
            ("tokens.input", has("tokens.input") || has("tokens.input_range")),
            ("tokens.output", has("tokens.output")),
        ] {
            if !ok {
                let help = "for example tokens = [{ input = 1024, output = 128 }]";
                let message = format!("the cells of this block have no `{name}`");
                return Err((name, Diagnostic::new("missing_parameter", message).help(help)));
            }
        }
    }
    if has("tokens.input") && has("tokens.input_range") {
        return conflict(
            "tokens.input_range",
            "`tokens.input` and `tokens.input_range` both give the input length",
            "remove one of them",
        );
    }
    if let (Some(shared), Some(input)) = (number("tokens.shared_prefix"), number("tokens.input"))
        && shared > input
    {
        return conflict(
            "tokens.shared_prefix",
            "`tokens.shared_prefix` is part of `tokens.input` and cannot be longer",
            "shorten the prefix",
        );
    }
    let gamma = get(v, "arrival").and_then(Value::as_str) == Some("gamma");
    if number("burstiness").is_some_and(|b| b != 1.0) && !gamma {
        return conflict("burstiness", "`burstiness` shapes gamma arrivals only", "set arrival = \"gamma\"");
    }
    for name in ["rate", "duration", "ramp"] {
        if has("stages") && has(name) {
            let message = format!("`stages` and `{name}` both say what the load is");
            return conflict("stages", &message, "remove one of them");
        }
    }
    if shape::has_stages_of(get(v, "stages"), "concurrency") && has("concurrency") {
        return conflict(
            "stages",
            "`stages` of concurrency and `concurrency` both say what the load is",
            "remove one of them",
        );
    }
    if let Some(path) = no_part_of_a_job(v) {
        let message = format!("`api = \"batch\"` is a job of fixed size: `{path}` has no place in it");
        return Err((path, Diagnostic::new("conflict", message).help("remove it; `requests` is the size of the job")));
    }
    if has("dataset") && number("tokens.turns").is_some_and(|n| n > 1.0) {
        return conflict("tokens.turns", "`dataset` gives the prompts, so `tokens.turns` cannot", "remove one of them");
    }
    if number("replay_speed").is_some_and(|s| s != 1.0) && (!has("dataset") || has("rate") || has("stages")) {
        return conflict(
            "replay_speed",
            "`replay_speed` is for a trace that is replayed at its own times",
            "remove it",
        );
    }
    if get(v, "cancel_after").is_some_and(|a| *a != Value::Int(1)) && number("cancel_rate").unwrap_or(0.0) == 0.0 {
        return conflict(
            "cancel_after",
            "`cancel_after` has no effect without `cancel_rate`",
            "set cancel_rate = 0.1, say",
        );
    }
    if cell.search.as_ref().is_some_and(|s| get(v, &s.axis.path) != Some(&s.value)) {
        return conflict("", "a searched parameter is also set by an override", "remove one of them");
    }
    Ok(())
}
