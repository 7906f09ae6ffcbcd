//! A mock stack: engines that start and die as a script says, samples that take ten virtual seconds each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::cancel::Halt;
use super::super::*;
use crate::clock::Clock;
use crate::deploy::secret::Redactor;
use crate::deploy::{Deployer, Endpoint, Engine, Failure, OnProgress, Progress, Stage, tests::deployment};
use crate::digest::{DeployId, UnitId};
use crate::event::Entry;
use crate::host::HostInfo;
use crate::plan::{Cell, Deployment, Plan, Probe, Search, Status, TlsOptions, Unit};
use crate::stats::{Invalid, Sanity};
use crate::store::Store;
use crate::units::Objective;
use crate::value::Value;
use crate::wire::ApiSpec;

/// What a measurement does.
#[derive(Clone, Debug)]
pub enum Act {
    Ok,
    Invalid(String),
    /// The host was in the way.
    Disturbed(String),
    /// The machine is suspended for so long meanwhile.
    Sleep(Duration),
    Fail {
        cause: String,
        deterministic: bool,
    },
    /// The engine dies in the middle.
    Die,
    Hang,
}

impl Act {
    pub fn fail(cause: &str) -> Act {
        Act::Fail { cause: cause.into(), deterministic: false }
    }
}

#[derive(Default)]
struct Script {
    /// By concurrency, which tells units apart here.
    acts: HashMap<u32, VecDeque<Act>>,
    starts: HashMap<String, VecDeque<Failure>>,
    hanging_starts: Vec<String>,
    hang_stop: bool,
    warm_up_deaths: u32,
    panic_in_reporter: bool,
    verdict: Verdict,
    /// What engines answer to the fixed question; nothing by default.
    answer: Option<String>,
    /// Throughput of each sample by its concurrency; latency follows by Little's law. Else every sample is the same.
    capacity: Option<fn(u32) -> f64>,
    /// How long the machine has been suspended.
    asleep: Duration,
    log: Vec<(f64, String)>,
    last: usize,
    /// Seconds that it takes to download what a deployment needs.
    downloads: HashMap<String, u64>,
    /// The engine that runs, by its address.
    engines: HashMap<String, CancellationToken>,
}

/// An artifacts directory with the mock stack beside it.
pub struct Bench {
    dir: Arc<tempfile::TempDir>,
    mock: Mock,
    cancel: Cancel,
    events: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Clone)]
struct Mock {
    script: Arc<Mutex<Script>>,
    begun: Instant,
}

struct MockClock(Mock);

impl Clock for MockClock {
    fn now(&self) -> Timestamp {
        let base: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
        base + SignedDuration::try_from(self.0.begun.elapsed()).unwrap()
    }

    fn suspended(&self) -> Duration {
        self.0.script.lock().unwrap().asleep
    }
}

impl Bench {
    pub fn new() -> Bench {
        let mock = Mock { script: Arc::default(), begun: Instant::now() };
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Bench { dir, mock, cancel: Cancel::default(), events: Arc::default() }
    }

    /// The same bench for a new run after an interrupt.
    pub fn fresh_cancel(&self) -> Bench {
        Bench { dir: self.dir.clone(), mock: self.mock.clone(), cancel: Cancel::default(), events: Arc::default() }
    }

    pub fn store(&self) -> Store {
        Store::open(self.dir.path(), false)
    }

    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    pub fn script(&self, concurrency: u32, acts: impl IntoIterator<Item = Act>) {
        self.mock.script.lock().unwrap().acts.insert(concurrency, acts.into_iter().collect());
    }

    pub fn fail_start(&self, container: &str, failures: impl IntoIterator<Item = Failure>) {
        self.mock.script.lock().unwrap().starts.insert(container.into(), failures.into_iter().collect());
    }

    pub fn capacity(&self, throughput: fn(u32) -> f64) {
        self.mock.script.lock().unwrap().capacity = Some(throughput);
    }

    pub fn hang_start(&self, container: &str) {
        self.mock.script.lock().unwrap().hanging_starts.push(container.into());
    }

    pub fn hang_stop(&self) {
        self.mock.script.lock().unwrap().hang_stop = true;
    }

