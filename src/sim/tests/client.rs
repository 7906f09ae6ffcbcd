//! The other end of the wire for tests: HTTP over a blocking socket, which shows chunks, statuses and closed connections as
//! they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

pub struct Client {
    tcp: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    /// The parts of a chunked body; the whole body as one part otherwise.
    pub chunks: Vec<String>,
    /// The body ended as HTTP says, not with the connection.
    pub complete: bool,
}

impl Reply {
    pub fn body(&self) -> String {
        self.chunks.concat()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body()).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The data of each server-sent event.
    pub fn data(&self) -> Vec<String> {
        let body = self.body();
        let events = body.split_terminator("\n\n");
        events.map(|e| e.strip_prefix("data: ").unwrap_or_else(|| panic!("{e:?}")).to_string()).collect()
    }

    /// The events that are JSON.
    pub fn events(&self) -> Vec<Value> {
        let json = self.data().into_iter().filter(|d| d != "[DONE]");
        json.map(|d| serde_json::from_str(&d).unwrap_or_else(|e| panic!("{e}: {d}"))).collect()
    }

    pub fn is_done(&self) -> bool {
        self.data().last().is_some_and(|d| d == "[DONE]")
    }
}

impl Client {
    pub fn connect(addr: SocketAddr) -> std::io::Result<Client> {
        let tcp = TcpStream::connect(addr)?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Client { tcp, buffer: Vec::new() })
    }

    pub fn get(addr: SocketAddr, path: &str) -> Reply {
        let mut client = Client::connect(addr).unwrap();
        client.send("GET", path, "");
        client.reply().unwrap()
    }

    pub fn post(addr: SocketAddr, path: &str, body: impl ToString) -> Reply {
        let mut client = Client::connect(addr).unwrap();
        client.send("POST", path, &body.to_string());
        client.reply().unwrap()
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {}\r\n\r\n", body.len());
        self.raw(&format!("{head}{body}"));
    }

    pub fn raw(&mut self, text: &str) {
        self.tcp.write_all(text.as_bytes()).unwrap();
    }

    /// Reads on; `false` at the end of the connection.
    pub fn fill(&mut self) -> bool {
        let mut part = [0; 4096];
        match self.tcp.read(&mut part) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&part[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => false,
            Err(e) => panic!("{e}"),
        }
    }

    /// Whether the server sends nothing for this long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.tcp.set_read_timeout(Some(time)).unwrap();
        let mut one = [0];
        let read = self.tcp.peek(&mut one);
        self.tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        matches!(read, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8(self.buffer[..at].to_vec()).unwrap();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    /// The head of the next response; `None` when the connection ends before it.
    pub fn head(&mut self) -> Option<Reply> {
        let mut reply = Reply::default();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(reply);
            }
            if reply.status == 0 {
                reply.status = line.split(' ').nth(1).unwrap().parse().unwrap();
            }
            reply.head.push_str(&line);
            reply.head.push('\n');
        }
    }

    /// The next chunk; `None` at the end of the body, or `Err` when the connection ends first.
    pub fn chunk(&mut self) -> Result<Option<String>, ()> {
        let size = usize::from_str_radix(&self.line().ok_or(())?, 16).unwrap();
        let mut chunk = self.take(size + 2).ok_or(())?;
        chunk.truncate(size);
        Ok((size > 0).then(|| String::from_utf8(chunk).unwrap()))
    }

    /// The next response; `None` when the connection ends before it.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head()?;
        if reply.head.contains("transfer-encoding: chunked") {
            reply.complete = loop {
                match self.chunk() {
                    Ok(Some(chunk)) => reply.chunks.push(chunk),
                    Ok(None) => break true,
                    Err(()) => break false,
                }
            };
        } else {
            let length = reply.head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
            let body = self.take(length.parse().unwrap());
            reply.complete = body.is_some();
            reply.chunks.push(String::from_utf8(body.unwrap_or_default()).unwrap());
        }
        Some(reply)
    }
}
