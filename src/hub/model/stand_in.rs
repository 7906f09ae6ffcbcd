//! A hub on the loopback for tests: serves repositories from memory as the real one does, until the test process ends.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::{Value, json};

/// The token that may read what is gated.
pub const TOKEN: &str = "hf_good";

/// A running stand-in.
#[derive(Clone)]
pub struct StandIn {
    /// For `HF_ENDPOINT`.
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By name: every state that it was in, the newest last.
    repos: HashMap<String, Vec<Repo>>,
    /// `GET /path`, with the range where one was asked for.
    requests: Vec<String>,
    /// Bytes after which the next answers to files are cut off, each once.
    cuts: Vec<usize>,
}

#[derive(Clone, Default)]
struct Repo {
    commit: String,
    gated: bool,
    files: Vec<File>,
}

#[derive(Clone)]
struct File {
    path: String,
    bytes: Vec<u8>,
    /// What the description goes by.
    described: Vec<u8>,
    size: usize,
}

impl StandIn {
    pub fn start() -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        StandIn { url, state }
    }

    /// Puts a repository there, or moves it. Commits are 40 times the digit.
    pub fn put(&self, name: &str, digit: char, files: &[(&str, &[u8])]) {
        let file = |(path, bytes): &(&str, &[u8])| File {
            path: (*path).into(),
            bytes: bytes.to_vec(),
            described: bytes.to_vec(),
            size: bytes.len(),
        };
        let repo = Repo { commit: digit.to_string().repeat(40), gated: false, files: files.iter().map(file).collect() };
        self.state.lock().unwrap().repos.entry(name.into()).or_default().push(repo);
    }

    pub fn gate(&self, name: &str) {
        self.state.lock().unwrap().repos.get_mut(name).unwrap().last_mut().unwrap().gated = true;
    }

    /// Has the description of a file claim another size.
    pub fn claim(&self, name: &str, path: &str, size: usize) {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.get_mut(name).unwrap().last_mut().unwrap();
        repo.files.iter_mut().find(|f| f.path == path).unwrap().size = size;
    }

    /// Has the content of a file differ from what its hash says.
    pub fn corrupt(&self, name: &str, path: &str) {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.get_mut(name).unwrap().last_mut().unwrap();
        repo.files.iter_mut().find(|f| f.path == path).unwrap().bytes.iter_mut().for_each(|b| *b ^= 1);
    }

    /// Cuts the next answer that holds a file off after so many bytes.
    pub fn cut(&self, after: usize) {
        self.state.lock().unwrap().cuts.push(after);
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn hex(algorithm: &'static ring::digest::Algorithm, parts: &[&[u8]]) -> String {
    let mut context = Context::new(algorithm);
    parts.iter().for_each(|p| context.update(p));
    context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Weights are large files, the others small ones.
fn described(file: &File) -> Value {
    let content = &file.described;
    let blob = hex(&SHA1_FOR_LEGACY_USE_ONLY, &[format!("blob {}\0", content.len()).as_bytes(), content]);
    let mut out = json!({"rfilename": file.path, "size": file.size, "blobId": blob});
    if file.path.ends_with(".safetensors") {
        out["lfs"] = json!({"sha256": hex(&SHA256, &[content]), "size": file.size, "pointerSize": 130});
    }
    out
}

/// The lines of a request's head; `None` when the connection ends.
pub fn read_head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim() {
            "" => return Some(head),
            text => head.push(text.to_string()),
        }
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let head = read_head(&mut reader)?;
        let header =
            |name: &str| head.iter().find_map(|l| l.to_lowercase().strip_prefix(name).map(|v| v.trim().to_string()));
        let range = header("range:");
        let start = range.as_ref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
        let authorized = header("authorization:").is_some_and(|a| a == format!("bearer {TOKEN}"));
        let mut words = head[0].split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        let (answer, cut) = {
            let mut state = state.lock().ok()?;
            state.requests.push(format!("{method} {path}{}", range.map(|r| format!(" {r}")).unwrap_or_default()));
            let answer = answer(&state, path, authorized, header("authorization:").is_some());
            let cut = if answer.file && method == "GET" { state.cuts.pop() } else { None };
            (answer, cut)
        };
        let Answer { status, code, body, .. } = answer;
        let body = body.get(start..).unwrap_or_default();
        let status = if start > 0 && status.starts_with("200") { "206 Partial Content" } else { status };
        let code = if code.is_empty() { String::new() } else { format!("X-Error-Code: {code}\r\n") };
        let text = format!("HTTP/1.1 {status}\r\n{code}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(text.as_bytes()).ok()?;
        if method != "HEAD" {
            stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())]).ok()?;
        }
        if cut.is_some() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return None;
        }
    }
}

struct Answer {
    status: &'static str,
    code: &'static str,
    body: Vec<u8>,
    file: bool,
}

fn answer(state: &State, path: &str, authorized: bool, has_token: bool) -> Answer {
    let refused = |status, code| Answer { status, code, body: Vec::new(), file: false };
    let path = path.split('?').next().unwrap_or(path);
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let Some((name, revision)) = rest.split_once("/revision/") else { return refused("404 Not Found", "") };
        let Some(states) = state.repos.get(name) else { return refused("401 Unauthorized", "RepoNotFound") };
        let found = states.iter().rev().find(|r| revision == "main" || revision == r.commit);
        let Some(repo) = found else { return refused("404 Not Found", "RevisionNotFound") };
        let siblings: Vec<Value> = repo.files.iter().map(described).collect();
        let gated = if repo.gated { json!("manual") } else { json!(false) };
        let body = json!({"sha": repo.commit, "gated": gated, "siblings": siblings}).to_string().into_bytes();
        return Answer { status: "200 OK", code: "", body, file: false };
    }
    let Some((name, rest)) = path.trim_start_matches('/').split_once("/resolve/") else {
        return refused("404 Not Found", "");
    };
    let commit = rest.split('/').next().unwrap_or_default();
    let Some(states) = state.repos.get(name) else { return refused("404 Not Found", "RepoNotFound") };
    let Some(repo) = states.iter().find(|r| r.commit == commit) else {
        return refused("404 Not Found", "RevisionNotFound");
    };
    if repo.gated && !authorized {
        return refused(if has_token { "403 Forbidden" } else { "401 Unauthorized" }, "GatedRepo");
    }
    let file = rest
        .split_once('/')
        .and_then(|(commit, path)| repo.files.iter().find(|f| commit == repo.commit && f.path == path));
    match file {
        Some(file) => Answer { status: "200 OK", code: "", body: file.bytes.clone(), file: true },
        None => refused("404 Not Found", "EntryNotFound"),
    }
}
