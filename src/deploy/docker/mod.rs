//! Serving stacks in containers. A deployment's container gets the conventional name, labels that say whose it is, GPUs that
//! nobody else has, and an end: whatever happens, it is removed, by us, by the next run, or by `clean`. Uses the container
//! engine, the cache directory and the locks of the host's GPUs.

mod address;
mod downloads;
mod engine;
mod fetch;
mod held;
mod images;
mod inventory;
pub mod labels;
mod launch;
mod owner;
mod place;
mod readiness;
mod repositories;
mod request;
mod room;
mod scratch;
mod starved;
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
use crate::hub::model::{HubSettings, ModelError, ModelHub, RepoRef, Snapshot};
use crate::hub::{Daemon, DaemonAddress, HubError, RegistryLogins};
use crate::plan::Deployment;

pub use downloads::Downloads;
pub use engine::{DockerEngine, Left};
pub use held::remove;
pub use inventory::{Container, Keeper, Leftovers, Stranger, list, look};
pub use owner::{Life, Owner};
pub use place::{handed_tokens, tree};
pub use repositories::{HUB_CACHE, cache_dir, wanted};
pub use request::Bind;
pub use scratch::remove as remove_scratch;

/// Log lines that go with a start that was given up.
const LAST_WORDS: usize = 50;

/// What a deployer of containers is told of its surroundings.
pub struct DockerOptions {
    /// Container engine, as in `DOCKER_HOST`; Docker's default when unset.
    pub host: Option<String>,
    /// Directory of the files that TLS needs, where the engine is spoken to over it.
    pub tls: Option<PathBuf>,
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
    /// Images are not pulled, and hubs are not asked.
    pub offline: bool,
    /// What was downloaded by this process; several deployers may share it.
    pub downloads: Arc<Downloads>,
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
    hub: HubSettings,
    /// What references to the hub were found to mean.
    snapshots: tokio::sync::Mutex<HashMap<RepoRef, Snapshot>>,
    daemon: OnceCell<Daemon>,
    /// What was prepared for a start that has not come yet.
    prepared: Mutex<HashMap<DeployId, launch::Ready>>,
    /// The log of each deployment's last start, and what its health path looked like.
    logs: Mutex<HashMap<DeployId, Log>>,
    looks: Mutex<HashMap<DeployId, String>>,
    janitor: Arc<held::Janitor>,
}

impl DockerDeployer {
    pub fn new(options: DockerOptions) -> DockerDeployer {
        let logins = options.logins.as_deref().map(RegistryLogins::read).unwrap_or_default();
        let mut hub = HubSettings::from(|name| (options.variables)(name));
        hub.offline |= options.offline;
        DockerDeployer(Arc::new(Shared {
            options,
            owner: Owner::this(),
            logins,
            hub,
            snapshots: tokio::sync::Mutex::default(),
            daemon: OnceCell::new(),
            prepared: Mutex::default(),
            logs: Mutex::default(),
            looks: Mutex::default(),
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
        let at = DaemonAddress { host: self.options.host.clone(), tls: self.options.tls.clone() };
        let connected = self.daemon.get_or_try_init(|| Daemon::connect(&at)).await;
        connected.map_err(|e| no_daemon(&deployment.container, &e))
    }

    fn model_hub(&self) -> Result<ModelHub, ModelError> {
        ModelHub::new(self.hub.clone())
    }

    fn take_prepared(&self, deployment: &Deployment) -> Option<launch::Ready> {
        self.prepared.lock().expect("no holder panics").remove(&deployment.id)
    }

    fn hear(&self, deployment: &Deployment, log: &Log) {
        self.logs.lock().expect("no holder panics").insert(deployment.id, log.clone());
        self.looks.lock().expect("no holder panics").remove(&deployment.id);
    }

    fn see(&self, deployment: &Deployment, look: &str) {
        self.looks.lock().expect("no holder panics").insert(deployment.id, look.to_string());
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

    fn prefetch<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(launch::prefetch(&self.0, deployment, progress))
    }

    fn evict<'a>(
        &'a self,
        deployment: &'a Deployment,
        later: &'a [Deployment],
        all: bool,
    ) -> BoxFuture<'a, Vec<String>> {
        Box::pin(downloads::evict(&self.0, deployment, later, all))
    }

    fn last_words(&self, deployment: &Deployment) -> Option<String> {
        let logs = self.0.logs.lock().expect("no holder panics");
        logs.get(&deployment.id).map(|log| log.tail(LAST_WORDS))
    }

    fn last_look(&self, deployment: &Deployment) -> Option<String> {
        self.0.looks.lock().expect("no holder panics").get(&deployment.id).cloned()
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
