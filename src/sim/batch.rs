//! OpenAI's files and batches (option `batch_api`), as gateways in front of an engine offer them: each line of a job is sent
//! to this server's own online API, over the loopback, and meets whatever a client's request would.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::http::{Request, Response};
use super::hub::Hub;
use crate::clock::{Clock, SystemClock};

/// Lines of a job that are under way at the same time.
const AT_ONCE: usize = 1024;

/// Files and jobs of a server.
#[derive(Default)]
pub struct Desk {
    files: RefCell<HashMap<String, String>>,
    jobs: RefCell<HashMap<String, Job>>,
}

struct Job {
    input: String,
    endpoint: String,
    status: &'static str,
    /// Why it failed.
    complaint: Option<String>,
    total: usize,
    answered: Vec<String>,
    failed: Vec<String>,
    cancel: CancellationToken,
}

/// One request of a job.
struct Line {
    custom_id: String,
    url: String,
    body: Vec<u8>,
}

/// Whether a path is one of these.
pub fn is_path(path: &str) -> bool {
    ["/v1/files", "/v1/batches"].iter().any(|p| path == *p || path.strip_prefix(p).is_some_and(|r| r.starts_with('/')))
}

/// Answers a request to such a path.
pub fn answer(hub: &Rc<Hub>, request: &Request) -> Response {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match (request.method.as_str(), &path[1..]) {
        ("POST", ["files"]) => upload(&hub.batches, &request.body),
        ("GET", ["files", id]) => hub.batches.files.borrow().get(*id).map_or_else(unknown, |f| file(id, f)),
        ("GET", ["files", id, "content"]) => hub.batches.files.borrow().get(*id).map_or_else(unknown, |f| content(f)),
        ("POST", ["batches"]) => create(hub, &request.body),
        ("GET", ["batches", id]) => hub.batches.jobs.borrow().get(*id).map_or_else(unknown, |job| job.object(id)),
        ("POST", ["batches", id, "cancel"]) => cancel(&hub.batches, id),
        _ => refusal(405, "Method Not Allowed"),
    }
}

fn refusal(status: u16, message: &str) -> Response {
    let error = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": status}});
    Response::json(status, error.to_string())
}

fn unknown() -> Response {
    refusal(404, "there is no such object")
}

fn now() -> i64 {
    SystemClock.now().as_second()
}

fn file(id: &str, content: &str) -> Response {
    let object = json!({"id": id, "object": "file", "bytes": content.len(), "created_at": now(), "purpose": "batch",
                        "filename": "requests.jsonl", "status": "processed"});
    Response::json(200, object.to_string())
}

fn content(content: &str) -> Response {
    Response { status: 200, content_type: "application/octet-stream", body: content.to_string() }
}

/// Takes the file out of the form. Its boundary is what the form begins with.
fn upload(desk: &Desk, form: &[u8]) -> Response {
    let form = String::from_utf8_lossy(form);
    let Some((boundary, _)) = form.split_once("\r\n").filter(|(b, _)| b.starts_with("--")) else {
        return refusal(400, "the body is no form");
    };
    let boundary = format!("\r\n{boundary}");
    let whole = format!("\r\n{form}");
    let parts: Vec<(&str, &str)> = whole.split(&boundary).filter_map(|part| part.split_once("\r\n\r\n")).collect();
    let part = |name: &str| parts.iter().find(|(head, _)| head.contains(&format!("name=\"{name}\""))).map(|(_, b)| *b);
    if part("purpose") != Some("batch") {
        return refusal(400, "purpose must be batch");
    }
    let Some(text) = part("file") else { return refusal(400, "file: Field required") };
    let id = desk.keep(text.to_string());
    file(&id, text)
}

impl Desk {
    fn keep(&self, content: String) -> String {
        let mut files = self.files.borrow_mut();
        let id = format!("file-sim{}", files.len() + 1);
        files.insert(id.clone(), content);
        id
    }
}

fn create(hub: &Rc<Hub>, body: &[u8]) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let (Some(input), Some(endpoint)) = (body["input_file_id"].as_str(), body["endpoint"].as_str()) else {
        return refusal(400, "input_file_id and endpoint are required");
    };
    let Some(content) = hub.batches.files.borrow().get(input).cloned() else { return unknown() };
    let mut job = Job {
        input: input.into(),
        endpoint: endpoint.into(),
        status: "in_progress",
        complaint: None,
        total: 0,
        answered: Vec::new(),
        failed: Vec::new(),
        cancel: CancellationToken::new(),
    };
    let id = format!("batch-sim{}", hub.batches.jobs.borrow().len() + 1);
    match lines(&content, endpoint) {
        Ok(lines) => {
            job.total = lines.len();
            tokio::task::spawn_local(run(hub.clone(), id.clone(), lines, job.cancel.clone()));
        }
        Err(complaint) => (job.status, job.complaint) = ("failed", Some(complaint)),
    }
    let answer = job.object(&id);
    hub.batches.jobs.borrow_mut().insert(id, job);
    answer
}

