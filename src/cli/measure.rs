//! `measure`: the load generator alone, against anything that runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::args::{Global, LoadFlags, MeasureArgs, RunFlags, SelectionArgs};
use super::failure::Failure;
use super::output::{self, Output};
use super::{load_flags, prepare, results};
use crate::clock::{Clock, Stopwatch, SystemClock, rfc3339};
use crate::deploy::{Endpoint, ExternalDeployer};
use crate::exec::client::{self, LoadClient};
use crate::exec::tokenizers::TokenizerPath;
use crate::exec::usage::{UsageSeries, resources};
use crate::exec::work::facts;
use crate::exec::{Job, Loader, LoaderError, Measurement, Watch};
use crate::host;
use crate::load::{self, ProbeOutcome};
use crate::plan::{Deployment, Plan};
use crate::spec::policy::{RunPolicy, Slo};
use crate::stats::Progress;
use crate::store::record::{Provenance, SampleRecord};
use crate::store::row::{Measured, Row, RowSource};
use crate::telemetry::gpu::GpuOptions;
use crate::units;
use crate::wire::{Api, ApiSpec, Dialect};

/// How long the server may take to list its models or to answer one token.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a measurement takes that the client's own error is found out after.
const WORTH_CALIBRATING: Duration = Duration::from_secs(5);

/// Sample that does not count.
const INVALID_SAMPLE: u8 = 5;

pub fn command(args: &MeasureArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::Environment(format!("cannot start the runtime: {e}")))?;
    host::raise_open_files();
    runtime.block_on(measure(args, global, output))
}

async fn measure(args: &MeasureArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let slo = slo(&args.slo)?;
    // A place that cannot be written to is told before anything is measured, not after.
    let mut requests_csv = args.requests_csv.as_deref().map(results::create).transpose()?;
    let layered = prepare::settings(Path::new("."), global)?;
    let (plan, deployment) = planned(args, &layered.settings)?;
    let mut endpoint = ExternalDeployer::new(Arc::new(|name: &str| std::env::var(name).ok()))
        .endpoint(&deployment)
        .map_err(|f| Failure::Usage(f.cause))?;
    let unit = &plan.units[0];
    let mut workload = plan.workload(unit);
    let mut api = deployment.spec.api.clone();
    if let Some(own) = own_api(args, &api)? {
        workload.api = own;
    }
    api.default = api.online(workload.api);
    if load::is_handed_over(&api, &workload) {
        // The server's own affair.
        workload.concurrency = None;
    }
    if args.model.is_none() {
        endpoint.model = discover(&endpoint, &api, output).await?;
    }
    let api = &settle(&endpoint, api, args, output).await?;
    if args.model.is_some() && api.dialect == Dialect::Openai {
        doubt(&endpoint, api, output).await;
    }
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    let dataset = workload.dataset.as_ref().map(|d| std::path::PathBuf::from(&d.path));
    let scratch = args.requests_csv.as_ref().map(|_| tempfile::tempdir()).transpose();
    let scratch = scratch.map_err(|e| Failure::Environment(format!("cannot make a scratch directory: {e}")))?;
    let tokenizer = TokenizerPath::of(&deployment, &unit.cell, Path::new(""));
    let job = Job {
        endpoint: &endpoint,
        api,
        workload: &workload,
        dataset: dataset.as_deref(),
        tokenizer: tokenizer.as_ref(),
        slo: &slo,
        gpus: 1,
        request_timeout: Duration::from_secs(600),
        max_error_rate: 0.01,
        unit: args.prompts_of.unwrap_or(unit.id),
        sample: args.sample,
        progress: progress.clone(),
        cancel: cancel.clone(),
        watch: Watch {
            gpus: GpuOptions { dcgm: args.dcgm.clone(), ..GpuOptions::default() },
            interval: RunPolicy::default().scrape_interval,
        },
        files: scratch.as_ref().map(tempfile::TempDir::path),
    };
    let started_at = rfc3339(SystemClock.now());
    let watch = Stopwatch::start();
    let client = LoadClient::uncalibrated(Some(layered.settings.load_threads).filter(|n| *n > 0));
    let measured = watched(client.measure(job), &progress, cancel, output).await;
    let mut measurement = measured.map_err(|e| Failure::Environment(e.cause))?;
    let took = watch.elapsed();
    // Afterwards, so that nobody waits for the first request; not after a glance that took less time than this does.
    if args.calibrate || took >= WORTH_CALIBRATING {
        measurement.client_error = client.error_at(&workload).await;
    }
    if let (Some(to), Some(path), Some(dir)) = (&mut requests_csv, &args.requests_csv, &scratch) {
        let copied = std::fs::File::open(dir.path().join("requests.csv")).and_then(|mut f| std::io::copy(&mut f, to));
        copied.map_err(|e| Failure::io("write", path, &e))?;
    }
    let mut facts = facts(&plan, unit, &workload);
    facts.model.clone_from(&endpoint.model);
    let invalid = measurement.invalid.clone();
    let sample = record(args.sample, started_at, took, measurement, &endpoint);
    let row =
        Row::new(&RowSource { unit_id: None, deploy_id: None, facts: &facts, measured: Measured::Sample(&sample) });
    match output.json {
        true => output.json(&row),
        false => output.text(&table(&sample, &endpoint)),
    }
    match invalid {
        Some(invalid) => {
            output.warning(&format!("this measurement does not count: {}", invalid.reason));
            Ok(INVALID_SAMPLE)
        }
        None => Ok(0),
    }
}