    pub fn die_in_warm_up(&self, times: u32) {
        self.mock.script.lock().unwrap().warm_up_deaths = times;
    }

    pub fn panic_in_reporter(&self) {
        self.mock.script.lock().unwrap().panic_in_reporter = true;
    }

    pub fn download(&self, container: &str, seconds: u64) {
        self.mock.script.lock().unwrap().downloads.insert(container.into(), seconds);
    }

    pub fn answer(&self, text: &str) {
        self.mock.script.lock().unwrap().answer = Some(text.into());
    }

    pub fn judge(&self, verdict: Verdict) {
        self.mock.script.lock().unwrap().verdict = verdict;
    }

    pub fn context(&self) -> GroupContext {
        GroupContext {
            store: self.store(),
            deployer: Arc::new(self.mock.clone()),
            loader: Arc::new(self.mock.clone()),
            clock: Arc::new(MockClock(self.mock.clone())),
            cancel: self.cancel.clone(),
            halt: Halt::new(None),
            live: Default::default(),
            downloads: Default::default(),
        }
    }

    pub async fn run(&self, plan: &Plan) -> RunOutcome {
        let panics = {
            let mut script = self.mock.script.lock().unwrap();
            script.last = script.log.len();
            script.panic_in_reporter
        };
        let events = self.events.clone();
        let verdict = self.mock.script.lock().unwrap().verdict.clone();
        let request = RunRequest {
            plan: Arc::new(plan.clone()),
            store: self.store(),
            base: self.dir.path().to_path_buf(),
            deployer: Arc::new(self.mock.clone()),
            loader: Arc::new(self.mock.clone()),
            clock: Arc::new(MockClock(self.mock.clone())),
            cancel: self.cancel.clone(),
            reporter: Box::new(move |entry| {
                assert!(!panics, "a display that fails");
                events.lock().unwrap().push(entry.clone());
            }),
            live: Default::default(),
            host: HostInfo::default(),
            repository: None,
            judge: Some(Box::new(move |_, _| verdict)),
            lock: None,
            later: Vec::new(),
        };
        run(request).await.unwrap()
    }

    /// Everything that engines were asked for, in order: `start d0`, `sample 1#2`, `stop d0`.
    pub fn acts(&self) -> Vec<String> {
        self.mock.script.lock().unwrap().log.iter().map(|(_, act)| act.clone()).collect()
    }

    pub fn acts_of_last(&self) -> Vec<String> {
        let script = self.mock.script.lock().unwrap();
        script.log[script.last..].iter().map(|(_, act)| act.clone()).collect()
    }

    pub fn samples_of_last(&self) -> Vec<String> {
        self.acts_of_last().into_iter().filter(|a| a.starts_with("sample ")).collect()
    }

    /// Virtual seconds of the acts that begin with `prefix`.
    pub fn times(&self, prefix: &str) -> Vec<f64> {
        let script = self.mock.script.lock().unwrap();
        script.log.iter().filter(|(_, act)| act.starts_with(prefix)).map(|(t, _)| *t).collect()
    }

    pub fn events(&self) -> Vec<Entry> {
        self.events.lock().unwrap().clone()
    }

    /// All rows of a run, by column.
    pub fn rows(&self, outcome: &RunOutcome) -> Vec<BTreeMap<String, String>> {
        let mut rows = Vec::new();
        for path in &outcome.csv {
            let mut reader = csv::Reader::from_path(path).unwrap();
            rows.extend(reader.deserialize().map(|row: Result<BTreeMap<String, String>, _>| row.unwrap()));
        }
        rows
    }

    /// Temporary files anywhere in the tree.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_path_buf()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-") {
                    found.push(path.display().to_string());
                }
                if path.is_dir() {
                    dirs.push(path);
                }
            }
        }
        found
    }
}

impl Mock {
    fn note(&self, act: String) {
        self.script.lock().unwrap().log.push((self.begun.elapsed().as_secs_f64(), act));
    }
}

