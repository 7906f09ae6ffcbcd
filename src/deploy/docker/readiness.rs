//! From a container that was started to one that answers: its log, its addresses, its health path.

use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use tokio::sync::mpsc;

use super::address::Addresses;
use super::engine::DockerEngine;
use super::fetch::Things;
use super::held::Held;
use super::launch::Launch;
use super::repositories::wanted;
use super::watch::{Reading, Watch};
use crate::deploy::ready::{Asker, Health};
use crate::deploy::secret::{Redactor, resolve};
use crate::deploy::{Endpoint, Failure, Stage};
use crate::hub::{self, Daemon};
use crate::plan::TlsOptions;

/// Between two looks at the health path.
const POLL: Duration = Duration::from_millis(250);
/// How long the end of a container without an address may take to show.
const NO_ADDRESS: Duration = Duration::from_secs(5);

/// How requests get to the server, for the record.
const BRIDGE: &str = "bridge";
const PUBLISHED: &str = "published port";

impl Launch<'_> {
    /// Waits until the container answers. It is removed with everything else when it does not.
    pub(super) async fn serve(
        &self,
        daemon: &Daemon,
        held: Held,
        things: &Things,
        redactor: Redactor,
    ) -> Result<DockerEngine, Failure> {
        let image = &things.image.1;
        let (reached, mut milestones) = mpsc::unbounded_channel();
        let reading = Reading::new(&self.deployment.spec.milestones, redactor.clone(), reached)?;
        let watch = Watch::start(&daemon.docker, &held.id, &held.name, reading);
        self.shared.hear(self.deployment, watch.log());
        let found = daemon.docker.inspect_container(&held.id, None).await;
        let found = found.map_err(|e| self.cannot(Stage::Start, hub::reason(&e)))?;
        if found.image.as_deref().is_some_and(|id| id != image.id) {
            let here = found.image.unwrap_or_default();
            return Err(self.mismatch(&here, self.deployment.locked_image().unwrap_or(&image.id), None));
        }
        let candidates = self.candidates(&found, redactor, &watch).await?;
        let ready = {
            let mut ready = std::pin::pin!(self.first_ready(&candidates));
            let mut doomed = std::pin::pin!(watch.doomed());
            loop {
                tokio::select! {
                    biased;
                    failure = &mut doomed => break Err(failure),
                    ready = &mut ready => break ready,
                    Some(text) = milestones.recv() => self.tell(Stage::Ready, text),
                }
            }
        };
        let ready = match ready {
            Ok(index) => index,
            Err(failure) => {
                drop(watch);
                held.discard().await;
                return Err(failure);
            }
        };
        let mut endpoint = candidates[ready].clone();
        let about = Asker::new(&endpoint, &self.deployment.spec.api)?.about().await;
        endpoint.model = about.model_of(self.deployment, &endpoint.model);
        let published = candidates.iter().find(|c| c.network_path == PUBLISHED).map(|c| c.base_url.clone());
        let image_digest = image.digest(&self.spec.image);
        Ok(DockerEngine {
            held,
            watch,
            endpoint,
            version: about.version,
            image_digest,
            image_labels: image.labels.clone(),
            model_commit: self.model_commit(things),
            container_engine: daemon.version.clone(),
            published,
        })
    }

    /// The commit that the model is from: as it was got, else what the engine has written down in the hub's cache.
    fn model_commit(&self, things: &Things) -> Option<String> {
        let cached = || {
            let wanted = wanted(self.deployment, &self.shared.options.cache, &self.shared.hub).ok()?;
            let model = wanted.into_iter().find(|w| w.asset.is_none())?;
            model.cache.present(&model.repo()).map(|(commit, _)| commit)
        };
        things.model_commit.clone().or_else(cached)
    }

    /// The ways to the server, the better one first.
    async fn candidates(
        &self,
        found: &ContainerInspectResponse,
        mut redactor: Redactor,
        watch: &Watch,
    ) -> Result<Vec<Endpoint>, Failure> {
        let variables = &self.shared.options.variables;
        let mut headers = Vec::new();
        for (name, text) in &self.deployment.headers {
            headers.push((name.clone(), resolve(text, &format!("headers.{name}"), variables, &mut redactor)?));
        }
        let addresses = Addresses::of(found, self.spec.port).reachable().await;
        let ways = [(addresses.bridge, BRIDGE), (addresses.published, PUBLISHED)];
        let endpoint = |(address, path): (Option<String>, &str)| {
            Some(Endpoint {
                base_url: format!("http://{}", address?),
                headers: headers.clone(),
                tls: TlsOptions::default(),
                model: self.served_model(),
                network_path: path.to_string(),
                redactor: redactor.clone(),
            })
        };
        let candidates: Vec<Endpoint> = ways.into_iter().filter_map(endpoint).collect();
        if candidates.is_empty() {
            // Most likely it has ended already, which says more.
            let ended = tokio::time::timeout(NO_ADDRESS, watch.ended()).await;
            return Err(ended.unwrap_or_else(|_| self.cannot(Stage::Start, "the container has no address")));
        }
        Ok(candidates)
    }

    /// Index of the first candidate that is ready. How long that may take is the caller's to say.
    async fn first_ready(&self, candidates: &[Endpoint]) -> Result<usize, Failure> {
        let api = &self.deployment.spec.api;
        let askers: Vec<Asker<'_>> = candidates.iter().map(|c| Asker::new(c, api)).collect::<Result<_, _>>()?;
        let mut told = String::new();
        loop {
            for (index, asker) in askers.iter().enumerate() {
                match asker.health().await {
                    Health::Ready => {
                        // It may have come up just after a better way was tried.
                        for (better, asker) in askers[..index].iter().enumerate() {
                            if matches!(asker.health().await, Health::Ready) {
                                return Ok(better);
                            }
                        }
                        return Ok(index);
                    }
                    Health::NotYet(seen) if index == 0 => {
                        self.shared.see(self.deployment, &seen);
                        if seen.contains("answers") && seen != told {
                            self.tell(Stage::Ready, format!("not ready yet: {seen}"));
                            told = seen;
                        }
                    }
                    Health::NotYet(_) => {}
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