/// The one cell that the flags describe.
fn planned(args: &MeasureArgs, settings: &crate::settings::Settings) -> Result<(Plan, Deployment), Failure> {
    let model = args.model.clone().unwrap_or_else(|| "unset".into());
    let mut set =
        vec![format!("model={model}"), format!("engine={}", args.engine), format!("endpoint={}", args.endpoint)];
    // Of a stack that is served otherwise, it is that stack's to take or to refuse.
    let planned_api = args.load.api.clone().filter(|api| is_planned(args, api));
    set.extend(load_flags::assignments(&LoadFlags { api: planned_api, ..args.load.clone() }));
    for header in &args.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| Failure::Usage(format!("--header {header}: write 'Name: value'")))?;
        set.push(format!("headers.{}={}", name.trim(), value.trim()));
    }
    // As it is written, it could be the name of one on a hub.
    let tokenizer = args.tokenizer.as_ref().map(|path| Path::new(".").join(path));
    for (key, value) in
        [("tls.ca", &args.ca), ("tls.cert", &args.cert), ("tls.key", &args.key), ("tokenizer", &tokenizer)]
    {
        set.extend(value.as_ref().map(|v| format!("{key}={}", v.display())));
    }
    if args.insecure {
        set.push("tls.insecure=true".into());
    }
    set.extend(args.set.iter().cloned());
    let prepared = load_flags::experiment("measure", &set, Path::new("."))?;
    let selection = SelectionArgs { set, only: Vec::new() };
    let plan = prepared.plan(&selection, &RunFlags::default(), settings)?;
    if let Some(cell) = plan.unsupported.first() {
        return Err(Failure::Usage(cell.reason.clone()));
    }
    let mut deployment = plan.deployments[0].clone();
    // The dialect of a stack that is served otherwise than by the engine's own server.
    if args.method != "external" {
        deployment.spec.api = prepared.api_of(&args.method, &args.engine)?;
    }
    deployment.spec.api.batch = args.batch_path.clone().or(deployment.spec.api.batch);
    Ok((plan, deployment))
}

/// Whether the cell of an external server can have this API.
fn is_planned(args: &MeasureArgs, api: &str) -> bool {
    args.method == "external" || api == Api::Batch.as_str()
}

/// The API of a stack that is served otherwise than by the engine's own server: as asked for, else the stack's default.
fn own_api(args: &MeasureArgs, spec: &ApiSpec) -> Result<Option<Api>, Failure> {
    match &args.load.api {
        _ if args.method == "external" => Ok(None),
        Some(api) if is_planned(args, api) => Ok(None),
        None => Ok(Some(spec.default)),
        Some(api) => match serde_json::from_value(api.as_str().into()) {
            Ok(api) => Ok(Some(api)),
            Err(e) => Err(Failure::Usage(format!("--api {api}: {e}"))),
        },
    }
}

