//! Images: what a reference means here and in its registry, and pulling.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use super::{HubError, RegistryLogins, reason, status};

/// The registry of references that name none.
pub const DOCKER_HUB: &str = "docker.io";

/// How long a pull may say nothing at all. Unpacking a large layer is told of all the time, too.
const STALLED: Duration = Duration::from_secs(600);

/// An image that is on this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `repository@sha256:…` for each registry it came from; empty for an image built or loaded here.
    pub repo_digests: Vec<String>,
    /// The user its processes run as unless told otherwise.
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    pub layers: u64,
    pub layers_done: u64,
    /// Of the layers whose size is known so far.
    pub bytes: u64,
    pub bytes_done: u64,
}

/// The registry of a reference.
pub fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// A reference without tag and digest.
pub fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((before, after)) if !after.contains('/') => before,
        _ => name,
    }
}

/// The repository as digests name it: with Docker Hub's shortcuts taken away.
fn canonical(repository: &str) -> String {
    let rest = repository.strip_prefix("docker.io/").unwrap_or(repository);
    rest.strip_prefix("library/").unwrap_or(rest).to_string()
}

/// The reference that names an image by its locked digest.
pub fn pinned(reference: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(reference))
}

impl Image {
    /// What the image is known by: the digest of its repository where there is one, else its id.
    pub fn digest(&self, reference: &str) -> String {
        let wanted = canonical(repository(reference));
        let digest = self.repo_digests.iter().find_map(|d| {
            let (name, digest) = d.split_once('@')?;
            (canonical(name) == wanted).then(|| digest.to_string())
        });
        digest.unwrap_or_else(|| self.id.clone())
    }

    /// Whether it is the image that a lock means.
    pub fn is(&self, locked: &str) -> bool {
        self.id == locked || self.repo_digests.iter().any(|d| d.rsplit_once('@').is_some_and(|(_, d)| d == locked))
    }
}

/// Looks at an image of this host; `None` when it is not here.
pub async fn local(docker: &Docker, reference: &str) -> Result<Option<Image>, HubError> {
    match docker.inspect_image(reference).await {
        Ok(found) => {
            let config = found.config.unwrap_or_default();
            Ok(Some(Image {
                id: found.id.unwrap_or_default(),
                repo_digests: found.repo_digests.unwrap_or_default(),
                user: config.user.filter(|u| !u.is_empty()),
                labels: config.labels.unwrap_or_default().into_iter().collect(),
            }))
        }
        Err(e) if status(&e) == Some(404) => Ok(None),
        Err(e) => Err(HubError::Inspect { image: reference.to_string(), reason: reason(&e) }),
    }
}

/// What a reference means now: what its registry says, else the image that is here. An image that came from no registry is
/// its own meaning. `remote` allows the question.
pub async fn resolve(
    docker: &Docker,
    reference: &str,
    logins: &RegistryLogins,
    remote: bool,
) -> Result<String, HubError> {
    let here = local(docker, reference).await?;
    if let Some(image) = here.as_ref().filter(|i| !remote || i.repo_digests.is_empty()) {
        return Ok(image.digest(reference));
    }
    let unresolved = |reason: String| HubError::Resolve { image: reference.to_string(), reason };
    if !remote {
        return Err(unresolved("it is not on this host, and the network is not to be used".into()));
    }
    let credentials = logins.of(registry(reference)).await;
    let found = docker.inspect_registry_image(reference, credentials).await;
    match (found.map(|f| f.descriptor.digest), here) {
        (Ok(Some(digest)), _) => Ok(digest),
        (_, Some(image)) => Ok(image.digest(reference)),
        (Ok(None), None) => Err(unresolved("its registry names no digest".into())),
        (Err(e), None) => Err(unresolved(reason(&e))),
    }
}