impl Deployer for Mock {
    fn prefetch<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let name = &deployment.container;
            let Some(seconds) = self.script.lock().unwrap().downloads.get(name).copied() else { return Ok(()) };
            self.note(format!("fetch {name}"));
            progress(Progress { stage: Stage::Pull, message: "pulling".into(), fraction: None });
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            self.note(format!("fetched {name}"));
            Ok(())
        })
    }

    fn evict<'a>(
        &'a self,
        deployment: &'a Deployment,
        later: &'a [Deployment],
        all: bool,
    ) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let later: Vec<&str> = later.iter().map(|d| d.container.as_str()).collect();
            let which = if all { "all" } else { "own" };
            self.note(format!("evict {} {which} before {}", deployment.container, later.join(" ")));
            vec![format!("the image of {}", deployment.container)]
        })
    }

    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        _: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>> {
        Box::pin(async move {
            let name = deployment.container.clone();
            self.note(format!("start {name}"));
            let (hangs, failure) = {
                let mut script = self.script.lock().unwrap();
                let failure = script.starts.get_mut(&name).and_then(|f| f.pop_front());
                (script.hanging_starts.contains(&name), failure)
            };
            if hangs {
                std::future::pending::<()>().await;
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            let death = CancellationToken::new();
            self.script.lock().unwrap().engines.insert(name.clone(), death.clone());
            Ok(Box::new(MockEngine { mock: self.clone(), death, endpoint: endpoint(&name) }) as Box<dyn Engine>)
        })
    }
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint {
        base_url: name.into(),
        headers: Vec::new(),
        tls: TlsOptions::default(),
        model: "m".into(),
        network_path: "mock".into(),
        redactor: Redactor::default(),
    }
}

struct MockEngine {
    mock: Mock,
    death: CancellationToken,
    endpoint: Endpoint,
}

impl Engine for MockEngine {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn version(&self) -> Option<String> {
        Some("mock 1".into())
    }

    fn log_tail(&self, _: usize) -> String {
        "a line\n".into()
    }

    fn crashed(&self) -> BoxFuture<'_, Failure> {
        Box::pin(async {
            self.death.cancelled().await;
            Failure::infrastructure(Stage::Start, "the engine died: killed")
        })
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            if self.mock.script.lock().unwrap().hang_stop {
                std::future::pending::<()>().await;
            }
            self.mock.note(format!("stop {}", self.endpoint.base_url));
            Ok(())
        })
    }
}

impl Loader for Mock {
    fn probe<'a>(&'a self, _: &'a Endpoint, _: &'a ApiSpec) -> BoxFuture<'a, Result<(), LoaderError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn sanity<'a>(
        &'a self,
        _: &'a Endpoint,
        _: &'a ApiSpec,
        _: Duration,
    ) -> BoxFuture<'a, Result<Sanity, LoaderError>> {
        let answer = self.script.lock().unwrap().answer.clone();
        let text = answer.ok_or(LoaderError { cause: "reset".into(), deterministic: false });
        Box::pin(std::future::ready(text.map(|t| Sanity::of("completions", &t))))
    }

    fn measure<'a>(&'a self, job: Job<'a>) -> BoxFuture<'a, Result<Measurement, LoaderError>> {
        Box::pin(async move {
            let concurrency = job.workload.concurrency.unwrap();
            let death = self.script.lock().unwrap().engines[&job.endpoint.base_url].clone();
            let Some(files) = job.files else { return self.warm_up(&death).await };
            self.note(format!("sample {concurrency}#{}", job.sample));
            let act = self.script.lock().unwrap().acts.get_mut(&concurrency).and_then(|a| a.pop_front());
            let pause = match act {
                Some(Act::Hang) => Duration::from_secs(1_000_000),
                _ => Duration::from_secs(10),
            };
            let cancelled = LoaderError { cause: "cancelled".into(), deterministic: false };
            tokio::select! {
                () = job.cancel.cancelled() => return Err(cancelled),
                () = tokio::time::sleep(pause) => {}
            }
            std::fs::write(files.join("requests.csv"), "index\n0\n").unwrap();
            let mut summary = crate::store::tests::sample(1, "r").summary;
            if let Some(throughput) = self.script.lock().unwrap().capacity {
                summary.n_error = 0;
                let throughput = throughput(concurrency);
                let ms = Some(1e3 * f64::from(concurrency) / throughput);
                summary.request_throughput = Some(throughput);
                summary.e2el = crate::stats::Dist { n: 100, mean: ms, p95: ms, ..Default::default() };
                summary.e2el_intended = summary.e2el.clone();
            }
            match act.unwrap_or(Act::Ok) {
                Act::Ok | Act::Hang => {
                    Ok(Measurement { summary, seen: Default::default(), invalid: None, client_error: None })
                }
                Act::Invalid(reason) => {
                    let invalid = Some(Invalid::lasting(reason));
                    Ok(Measurement { summary, seen: Default::default(), invalid, client_error: None })
                }
                Act::Disturbed(reason) => {
                    let invalid = Some(Invalid::passing(reason));
                    Ok(Measurement { summary, seen: Default::default(), invalid, client_error: None })
                }
                Act::Sleep(time) => {
                    self.script.lock().unwrap().asleep += time;
                    Ok(Measurement { summary, seen: Default::default(), invalid: None, client_error: None })
                }
                Act::Fail { cause, deterministic } => Err(LoaderError { cause, deterministic }),
                Act::Die => {
                    death.cancel();
                    Err(LoaderError { cause: "connection refused".into(), deterministic: false })
                }
            }
        })
    }
}

