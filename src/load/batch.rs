//! A server's batch jobs: handing one over, waiting for it, giving it up, fetching the answers. A few requests of the
//! control plane; nothing here is timed but the end of the job.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::job::pause;
use super::probe::{control_client, with_causes};
use super::{LoadError, Target};
use crate::stats::Progress;
use crate::wire::batch::{self, End, LineAnswer, State};
use crate::wire::rejection;

/// Path of files where the template names none.
const FILES: &str = "/v1/files";
/// A line break in front of it stands in no file of JSON lines.
const BOUNDARY: &str = "llmatrix-batch-file";
/// Bytes of answers that are read at most.
const MOST_BYTES: usize = 1 << 30;
/// Looks at a job that may fail, one after the other: a server at full load may refuse a connection.
const MOST_FAILURES: u32 = 5;
/// How long a server may take to hear that a job is given up.
const GIVING_UP: Duration = Duration::from_secs(5);

/// A server that takes jobs.
#[derive(Clone)]
pub struct Server {
    client: reqwest::Client,
    base: String,
    jobs: String,
    files: String,
}

/// A job that the server has. One that is dropped is given up.
pub struct Running {
    server: Server,
    /// `None` when it is over.
    id: Option<String>,
}

impl Server {
    pub async fn new(target: &Target, jobs: &str, timeout: Duration) -> Result<Server, LoadError> {
        Ok(Server {
            client: control_client(target, timeout).await?,
            base: target.base_url.trim_end_matches('/').to_string(),
            jobs: jobs.to_string(),
            files: target.api.files.clone().unwrap_or_else(|| FILES.into()),
        })
    }

    /// Uploads the requests and starts the job. `url` is the path that they go to.
    pub async fn submit(&self, requests: Vec<u8>, url: &str) -> Result<Running, LoadError> {
        let (kind, form) = batch::upload(&requests, BOUNDARY);
        drop(requests);
        let upload = self.client.post(self.url(&self.files)).header("content-type", kind).body(form);
        let file = self.call(upload, "take the file of requests").await?;
        let file = batch::file(&file).map_err(|why| self.odd(why))?;
        let create = self.client.post(self.url(&self.jobs)).json(&batch::creation(&file, url));
        let job = self.call(create, "take the batch").await?;
        let job = batch::job(&job).map_err(|why| self.odd(why))?;
        Ok(Running { server: self.clone(), id: Some(job.id) })
    }

    /// The answers of a job that is over.
    pub async fn answers(&self, end: &End) -> Result<Vec<LineAnswer>, LoadError> {
        let mut out = Vec::new();
        for id in &end.files {
            let content = self.client.get(self.url(&format!("{}/{id}/content", self.files)));
            let content = self.call(content, "give the answers of the batch").await?;
            let lines = content.split(|b| *b == b'\n').map(String::from_utf8_lossy);
            out.extend(lines.filter_map(|line| batch::answer(&line)));
        }
        Ok(out)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn odd(&self, message: String) -> LoadError {
        LoadError::Batch { url: self.base.clone(), message, refused: true }
    }

    /// The body of an answer that says yes.
    async fn call(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>, LoadError> {
        let failed = |message, refused| LoadError::Batch { url: self.base.clone(), message, refused };
        let lost = |e: reqwest::Error| failed(format!("it does not {what}: {}", with_causes(&e.without_url())), false);
        let mut answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(lost)? {
            body.extend_from_slice(&part);
            if body.len() > MOST_BYTES {
                return Err(failed(format!("it answers more than {MOST_BYTES} bytes"), true));
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        // Too many requests, or too slow: another time it may.
        let refused = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
        let said = rejection::message(&body);
        Err(failed(format!("it does not {what}: HTTP {}: {said}", status.as_u16()), refused))
    }
}

impl Running {
    /// Waits for the end; tells how it ended, and when that was seen. `start` is when the job was handed over.
    pub async fn wait(&self, start: Instant, progress: &Progress) -> Result<(End, Instant), LoadError> {
        let mut failures = 0;
        loop {
            let looked = self.look().await;
            let now = Instant::now();
            match looked {
                Ok(job) => {
                    failures = 0;
                    progress.done.store(job.completed, Relaxed);
                    progress.failed.store(job.failed, Relaxed);
                    if let State::Over(end) = job.state {
                        return Ok((end, now));
                    }
                }
                Err(LoadError::Batch { refused: false, .. }) if failures < MOST_FAILURES => failures += 1,
                Err(e) => return Err(e),
            }
            tokio::time::sleep(pause(start.elapsed())).await;
        }
    }

    async fn look(&self) -> Result<batch::Job, LoadError> {
        let id = self.id.as_deref().unwrap_or_default();
        let look = self.server.client.get(self.server.url(&format!("{}/{id}", self.server.jobs)));
        let body = self.server.call(look, "tell how the batch is").await?;
        batch::job(&body).map_err(|why| self.server.odd(why))
    }

    /// The server need not be told that it may stop.
    pub fn forget(mut self) {
        self.id = None;
    }

    /// Has the server stop. One that does not hear it is left alone.
    pub async fn give_up(mut self) {
        if let Some(id) = self.id.take() {
            give_up(&self.server, &id).await;
        }
    }
}

async fn give_up(server: &Server, id: &str) {
    let cancel = server.client.post(server.url(&format!("{}/{id}/cancel", server.jobs)));
    let _ = tokio::time::timeout(GIVING_UP, server.call(cancel, "give the batch up")).await;
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let server = self.server.clone();
        runtime.spawn(async move { give_up(&server, &id).await });
    }
}