fn lines(content: &str, endpoint: &str) -> Result<Vec<Line>, String> {
    let line = |(at, text): (usize, &str)| {
        let object: Value = serde_json::from_str(text).map_err(|e| format!("line {}: {e}", at + 1))?;
        let text = |key: &str| object[key].as_str().map(str::to_string).ok_or(format!("line {}: no `{key}`", at + 1));
        let (custom_id, url) = (text("custom_id")?, text("url")?);
        if url != endpoint {
            return Err(format!("line {}: its url is not that of the batch, {endpoint}", at + 1));
        }
        Ok(Line { custom_id, url, body: object["body"].to_string().into_bytes() })
    };
    content.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(line).collect()
}

/// Sends the lines until all are answered, or the job is cancelled.
async fn run(hub: Rc<Hub>, id: String, lines: Vec<Line>, cancel: CancellationToken) {
    let Some(addr) = hub.addr.get() else { return };
    let (jobs, name) = (&hub.batches.jobs, &id);
    let all = futures_util::stream::iter(lines).for_each_concurrent(AT_ONCE, |line| async move {
        let (good, text) = answered(addr, &line).await;
        if let Some(job) = jobs.borrow_mut().get_mut(name) {
            if good { job.answered.push(text) } else { job.failed.push(text) }
        }
    });
    let status = tokio::select! {
        () = all => "completed",
        () = cancel.cancelled() => "cancelled",
    };
    if let Some(job) = hub.batches.jobs.borrow_mut().get_mut(&id) {
        job.status = status;
        let files = [&job.answered, &job.failed].map(|lines| lines.concat());
        for (name, content) in [("output", &files[0]), ("errors", &files[1])] {
            hub.batches.files.borrow_mut().insert(format!("{id}-{name}"), content.clone());
        }
    }
}

/// The line of an answer, and whether it is a good one.
async fn answered(addr: SocketAddr, line: &Line) -> (bool, String) {
    let mut out = json!({"id": format!("req-{}", line.custom_id), "custom_id": line.custom_id, "response": null,
                         "error": null});
    let good = match exchange(addr, line).await {
        Ok((status, body)) => {
            out["response"] = json!({"status_code": status, "request_id": out["id"], "body": body});
            status == 200
        }
        Err(e) => {
            out["error"] = json!({"code": "internal_error", "message": e.to_string()});
            false
        }
    };
    (good, format!("{out}\n"))
}

async fn exchange(addr: SocketAddr, line: &Line) -> io::Result<(u64, Value)> {
    let mut tcp = TcpStream::connect(addr).await?;
    let Line { url, body, .. } = line;
    let head = format!(
        "POST {url} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    tcp.write_all(head.as_bytes()).await?;
    tcp.write_all(body).await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the engine closed the connection");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(cut)?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| body.into())))
}

impl Job {
    fn object(&self, id: &str) -> Response {
        let over = matches!(self.status, "completed" | "cancelled");
        let file = |name: &str, lines: &[String]| (over && !lines.is_empty()).then(|| format!("{id}-{name}"));
        let errors = self.complaint.as_ref().map(|m| json!({"object": "list", "data": [{"message": m}]}));
        let object = json!({
            "id": id, "object": "batch", "endpoint": self.endpoint, "input_file_id": self.input,
            "completion_window": "24h", "status": self.status, "created_at": now(), "errors": errors,
            "output_file_id": file("output", &self.answered), "error_file_id": file("errors", &self.failed),
            "request_counts": {"total": self.total, "completed": self.answered.len(), "failed": self.failed.len()},
        });
        Response::json(200, object.to_string())
    }
}

fn cancel(desk: &Desk, id: &str) -> Response {
    let mut jobs = desk.jobs.borrow_mut();
    let Some(job) = jobs.get_mut(id) else { return unknown() };
    if job.status == "in_progress" {
        job.status = "cancelling";
        job.cancel.cancel();
    }
    job.object(id)
}
