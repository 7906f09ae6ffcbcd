//! A snapshot into the cache, on a thread of its own: a download never shares a thread with a measurement, and one that is
//! only for later gives way to everything else on the host.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::download::Download;
use super::info::RemoteFile;
use super::{HubCache, ModelError, ModelHub, RepoRef, Snapshot};

/// Files that come at the same time; one when it is only for later.
const AT_ONCE: usize = 4;
/// The lowest priority of a thread.
const NICEST: i32 = 19;
/// Between two looks at how far it is.
const NEWS: Duration = Duration::from_millis(500);

/// What is to be downloaded, where from and where to.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub hub: ModelHub,
    pub cache: HubCache,
    /// As it is referred to: the cache then knows what that means.
    pub repo: RepoRef,
    pub snapshot: Snapshot,
    /// Leave out formats that no engine here loads when there is a better one.
    pub weights_only: bool,
    /// It is for later: as little of the host as possible.
    pub gentle: bool,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    pub files: u64,
    pub files_done: u64,
    pub bytes: u64,
    pub bytes_done: u64,
}

impl Fetch {
    /// The files that it is about.
    pub fn files(&self) -> Vec<&RemoteFile> {
        if self.weights_only { self.snapshot.for_engines() } else { self.snapshot.files.iter().collect() }
    }

    /// Bytes that are still to come.
    pub fn bytes_to_come(&self) -> u64 {
        self.cache.bytes_to_come(&self.repo.name, &self.files())
    }
}

/// Downloads what is missing and gives the snapshot's directory. Dropping the future gives it up; what has come by then
/// is gone on with the next time.
pub async fn fetch(job: Fetch, mut heard: impl FnMut(FetchProgress)) -> Result<PathBuf, ModelError> {
    let (tell, mut news) = watch::channel(FetchProgress::default());
    let (done, mut ended) = oneshot::channel();
    let cancel = CancellationToken::new();
    let _given_up = cancel.clone().drop_guard();
    let spawned = std::thread::Builder::new().name("fetch".into()).spawn(move || {
        // Nobody waits for it when it was given up.
        let _ = done.send(on_thread(&job, &tell, &cancel));
    });
    spawned.map_err(|source| ModelError::Io { doing: "start a thread for", path: "a download".into(), source })?;
    loop {
        tokio::select! {
            result = &mut ended => return result.unwrap_or(Err(ModelError::GivenUp)),
            Ok(()) = news.changed() => {
                let progress = *news.borrow_and_update();
                heard(progress);
            }
        }
        tokio::select! {
            result = &mut ended => return result.unwrap_or(Err(ModelError::GivenUp)),
            () = tokio::time::sleep(NEWS) => {}
        }
    }
}

fn on_thread(
    job: &Fetch,
    tell: &watch::Sender<FetchProgress>,
    cancel: &CancellationToken,
) -> Result<PathBuf, ModelError> {
    if job.gentle {
        // Linux has a priority for each thread. Without it the download only takes more than it should.
        let thread = rustix::thread::gettid();
        let _ = rustix::process::setpriority_process(Some(thread), NICEST);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ModelError::Io {
        doing: "start the runtime of",
        path: "a download".into(),
        source,
    })?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ModelError::GivenUp),
            result = all(job, tell) => result,
        }
    })
}

async fn all(job: &Fetch, tell: &watch::Sender<FetchProgress>) -> Result<PathBuf, ModelError> {
    let Fetch { hub, cache, repo, snapshot, gentle, .. } = job;
    let wanted = job.files();
    let mut missing = cache.missing(&repo.name, &wanted);
    // Whether they are handed out at all shows with the smallest.
    missing.sort_by_key(|f| f.size);
    let total = FetchProgress {
        files: missing.len() as u64,
        bytes: missing.iter().map(|f| f.size).sum(),
        ..FetchProgress::default()
    };
    let progress = Cell::new(total);
    let change = |f: &dyn Fn(&mut FetchProgress)| {
        let mut now = progress.get();
        f(&mut now);
        progress.set(now);
        tell.send_replace(now);
    };
    let heard = |n: u64| change(&|p| p.bytes_done += n);
    let download = Download { hub, cache, repo, commit: &snapshot.commit, heard: &heard };
    let at_once = if *gentle { 1 } else { AT_ONCE };
    stream::iter(missing.iter().map(|file| {
        let (download, change) = (&download, &change);
        async move {
            download.file(file).await?;
            change(&|p| p.files_done += 1);
            Ok::<(), ModelError>(())
        }
    }))
    .buffer_unordered(at_once)
    .try_collect::<Vec<()>>()
    .await?;
    cache.show(repo, &snapshot.commit, &wanted)
}
