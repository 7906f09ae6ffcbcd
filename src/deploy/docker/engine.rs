//! A container whose server answers.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use super::held::Held;
use super::watch::Watch;
use crate::deploy::{ContainerUsage, Endpoint, Engine, Failure, Startup};

/// A container that serves.
pub struct DockerEngine {
    pub(super) held: Held,
    pub(super) watch: Watch,
    pub(super) endpoint: Endpoint,
    pub(super) version: Option<String>,
    pub(super) image_digest: String,
    pub(super) image_labels: BTreeMap<String, String>,
    pub(super) model_commit: Option<String>,
    pub(super) container_engine: Option<String>,
    /// Through the published port.
    pub(super) published: Option<String>,
}

/// A container that was left running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub name: String,
    pub id: String,
    /// Where it is measured.
    pub url: String,
    /// Through the published port of the loopback.
    pub published: Option<String>,
}

impl DockerEngine {
    /// Lets the container run on without this process.
    pub fn leave(self) -> Left {
        let DockerEngine { held, endpoint, published, .. } = self;
        let left = Left { name: held.name.clone(), id: held.id.clone(), url: endpoint.base_url, published };
        held.leave();
        left
    }
}

impl Engine for DockerEngine {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn container_engine(&self) -> Option<String> {
        self.container_engine.clone()
    }

    fn image_digest(&self) -> Option<String> {
        Some(self.image_digest.clone())
    }

    fn model_commit(&self) -> Option<String> {
        self.model_commit.clone()
    }

    fn image_labels(&self) -> BTreeMap<String, String> {
        self.image_labels.clone()
    }

    fn gpus(&self) -> Vec<String> {
        self.held.gpus()
    }

    fn control_group(&self) -> Option<String> {
        Some(self.held.id.clone())
    }

    fn startup(&self) -> Startup {
        Startup { milestones: self.watch.milestones(), warm_caches: self.held.warm_caches() }
    }

    fn usage(&self) -> BoxFuture<'_, Option<ContainerUsage>> {
        Box::pin(self.held.usage())
    }

    fn log_tail(&self, lines: usize) -> String {
        self.watch.log().tail(lines)
    }

    fn crashed(&self) -> BoxFuture<'_, Failure> {
        Box::pin(self.watch.ended())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        let DockerEngine { held, watch, .. } = *self;
        // The end that is coming is no crash.
        drop(watch);
        Box::pin(held.stop())
    }
}
