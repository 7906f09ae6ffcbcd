//! The image of a deployment: the locked one, here or pulled, and what is said when it is another.

use std::time::{Duration, Instant};

use super::launch::Launch;
use crate::deploy::{Failure, Progress, Stage, diagnosis};
use crate::hub::{Daemon, HubError, Image, PullProgress, image};

/// Between two messages about a pull: each is kept in the journal.
const PULL_NEWS: Duration = Duration::from_secs(2);

impl Launch<'_> {
    /// The image that the lock names, else the one that the reference means here; pulled where it is not here. Returns
    /// the reference to start it by.
    pub(super) async fn image(&self, daemon: &Daemon) -> Result<(String, Image), Failure> {
        let wanted = &self.spec.image;
        let waits = || self.tell(Stage::Pull, format!("waits for the pull of {wanted} that is under way"));
        let _only = self.shared.options.downloads.enter(&format!("the image {wanted}"), waits).await;
        let local = async |reference: &str| {
            image::local(&daemon.docker, reference).await.map_err(|e| self.cannot(Stage::Pull, e))
        };
        let Some(locked) = self.deployment.locked_image() else {
            if let Some(image) = local(wanted).await? {
                return Ok((wanted.clone(), image));
            }
            self.pull(daemon, wanted).await.map_err(|e| self.not_pulled(&e))?;
            let image = local(wanted).await?;
            return image.map(|i| (wanted.clone(), i)).ok_or_else(|| self.vanished(wanted));
        };
        let pinned = image::pinned(wanted, locked);
        for reference in [wanted.as_str(), &pinned, locked] {
            if let Some(image) = local(reference).await?.filter(|i| i.is(locked)) {
                return Ok((reference.to_string(), image));
            }
        }
        if let Err(e) = self.pull(daemon, &pinned).await {
            return Err(match local(wanted).await? {
                Some(other) => self.mismatch(&other.digest(wanted), locked, Some(&e)),
                None => self.not_pulled(&e),
            });
        }
        let image = local(&pinned).await?;
        image.map(|i| (pinned.clone(), i)).ok_or_else(|| self.vanished(&pinned))
    }

    fn vanished(&self, reference: &str) -> Failure {
        self.cannot(Stage::Pull, format!("the image {reference} was pulled and is not here"))
    }

    pub(super) fn mismatch(&self, here: &str, locked: &str, pull: Option<&HubError>) -> Failure {
        let pulled = pull.map(|e| format!(" ({e})")).unwrap_or_default();
        self.cannot(
            Stage::Create,
            format!(
                "identity_mismatch: {} is {here} on this host, and the lock says {locked}{pulled}. Get the locked image, \
                 or move the lock with `llmatrix lock --update`",
                self.spec.image
            ),
        )
    }

    fn not_pulled(&self, e: &HubError) -> Failure {
        let text = e.to_string();
        match diagnosis::line(&text) {
            Some(known) => Failure {
                class: known.class,
                ..self.cannot(Stage::Pull, format!("{text}. It means: {}", known.meaning))
            },
            None => self.cannot(Stage::Pull, text),
        }
    }

    async fn pull(&self, daemon: &Daemon, reference: &str) -> Result<(), HubError> {
        if self.shared.options.offline {
            let reason = "it is not on this host, and this run is offline".to_string();
            return Err(HubError::Pull { image: reference.to_string(), reason });
        }
        self.tell(Stage::Pull, format!("pulling {reference}"));
        let credentials = self.shared.logins.of(image::registry(reference)).await;
        let mut told = Instant::now();
        let heard = |p: PullProgress| {
            if told.elapsed() >= PULL_NEWS {
                told = Instant::now();
                let fraction = (p.bytes > 0).then(|| p.bytes_done as f64 / p.bytes as f64);
                (self.progress)(Progress { stage: Stage::Pull, message: pull_message(reference, p), fraction });
            }
        };
        image::pull(&daemon.docker, reference, credentials, heard).await?;
        self.shared.options.downloads.image(reference);
        Ok(())
    }
}

fn pull_message(reference: &str, progress: PullProgress) -> String {
    let PullProgress { layers, layers_done, bytes, bytes_done } = progress;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    format!("pulling {reference}: {layers_done}/{layers} layers, {:.2} of {:.2} GB", gb(bytes_done), gb(bytes))
}