async fn discover(endpoint: &Endpoint, api: &ApiSpec, output: &Output) -> Result<String, Failure> {
    match load::discover_model(&client::target(endpoint, api, None), PATIENCE).await {
        Ok(model) => {
            output.note(&format!("model {model}"));
            Ok(model)
        }
        Err(e) => Err(Failure::Environment(format!(
            "{}; give the model's name with --model",
            endpoint.redactor.redact(&e.to_string())
        ))),
    }
}

/// A server that answers to a name which it does not list takes any name, and serves what it has.
async fn doubt(endpoint: &Endpoint, api: &ApiSpec, output: &Output) {
    // One that lists nothing has said nothing.
    let Ok(models) = load::served_models(&client::target(endpoint, api, None), PATIENCE).await else { return };
    if !models.is_empty() && !models.contains(&endpoint.model) {
        let (listed, model) = (models.join(", "), &endpoint.model);
        let text = format!(
            "the server lists {listed}, not {model}, and answers all the same: make sure that it serves the model you mean, \
             or set --model to a name that it lists"
        );
        output.warning(&endpoint.redactor.redact(&text));
    }
}

/// One token first: a wrong address or name is said at once, not after all requests have failed. A server of unknown kind
/// is offered the fields that fix the answer's length, and spared them when it refuses.
async fn settle(endpoint: &Endpoint, api: ApiSpec, args: &MeasureArgs, output: &Output) -> Result<ApiSpec, Failure> {
    let unknown = args.engine == "openai" && args.method == "external" && api.dialect == Dialect::Openai;
    let exact = ApiSpec { ignore_eos: true, min_tokens: true, ..api.clone() };
    if unknown && matches!(one_token(endpoint, &exact).await, Ok(ProbeOutcome::Ready { .. })) {
        return Ok(exact);
    }
    let say = |text: String| Failure::Environment(endpoint.redactor.redact(&text));
    match one_token(endpoint, &api).await {
        Ok(ProbeOutcome::Ready { .. }) => {
            if unknown && args.load.ignore_eos != Some(false) {
                output.note("the server refuses `ignore_eos` and `min_tokens`, so answers may end early; `--ignore-eos false` accepts that");
            }
            Ok(api)
        }
        Ok(ProbeOutcome::NotReady { message }) => Err(say(format!("{} is not ready: {message}", endpoint.base_url))),
        Ok(ProbeOutcome::Refused { status, message }) => {
            let which = api.default.as_str();
            let other = if which == "chat" { "completions" } else { "chat" };
            let try_this = if status == 404 {
                format!(" (asked over `{which}`; `--api {other}` asks the other API, `--model` names the model)")
            } else {
                String::new()
            };
            Err(say(format!("{} refuses a one-token request (HTTP {status}): {message}{try_this}", endpoint.base_url)))
        }
        Err(e) => Err(say(e.to_string())),
    }
}

async fn one_token(endpoint: &Endpoint, api: &ApiSpec) -> Result<ProbeOutcome, load::LoadError> {
    load::one_token(&client::target(endpoint, api, None), PATIENCE).await
}

/// Waits for the measurement under a progress bar; Ctrl-C gives it up.
async fn watched(
    measure: impl Future<Output = Result<Measurement, LoaderError>>,
    progress: &Progress,
    cancel: CancellationToken,
    output: &Output,
) -> Result<Measurement, LoaderError> {
    use std::sync::atomic::Ordering::Relaxed;
    let bar = if output.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    bar.set_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} requests  {msg}").expect("the template is valid"),
    );
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let watch = Stopwatch::start();
    tokio::pin!(measure);
    loop {
        tokio::select! {
            measured = &mut measure => {
                bar.finish_and_clear();
                return measured;
            }
            _ = tokio::signal::ctrl_c() => cancel.cancel(),
            _ = tick.tick() => {
                bar.set_length(progress.planned.load(Relaxed));
                bar.set_position(progress.done.load(Relaxed) + progress.failed.load(Relaxed));
                let tokens = progress.output_tokens.load(Relaxed) as f64 / watch.elapsed().as_secs_f64().max(1e-3);
                let ttft = progress.mean_ttft_ms().map_or_else(String::new, |t| format!("TTFT {t:.1} ms  "));
                bar.set_message(format!("{ttft}{tokens:.0} tok/s"));
            }
        }
    }
}

