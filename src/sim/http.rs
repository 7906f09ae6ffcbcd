//! As much HTTP/1.1 as the simulator needs, over a socket that it fully controls: one write per token, keep-alive that
//! ends when the real server's does, connections that can be dropped at any byte.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::clock::{Clock, SystemClock};

/// Longest request head.
const MAX_HEAD: usize = 64 << 10;
/// Longest request body, as Triton's default.
const MAX_BODY: usize = 64 << 20;

/// A connection. Writing never waits: what the kernel does not take is kept and sent by [`Socket::drain`].
pub struct Socket {
    tcp: TcpStream,
    pending: RefCell<Vec<u8>>,
    more: Notify,
    broken: Cell<bool>,
}

impl Socket {
    /// Takes over a connection; small writes leave at once.
    pub async fn new(tcp: TcpStream) -> io::Result<Rc<Socket>> {
        tcp.set_nodelay(true)?;
        tcp.writable().await?;
        Ok(Rc::new(Socket { tcp, pending: RefCell::default(), more: Notify::new(), broken: Cell::new(false) }))
    }

    pub fn send(&self, bytes: &[u8]) {
        let mut pending = self.pending.borrow_mut();
        let mut rest = bytes;
        while pending.is_empty() && !rest.is_empty() && !self.broken.get() {
            match self.tcp.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.broken.set(true),
            }
        }
        if !rest.is_empty() && !self.broken.get() {
            pending.extend_from_slice(rest);
            self.more.notify_one();
        }
    }

    /// Sends what was kept, for ever; ends only when the connection is broken.
    pub async fn drain(&self) {
        while self.flush().await.is_ok() {
            self.more.notified().await;
        }
    }

    /// Sends what was kept until nothing is.
    pub async fn flush(&self) -> io::Result<()> {
        loop {
            if self.broken.get() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if self.pending.borrow().is_empty() {
                return Ok(());
            }
            self.tcp.writable().await?;
            let mut pending = self.pending.borrow_mut();
            match self.tcp.try_write(&pending) {
                Ok(n) => drop(pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    self.broken.set(true);
                    return Err(e);
                }
            }
        }
    }

    /// Appends what arrives to `buffer`; 0 when the client is done.
    async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            self.tcp.readable().await?;
            buffer.reserve(16 << 10);
            match self.tcp.try_read_buf(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

/// A request, read to its last byte.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub body: Vec<u8>,
    pub keep_alive: bool,
    /// When the last byte was read.
    pub received: Instant,
}

/// Why no request came.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended or stayed idle for too long.
    Closed,
    /// Not HTTP, or too much of it: the status to answer with.
    Refused(u16),
}

/// Reads requests from a connection, one after the other.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

struct Head {
    method: String,
    path: String,
    length: Option<usize>,
    chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
    size: usize,
}

impl Reader {
    /// The next request. `idle` bounds the wait for its first byte.
    pub async fn next(&mut self, socket: &Socket, idle: Option<Duration>) -> Result<Request, ReadError> {
        if self.buffer.is_empty() {
            let first = socket.receive(&mut self.buffer);
            let read = match idle {
                Some(idle) => tokio::time::timeout(idle, first).await.map_err(|_| ReadError::Closed)?,
                None => first.await,
            };
            if !matches!(read, Ok(1..)) {
                return Err(ReadError::Closed);
            }
        }
        let head = loop {
            match parse_head(&self.buffer)? {
                Some(head) => break head,
                None if self.buffer.len() > MAX_HEAD => return Err(ReadError::Refused(431)),
                None => self.fill(socket).await?,
            }
        };
        self.buffer.drain(..head.size);
        if head.expects_continue {
            socket.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let body = match head.length {
            _ if head.chunked => self.chunked_body(socket).await?,
            Some(length) => self.take(socket, length).await?,
            None => Vec::new(),
        };
        let received = Instant::now();
        Ok(Request { method: head.method, path: head.path, body, keep_alive: head.keep_alive, received })
    }

    /// Waits for bytes beyond the current request; `false` when the client has gone.
    pub async fn watch(&mut self, socket: &Socket) -> bool {
        if self.buffer.len() > MAX_HEAD {
            // Someone pipelines without reading answers: let them fill their own buffers.
            return std::future::pending().await;
        }
        self.fill(socket).await.is_ok()
    }

    async fn fill(&mut self, socket: &Socket) -> Result<(), ReadError> {
        match socket.receive(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            _ => Err(ReadError::Closed),
        }
    }

    async fn take(&mut self, socket: &Socket, length: usize) -> Result<Vec<u8>, ReadError> {
        if length > MAX_BODY {
            return Err(ReadError::Refused(413));
        }
        while self.buffer.len() < length {
            self.fill(socket).await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn chunked_body(&mut self, socket: &Socket) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let (at, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.fill(socket).await?,
                    Err(_) => return Err(ReadError::Refused(400)),
                }
            };
            let size =
                usize::try_from(size).ok().filter(|s| body.len() + s <= MAX_BODY).ok_or(ReadError::Refused(413))?;
            self.buffer.drain(..at);
            let chunk = self.take(socket, size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<Head>, ReadError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let size = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ReadError::Refused(400)),
    };
    let value = |name: &str| {
        let header = parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        header.map(|h| String::from_utf8_lossy(h.value).to_ascii_lowercase())
    };
    let length = match value("content-length") {
        Some(text) => Some(text.trim().parse().map_err(|_| ReadError::Refused(400))?),
        None => None,
    };
    let connection = value("connection").unwrap_or_default();
    let keep_alive = match parsed.version {
        Some(1) => !connection.contains("close"),
        _ => connection.contains("keep-alive"),
    };
    let target = parsed.path.unwrap_or("/");
    Ok(Some(Head {
        method: parsed.method.unwrap_or("").to_string(),
        path: target.split_once('?').map_or(target, |(path, _)| path).to_string(),
        length,
        chunked: value("transfer-encoding").is_some_and(|v| v.contains("chunked")),
        keep_alive,
        expects_continue: value("expect").is_some_and(|v| v.contains("100-continue")),
        size,
    }))
}

/// A whole response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Response {
    pub fn json(status: u16, body: impl Into<String>) -> Response {
        Response { status, content_type: "application/json", body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<String>) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    pub fn bytes(&self, server: Option<&str>, keep_alive: bool) -> Vec<u8> {
        let mut out = head(self.status, self.content_type, server, keep_alive);
        out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        out.extend_from_slice(self.body.as_bytes());
        out
    }
}

/// The head of a response whose body comes in chunks.
pub fn stream_head(status: u16, content_type: &str, server: Option<&str>, keep_alive: bool) -> Vec<u8> {
    let mut out = head(status, content_type, server, keep_alive);
    out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    out
}

fn head(status: u16, content_type: &str, server: Option<&str>, keep_alive: bool) -> Vec<u8> {
    let date = SystemClock.now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let mut out = format!("HTTP/1.1 {status} {}\r\ndate: {date}\r\n", reason(status));
    if let Some(server) = server {
        out.push_str(&format!("server: {server}\r\n"));
    }
    if !keep_alive {
        out.push_str("connection: close\r\n");
    }
    out.push_str(&format!("content-type: {content_type}\r\n"));
    out.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// Appends one chunk of a chunked body.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    use std::io::Write;
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
