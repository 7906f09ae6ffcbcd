//! What references mean now: images are asked of the container engine and its registries, models and assets of their hub.
//! Each is connected to when the first question comes.

use super::containers;
use super::failure::Failure;
use crate::hub::model::{HubSettings, ModelError, ModelHub, RepoRef};
use crate::hub::{Daemon, DaemonAddress, HubError, RegistryLogins, image};
use crate::model::ShapeError;
use crate::plan::lock::{Lock, LockedContent, LockedImage, LockedModel, Reference, ReferenceKind};
use crate::settings::Settings;

/// The file that says how a model is built.
pub const CONFIG: &str = "config.json";

/// The meaning of a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Of an image: its digest. Of anything local but a model: its content.
    Content(String),
    /// Of a model, with the reason where its configuration gives no size.
    Model(Box<LockedModel>, Option<ShapeError>),
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
                repo.and_then(|repo| self.model(&repo)).map_err(|e| e.to_string())
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

    /// What is locked already, with the sizes that the hub knows of that very commit.
    pub fn sizes(&self, reference: &Reference, commit: &str) -> Result<Meaning, String> {
        let repo = RepoRef::from_key(&reference.name).map(|repo| repo.at(commit));
        repo.and_then(|repo| self.model(&repo)).map_err(|e| e.to_string())
    }

    fn model(&self, repo: &RepoRef) -> Result<Meaning, ModelError> {
        let hub = ModelHub::new(self.hub.clone())?;
        self.runtime.block_on(async {
            let snapshot = hub.snapshot(repo).await?;
            // A gated model's configuration may be closed: then its shape is not known.
            let config = match snapshot.files.iter().any(|f| f.path == CONFIG) {
                true => hub.small_file(repo, &snapshot.commit, CONFIG).await.ok(),
                false => None,
            };
            let config = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let bytes = snapshot.weight_bytes();
            let locked = LockedModel { commit: Some(snapshot.commit), ..LockedModel::default() };
            let (locked, why) = locked.sized(bytes, config.as_ref());
            Ok(Meaning::Model(Box::new(locked), why))
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
        (_, Meaning::Model(model, _)) => _ = lock.models.insert(name, *model),
        (ReferenceKind::Model, Meaning::Content(content)) => {
            lock.models.insert(name, LockedModel { content: Some(content), ..LockedModel::default() });
        }
        (ReferenceKind::Asset, Meaning::Content(content)) => _ = lock.assets.insert(name, LockedContent { content }),
        (ReferenceKind::Dataset, Meaning::Content(content)) => {
            _ = lock.datasets.insert(name, LockedContent { content })
        }
        (ReferenceKind::Image, Meaning::Content(digest)) => _ = lock.images.insert(name, LockedImage { digest }),
    }
}
