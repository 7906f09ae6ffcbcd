//! What references mean now: images are asked of the container engine and its registries, models and assets of their hub.
//! Each is connected to when the first question comes.

use super::containers;
use super::failure::Failure;
use crate::hub::model::{HubSettings, ModelError, ModelHub, RepoRef, kv};
use crate::hub::{Daemon, DaemonAddress, HubError, RegistryLogins, image};
use crate::plan::lock::{Lock, LockedContent, LockedImage, LockedModel, Reference, ReferenceKind};
use crate::settings::Settings;

/// The meaning of a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Of an image: its digest. Of anything local: its content.
    Content(String),
    Model(LockedModel),
}

/// Asks.
pub struct References {
    pub runtime: tokio::runtime::Runtime,
    daemon: Option<Daemon>,
    address: DaemonAddress,
    logins: RegistryLogins,
    hub: HubSettings,
    remote: bool,
}

impl References {
    /// `remote` allows questions over the network.
    pub fn new(settings: &Settings, remote: bool) -> Result<References, Failure> {
        let logins = containers::logins().map(|dir| RegistryLogins::read(&dir)).unwrap_or_default();
        let address = containers::engine(settings);
        let mut hub = HubSettings::from(|name| std::env::var(name).ok());
        hub.offline |= !remote;
        Ok(References { runtime: containers::runtime()?, daemon: None, address, logins, hub, remote })
    }

    /// Asks what lies beyond this host. The error says why that is not known.
    pub fn resolve(&mut self, reference: &Reference) -> Result<Meaning, String> {
        match reference.kind {
            ReferenceKind::Image => self.image(&reference.name).map(Meaning::Content).map_err(|e| e.to_string()),
            ReferenceKind::Model => {
                let repo = RepoRef::from_key(&reference.name);
                repo.and_then(|repo| self.model(&repo)).map(Meaning::Model).map_err(|e| e.to_string())
            }
            ReferenceKind::Asset => {
                let repo = RepoRef::from_url(&reference.name);
                repo.and_then(|repo| self.commit(&repo)).map(Meaning::Content).map_err(|e| e.to_string())
            }
            ReferenceKind::Dataset => Err("remote data sets are not read by this version".into()),
        }
    }

    fn image(&mut self, reference: &str) -> Result<String, HubError> {
        let References { runtime, daemon, address, logins, remote, .. } = self;
        runtime.block_on(async {
            let daemon = match daemon {
                Some(daemon) => daemon,
                unknown => unknown.insert(Daemon::connect(address).await?),
            };
            image::resolve(&daemon.docker, reference, logins, *remote).await
        })
    }

    fn model(&self, repo: &RepoRef) -> Result<LockedModel, ModelError> {
        let hub = ModelHub::new(self.hub.clone())?;
        self.runtime.block_on(async {
            let snapshot = hub.snapshot(repo).await?;
            // A gated model's configuration may be closed: then its shape is not known.
            let config = match snapshot.files.iter().any(|f| f.path == "config.json") {
                true => hub.small_file(repo, &snapshot.commit, "config.json").await.ok(),
                false => None,
            };
            let config = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            Ok(LockedModel {
                content: None,
                weight_bytes: Some(snapshot.weight_bytes()).filter(|b| *b > 0),
                kv_bytes_per_token: config.as_ref().and_then(kv::bytes_per_token),
                commit: Some(snapshot.commit),
            })
        })
    }

    fn commit(&self, repo: &RepoRef) -> Result<String, ModelError> {
        let hub = ModelHub::new(self.hub.clone())?;
        self.runtime.block_on(async { Ok(hub.snapshot(repo).await?.commit) })
    }
}

/// Writes a meaning into a lock.
pub fn insert(lock: &mut Lock, reference: &Reference, meaning: Meaning) {
    let name = reference.name.clone();
    match (reference.kind, meaning) {
        (_, Meaning::Model(model)) => _ = lock.models.insert(name, model),
        (ReferenceKind::Model, Meaning::Content(content)) => {
            let model =
                LockedModel { commit: None, content: Some(content), weight_bytes: None, kv_bytes_per_token: None };
            lock.models.insert(name, model);
        }
        (ReferenceKind::Asset, Meaning::Content(content)) => _ = lock.assets.insert(name, LockedContent { content }),
        (ReferenceKind::Dataset, Meaning::Content(content)) => {
            _ = lock.datasets.insert(name, LockedContent { content })
        }
        (ReferenceKind::Image, Meaning::Content(digest)) => _ = lock.images.insert(name, LockedImage { digest }),
    }
}