/// Pulls an image; `heard` is told of every step.
pub async fn pull(
    docker: &Docker,
    reference: &str,
    credentials: Option<DockerCredentials>,
    mut heard: impl FnMut(PullProgress),
) -> Result<(), HubError> {
    // Without a tag the engine would pull all of them.
    let tagged = reference.contains('@') || repository(reference) != reference;
    let whole = if tagged { reference.to_string() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::new().from_image(&whole).build();
    let mut steps = docker.create_image(Some(options), None, credentials);
    let mut layers = Layers::default();
    loop {
        let Ok(step) = tokio::time::timeout(STALLED, steps.next()).await else {
            let reason = "nothing came for ten minutes".to_string();
            return Err(HubError::Pull { image: reference.to_string(), reason });
        };
        let Some(step) = step else { return Ok(()) };
        let step = step.map_err(|e| HubError::Pull { image: reference.to_string(), reason: reason(&e) })?;
        let (Some(id), Some(status)) = (step.id, step.status) else { continue };
        let detail = step.progress_detail.unwrap_or_default();
        if layers.take(&id, &status, detail.current, detail.total) {
            heard(layers.progress());
        }
    }
}

/// What is known of each layer of a pull.
#[derive(Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Default)]
struct Layer {
    total: u64,
    current: u64,
    done: bool,
}

impl Layers {
    /// Takes one line of the engine; whether it says anything of a layer.
    fn take(&mut self, id: &str, status: &str, current: Option<i64>, total: Option<i64>) -> bool {
        // The line about the tag carries the tag as its id.
        if status.starts_with("Pulling from") {
            return false;
        }
        let layer = self.0.entry(id.to_string()).or_default();
        let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
        match status {
            "Downloading" => {
                layer.current = bytes(current).unwrap_or(layer.current);
                layer.total = bytes(total).unwrap_or(layer.total);
            }
            "Download complete" | "Verifying Checksum" | "Extracting" => layer.current = layer.total,
            "Pull complete" | "Already exists" => {
                layer.current = layer.total;
                layer.done = true;
            }
            _ => {}
        }
        true
    }

    fn progress(&self) -> PullProgress {
        let mut progress = PullProgress { layers: self.0.len() as u64, ..PullProgress::default() };
        for layer in self.0.values() {
            progress.layers_done += u64::from(layer.done);
            progress.bytes += layer.total;
            progress.bytes_done += layer.current.min(layer.total);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        assert_eq!(registry("vllm/vllm-openai:v1"), "docker.io");
        assert_eq!(registry("nvcr.io/nim/meta/m:2"), "nvcr.io");
        assert_eq!(registry("localhost:5000/a"), "localhost:5000");
        assert_eq!(registry("ubuntu"), "docker.io");
        assert_eq!(repository("localhost:5000/a"), "localhost:5000/a");
        assert_eq!(repository("localhost:5000/a:v1@sha256:1"), "localhost:5000/a");
        assert_eq!(pinned("a/b:v1", "sha256:1"), "a/b@sha256:1");
    }

    #[test]
    fn an_image_is_known_by_its_repository_digest_or_its_id() {
        let image = Image {
            id: "sha256:id".into(),
            repo_digests: vec!["other/x@sha256:2".into(), "vllm/vllm-openai@sha256:1".into()],
            user: None,
            labels: BTreeMap::new(),
        };
        assert_eq!(image.digest("docker.io/vllm/vllm-openai:v1"), "sha256:1");
        assert_eq!(image.digest("built-here:1"), "sha256:id");
        assert!(image.is("sha256:1") && image.is("sha256:id") && !image.is("sha256:3"));
    }

    #[test]
    fn the_layers_of_a_pull_add_up() {
        let mut layers = Layers::default();
        assert!(!layers.take("v1", "Pulling from a/b", None, None));
        layers.take("a", "Pulling fs layer", None, None);
        layers.take("b", "Already exists", None, None);
        layers.take("a", "Downloading", Some(30), Some(100));
        let progress = layers.progress();
        assert_eq!(progress, PullProgress { layers: 2, layers_done: 1, bytes: 100, bytes_done: 30 });
        layers.take("a", "Extracting", Some(1), Some(100));
        layers.take("a", "Pull complete", None, None);
        assert_eq!(layers.progress(), PullProgress { layers: 2, layers_done: 2, bytes: 100, bytes_done: 100 });
    }
}
