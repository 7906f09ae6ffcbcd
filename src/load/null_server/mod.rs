//! A server whose timing is known: every token is one write at a moment that it keeps. The load generator is held against
//! it, in calibration and in the benchmarks. One thread, one event loop, nothing behind it.

mod bytes;
mod connection;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use self::bytes::Bytes;
use self::connection::{Asked, Connection};
use super::timer::Timer;
use crate::stats::Gaps;

const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);
/// Writes of paced tokens between two looks at the sockets.
const WRITES: usize = 64;

/// When tokens come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// From the request to its first token.
    pub ttft: Duration,
    /// From a write to the next. With zero, tokens come as fast as the client takes them.
    pub itl: Duration,
    /// Token events in one write.
    pub per_segment: u32,
}

/// The truth about one request. Times are nanoseconds on the system's monotonic clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// Number of the request; its answer gives it as `usage.prompt_tokens`.
    pub sequence: u32,
    /// The request was read.
    pub read_ns: u64,
    /// The first token was written.
    pub first_ns: u64,
    /// The last token was written.
    pub last_ns: u64,
    pub tokens: u32,
    /// Between writes, where they are kept.
    pub gaps: Gaps,
}

/// Runs in a thread of its own until it is dropped or finished.
pub struct NullServer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<Vec<Served>>>,
}

