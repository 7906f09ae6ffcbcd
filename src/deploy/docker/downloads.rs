//! What this process has downloaded, so that it can be removed again, and nothing else with it: a user's images and models
//! are the user's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bollard::query_parameters::RemoveImageOptionsBuilder;
use tokio::sync::OwnedMutexGuard;

use super::repositories::{Wanted, wanted};
use super::{Shared, inventory};
use crate::hub::model::{HubCache, RemoteFile};
use crate::hub::{Daemon, image};
use crate::plan::Deployment;

/// Downloads of a process, by what they are.
#[derive(Debug, Default)]
pub struct Downloads {
    /// References that were pulled.
    images: Mutex<BTreeSet<String>>,
    /// Files by the cache and the repository that they are in.
    files: Mutex<BTreeMap<(PathBuf, String), Vec<RemoteFile>>>,
    /// What is being downloaded: one at a time of each.
    under_way: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Downloads {
    pub(super) fn image(&self, reference: &str) {
        self.images.lock().expect("no holder panics").insert(reference.to_string());
    }

    pub(super) fn files(&self, cache: &HubCache, name: &str, files: Vec<RemoteFile>) {
        let key = (cache.root().to_path_buf(), name.to_string());
        self.files.lock().expect("no holder panics").entry(key).or_default().extend(files);
    }

    /// The right to download something; whoever comes later waits, and then finds it here. `waits` is told first.
    pub(super) async fn enter(&self, what: &str, waits: impl FnOnce()) -> OwnedMutexGuard<()> {
        let lock = self.under_way.lock().expect("no holder panics").entry(what.to_string()).or_default().clone();
        match lock.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) => {
                waits();
                lock.lock_owned().await
            }
        }
    }
}

/// Removes what a deployment needed and none of `later` does: what this process downloaded, or with `all` whatever was
/// there before, too. Returns what is gone, for people.
pub(super) async fn evict(shared: &Shared, done: &Deployment, later: &[Deployment], all: bool) -> Vec<String> {
    let Ok(daemon) = shared.daemon(done).await else { return Vec::new() };
    let mut gone: Vec<String> = evict_image(shared, daemon, done, later, all).await.into_iter().collect();
    let needs = |d: &Deployment| wanted(d, &shared.options.cache, &shared.hub).unwrap_or_default();
    let same = |a: &Wanted, b: &Wanted| a.cache == b.cache && a.reference.name == b.reference.name;
    let kept: Vec<Wanted> = later.iter().flat_map(needs).collect();
    // Another run, or a person, may serve the same model out of the same cache.
    let running = inventory::list(&daemon.docker, &shared.owner).await.unwrap_or_default();
    for repository in needs(done).iter().filter(|w| kept.iter().all(|k| !same(w, k))) {
        let name = &repository.reference.name;
        if running.iter().any(|c| c.is_running() && c.model == *name) {
            continue;
        }
        gone.extend(evict_repository(shared, repository, all));
    }
    gone
}

async fn evict_image(
    shared: &Shared,
    daemon: &Daemon,
    done: &Deployment,
    later: &[Deployment],
    all: bool,
) -> Option<String> {
    let of = |d: &Deployment| d.spec.container.as_ref().map(|c| c.image.clone());
    let wanted = of(done)?;
    if later.iter().any(|d| of(d).as_ref() == Some(&wanted)) {
        return None;
    }
    let pinned = done.locked_image().map(|locked| image::pinned(&wanted, locked));
    let downloaded = {
        let mut images = shared.options.downloads.images.lock().expect("no holder panics");
        [pinned.as_ref(), Some(&wanted)].into_iter().flatten().find_map(|r| images.take(r))
    };
    let reference = downloaded.or_else(|| all.then(|| pinned.unwrap_or(wanted)))?;
    // Without force: an image that a container has is left alone.
    let options = RemoveImageOptionsBuilder::new().force(false).build();
    let removed = daemon.docker.remove_image(&reference, Some(options), None).await;
    removed.is_ok().then(|| format!("the image {reference}"))
}

fn evict_repository(shared: &Shared, repository: &Wanted, all: bool) -> Option<String> {
    let Wanted { cache, reference, .. } = repository;
    let key = (cache.root().to_path_buf(), reference.name.clone());
    let own = shared.options.downloads.files.lock().expect("no holder panics").remove(&key).unwrap_or_default();
    if all {
        return std::fs::remove_dir_all(cache.repo(&reference.name)).ok().map(|()| reference.name.clone());
    }
    let freed = cache.remove(&reference.name, &own).ok().filter(|bytes| *bytes > 0)?;
    Some(format!("{:.1} GB of {}", freed as f64 / 1e9, reference.name))
}
