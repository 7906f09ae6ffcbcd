//! One file from the hub into the cache: taken up where an earlier try left it, checked, and shown only when it is whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};

use super::cache::partial;
use super::check::Check;
use super::info::RemoteFile;
use super::{HubCache, ModelError, ModelHub, RepoRef};

/// How long a download may say nothing.
const STALLED: Duration = Duration::from_secs(60);
/// Tries at one file; each goes on where the last one ended.
const TRIES: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at a file that another process downloads.
const LOOK: Duration = Duration::from_millis(200);

/// A repository's files on their way into a cache.
pub struct Download<'a> {
    pub hub: &'a ModelHub,
    pub cache: &'a HubCache,
    pub repo: &'a RepoRef,
    pub commit: &'a str,
    /// Hears of bytes that have come.
    pub heard: &'a dyn Fn(u64),
}

impl Download<'_> {
    /// Gets a file's content, unless it is here.
    pub async fn file(&self, file: &RemoteFile) -> Result<(), ModelError> {
        let blob = self.cache.blob(&self.repo.name, &file.content);
        let lock = self.cache.lock(&self.repo.name, &file.content);
        for path in [&blob, &lock] {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir).map_err(ModelError::io("make", dir))?;
        }
        let _held = self.only_one(&lock, file).await?;
        if self.cache.has(&self.repo.name, file) {
            (self.heard)(file.size);
            return Ok(());
        }
        let growing = partial(&blob);
        let mut tries = 1;
        loop {
            match self.grow(&growing, file).await {
                Ok(()) => break,
                Err(ModelError::Unreachable { .. } | ModelError::Stalled { .. }) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(AGAIN).await;
                }
                Err(e) => return Err(e),
            }
        }
        fs::rename(&growing, &blob).map_err(ModelError::io("write", &blob))
    }

    /// Waits until nobody else downloads the same content. The lock is the one that the hub's own library takes.
    async fn only_one(&self, path: &Path, file: &RemoteFile) -> Result<File, ModelError> {
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let lock = opened.map_err(ModelError::io("open", path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if self.cache.has(&self.repo.name, file) => return Ok(lock),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(e)) => return Err(ModelError::io("lock", path)(e)),
            }
        }
    }

    /// Takes what is there and gets the rest.
    async fn grow(&self, path: &Path, file: &RemoteFile) -> Result<(), ModelError> {
        let io = |doing| ModelError::io(doing, path);
        let mut out =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io("open"))?;
        let mut check = Check::new(file);
        let mut have = take_in(&mut out, &mut check).map_err(io("read"))?;
        if have > file.size {
            (have, check) = (restart(&mut out).map_err(io("write"))?, Check::new(file));
        }
        if have < file.size || file.size == 0 {
            let mut response = self.rest(file, have).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT && have > 0 {
                (have, check) = (restart(&mut out).map_err(io("write"))?, Check::new(file));
            }
            let before = have;
            while let Some(bytes) = self.next(&mut response, file).await? {
                have += bytes.len() as u64;
                if have > file.size {
                    break;
                }
                out.write_all(&bytes).map_err(io("write"))?;
                check.update(&bytes);
                (self.heard)(bytes.len() as u64);
            }
            if have < file.size && have > before {
                // The connection ended early; the next try goes on from here.
                let reason = "the connection ended early".to_string();
                return Err(ModelError::Unreachable { endpoint: self.hub.settings.endpoint.clone(), reason });
            }
        }
        let sized = if have == file.size { Ok(()) } else { Err(format!("it has {have} bytes, not {}", file.size)) };
        if let Err(reason) = sized.and_then(|()| check.finish()) {
            let _ = fs::remove_file(path);
            return Err(ModelError::Damaged { repo: self.repo.clone(), file: file.path.clone(), reason });
        }
        out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(io("write"))?;
        out.sync_all().map_err(io("write"))
    }

    async fn rest(&self, file: &RemoteFile, have: u64) -> Result<Response, ModelError> {
        let url = self.hub.file_url(self.repo, self.commit, &file.path);
        let mut request = self.hub.authorized(self.hub.client.get(url));
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let sent = tokio::time::timeout(STALLED, request.send()).await.map_err(|_| self.stalled(file))?;
        self.hub.accepted(self.repo, sent.map_err(|e| self.hub.unreachable(&e))?)
    }

    async fn next(
        &self,
        response: &mut Response,
        file: &RemoteFile,
    ) -> Result<Option<impl Deref<Target = [u8]>>, ModelError> {
        let chunk = tokio::time::timeout(STALLED, response.chunk()).await.map_err(|_| self.stalled(file))?;
        chunk.map_err(|e| self.hub.unreachable(&e))
    }

    fn stalled(&self, file: &RemoteFile) -> ModelError {
        ModelError::Stalled { repo: self.repo.clone(), file: file.path.clone() }
    }
}

/// Reads what an earlier try left.
fn take_in(file: &mut File, check: &mut Check) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut have = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(have),
            n => {
                check.update(&buffer[..n]);
                have += n as u64;
            }
        }
    }
}

fn restart(file: &mut File) -> std::io::Result<u64> {
    file.set_len(0)?;
    std::io::Seek::rewind(file)?;
    Ok(0)
}
