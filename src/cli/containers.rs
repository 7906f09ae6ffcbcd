//! What the commands around containers share: the deployer's surroundings, the engine, a container by its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use super::prepare;
use crate::cli::args::Global;
use crate::deploy::docker::{self, Container, DockerOptions, Owner, Stranger};
use crate::host;
use crate::hub::{self, Daemon, DaemonAddress};
use crate::plan::Plan;
use crate::settings::Settings;

/// Where the container engine is: the setting, else what Docker's own variable says.
fn engine_host(settings: &Settings) -> Option<String> {
    settings.docker_host.clone().or_else(|| variable("DOCKER_HOST")).filter(|h| !h.is_empty())
}

/// Where the container engine is and how it is spoken to, as Docker's own variables say.
pub fn engine(settings: &Settings) -> DaemonAddress {
    let verified = variable("DOCKER_TLS_VERIFY").is_some_and(|v| !v.is_empty());
    let own = variable("DOCKER_CERT_PATH").filter(|d| !d.is_empty()).map(PathBuf::from);
    DaemonAddress { host: engine_host(settings), tls: own.or_else(logins).filter(|_| verified) }
}

/// Docker's configuration directory.
pub fn logins() -> Option<PathBuf> {
    let own = variable("DOCKER_CONFIG").filter(|d| !d.is_empty()).map(PathBuf::from);
    own.or_else(|| Some(Path::new(&variable("HOME")?).join(".docker")))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The surroundings of a run of `plan`, whose relative paths start at `base`.
pub fn options(plan: &Plan, base: &Path, settings: &Settings) -> DockerOptions {
    let DaemonAddress { host, tls } = engine(settings);
    DockerOptions {
        host,
        tls,
        logins: logins(),
        base: base.to_path_buf(),
        cache: settings.cache.clone(),
        experiment: plan.experiment.clone(),
        run: Arc::default(),
        gpus: host::detect().gpus,
        devices: plan.policy.devices.clone(),
        gpu_locks: host::gpu::LOCKS.into(),
        offline: plan.policy.offline,
        downloads: Arc::default(),
        by_hand: None,
        variables: Arc::new(variable),
    }
}

/// The runtime of a command.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::Environment(format!("cannot start the runtime: {e}")))
}

/// Runs `command` with the container engine of the settings that hold here.
pub fn with_engine<T, F: Future<Output = Result<T, Failure>>>(
    global: &Global,
    command: impl FnOnce(Daemon, Settings) -> F,
) -> Result<T, Failure> {
    let settings = prepare::settings(Path::new("."), global)?.settings;
    runtime()?.block_on(async {
        let daemon = Daemon::connect(&engine(&settings)).await;
        let daemon = daemon.map_err(|e| Failure::Environment(e.to_string()))?;
        command(daemon, settings).await
    })
}

/// A container of ours by its name or id.
pub async fn find(daemon: &Daemon, name: &str) -> Result<Container, Failure> {
    match docker::look(&daemon.docker, name, &Owner::this()).await.map_err(|e| engine_failure(&e))? {
        Some(Ok(container)) => Ok(container),
        Some(Err(Stranger)) => Err(Failure::Usage(format!("the container {name} is not ours; it is left alone"))),
        None => Err(Failure::Nothing(format!("there is no container {name}; `llmatrix ps` lists those there are"))),
    }
}

pub fn engine_failure(e: &bollard::errors::Error) -> Failure {
    Failure::Environment(format!("the container engine refuses: {}", hub::reason(e)))
}