fn slo(given: &[String]) -> Result<Slo, Failure> {
    let mut slo = Slo::default();
    for text in given {
        let usage = |why: String| Failure::Usage(format!("--slo {text}: {why}"));
        let (metric, limit) =
            text.split_once('=').ok_or_else(|| usage("write metric=duration, such as ttft=500ms".into()))?;
        let known = ["ttft", "ttfo", "tpot", "itl", "e2el"];
        if !known.contains(&metric) {
            return Err(usage(format!("the metrics are {}", known.join(", "))));
        }
        slo.0.insert(metric.into(), units::parse_duration(limit).map_err(|e| usage(e.to_string()))?);
    }
    Ok(slo)
}

fn record(sample: u32, started_at: String, took: Duration, m: Measurement, endpoint: &Endpoint) -> SampleRecord {
    let host = host::detect();
    SampleRecord {
        sample,
        run: "measure".into(),
        attempt: 1,
        start: 1,
        round: 1,
        started_at,
        finished_at: rfc3339(SystemClock.now()),
        seconds: took.as_secs_f64(),
        valid: m.invalid.is_none(),
        invalid_reason: m.invalid.map(|i| i.reason),
        simulated: false,
        summary: m.summary,
        resources: resources(&m.seen, &UsageSeries::default()),
        sanity: None,
        prefetching: false,
        server: m.seen.means,
        load: m.seen.load,
        watch: m.seen.cost,
        startup: Default::default(),
        cost_usd: None,
        client_error_ttft_ms: m.client_error.map(|e| e.ttft_ms),
        client_error_itl_ms: m.client_error.map(|e| e.itl_ms),
        provenance: Provenance {
            tool_version: host::tool_version().into(),
            tool_commit: host::tool_commit().map(str::to_string),
            host: host.hostname.clone(),
            network_path: Some(endpoint.network_path.clone()),
            ..Provenance::default()
        },
        files: Default::default(),
    }
}

/// The measurement for a person.
fn table(sample: &SampleRecord, endpoint: &Endpoint) -> String {
    let s = &sample.summary;
    let mut head = output::pairs();
    let number = |v: Option<f64>, unit: &str| v.map_or_else(|| "–".into(), |v| format!("{v:.2} {unit}"));
    head.add_row(["server".to_string(), format!("{} ({})", endpoint.shown(), endpoint.model)]);
    head.add_row([
        "requests".to_string(),
        format!("{} ok, {} failed, {} cancelled in {:.2} s", s.n_ok, s.n_error, s.n_cancelled, s.duration_s),
    ]);
    let lengths = |mean: Option<f64>| mean.map_or_else(|| "–".into(), |m| format!("{m:.1}"));
    head.add_row([
        "tokens".to_string(),
        format!("ISL {} · OSL {}", lengths(s.isl_actual_mean), lengths(s.osl_actual_mean)),
    ]);
    if s.makespan_s.is_some() {
        head.add_row(["makespan".to_string(), number(s.makespan_s, "s")]);
    }
    head.add_row([
        "throughput".to_string(),
        format!("{} · {}", number(s.request_throughput, "req/s"), number(s.output_throughput, "output tok/s")),
    ]);
    if s.request_goodput.is_some() {
        head.add_row(["goodput".to_string(), number(s.request_goodput, "req/s")]);
    }
    let mut out = format!("{head}\n\n");
    let mut dists = output::table(&["ms", "mean", "p50", "p90", "p95", "p99", "max"]);
    let cell = |v: Option<f64>| v.map_or_else(|| "–".into(), |v| format!("{v:.2}"));
    for (name, d) in [
        ("TTFT", &s.ttft),
        ("TPOT", &s.tpot),
        ("ITL", &s.itl),
        ("E2EL", &s.e2el),
        ("queue delay", &s.queue_delay),
        ("connect", &s.connect),
    ] {
        dists.add_row([
            name.to_string(),
            cell(d.mean),
            cell(d.p50),
            cell(d.p90),
            cell(d.p95),
            cell(d.p99),
            cell(d.max),
        ]);
    }
    out.push_str(&dists.to_string());
    for (message, n) in &s.errors {
        out.push_str(&format!("\n{n} × {message}"));
    }
    out
}
