//! A slot: one connection and everything that one stream at a time needs. A state machine: it is told to open, to send,
//! that its socket is ready, that its time is up; it never waits. What it comes to is an [`Outcome`].

use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event;

use super::connection::{Connection, Read};
use super::desk::{Desk, Timing};
use super::http::{Head, HttpError, ResponseReader};
use super::link::{Link, Loaded};
use super::marks::Marks;
use super::verdict::{Exchange, Failure};
use crate::stats::{RequestRecord, Status};
use crate::workload::CancelAfter;

/// Longest time that opening one connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that the first, throw-away request on a new connection may take.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an error body that are kept.
const MAX_BODY: usize = 64 * 1024;

/// What came of something that a slot was told to do.
#[derive(Debug)]
pub enum Outcome {
    /// The connection that was asked for is open, or cannot be.
    Opened(std::io::Result<()>),
    /// The request that was sent has its end.
    Ended(Box<RequestRecord>),
}

/// What a slot is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing. Its connection, where it has one, can carry a request.
    Resting,
    Opening(Then),
    /// A throw-away request for a path that costs nothing is on its way, so that the server has taken the connection up.
    Touching,
    Exchanging,
}

/// What an open connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Touch,
    Rest,
    Exchange,
}

/// One stream at a time.
pub struct Slot {
    token: Token,
    state: State,
    connection: Option<Connection>,
    opening: Opening,
    /// The request under way, or the last one.
    request: Loaded,
    /// Bytes of it that the connection has taken.
    written: usize,
    /// What writing it failed with: what the server says may tell more.
    write_error: Option<std::io::Error>,
    /// The connection was there before the request: it may have died unseen.
    kept: bool,
    reader: ResponseReader,
    marks: Marks,
    /// Body of an answer that is not a stream.
    body: Vec<u8>,
    intended_ns: u64,
    start_ns: u64,
    end_ns: u64,
    /// When the request is given up.
    deadline_ns: u64,
    /// When the client gives it up, and after how many token events.
    give_up_ns: u64,
    give_up_events: u32,
}

/// A connection that is being opened.
#[derive(Debug)]
struct Opening {
    begun: Instant,
    /// Number of the address.
    address: usize,
    deadline_ns: u64,
}

impl Slot {
    pub fn new(token: Token, link: &Link) -> Slot {
        let mut marks = Marks::new(link.api.dialect);
        marks.kept = link.keeps_answers.then(Vec::new);
        Slot {
            token,
            state: State::Resting,
            connection: None,
            opening: Opening { begun: Instant::now(), address: 0, deadline_ns: u64::MAX },
            request: Loaded::default(),
            written: 0,
            write_error: None,
            kept: false,
            reader: ResponseReader::default(),
            marks,
            body: Vec::new(),
            intended_ns: 0,
            start_ns: 0,
            end_ns: 0,
            deadline_ns: u64::MAX,
            give_up_ns: u64::MAX,
            give_up_events: u32::MAX,
        }
    }

    /// When [`expire`](Slot::expire) is due; `u64::MAX` while nothing is under way.
    pub fn deadline_ns(&self) -> u64 {
        match self.state {
            State::Resting => u64::MAX,
            State::Exchanging => self.deadline_ns,
            State::Touching | State::Opening(Then::Touch | Then::Rest) => self.opening.deadline_ns,
            State::Opening(Then::Exchange) => self.opening.deadline_ns.min(self.deadline_ns),
        }
    }

