//! `start`: one deployment by hand. Its container stays when the command ends.

use std::path::Path;
use std::time::Duration;

use super::args::{Global, RunFlags, SelectionArgs, StartArgs};
use super::containers;
use super::failure::Failure;
use super::load_flags;
use super::output::Output;
use super::prepare;
use crate::deploy::docker::{ByHand, DockerDeployer, DockerEngine, DockerOptions};
use crate::deploy::{self, Engine, Progress};
use crate::exec::{LoadClient, Loader};
use crate::plan::Deployment;
use crate::units::{format_duration, parse_duration};

/// Looks for a first token after the health path answers, and the pause between two.
const PROBES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

pub fn command(args: &StartArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let dir = Path::new(".");
    let settings = prepare::settings(dir, global)?.settings;
    let patience = parse_duration(&args.ready_timeout).map_err(|e| Failure::Usage(format!("--ready-timeout: {e}")))?;
    let model = args.model.clone().unwrap_or_else(|| settings.model.clone());
    let mut set = vec![format!("model={model}"), format!("method={}", args.method), format!("engine={}", args.engine)];
    set.extend(args.set.iter().cloned());
    let prepared = load_flags::experiment("start", &set, dir)?;
    let selection = SelectionArgs { set, only: Vec::new() };
    let plan = prepared.plan(&selection, &RunFlags::default(), &settings)?;
    if let Some(cell) = plan.unsupported.first() {
        return Err(Failure::Usage(format!("{} × {} cannot serve this: {}", args.method, args.engine, cell.reason)));
    }
    let deployment = match plan.deployments.first() {
        Some(d) if d.spec.container.is_some() && d.flavor.is_none() => d,
        _ => {
            let hint = "`llmatrix sim` serves the simulated engine";
            return Err(Failure::Usage(format!("{} × {} is no container; {hint}", args.method, args.engine)));
        }
    };
    let by_hand = Some(ByHand { name: args.name.clone() });
    let options = DockerOptions { by_hand, ..containers::options(&plan, dir, &settings) };
    let deployer = DockerDeployer::new(options);
    let left = containers::runtime()?.block_on(async {
        let started = tokio::select! {
            started = tokio::time::timeout(patience, start(&deployer, deployment, output)) => started,
            _ = tokio::signal::ctrl_c() => Ok(Err(Failure::Usage("interrupted; nothing is left running".into()))),
        };
        // Before the process ends, so that a start that was given up leaves nothing.
        deployer.settle().await;
        started.unwrap_or_else(|_| {
            let limit = format_duration(patience);
            let what =
                format!("{} is not ready after {limit}, and was removed. Raise --ready-timeout", deployment.container);
            Err(Failure::Environment(what))
        })
    })?;
    let url = left.published.clone().unwrap_or_else(|| left.url.clone());
    if output.json {
        output.json(&serde_json::json!({
            "container": left.name,
            "id": left.id,
            "url": url,
            "measured_at": left.url,
            "model": deployment.model,
            "method": deployment.method,
            "engine": deployment.engine,
            "deploy_id": deployment.id,
        }));
        return Ok(0);
    }
    output.text(&format!("{}\n{url}", left.name));
    output.note(&format!(
        "measure it: llmatrix measure --endpoint {} --method {} --engine {}\nstop it:    llmatrix stop {}",
        left.url, deployment.method, deployment.engine, left.name
    ));
    Ok(0)
}

async fn start(
    deployer: &DockerDeployer,
    deployment: &Deployment,
    output: &Output,
) -> Result<deploy::docker::Left, Failure> {
    let told = |p: Progress| output.note(&format!("{}: {}", p.stage.as_str(), p.message));
    let engine = deployer.launch(deployment, &told).await.map_err(|e| failed(&e, output))?;
    let answer = tokio::select! {
        biased;
        failure = engine.crashed() => Err(failed(&failure, output)),
        answer = first_token(&engine, deployment) => answer,
    };
    match answer {
        Ok(()) => Ok(engine.leave()),
        Err(failure) => {
            let log = engine.log_tail(20);
            output.note(log.trim_end());
            let _ = Box::new(engine).stop().await;
            Err(failure)
        }
    }
}

async fn first_token(engine: &DockerEngine, deployment: &Deployment) -> Result<(), Failure> {
    let mut seen = String::new();
    for probe in 0..PROBES {
        if probe > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match LoadClient::default().probe(engine.endpoint(), &deployment.spec.api).await {
            Ok(()) => return Ok(()),
            Err(e) => seen = engine.endpoint().redactor.redact(&e.cause),
        }
    }
    let name = &deployment.container;
    Err(Failure::Environment(format!("{name} is up but does not answer a one-token request: {seen}")))
}

fn failed(e: &deploy::Failure, output: &Output) -> Failure {
    if let Some(log) = &e.log_tail {
        output.note(log.trim_end());
    }
    Failure::Environment(e.cause.clone())
}
