//! One connection of the null server: requests in, one answer at a time out.

use std::io::{Error, ErrorKind, Read, Result, Write};

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Served;
use super::bytes::{self, Bytes};

/// What a client asks for.
pub enum Asked {
    Nothing,
    Get(String),
    /// An answer of so many tokens.
    Tokens(u32),
}

pub struct Connection {
    socket: TcpStream,
    inbox: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    outbox: Vec<u8>,
    answer: Option<Answer>,
}

struct Answer {
    served: Served,
    all: u32,
}

impl Connection {
    pub fn new(mut socket: TcpStream, registry: &Registry, token: Token) -> Result<Connection> {
        socket.set_nodelay(true)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { socket, inbox: Vec::new(), outbox: Vec::new(), answer: None })
    }

    /// Reads what is there. One request at a time is expected; an end of the connection is an error.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Asked> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.inbox.extend_from_slice(&buffer[..n]);
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.answer.is_some() { Ok(Asked::Nothing) } else { self.request() }
    }

    fn request(&mut self) -> Result<Asked> {
        let bad = || Error::from(ErrorKind::InvalidData);
        let Some(head) = memmem::find(&self.inbox, b"\r\n\r\n") else { return Ok(Asked::Nothing) };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(&self.inbox).map_err(|_| bad())?;
        let length = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
        let length =
            length.map_or(Some(0), |h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok()).ok_or_else(bad)?;
        let whole = head + 4 + length;
        if self.inbox.len() < whole {
            return Ok(Asked::Nothing);
        }
        let asked = match request.method {
            Some("GET") => Asked::Get(request.path.unwrap_or_default().to_string()),
            _ => Asked::Tokens(max_tokens(&self.inbox[head + 4..whole])),
        };
        self.inbox.drain(..whole);
        Ok(asked)
    }

    /// Takes a request on: the head of its answer goes out at once, as engines do it.
    pub fn begin(&mut self, served: Served, all: u32) -> Result<()> {
        self.answer = Some(Answer { served, all });
        self.send(bytes::HEAD)
    }

    /// Writes the next events of the answer; gives the truth about it once it is complete. A socket that is full takes no
    /// more events before it has taken these.
    pub fn write(&mut self, bytes: &Bytes, now_ns: u64, keep_gaps: bool) -> Result<Option<Served>> {
        self.flush()?;
        let Connection { answer: Some(answer), outbox, .. } = self else { return Err(ErrorKind::NotFound.into()) };
        if !outbox.is_empty() {
            return Ok(None);
        }
        let Answer { served, all } = answer;
        let events = bytes.push(outbox, served.tokens, *all, served.sequence);
        if served.tokens == 0 {
            served.first_ns = now_ns;
        } else if keep_gaps {
            served.gaps.push(now_ns - served.last_ns);
        }
        served.last_ns = now_ns;
        served.tokens += events;
        let complete = served.tokens == *all;
        self.flush()?;
        Ok(if complete { self.answer.take().map(|a| a.served) } else { None })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.outbox.extend_from_slice(bytes);
        self.flush()
    }

    pub fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.outbox.len() {
                break Ok(());
            }
            match self.socket.write(&self.outbox[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        self.outbox.drain(..sent);
        result
    }
}

/// `max_tokens` of a body, 1 without.
fn max_tokens(body: &[u8]) -> u32 {
    const KEY: &[u8] = b"\"max_tokens\":";
    let Some(at) = memmem::rfind(body, KEY) else { return 1 };
    let digits = body[at + KEY.len()..].trim_ascii_start().iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0u32, |n, b| n.saturating_mul(10).saturating_add(u32::from(b - b'0'))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tokens_is_found() {
        assert_eq!(max_tokens(br#"{"prompt":[1],"max_tokens":200,"x":1}"#), 200);
        assert_eq!(max_tokens(br#"{"max_tokens": 7}"#), 7);
        assert_eq!(max_tokens(b"{}"), 1);
    }
}