impl NullServer {
    /// Starts one on a free port of the loopback interface.
    pub fn start(script: Script, keep_gaps: bool) -> Result<NullServer> {
        let over = Arc::new(AtomicBool::new(false));
        let server = Server::bind(script, keep_gaps, over.clone())?;
        let waker = Waker::new(server.poll.registry(), WAKE)?;
        let address = server.address()?;
        let thread = std::thread::Builder::new().name("null-server".into()).spawn(move || server.serve())?;
        Ok(NullServer { address, over, waker, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it and tells what it served.
    pub fn finish(mut self) -> Vec<Served> {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Vec<Served>> {
        self.over.store(true, Relaxed);
        let _ = self.waker.wake();
        self.thread.take()?.join().ok()
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The server itself, for a thread or process that has nothing else to do.
pub struct Server {
    listener: TcpListener,
    poll: Poll,
    timer: Timer,
    over: Arc<AtomicBool>,
    script: Script,
    keep_gaps: bool,
    bytes: Bytes,
    epoch: Instant,
    /// The epoch on the system's monotonic clock.
    epoch_ns: u64,
    connections: Vec<Option<Connection>>,
    /// Paced tokens that are to come: (nanoseconds after the epoch, connection).
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Unpaced: connections that an answer is on its way to.
    busy: Vec<usize>,
    sequence: u32,
    served: Vec<Served>,
    first_request_ns: Option<u64>,
}

impl Server {
    pub fn bind(script: Script, keep_gaps: bool, over: Arc<AtomicBool>) -> Result<Server> {
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let timer = Timer::new(poll.registry(), TIMER);
        let epoch = Instant::now();
        Ok(Server {
            listener,
            timer,
            poll,
            over,
            script,
            keep_gaps,
            bytes: Bytes::new(script.per_segment),
            epoch,
            epoch_ns: monotonic_ns(),
            connections: Vec::new(),
            due: BinaryHeap::new(),
            busy: Vec::new(),
            sequence: 0,
            served: Vec::new(),
            first_request_ns: None,
        })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is over.
    pub fn serve(mut self) -> Vec<Served> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        while !self.over.load(Relaxed) {
            let timeout = self.timeout();
            if let Err(e) = self.poll.poll(&mut events, timeout)
                && e.kind() != ErrorKind::Interrupted
            {
                break;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    TIMER => self.timer.rang(),
                    WAKE => {}
                    Token(number) => self.ready(number, &mut buffer),
                }
            }
            self.write_due();
            self.write_unpaced();
        }
        self.served
    }

    fn timeout(&mut self) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let Reverse((due_ns, _)) = self.due.peek()?;
        self.timer.sleep(self.epoch + Duration::from_nanos(*due_ns))
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let number = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
            if number == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[number] = Connection::new(socket, self.poll.registry(), Token(number)).ok();
        }
    }

    fn ready(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections[number].as_mut() else { return };
        let asked = connection.flush().and_then(|()| connection.read(buffer));
        match asked {
            Ok(Asked::Nothing) => {}
            Ok(Asked::Get(path)) => self.tell(number, &path),
            Ok(Asked::Tokens(tokens)) => self.begin(number, tokens),
            Err(_) => self.drop_connection(number),
        }
    }

    fn drop_connection(&mut self, number: usize) {
        self.connections[number] = None;
        self.busy.retain(|n| *n != number);
    }

    fn note_first_request(&mut self) -> u64 {
        let now = self.now_ns();
        self.first_request_ns.get_or_insert(self.epoch_ns + now);
        now
    }

    fn begin(&mut self, number: usize, tokens: u32) {
        let now = self.note_first_request();
        let Some(connection) = self.connections[number].as_mut() else { return };
        self.sequence += 1;
        let at = self.epoch_ns + now;
        let served =
            Served { sequence: self.sequence, read_ns: at, first_ns: 0, last_ns: 0, tokens: 0, gaps: Gaps::default() };
        let sent = connection.begin(served, tokens.max(1));
        if self.script.itl.is_zero() && self.script.ttft.is_zero() {
            self.busy.push(number);
        } else {
            self.due.push(Reverse((now + self.script.ttft.as_nanos() as u64, number)));
        }
        if sent.is_err() {
            self.drop_connection(number);
        }
    }

    /// Writes the paced tokens whose time has come.
    fn write_due(&mut self) {
        for _ in 0..WRITES {
            let now = self.now_ns();
            let Some(Reverse((due_ns, number))) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= now)
            else {
                return;
            };
            self.due.pop();
            if let Some(false) = self.write(number, now) {
                // From when it was due, so that no delay adds up.
                self.due.push(Reverse((due_ns + self.script.itl.as_nanos() as u64, number)));
            }
        }
    }

    /// Writes a segment to everyone who takes one.
    fn write_unpaced(&mut self) {
        let mut i = 0;
        while i < self.busy.len() {
            let number = self.busy[i];
            let now = self.now_ns();
            match self.write(number, now) {
                Some(false) => i += 1,
                _ => _ = self.busy.swap_remove(i),
            }
        }
    }

    /// One write of tokens. Whether the answer is complete; `None` when there is no such answer any more.
    fn write(&mut self, number: usize, now_ns: u64) -> Option<bool> {
        let connection = self.connections[number].as_mut()?;
        match connection.write(&self.bytes, self.epoch_ns + now_ns, self.keep_gaps) {
            Ok(None) => Some(false),
            Ok(Some(served)) => {
                self.served.push(served);
                Some(true)
            }
            Err(_) => {
                self.drop_connection(number);
                None
            }
        }
    }

    /// `GET /truth` gives what was served since it was last asked; other paths what a client may want to know.
    fn tell(&mut self, number: usize, path: &str) {
        let answer = match path {
            "/truth" => {
                let first = self.first_request_ns.take().unwrap_or(0);
                let served = std::mem::take(&mut self.served);
                let row = |s: Served| [u64::from(s.sequence), s.read_ns, s.first_ns, s.last_ns, u64::from(s.tokens)];
                let rows: Vec<[u64; 5]> = served.into_iter().map(row).collect();
                bytes::json(&serde_json::json!({ "first_request_ns": first, "served": rows }).to_string())
            }
            "/v1/models" => {
                self.note_first_request();
                bytes::models()
            }
            _ => bytes::json("{}"),
        };
        let sent = self.connections[number].as_mut().map(|c| c.send(&answer));
        if let Some(Err(_)) = sent {
            self.drop_connection(number);
        }
    }
}

/// Nanoseconds on the system's monotonic clock: the same in every process.
pub fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
