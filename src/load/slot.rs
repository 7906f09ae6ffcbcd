//! A slot: one connection and everything that one stream at a time needs. Slots share nothing that they write to.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::ReadBuf;

use super::Target;
use super::alarm::Alarm;
use super::endpoint::{Connection, Endpoint};
use super::http::{Head, HttpError, ResponseReader};
use super::marks::Marks;
use crate::stats::{Gaps, Progress, RequestRecord, Status};
use crate::wire::request::{self, RequestError, RequestSpec};
use crate::wire::{Api, ApiSpec, Dialect, rejection};
use crate::workload::prompts::PlannedRequest;

/// Bytes read at once.
const READ_SIZE: usize = 128 * 1024;
/// Most bytes of an error body that are kept.
const MAX_BODY: usize = 64 * 1024;
/// Longest time that the first, throw-away request on a new connection may take.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Token events between two updates of the progress counters.
const PROGRESS_STEP: u32 = 64;

thread_local! {
    /// One buffer per thread: bytes are read and handled without a pause in between.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// What all slots of a sample have in common, read-only.
pub struct Link {
    pub endpoint: Endpoint,
    pub api: ApiSpec,
    which: Api,
    model: String,
    temperature: f64,
    ignore_eos: bool,
    head: Vec<u8>,
    touch: Option<Vec<u8>>,
}

impl Link {
    pub fn new(endpoint: Endpoint, target: &Target, which: Api, temperature: f64, ignore_eos: bool) -> Link {
        let head = endpoint.post_head(&request::path(&target.api, which, &target.model, true));
        let touch = target.api.health.as_deref().map(|path| endpoint.get(path));
        let (api, model) = (target.api.clone(), target.model.clone());
        Link { endpoint, api, which, model, temperature, ignore_eos, head, touch }
    }

    /// Writes a whole HTTP request.
    pub fn encode(&self, planned: &PlannedRequest, out: &mut Vec<u8>) -> Result<(), RequestError> {
        let spec = RequestSpec {
            model: &self.model,
            prompt: &planned.prompt,
            max_tokens: planned.output_tokens,
            temperature: self.temperature,
            seed: planned.seed,
            ignore_eos: self.ignore_eos,
            stream: true,
        };
        let body = request::build(&self.api, self.which, &spec)?.body;
        out.clear();
        out.reserve(self.head.len() + body.len() + 16);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(&body);
        Ok(())
    }
}

/// The times that bound a request.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Clock points are counted from here.
    pub epoch: Instant,
    pub request_timeout: Duration,
    /// Requests that still run then are cancelled.
    pub cutoff: Option<Instant>,
}

impl Timing {
    /// Nanoseconds since the epoch.
    pub fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.epoch).as_nanos() as u64
    }
}

/// Why an exchange failed before its answer was complete.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("no complete answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("still running when the duration and its drain time were over")]
    Cutoff,
}

/// What the slots of a sample hand over in the end.
#[derive(Debug, Default)]
pub struct Output {
    pub requests: Vec<RequestRecord>,
    pub gaps: Gaps,
    pub connect_ns: Vec<u64>,
}

impl Output {
    /// Moves everything of `other` here.
    pub fn take_from(&mut self, other: &mut Output) {
        self.requests.append(&mut other.requests);
        self.gaps.take_from(&mut other.gaps);
        self.connect_ns.append(&mut other.connect_ns);
    }
}

/// One stream at a time.
pub struct Slot {
    link: Arc<Link>,
    connection: Option<Connection>,
    request: Vec<u8>,
    planned: Planned,
    reader: ResponseReader,
    marks: Marks,
    /// Body of an answer that is not a stream.
    body: Vec<u8>,
    start_ns: u64,
    end_ns: u64,
    wall_start_ns: i64,
    progress: Option<Arc<Progress>>,
    /// Tokens of this request that the progress counters know of.
    told: u32,
    /// Rings at scheduled starts.
    pub alarm: Alarm,
    pub output: Output,
}

#[derive(Clone, Copy, Debug, Default)]
struct Planned {
    index: u64,
    input: Option<u32>,
    output: u32,
}

impl Slot {
    pub fn new(link: Arc<Link>) -> Slot {
        Slot {
            connection: None,
            request: Vec::new(),
            planned: Planned::default(),
            reader: ResponseReader::default(),
            marks: Marks::new(link.api.dialect),
            body: Vec::new(),
            start_ns: 0,
            end_ns: 0,
            wall_start_ns: 0,
            progress: None,
            told: 0,
            alarm: Alarm::default(),
            output: Output::default(),
            link,
        }
    }

