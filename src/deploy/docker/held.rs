//! A container that is ours to remove, with everything it was given. However it is let go of, it is removed: in good order
//! with a grace, else at once in the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::{RemoveContainerOptionsBuilder, StatsOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::scratch::Scratch;
use crate::deploy::{ContainerUsage, Failure, Stage};
use crate::host::gpu::{self, Lease};
use crate::hub::{reason, status};

/// How long a server may take to end by itself. Triton waits as long for its own requests.
const GRACE: i32 = 30;
/// How long the driver may take to give a dead process's memory back, and how much may stay.
const GIVE_BACK: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
const SLACK: u64 = 1 << 30;

/// Removals under way in the background.
#[derive(Debug, Default)]
pub struct Janitor(Mutex<Vec<JoinHandle<()>>>);

impl Janitor {
    fn spawn(&self, removal: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime this process is ending; the next run finds what is left by its labels.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.0.lock().expect("no holder panics").push(runtime.spawn(removal));
        }
    }

    /// Waits until everything let go of so far is gone.
    pub async fn settle(&self) {
        let removals = std::mem::take(&mut *self.0.lock().expect("no holder panics"));
        for removal in removals {
            let _ = removal.await;
        }
    }
}

/// A container of ours.
#[derive(Debug)]
pub struct Held {
    docker: Docker,
    janitor: Arc<Janitor>,
    pub id: String,
    pub name: String,
    /// Goes when the container has gone.
    rest: Option<Rest>,
}

/// What a container was given.
#[derive(Debug)]
pub struct Rest {
    pub scratch: Scratch,
    pub lease: Option<Lease>,
    /// All caches that it was given held something before; `None` where it was given none.
    pub warm_caches: Option<bool>,
}

impl Held {
    pub fn new(docker: Docker, janitor: Arc<Janitor>, id: String, name: String, rest: Rest) -> Held {
        Held { docker, janitor, id, name, rest: Some(rest) }
    }

    /// Stops the container with a grace and removes it. Dropping the future removes it at once.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let options = StopContainerOptionsBuilder::new().t(GRACE).build();
        // One that has ended or gone already is as good as stopped, and the removal ends any other.
        let _ = self.docker.stop_container(&self.id, Some(options)).await;
        let removed = remove(&self.docker, &self.id).await;
        if let Some(Rest { lease: Some(lease), .. }) = self.rest.take() {
            given_back(&lease).await;
        }
        removed.map_err(|why| {
            Failure::infrastructure(Stage::Stop, format!("cannot remove the container {}: {why}", self.name))
        })
    }

    /// Removes a container that never ran, or ran in vain, and gives back what it was given, for another try.
    pub async fn discard(mut self) -> Option<Rest> {
        let _ = remove(&self.docker, &self.id).await;
        self.rest.take()
    }

    /// The GPUs that it was given.
    pub fn gpus(&self) -> Vec<String> {
        let lease = self.rest.as_ref().and_then(|rest| rest.lease.as_ref());
        lease.map(|lease| lease.ids().to_vec()).unwrap_or_default()
    }

    pub fn warm_caches(&self) -> Option<bool> {
        self.rest.as_ref()?.warm_caches
    }

    /// What it has used so far.
    pub async fn usage(&self) -> Option<ContainerUsage> {
        // One look, without the second one a second later that rates would be made from.
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut answers = std::pin::pin!(self.docker.stats(&self.id, Some(options)));
        answers.next().await?.ok().map(usage)
    }

    /// Lets the container run on without us.
    pub fn leave(mut self) {
        if let Some(rest) = self.rest.take() {
            rest.scratch.leave();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(rest) = self.rest.take() else { return };
        let (docker, id) = (self.docker.clone(), self.id.clone());
        self.janitor.spawn(async move {
            let _ = remove(&docker, &id).await;
            drop(rest);
        });
    }
}

fn usage(stats: ContainerStatsResponse) -> ContainerUsage {
    let cpu = stats.cpu_stats.unwrap_or_default();
    let seconds = |ns: u64| ns as f64 / 1e9;
    let memory = stats.memory_stats.unwrap_or_default();
    // Version 2 of control groups counts inactive files by their own name, version 1 by a total.
    let droppable = |stats: &HashMap<String, u64>| {
        stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied().unwrap_or(0)
    };
    let cache = memory.stats.as_ref().map_or(0, droppable);
    ContainerUsage {
        cpu_s: cpu.cpu_usage.and_then(|u| u.total_usage).map(seconds),
        memory_mib: memory.usage.map(|bytes| bytes.saturating_sub(cache) as f64 / f64::from(1 << 20)),
        throttled_s: cpu.throttling_data.and_then(|t| t.throttled_time).map(seconds),
    }
}

/// Ends and removes a container with its anonymous volumes. One that is gone already is a success.
pub async fn remove(docker: &Docker, id: &str) -> Result<(), String> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(e) if status(&e) == Some(404) => Ok(()),
        // Somebody else is removing it: it goes.
        Err(e) if status(&e) == Some(409) => Ok(()),
        Err(e) => Err(reason(&e)),
    }
}

/// Waits until the memory of the GPUs is given back: the next engine measures what is free as it starts.
async fn given_back(lease: &Lease) {
    let waiting = async {
        loop {
            let used = tokio::task::spawn_blocking(gpu::memory_used).await.unwrap_or_default();
            if lease.ids().iter().all(|id| used.get(id).copied().unwrap_or(0) < SLACK) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(GIVE_BACK, waiting).await;
}
