//! One answer on its way to a client: token emissions of the engine become text, events and writes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Notify;

use super::engine::{Emission, Finish, block_hashes};
use super::fault::{Cut, StreamFaults};
use super::http::{self, LAST_CHUNK, Response, Socket};
use super::tokens::{Prose, mix};

/// What is asked of the engine, whichever API it came over.
#[derive(Debug)]
pub struct Ask {
    pub prompt: Prompt,
    /// Most tokens; `None` takes what fits.
    pub max_tokens: Option<u32>,
    pub min_tokens: u32,
    pub ignore_eos: bool,
    pub seed: Option<u64>,
    pub delivery: Delivery,
}

/// A tokenized prompt, as much of it as matters.
#[derive(Debug)]
pub struct Prompt {
    pub tokens: u32,
    /// Hashes of its full blocks.
    pub blocks: Vec<u64>,
    /// Of all tokens: what the answer is drawn from.
    pub digest: u64,
}

impl Prompt {
    pub fn of(tokens: &[u32]) -> Prompt {
        Prompt {
            tokens: tokens.len() as u32,
            blocks: block_hashes(tokens.iter().copied()),
            digest: tokens.iter().fold(0, |digest, token| mix(digest, u64::from(*token))),
        }
    }
}

/// How an answer reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One response with a length.
    Whole,
    /// An event stream of one event.
    OneEvent,
    /// An event per token.
    Events,
}

/// Token counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub prompt: u32,
    pub cached: u32,
    pub output: u32,
}

/// Tokens that go out together.
#[derive(Debug)]
pub struct Event<'a> {
    pub text: &'a str,
    /// All text of the answer, this event's included.
    pub so_far: &'a str,
    pub tokens: u32,
    pub totals: Totals,
    pub finish: Option<Finish>,
}

/// How an API words an answer. Every event written is `data: …` and an empty line.
pub trait Shape {
    /// What comes before the first token, at the time the request is accepted.
    fn accepted(&mut self, _out: &mut Events) {}
    fn event(&mut self, event: &Event<'_>, out: &mut Events);
    /// What comes after the last event.
    fn finished(&mut self, totals: Totals, out: &mut Events);
    /// The answer in one piece.
    fn whole(&mut self, text: &str, totals: Totals, finish: Finish) -> Response;
    /// An error after the stream has begun.
    fn error_event(&mut self, out: &mut Events);
    /// The same instead of an answer.
    fn error_response(&self) -> Response;
    /// The status line is sent when the request is accepted, not with the first event.
    fn head_at_once(&self) -> bool;
}

/// Events, each a chunk of the body.
#[derive(Default)]
pub struct Events {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Events {
    /// Adds an event; `write` appends its data, which has no line break.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        self.scratch.extend_from_slice(b"data: ");
        write(&mut self.scratch);
        self.scratch.extend_from_slice(b"\n\n");
        http::chunk(&mut self.bytes, &self.scratch);
    }
}

/// How far the connection may be used after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The connection is closed as it is.
    Dropped,
    /// Nothing more is ever sent.
    Stalled,
}

/// Records of the requests that have ended, shared with the server's owner.
pub type Traces = Arc<Mutex<Vec<RequestTrace>>>;

/// When the tokens of one request were handed to the kernel.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    /// Counted from 1 in order of arrival.
    pub number: u64,
    /// When the last byte of the request was read.
    pub received: Instant,
    /// Each token event: when its write began, and its tokens.
    pub events: Vec<(Instant, u32)>,
}

pub struct Answer {
    socket: Rc<Socket>,
    state: RefCell<State>,
    end: Cell<Option<End>>,
    pub ended: Notify,
}

struct State {
    shape: Box<dyn Shape>,
    prose: Prose,
    faults: StreamFaults,
    finish: Finish,
    delivery: Delivery,
    interval: u32,
    server: Option<&'static str>,
    keep_alive: bool,
    head_sent: bool,
    totals: Totals,
    text: String,
    /// Bytes of `text` that have gone out, and tokens that have not.
    sent_text: usize,
    held: u32,
    events: Events,
    trace: Option<(RequestTrace, Traces)>,
}

/// Everything that an [`Answer`] is made of.
pub struct Plan {
    pub shape: Box<dyn Shape>,
    pub prose: Prose,
    pub faults: StreamFaults,
    pub finish: Finish,
    pub delivery: Delivery,
    pub stream_interval: u32,
    pub server: Option<&'static str>,
    pub keep_alive: bool,
    pub prompt_tokens: u32,
    /// The record to keep, and where it goes when the answer ends.
    pub trace: Option<(RequestTrace, Traces)>,
}