    /// The buffer of the last request, to be used again.
    pub fn used_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.request.bytes)
    }

    /// The stream of the last answer, where answers are kept.
    pub fn kept_answer(&self) -> &[u8] {
        self.marks.kept.as_deref().unwrap_or_default()
    }

    /// A connection is open and as good as new. Reads from it: not for the path of a token.
    pub fn is_open(&mut self) -> bool {
        self.connection.as_mut().is_some_and(|c| c.is_fresh() && c.is_silent())
    }

    /// Opens a connection in place of what there was. With `touch`, it carries a throw-away request for a path that costs nothing,
    /// where there is one.
    pub fn open(&mut self, desk: &mut Desk, touch: bool) -> Option<Outcome> {
        let then = if touch && desk.link.touch.is_some() { Then::Touch } else { Then::Rest };
        self.connect(desk, then)
    }

    /// Sends a request and reads its answer.
    pub fn send(&mut self, desk: &mut Desk, request: Loaded, intended_ns: u64) -> Option<Outcome> {
        let now = desk.timing.now();
        let timeout = now.saturating_add(desk.timing.request_timeout.as_nanos() as u64);
        self.deadline_ns = desk.timing.cutoff.map_or(timeout, |cutoff| cutoff.min(timeout));
        (self.give_up_ns, self.give_up_events) = match request.cancel {
            Some(CancelAfter::Time(after)) => (now.saturating_add(after.as_nanos() as u64), u32::MAX),
            Some(CancelAfter::Tokens(events)) => (u64::MAX, events),
            None => (u64::MAX, u32::MAX),
        };
        self.deadline_ns = self.deadline_ns.min(self.give_up_ns);
        self.request = request;
        self.intended_ns = intended_ns;
        desk.tell_sent();
        self.begin(now);
        if matches!(self.state, State::Opening(_)) {
            self.state = State::Opening(Then::Exchange);
            return None;
        }
        self.kept = self.connection.as_ref().is_some_and(Connection::is_fresh);
        if self.kept { self.start(desk) } else { self.connect(desk, Then::Exchange) }
    }

    /// The socket is ready, as far as the poll knows.
    pub fn ready(&mut self, desk: &mut Desk, event: &Event) -> Option<Outcome> {
        let connection = self.connection.as_mut()?;
        connection.read_closed |= event.is_read_closed() || event.is_error();
        match self.state {
            State::Exchanging => self.go_on(desk),
            State::Opening(then) => self.establish(desk, then),
            State::Touching => self.touch(desk),
            State::Resting => {
                // Bytes that nobody asked for, or its end.
                if !connection.is_silent() {
                    self.connection = None;
                }
                None
            }
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, desk: &mut Desk) -> Option<Outcome> {
        let now = desk.timing.now();
        match self.state {
            State::Resting => None,
            State::Touching => self.connect(desk, Then::Rest),
            State::Opening(Then::Exchange) | State::Exchanging if now >= self.deadline_ns => {
                let failure = match desk.timing.cutoff {
                    _ if self.give_up_ns <= self.deadline_ns => Failure::GivenUp,
                    Some(cutoff) if cutoff <= self.deadline_ns => Failure::Cutoff,
                    _ => Failure::Timeout(desk.timing.request_timeout),
                };
                self.fail(desk, failure)
            }
            State::Exchanging => None,
            State::Opening(then) => {
                let message = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                self.unconnected(desk, then, std::io::Error::new(std::io::ErrorKind::TimedOut, message))
            }
        }
    }

    fn connect(&mut self, desk: &mut Desk, then: Then) -> Option<Outcome> {
        let deadline_ns = desk.timing.now().saturating_add(CONNECT_TIMEOUT.as_nanos() as u64);
        self.opening = Opening { begun: Instant::now(), address: 0, deadline_ns };
        self.kept = false;
        self.connect_to_address(desk, then)
    }

    fn connect_to_address(&mut self, desk: &mut Desk, then: Then) -> Option<Outcome> {
        self.state = State::Opening(then);
        self.connection = None;
        let link = &desk.link;
        let address = link.endpoint.addresses()[self.opening.address];
        match Connection::open(address, link.endpoint.tls(), &desk.registry, self.token) {
            Ok(connection) => {
                self.connection = Some(connection);
                None
            }
            Err(e) => self.try_next_address(desk, then, e),
        }
    }

    fn try_next_address(&mut self, desk: &mut Desk, then: Then, error: std::io::Error) -> Option<Outcome> {
        self.opening.address += 1;
        if self.opening.address < desk.link.endpoint.addresses().len() {
            return self.connect_to_address(desk, then);
        }
        self.unconnected(desk, then, error)
    }

    fn unconnected(&mut self, desk: &mut Desk, then: Then, error: std::io::Error) -> Option<Outcome> {
        self.connection = None;
        if then == Then::Exchange {
            return self.fail(desk, Failure::Connect(error));
        }
        self.state = State::Resting;
        Some(Outcome::Opened(Err(error)))
    }

    fn establish(&mut self, desk: &mut Desk, then: Then) -> Option<Outcome> {
        let connection = self.connection.as_mut().expect("a connection is being opened");
        match connection.establish() {
            Ok(false) => return None,
            Ok(true) => {}
            Err(e) => return self.try_next_address(desk, then, e),
        }
        desk.output.connect_ns.push(self.opening.begun.elapsed().as_nanos() as u64);
        match then {
            Then::Exchange => self.start(desk),
            Then::Rest => {
                connection.rested();
                self.state = State::Resting;
                Some(Outcome::Opened(Ok(())))
            }
            Then::Touch => {
                self.state = State::Touching;
                self.opening.deadline_ns = desk.timing.now().saturating_add(TOUCH_TIMEOUT.as_nanos() as u64);
                self.reader.reset();
                self.body.clear();
                let touch = desk.link.touch.as_deref().unwrap_or_default();
                match connection.write(touch) {
                    // A few hundred bytes on a new connection fit.
                    Ok(n) if n == touch.len() => self.touch(desk),
                    _ => self.connect(desk, Then::Rest),
                }
            }
        }
    }

    /// Reads the answer to the throw-away request; where it did not go well, another connection goes without.
    fn touch(&mut self, desk: &mut Desk) -> Option<Outcome> {
        match self.receive(desk, false) {
            Ok(false) => None,
            Ok(true) if self.reader.reusable() => {
                self.rest();
                Some(Outcome::Opened(Ok(())))
            }
            Ok(true) | Err(_) => self.connect(desk, Then::Rest),
        }
    }

    fn begin(&mut self, now: u64) {
        self.reader.reset();
        self.marks.reset();
        self.body.clear();
        self.written = 0;
        self.write_error = None;
        self.start_ns = now;
    }

    /// Sends the request on the open connection. The clock starts here.
    fn start(&mut self, desk: &mut Desk) -> Option<Outcome> {
        self.state = State::Exchanging;
        self.begin(desk.timing.now());
        self.write();
        // Nothing can have arrived yet, and when it does, the poll tells; a connection that failed tells here.
        if self.write_error.is_some() { self.go_on(desk) } else { None }
    }

    /// Hands over what is left of the request.
    fn write(&mut self) {
        let connection = self.connection.as_mut().expect("an exchange has a connection");
        while self.written < self.request.bytes.len() && self.write_error.is_none() {
            match connection.write(&self.request.bytes[self.written..]) {
                Ok(0) => return,
                Ok(n) => self.written += n,
                Err(e) => self.write_error = Some(e),
            }
        }
    }

    fn go_on(&mut self, desk: &mut Desk) -> Option<Outcome> {
        if self.written < self.request.bytes.len() {
            self.write();
        } else if let Some(connection) = &mut self.connection
            && let Err(e) = connection.flush()
        {
            self.write_error.get_or_insert(e);
        }
        match self.receive(desk, true) {
            Ok(false) => None,
            Ok(true) => {
                self.rest();
                self.end(desk, Ok(()))
            }
            // A server may refuse a request before it has read all of it: what it says then tells more than the broken
            // pipe. Here it has said nothing.
            Err(failure) => {
                let failure = self.write_error.take().map_or(failure, Failure::Io);
                self.failed(desk, failure)
            }
        }
    }

    /// The exchange failed. A kept connection that was dead before the first byte of an answer is the peer's idle
    /// timeout, not a failure of the request: it is sent once more, on a new one.
    fn failed(&mut self, desk: &mut Desk, failure: Failure) -> Option<Outcome> {
        let dead = matches!(failure, Failure::Io(_) | Failure::Http(HttpError::Closed));
        if dead && self.kept && !self.reader.any() {
            self.connection = None;
            self.begin(desk.timing.now());
            return self.connect(desk, Then::Exchange);
        }
        self.fail(desk, failure)
    }

    fn fail(&mut self, desk: &mut Desk, failure: Failure) -> Option<Outcome> {
        self.end_ns = desk.timing.now();
        self.connection = None;
        self.end(desk, Err(failure))
    }

    /// Keeps the connection where it can be used again.
    fn rest(&mut self) {
        self.state = State::Resting;
        match &mut self.connection {
            Some(connection) if self.reader.reusable() => connection.rested(),
            _ => self.connection = None,
        }
    }

    /// Reads what is there. `true` when the answer is complete. The stamp is taken right after each read; of a
    /// throw-away request nothing is kept.
    fn receive(&mut self, desk: &mut Desk, measured: bool) -> Result<bool, Failure> {
        let Slot { connection, reader, marks, body, end_ns, give_up_events, .. } = self;
        let Some(connection) = connection else { return Err(HttpError::Closed.into()) };
        loop {
            let read = connection.read(&mut desk.buffer)?;
            let (n, more) = match read {
                Read::Drained => return Ok(false),
                Read::End => (0, false),
                Read::More(n) => (n, true),
                Read::Last(n) => (n, false),
            };
            let now = if measured { desk.take_stamp() } else { 0 };
            if read == Read::End {
                reader.eof()?;
            } else {
                let before = marks.seen.token_events;
                let mut broken = false;
                reader.feed(&desk.buffer[..n], |head, part| broken |= !keep(head, part, now, marks, body))?;
                // Nothing that comes after it can be read.
                if broken {
                    return Err(Failure::Http(HttpError::Closed));
                }
                let tokens = u64::from(marks.seen.token_events - before);
                desk.untold += tokens;
                if measured {
                    desk.note_lag(tokens);
                }
            }
            *end_ns = now;
            if reader.done() {
                marks.end(now);
                return Ok(true);
            }
            if marks.seen.token_events >= *give_up_events && measured {
                return Err(Failure::GivenUp);
            }
            if !more {
                return Ok(false);
            }
        }
    }

    fn end(&mut self, desk: &mut Desk, result: Result<(), Failure>) -> Option<Outcome> {
        self.state = State::Resting;
        let record = self.record(desk.link.api.dialect, result);
        desk.tell_end(&record);
        if record.status == Status::Ok {
            desk.keep_gaps(record.index, &self.marks.seen);
        }
        Some(Outcome::Ended(Box::new(record)))
    }

    fn record(&self, dialect: crate::wire::Dialect, result: Result<(), Failure>) -> RequestRecord {
        let cut = matches!(result, Err(Failure::Cutoff | Failure::GivenUp));
        let Slot { reader, marks, body, .. } = self;
        let seen = &marks.seen;
        let error = Exchange { dialect, reader, seen, body }.verdict(result).err();
        let status = match error {
            None => Status::Ok,
            Some(_) if cut => Status::Cancelled,
            Some(_) => Status::Error,
        };
        let usage = marks.usage();
        let count = |n: Option<u64>| n.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        RequestRecord {
            index: self.request.index,
            status,
            http_status: reader.head().map_or(0, |h| h.status),
            intended_ns: self.intended_ns.min(self.start_ns),
            start_ns: self.start_ns,
            first_token_ns: seen.first_token,
            first_visible_ns: seen.first_visible,
            last_token_ns: seen.last_token,
            end_ns: self.end_ns.max(self.start_ns),
            max_gap_us: u32::try_from(seen.gaps.iter().max().unwrap_or(0) / 1000).unwrap_or(u32::MAX),
            requested_input: self.request.input,
            requested_output: self.request.output,
            input_tokens: count(usage.input),
            output_tokens: count(usage.output),
            cached_tokens: count(usage.cached),
            token_events: seen.token_events,
            error: error.filter(|_| !cut).map(String::into_boxed_str),
        }
    }
}

/// `false` when the stream cannot be read on.
fn keep(head: &Head, part: &[u8], now: u64, marks: &mut Marks, body: &mut Vec<u8>) -> bool {
    if !head.is_stream() {
        let room = MAX_BODY.saturating_sub(body.len());
        body.extend_from_slice(&part[..part.len().min(room)]);
        return true;
    }
    let Err(e) = marks.feed(now, part) else { return true };
    marks.seen.error.get_or_insert_with(|| e.to_string());
    false
}

/// The clock of a phase in which nothing is measured.
pub fn unmeasured(request_timeout: Duration) -> Timing {
    Timing { epoch: Instant::now(), request_timeout, cutoff: None }
}