    /// Moves these counters from now on.
    pub fn report_to(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// Makes the next request ready to be sent.
    pub fn load(&mut self, index: u64, planned: &PlannedRequest) -> Result<(), RequestError> {
        self.planned = Planned { index, input: planned.input_tokens, output: planned.output_tokens };
        self.link.encode(planned, &mut self.request)
    }

    /// Sees to it that a connection is open, and that the server has taken it up: a new one carries a throw-away request
    /// for the health path first, where there is one. Returns whether it was open already.
    pub async fn ready(&mut self, touch: bool) -> std::io::Result<bool> {
        if self.connection.as_mut().is_some_and(Connection::is_fresh) {
            return Ok(true);
        }
        self.connection = None;
        self.connect().await?;
        if touch && self.link.touch.is_some() {
            let kept = tokio::time::timeout(TOUCH_TIMEOUT, self.touch()).await.unwrap_or(false);
            if !kept {
                self.connect().await?;
            }
        }
        Ok(false)
    }

    async fn connect(&mut self) -> std::io::Result<()> {
        let (connection, took) = self.link.endpoint.connect().await?;
        self.output.connect_ns.push(took.as_nanos() as u64);
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether the connection is good for another request afterwards.
    async fn touch(&mut self) -> bool {
        let (Some(bytes), Some(connection)) = (self.link.touch.clone(), self.connection.as_mut()) else { return true };
        self.reader.reset();
        self.body.clear();
        if connection.write_all(&bytes).await.is_err() {
            return false;
        }
        let received = poll_fn(|cx| self.receive(cx, None)).await;
        self.rest();
        received.is_ok() && self.connection.is_some()
    }

    /// Sends the loaded request and reads its answer.
    pub async fn exchange(&mut self, timing: &Timing, intended_ns: u64) -> RequestRecord {
        self.told = 0;
        if let Some(progress) = &self.progress {
            progress.sent.fetch_add(1, Relaxed);
        }
        self.begin(timing);
        let timeout = Instant::now() + timing.request_timeout;
        let deadline = timing.cutoff.map_or(timeout, |c| c.min(timeout));
        let attempts = tokio::time::timeout_at(deadline.into(), self.attempts(timing)).await;
        let result = attempts.unwrap_or_else(|_| {
            let cut = timing.cutoff.is_some_and(|c| c <= timeout);
            Err(if cut { Failure::Cutoff } else { Failure::Timeout(timing.request_timeout) })
        });
        if result.is_err() {
            self.end_ns = timing.now();
            self.connection = None;
        }
        let record = self.record(result, intended_ns);
        self.tell_end(&record);
        record
    }

    /// Tries once, and once more on a new connection when one that was kept turns out to be dead.
    async fn attempts(&mut self, timing: &Timing) -> Result<(), Failure> {
        loop {
            let kept = self.ready(false).await.map_err(Failure::Connect)?;
            self.begin(timing);
            let result = self.attempt(timing).await;
            let dead = matches!(result, Err(Failure::Io(_) | Failure::Http(HttpError::Closed)));
            if !(dead && kept && !self.reader.any()) {
                return result;
            }
            self.connection = None;
        }
    }

    fn begin(&mut self, timing: &Timing) {
        self.reader.reset();
        self.marks.reset();
        self.body.clear();
        self.wall_start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
        self.start_ns = timing.now();
    }

    async fn attempt(&mut self, timing: &Timing) -> Result<(), Failure> {
        let connection = self.connection.as_mut().expect("ready() left a connection");
        let written = connection.write_all(&self.request).await;
        let received = poll_fn(|cx| self.receive(cx, Some(timing))).await;
        // A server may refuse a request before it has read all of it: what it says then tells more than the broken pipe.
        if received.is_err() {
            written?;
        }
        received?;
        self.rest();
        Ok(())
    }

    /// Keeps the connection where it can be used again.
    fn rest(&mut self) {
        if self.reader.reusable() {
            if let Some(connection) = &mut self.connection {
                connection.rested();
            }
        } else {
            self.connection = None;
        }
    }

    /// Reads until the answer is complete. The stamp is taken right after each read; without `timing` nothing is kept.
    fn receive(&mut self, cx: &mut Context<'_>, timing: Option<&Timing>) -> Poll<Result<(), Failure>> {
        let Slot { connection, reader, marks, body, end_ns, progress, told, .. } = self;
        let Some(connection) = connection else { return Poll::Ready(Err(HttpError::Closed.into())) };
        READ_BUFFER.with_borrow_mut(|buffer| {
            loop {
                let mut read = ReadBuf::new(buffer);
                std::task::ready!(connection.poll_read(cx, &mut read))?;
                let now = timing.map_or(0, Timing::now);
                let bytes = read.filled();
                if bytes.is_empty() {
                    reader.eof()?;
                } else {
                    reader.feed(bytes, |head, part| keep(head, part, now, marks, body))?;
                }
                *end_ns = now;
                if reader.done() {
                    marks.end(now);
                    return Poll::Ready(Ok(()));
                }
                if marks.seen.token_events - *told >= PROGRESS_STEP
                    && let Some(progress) = progress
                {
                    progress.output_tokens.fetch_add(u64::from(marks.seen.token_events - *told), Relaxed);
                    *told = marks.seen.token_events;
                }
            }
        })
    }

    fn record(&mut self, result: Result<(), Failure>, intended_ns: u64) -> RequestRecord {
        let cut = matches!(result, Err(Failure::Cutoff));
        let error = self.verdict(result).err();
        let status = match error {
            None => Status::Ok,
            Some(_) if cut => Status::Cancelled,
            Some(_) => Status::Error,
        };
        let usage = self.marks.usage();
        let seen = &self.marks.seen;
        RequestRecord {
            index: self.planned.index,
            status,
            http_status: self.reader.head().map_or(0, |h| h.status),
            intended_ns: intended_ns.min(self.start_ns),
            start_ns: self.start_ns,
            first_token_ns: seen.first_token,
            first_visible_ns: seen.first_visible,
            last_token_ns: seen.last_token,
            end_ns: self.end_ns.max(self.start_ns),
            wall_start_ns: self.wall_start_ns,
            requested_input: self.planned.input,
            requested_output: self.planned.output,
            input_tokens: usage.input,
            output_tokens: usage.output,
            cached_tokens: usage.cached,
            token_events: seen.token_events,
            error: error.filter(|_| !cut).map(String::into_boxed_str),
        }
    }

    /// Whether the exchange is a completed request, and why not.
    fn verdict(&self, result: Result<(), Failure>) -> Result<(), String> {
        let seen = &self.marks.seen;
        if let Some(head) = self.reader.head() {
            if !(200..300).contains(&head.status) {
                return Err(self.refusal(head));
            }
            if is_json(head) && result.is_ok() {
                return Err(self.not_a_stream());
            }
        }
        if let Some(error) = &seen.error {
            return Err(format!("the server reported an error in its stream: {error}"));
        }
        match result {
            // All of the answer was there, only the end of the body was not.
            Err(Failure::Http(HttpError::Closed) | Failure::Timeout(_) | Failure::Io(_)) if seen.done => Ok(()),
            Err(e) => Err(e.to_string()),
            Ok(()) if self.ended_properly() => Ok(()),
            Ok(()) if seen.events == 0 => Err("the stream ended without any event".into()),
            Ok(()) => Err("the stream ended without a finish reason or [DONE]".into()),
        }
    }

    /// The OpenAI dialect says how a stream ends. Triton's has no such word: its stream ends with the body.
    fn ended_properly(&self) -> bool {
        let seen = &self.marks.seen;
        match self.link.api.dialect {
            Dialect::Openai => seen.done || seen.finish,
            Dialect::TritonVllm | Dialect::TritonPython | Dialect::TritonTrtllm => seen.events > 0,
        }
    }

    fn refusal(&self, head: &Head) -> String {
        let mut message = format!("HTTP {}", head.status);
        if let Some(location) = &head.location {
            return format!("{message}: redirected to {location}; use that as the endpoint");
        }
        let told = rejection::message(&self.body);
        if !told.is_empty() {
            message = format!("{message}: {told}");
        }
        match rejection::advice(self.link.api.dialect, head.status, &self.body) {
            Some(advice) => format!("{message} ({advice})"),
            None => message,
        }
    }

    fn not_a_stream(&self) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        match value.as_ref().and_then(|v| v.get("error")).filter(|e| !e.is_null()) {
            Some(error) => format!(
                "the server reported an error under HTTP 200: {}",
                rejection::message_of(error).unwrap_or_else(|| error.to_string())
            ),
            None => format!("the answer is JSON, not an event stream: {}", rejection::message(&self.body)),
        }
    }

    fn tell_end(&self, record: &RequestRecord) {
        let Some(progress) = &self.progress else { return };
        match record.status {
            Status::Ok => progress.done.fetch_add(1, Relaxed),
            Status::Error => progress.failed.fetch_add(1, Relaxed),
            Status::Cancelled => 0,
        };
        progress.output_tokens.fetch_add(record.output().saturating_sub(u64::from(self.told)), Relaxed);
        if let Some(ttft) = record.ttft_ns().filter(|_| record.status == Status::Ok) {
            progress.ttft_us_sum.fetch_add(ttft / 1000, Relaxed);
            progress.ttft_count.fetch_add(1, Relaxed);
        }
    }

    /// Keeps the record of a measured request, and the gaps of a completed one.
    pub fn keep(&mut self, record: RequestRecord) {
        if record.status == Status::Ok {
            self.output.gaps.take_from(&mut self.marks.seen.gaps);
        }
        self.output.requests.push(record);
    }
}

fn keep(head: &Head, part: &[u8], now: u64, marks: &mut Marks, body: &mut Vec<u8>) {
    if (200..300).contains(&head.status) && !is_json(head) {
        if let Err(e) = marks.feed(now, part) {
            marks.seen.error.get_or_insert_with(|| e.to_string());
        }
    } else {
        let room = MAX_BODY.saturating_sub(body.len());
        body.extend_from_slice(&part[..part.len().min(room)]);
    }
}

fn is_json(head: &Head) -> bool {
    head.content_type.starts_with("application/json")
}