impl Answer {
    /// Accepts a request: whatever the API sends at once is sent.
    pub fn begin(socket: Rc<Socket>, plan: Plan) -> Rc<Answer> {
        let mut state = State {
            shape: plan.shape,
            prose: plan.prose,
            faults: plan.faults,
            finish: plan.finish,
            delivery: plan.delivery,
            interval: plan.stream_interval,
            server: plan.server,
            keep_alive: plan.keep_alive,
            head_sent: false,
            totals: Totals { prompt: plan.prompt_tokens, ..Totals::default() },
            text: String::new(),
            sent_text: 0,
            held: 0,
            events: Events::default(),
            trace: plan.trace,
        };
        if state.streams() && state.shape.head_at_once() {
            state.head(200);
            state.shape.accepted(&mut state.events);
            state.send_events(&socket);
        }
        Rc::new(Answer { socket, state: RefCell::new(state), end: Cell::new(None), ended: Notify::new() })
    }

    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// The answer goes no further: its client is gone.
    pub fn abandon(&self) {
        self.state.borrow_mut().close_trace();
    }

    /// Sends what the engine made. Gives how the answer ended, once it has.
    pub fn deliver(&self, emission: &Emission) -> Option<End> {
        let mut state = self.state.borrow_mut();
        let end = state.deliver(&self.socket, emission);
        if end.is_some() {
            self.end.set(end);
            self.ended.notify_one();
        }
        end
    }
}

impl State {
    fn streams(&self) -> bool {
        self.delivery != Delivery::Whole
    }

    fn deliver(&mut self, socket: &Socket, emission: &Emission) -> Option<End> {
        self.totals.cached = emission.cached;
        let room = self.faults.cut.map_or(u32::MAX, |(n, _)| n - self.totals.output);
        let tokens = emission.tokens.min(room);
        let cut = self.faults.cut.filter(|_| tokens == room).map(|(_, cut)| cut);
        let finished = emission.finished && cut.is_none();
        self.take_tokens(tokens, finished);
        if self.streams() {
            self.send_tokens(socket, finished, cut.is_some());
        }
        if finished && !self.streams() {
            self.record(self.totals.output);
        }
        if finished || cut.is_some() {
            self.close_trace();
        }
        match cut {
            Some(Cut::Drop) => Some(End::Dropped),
            Some(Cut::Stall) => Some(End::Stalled),
            Some(Cut::Error) => {
                self.send_error(socket);
                Some(End::Complete)
            }
            None if finished => {
                self.send_end(socket);
                Some(End::Complete)
            }
            None => None,
        }
    }

    fn take_tokens(&mut self, tokens: u32, finished: bool) {
        for i in 0..tokens {
            let word = self.prose.next();
            // The token that ends an answer of the model's own will is counted and has no text.
            let is_eos = finished && i + 1 == tokens && self.finish == Finish::Stop && self.totals.output > 0;
            if !is_eos {
                self.text.push_str(word);
            }
            self.totals.output += 1;
        }
        self.held += tokens;
    }

    fn send_tokens(&mut self, socket: &Socket, finished: bool, cut: bool) {
        let first = self.totals.output == self.held;
        let each = self.delivery == Delivery::Events && (first || self.held >= self.interval);
        let due = each || finished || cut;
        if self.held == 0 || !due {
            return;
        }
        let event = Event {
            text: &self.text[self.sent_text..],
            so_far: &self.text,
            tokens: self.held,
            totals: self.totals,
            finish: finished.then_some(self.finish),
        };
        self.shape.event(&event, &mut self.events);
        self.sent_text = self.text.len();
        let tokens = std::mem::take(&mut self.held);
        self.record(tokens);
        self.head(200);
        self.send_events(socket);
    }

    fn record(&mut self, tokens: u32) {
        if let Some((trace, _)) = &mut self.trace {
            trace.events.push((Instant::now(), tokens));
        }
    }

    /// Hands the record over before the client can see the end, so that whoever saw it finds the record.
    fn close_trace(&mut self) {
        if let Some((trace, traces)) = self.trace.take() {
            traces.lock().expect("no holder of the traces panics").push(trace);
        }
    }

    fn send_end(&mut self, socket: &Socket) {
        if self.streams() {
            self.shape.finished(self.totals, &mut self.events);
            self.events.bytes.extend_from_slice(LAST_CHUNK);
            self.send_events(socket);
        } else {
            let response = self.shape.whole(&self.text, self.totals, self.finish);
            socket.send(&response.bytes(self.server, self.keep_alive));
        }
    }

    fn send_error(&mut self, socket: &Socket) {
        if !self.streams() {
            let response = self.shape.error_response();
            return socket.send(&response.bytes(self.server, self.keep_alive));
        }
        // Before the first event Triton can still say so in the status.
        self.head(400);
        self.shape.error_event(&mut self.events);
        self.events.bytes.extend_from_slice(LAST_CHUNK);
        self.send_events(socket);
    }

    /// Puts the head in front of the events, unless it has gone out.
    fn head(&mut self, status: u16) {
        if !std::mem::replace(&mut self.head_sent, true) {
            let content_type = "text/event-stream; charset=utf-8";
            let head = http::stream_head(status, content_type, self.server, self.keep_alive);
            self.events.bytes.splice(0..0, head);
        }
    }

    fn send_events(&mut self, socket: &Socket) {
        if !self.events.bytes.is_empty() {
            socket.send(&self.events.bytes);
            self.events.bytes.clear();
        }
    }
}