impl Mock {
    async fn warm_up(&self, death: &CancellationToken) -> Result<Measurement, LoaderError> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut script = self.script.lock().unwrap();
        if script.warm_up_deaths > 0 {
            script.warm_up_deaths -= 1;
            death.cancel();
        }
        Ok(Measurement {
            summary: crate::store::tests::sample(1, "r").summary,
            seen: Default::default(),
            invalid: None,
            client_error: None,
        })
    }
}

/// A plan of deployments `d0`, `d1`, … with units of concurrency 1, 2, … each. Units of different deployments share their
/// concurrencies.
pub fn plan(deployments: usize, units: usize) -> Plan {
    let mut plan = Plan {
        experiment: "e".into(),
        description: None,
        tags: Vec::new(),
        hardware: Vec::new(),
        units: Vec::new(),
        deployments: (0..deployments).map(named).collect(),
        unsupported: Vec::new(),
        searches: Vec::new(),
        references: Vec::new(),
        axes: vec![vec!["concurrency".into()]],
        warnings: Vec::new(),
        policy: Default::default(),
        slo: Default::default(),
        cost: Default::default(),
        gate: Default::default(),
        simulated: false,
    };
    for deployment in 0..deployments {
        for concurrency in 1..=units as i64 {
            let mut unit = Unit {
                id: UnitId::of(&Value::Int(0)),
                deployment,
                cell: Cell(vec![("concurrency".into(), Value::Int(concurrency))]),
                labels: Vec::new(),
                block: 0,
                dataset: None,
                policy: None,
                slo: None,
                status: Status::New,
                reasons: Vec::new(),
                note: None,
                valid_samples: 0,
                history_seconds: None,
            };
            unit.id = UnitId::of(&plan.unit_document(&unit));
            plan.units.push(unit);
        }
    }
    plan
}

/// A search over the concurrencies of deployment 0 from 1 to `to`.
pub fn search(plan: &Plan, until: Objective, to: u32) -> Search {
    let grid: Vec<f64> = (1..=to).map(f64::from).collect();
    let mut probes = Vec::new();
    for value in 1..=to {
        let mut unit = plan.units[0].clone();
        unit.cell = Cell(vec![("concurrency".into(), Value::Int(value.into()))]);
        unit.id = UnitId::of(&plan.unit_document(&unit));
        probes.push(Probe { value: value.into(), unit });
    }
    Search {
        cell: Cell::default(),
        labels: Vec::new(),
        deployment: 0,
        parameter: "concurrency".into(),
        from: 1.0,
        to: to.into(),
        until,
        within: 0.05,
        max_probes: crate::plan::search::most_probes(until, &grid),
        probes,
    }
}

fn named(i: usize) -> Deployment {
    let document = Value::str(format!("d{i}"));
    Deployment {
        id: DeployId::of(&document),
        container: format!("d{i}"),
        directory: format!("d{i}_hf_vllm"),
        document,
        ..deployment("[api]\ndialect = \"openai\"\ndefault = \"completions\"\n")
    }
}
