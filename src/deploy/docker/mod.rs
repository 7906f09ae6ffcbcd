//! Serving stacks in containers. A deployment's container gets the conventional name, labels that say whose it is, GPUs that
//! nobody else has, and an end: whatever happens, it is removed, by us, by the next run, or by `clean`. Uses the container
//! engine, the cache directory and the locks of the host's GPUs.

mod address;
mod engine;
mod held;
mod images;
mod inventory;
pub mod labels;
mod launch;
mod owner;
mod place;
mod readiness;
mod request;
mod scratch;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::log::Log;
use super::{Deployer, Engine, Failure, OnProgress, Stage, Variables};
use crate::digest::DeployId;
use crate::host::Gpu;
use crate::hub::{Daemon, HubError, RegistryLogins};
use crate::plan::Deployment;

pub use engine::{DockerEngine, Left};
pub use held::remove;
pub use inventory::{Container, Keeper, Leftovers, Stranger, list, look};
pub use owner::{Life, Owner};
pub use scratch::remove as remove_scratch;

/// Log lines that go with a start that was given up.
const LAST_WORDS: usize = 50;

/// What a deployer of containers is told of its surroundings.
pub struct DockerOptions {
    /// Container engine, as in `DOCKER_HOST`; Docker's default when unset.
    pub host: Option<String>,
    /// Docker's configuration directory, with the logins to registries.
    pub logins: Option<PathBuf>,
    /// Where relative paths of the experiment start.
    pub base: PathBuf,
    pub cache: PathBuf,
    pub experiment: String,
    /// The run's name, once it has one.
    pub run: Arc<OnceLock<String>>,
    pub gpus: Vec<Gpu>,
    /// GPUs that may be used; empty is all.
    pub devices: Vec<String>,
    pub gpu_locks: PathBuf,
    /// Images are not pulled.
    pub offline: bool,
    /// A person's: kept until a person stops it.
    pub by_hand: Option<ByHand>,
    pub variables: Variables,
}

/// A container that a person starts.
#[derive(Clone, Debug, Default)]
pub struct ByHand {
    /// Its name, where it is not to be the conventional one.
    pub name: Option<String>,
}

/// Starts containers. Nothing is asked of the container engine before the first one is to be started. Clones share all.
#[derive(Clone)]
pub struct DockerDeployer(Arc<Shared>);

struct Shared {
    options: DockerOptions,
    owner: Owner,
    logins: RegistryLogins,
    daemon: OnceCell<Daemon>,
    /// What was prepared for a start that has not come yet.
    prepared: Mutex<HashMap<DeployId, launch::Ready>>,
    /// The log of each deployment's last start.
    logs: Mutex<HashMap<DeployId, Log>>,
    janitor: Arc<held::Janitor>,
}

impl DockerDeployer {
    pub fn new(options: DockerOptions) -> DockerDeployer {
        let logins = options.logins.as_deref().map(RegistryLogins::read).unwrap_or_default();
        DockerDeployer(Arc::new(Shared {
            options,
            owner: Owner::this(),
            logins,
            daemon: OnceCell::new(),
            prepared: Mutex::default(),
            logs: Mutex::default(),
            janitor: Arc::default(),
        }))
    }

    /// Starts a container and waits until its health path answers 200.
    pub async fn launch(&self, deployment: &Deployment, progress: OnProgress<'_>) -> Result<DockerEngine, Failure> {
        launch::run(&self.0, deployment, progress).await
    }

    /// Waits for removals in the background. For the end of a run: a process that ends earlier leaves them to the next.
    pub async fn settle(&self) {
        self.0.janitor.settle().await;
    }
}

impl Shared {
    async fn daemon(&self, deployment: &Deployment) -> Result<&Daemon, Failure> {
        let connected = self.daemon.get_or_try_init(|| Daemon::connect(self.options.host.as_deref())).await;
        connected.map_err(|e| no_daemon(&deployment.container, &e))
    }

    fn take_prepared(&self, deployment: &Deployment) -> Option<launch::Ready> {
        self.prepared.lock().expect("no holder panics").remove(&deployment.id)
    }

    fn hear(&self, deployment: &Deployment, log: &Log) {
        self.logs.lock().expect("no holder panics").insert(deployment.id, log.clone());
    }
}

fn no_daemon(container: &str, e: &HubError) -> Failure {
    Failure::environment(
        Stage::Create,
        format!("cannot start {container}: {e}. `--simulate` rehearses the experiment without containers"),
    )
}

impl Deployer for DockerDeployer {
    fn prepare<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            // What an earlier preparation holds is given back first.
            drop(self.0.take_prepared(deployment));
            self.0.logs.lock().expect("no holder panics").remove(&deployment.id);
            let ready = launch::prepare(&self.0, deployment, progress).await?;
            self.0.prepared.lock().expect("no holder panics").insert(deployment.id, ready);
            Ok(())
        })
    }

    fn last_words(&self, deployment: &Deployment) -> Option<String> {
        let logs = self.0.logs.lock().expect("no holder panics");
        logs.get(&deployment.id).map(|log| log.tail(LAST_WORDS))
    }

    fn start<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Engine>, Failure>> {
        Box::pin(async move { Ok(Box::new(self.launch(deployment, progress).await?) as Box<dyn Engine>) })
    }
}

#[cfg(test)]
mod tests;
