//! A server that reads HTTP/1.1 requests and answers each with the bytes of a script.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One thing that the server does.
pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Wait until this many requests have arrived.
    Gather(usize),
    Close,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// From 0, over all connections.
    pub number: usize,
    pub connection: usize,
    pub head: String,
    /// Null where it is no JSON.
    pub body: Value,
    pub text: String,
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Seen {
    Accepted,
    Request(Request),
}

type Script = Arc<dyn Fn(&Request) -> Vec<Step> + Send + Sync>;

pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Server {
        Server::start_with(None, script).await
    }

    /// The same over TLS.
    pub async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Server {
        Server::start_with(Some(acceptor), script).await
    }

    /// Counts the requests so far, from any thread.
    pub fn requests_seen(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let seen = self.seen.clone();
        move || seen.lock().unwrap().iter().filter(|s| matches!(s, Seen::Request(_))).count()
    }

    async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Script, _) = (Arc::new(script), seen.clone());
        tokio::spawn(async move {
            let count = Arc::new(AtomicUsize::new(0));
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                log.lock().unwrap().push(Seen::Accepted);
                stream.set_nodelay(true).unwrap();
                let (tls, script, log, count) = (tls.clone(), script.clone(), log.clone(), count.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, script, log, count).await,
                        // A client that does not trust the server hangs up here.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, connection, script, log, count).await;
                            }
                        }
                    }
                });
            }
        });
        Server { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        let request = |s| if let Seen::Request(r) = s { Some(r) } else { None };
        self.seen().into_iter().filter_map(request).collect()
    }

    pub fn connections(&self) -> usize {
        self.seen().iter().filter(|s| matches!(s, Seen::Accepted)).count()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: Script,
    log: Arc<Mutex<Vec<Seen>>>,
    count: Arc<AtomicUsize>,
) {
    let mut buffer = Vec::new();
    while let Some((head, text)) = read_request(&mut stream, &mut buffer).await {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let request = Request { number, connection, head, body, text };
        log.lock().unwrap().push(Seen::Request(request.clone()));
        for step in script(&request) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Gather(n) => {
                    while count.load(Ordering::SeqCst) < n {
                        tokio::task::yield_now().await;
                    }
                }
                Step::Close => return,
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let length = |line: &str| line.strip_prefix("content-length: ").map(|n| n.parse::<usize>().unwrap());
            let length = head.lines().find_map(length).unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let text = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Some((head, text));
            }
        }
        let mut part = [0; 65536];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&part[..n]),
            _ => return None,
        }
    }
}

/// A whole answer with a counted body.
pub fn counted(status: &str, content_type: &str, body: &str) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![Step::Send([head.as_bytes(), body.as_bytes()].concat())]
}

/// The head of a chunked stream.
pub fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

/// One chunk.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An event.
pub fn event(payload: &Value) -> Vec<u8> {
    format!("data: {payload}\n\n").into_bytes()
}

/// A completion chunk.
pub fn completion(text: &str, finish: Option<&str>) -> Value {
    json!({"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":text,"logprobs":null,"finish_reason":finish}],"usage":null})
}

pub fn usage(input: usize, output: u64) -> Value {
    json!({"id":"cmpl-1","object":"text_completion","choices":[],
        "usage":{"prompt_tokens":input,"completion_tokens":output,"total_tokens":input as u64 + output}})
}

/// The bytes of the stream that a good engine sends for a completion request.
pub fn good_stream(request: &Request) -> Vec<u8> {
    let n = request.body["max_tokens"].as_u64().unwrap_or(1);
    let input = request.body["prompt"].as_array().map_or(0, Vec::len);
    let mut out = Vec::new();
    for i in 0..n {
        out.extend(event(&completion(" word", (i + 1 == n).then_some("length"))));
    }
    out.extend(event(&usage(input, n)));
    out.extend(b"data: [DONE]\n\n");
    out
}

/// A good answer to a completion request, each event in a chunk of its own.
pub fn good(request: &Request) -> Vec<Step> {
    let mut bytes = stream_head();
    for event in good_stream(request).split_inclusive(|b| *b == b'\n').collect::<Vec<_>>().chunks(2) {
        bytes.extend(chunk(&event.concat()));
    }
    bytes.extend(LAST_CHUNK);
    vec![Step::Send(bytes)]
}
