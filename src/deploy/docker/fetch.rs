//! What a start needs on this host before there can be a container: the image, the model, the assets. Takes no device, so
//! it can be done for a deployment whose turn has not come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::launch::Launch;
use super::repositories::{Wanted, wanted};
use crate::deploy::{Failure, FailureClass, Progress, Stage};
use crate::hub::model::{Fetch, FetchProgress, ModelError, ModelHub, RepoRef, Snapshot, fetch};
use crate::hub::{Daemon, Image};

/// Between two messages about a download: each is kept in the journal.
const NEWS: Duration = Duration::from_secs(2);

/// What was got.
#[derive(Clone, Debug)]
pub(super) struct Things {
    /// Reference to start the image by, and what it is.
    pub(super) image: (String, Image),
    /// The model's commit, where it was downloaded or looked up here.
    pub(super) model_commit: Option<String>,
    /// Directories of the remote assets.
    pub(super) assets: BTreeMap<String, PathBuf>,
}

impl Launch<'_> {
    /// Gets everything, or says what is in the way: first what can be told without a download.
    pub(super) async fn fetch(&self, daemon: &Daemon) -> Result<Things, Failure> {
        let repositories = wanted(self.deployment, &self.shared.options.cache, &self.shared.hub)?;
        let mut fetches = Vec::new();
        for repository in &repositories {
            fetches.push(self.ask(repository).await?);
        }
        self.enough_room(daemon, &fetches).await?;
        let image = self.image(daemon).await?;
        let mut things = Things { image, model_commit: None, assets: BTreeMap::new() };
        for (repository, fetch) in repositories.iter().zip(fetches) {
            let got = match fetch {
                Some(fetch) => Some((fetch.snapshot.commit.clone(), self.download(fetch).await?)),
                None => repository.cache.present(&repository.repo()),
            };
            match (&repository.asset, got) {
                (None, got) => things.model_commit = got.map(|(commit, _)| commit),
                (Some(name), Some((_, dir))) => _ = things.assets.insert(name.clone(), dir),
                (Some(name), None) => {
                    let why = format!(
                        "the asset `{name}` ({}) is not on this host, and the hub was not asked",
                        repository.repo()
                    );
                    return Err(self.cannot(Stage::Pull, why));
                }
            }
        }
        Ok(things)
    }

    /// What is to be downloaded; `None` where the hub does not say and it has to do without.
    async fn ask(&self, repository: &Wanted) -> Result<Option<Fetch>, Failure> {
        let repo = repository.repo();
        let asked = async {
            let hub = self.shared.model_hub()?;
            let snapshot = self.snapshot(&hub, &repo).await?;
            let fetch = Fetch {
                hub,
                cache: repository.cache.clone(),
                repo: repo.clone(),
                snapshot,
                weights_only: repository.asset.is_none(),
                gentle: self.gentle,
            };
            if fetch.bytes_to_come() > 0 {
                fetch.hub.may_read(&repo, &fetch.snapshot).await?;
            }
            Ok::<Fetch, ModelError>(fetch)
        };
        match asked.await {
            Ok(fetch) => Ok(Some(fetch)),
            Err(e) if e.is_absence() => self.without_hub(repository, &e).map(|()| None),
            Err(e) => Err(self.not_got(&e)),
        }
    }

    /// A reference means the same for the whole run.
    async fn snapshot(&self, hub: &ModelHub, repo: &RepoRef) -> Result<Snapshot, ModelError> {
        let mut known = self.shared.snapshots.lock().await;
        if let Some(snapshot) = known.get(repo) {
            return Ok(snapshot.clone());
        }
        let snapshot = hub.snapshot(repo).await?;
        known.insert(repo.clone(), snapshot.clone());
        Ok(snapshot)
    }

    /// Without the hub, what is here has to do. An engine may get its model in another way; nobody else gets an asset.
    fn without_hub(&self, repository: &Wanted, e: &ModelError) -> Result<(), Failure> {
        let here = repository.cache.present(&repository.repo()).is_some();
        match (&repository.asset, here) {
            (_, true) => Ok(()),
            // Whoever forbids to ask knows that it is not asked.
            (None, false) if matches!(e, ModelError::Offline { .. }) => Ok(()),
            (None, false) => {
                self.tell(Stage::Pull, format!("{e}. The engine is left to find {} itself", repository.repo()));
                Ok(())
            }
            (Some(name), false) => Err(self
                .cannot(Stage::Pull, format!("the asset `{name}` ({}) is not on this host: {e}", repository.repo()))),
        }
    }

    async fn download(&self, job: Fetch) -> Result<PathBuf, Failure> {
        let repo = job.repo.clone();
        let what = format!("{} in {}", repo.name, job.cache.root().display());
        let waits = || self.tell(Stage::Pull, format!("waits for the download of {repo} that is under way"));
        let _only = self.shared.options.downloads.enter(&what, waits).await;
        let missing: Vec<_> = job.cache.missing(&repo.name, &job.files()).into_iter().cloned().collect();
        if !missing.is_empty() {
            self.tell(Stage::Pull, format!("downloading {repo}"));
            self.shared.options.downloads.files(&job.cache, &repo.name, missing);
        }
        let mut told = Instant::now();
        let heard = |p: FetchProgress| {
            if told.elapsed() >= NEWS {
                told = Instant::now();
                let fraction = (p.bytes > 0).then(|| p.bytes_done as f64 / p.bytes as f64);
                (self.progress)(Progress { stage: Stage::Pull, message: message(&repo, p), fraction });
            }
        };
        fetch(job, heard).await.map_err(|e| self.not_got(&e))
    }

    fn not_got(&self, e: &ModelError) -> Failure {
        let class = if e.is_deterministic() { FailureClass::Deterministic } else { FailureClass::Infrastructure };
        Failure { class, ..self.cannot(Stage::Pull, e) }
    }
}

fn message(repo: &RepoRef, progress: FetchProgress) -> String {
    let FetchProgress { files, files_done, bytes, bytes_done } = progress;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    format!("downloading {repo}: {files_done} of {files} files, {:.2} of {:.2} GB", gb(bytes_done), gb(bytes))
}
