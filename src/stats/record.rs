//! What the load generator hands over: one record per request and the gaps between token events. All times are
//! nanoseconds on one monotonic clock, counted from the start of the sample; see `docs/metrics.md`.

use super::{Histogram, TokenSource};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Error,
    /// Still running when the sample's duration and drain time were over.
    Cancelled,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Error => "error",
            Status::Cancelled => "cancelled",
        }
    }
}

/// One request. The clock points are ordered `intended ≤ start ≤ first_token ≤ last_token ≤ end`.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRecord {
    /// Number in the order of the workload, from 0.
    pub index: u64,
    pub status: Status,
    /// HTTP status, 0 when there was no answer.
    pub http_status: u16,
    /// When the schedule wanted it to start.
    pub intended_ns: u64,
    /// First byte handed to the socket.
    pub start_ns: u64,
    /// Arrival of the first event with generated text of any kind.
    pub first_token_ns: Option<u64>,
    /// Arrival of the first event with visible text.
    pub first_visible_ns: Option<u64>,
    /// Arrival of the last event with generated text.
    pub last_token_ns: Option<u64>,
    /// The answer was complete, or given up.
    pub end_ns: u64,
    /// Longest gap between two token events, microseconds.
    pub max_gap_us: u32,
    /// Prompt length that was asked for; `None` for the prompts of a data set.
    pub requested_input: Option<u32>,
    /// Answer length that was asked for.
    pub requested_output: u32,
    /// As the server counts them.
    pub input_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub cached_tokens: Option<u32>,
    /// Events with generated text.
    pub token_events: u32,
    /// Why it failed.
    pub error: Option<Box<str>>,
}

impl RequestRecord {
    /// Output tokens: the server's count, else the number of token events.
    pub fn output(&self) -> u64 {
        u64::from(self.output_tokens.unwrap_or(self.token_events))
    }

    pub fn output_source(&self) -> TokenSource {
        if self.output_tokens.is_some() { TokenSource::Usage } else { TokenSource::Events }
    }

    /// The server counted another number of output tokens than was asked for.
    pub fn wrong_length(&self) -> bool {
        self.output_tokens.is_some_and(|n| n != self.requested_output)
    }

    /// `first_token − start`.
    pub fn ttft_ns(&self) -> Option<u64> {
        self.first_token_ns.map(|t| t.saturating_sub(self.start_ns))
    }

    /// `first_visible − start`.
    pub fn ttfo_ns(&self) -> Option<u64> {
        self.first_visible_ns.map(|t| t.saturating_sub(self.start_ns))
    }

    /// `last_token − start`.
    pub fn e2el_ns(&self) -> Option<u64> {
        self.last_token_ns.map(|t| t.saturating_sub(self.start_ns))
    }

    /// `start − intended`: how late the client was.
    pub fn queue_delay_ns(&self) -> u64 {
        self.start_ns.saturating_sub(self.intended_ns)
    }

    /// Time per output token after the first. Undefined for one token, and where all tokens came in one event: no time
    /// between tokens was seen then.
    pub fn tpot_ns(&self) -> Option<f64> {
        let span = self.last_token_ns? - self.first_token_ns?;
        let tokens = self.output();
        (tokens > 1 && self.token_events > 1).then(|| span as f64 / (tokens - 1) as f64)
    }

    /// Mean gap between this request's token events; what a per-request `itl` limit is held against.
    pub fn mean_gap_ns(&self) -> Option<f64> {
        let span = self.last_token_ns? - self.first_token_ns?;
        (self.token_events > 1).then(|| span as f64 / f64::from(self.token_events - 1))
    }
}

/// Gaps between the token events of one answer, in order. A gap takes four bytes; longer than 4.29 s, sixteen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gaps {
    ns: Vec<u32>,
    /// Those that do not fit, by position.
    long: Vec<(usize, u64)>,
}

impl Gaps {
    pub fn push(&mut self, ns: u64) {
        if ns > u64::from(u32::MAX) {
            self.long.push((self.ns.len(), ns));
        }
        self.ns.push(u32::try_from(ns).unwrap_or(u32::MAX));
    }

    pub fn clear(&mut self) {
        self.ns.clear();
        self.long.clear();
    }

    pub fn len(&self) -> usize {
        self.ns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ns.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let mut long = self.long.iter().peekable();
        self.ns.iter().enumerate().map(move |(i, ns)| match long.next_if(|(at, _)| *at == i) {
            Some((_, ns)) => *ns,
            None => u64::from(*ns),
        })
    }
}

/// What kind of load a sample was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadShape {
    /// As many requests in flight as `concurrency`.
    Closed { concurrency: u32 },
    /// Requests start by a schedule, at most `cap` in flight.
    Open { rate: f64, cap: Option<u32> },
    /// All requests were handed over as one: none has times of its own.
    Job,
}

/// Everything a sample measured. Warm-up requests are not in it.
#[derive(Clone, Debug)]
pub struct SampleData {
    pub shape: LoadShape,
    /// Requests that were started, by `index`.
    pub requests: Vec<RequestRecord>,
    /// Gaps of the completed requests, pooled.
    pub gaps: Histogram,
    /// Time to open each connection that was opened for this sample.
    pub connect_ns: Vec<u64>,
    /// Wall clock at the start of the sample, nanoseconds since the Unix epoch.
    pub started_wall_ns: i64,
    /// Every request must have the output length that it asked for.
    pub exact_output: bool,
    /// CPU time of the busiest load worker over its wall time.
    pub client_cpu_fraction: Option<f64>,
    /// Time from the kernel having the bytes to the stamp, one value for each read.
    pub recv_lag: Histogram,
    /// Gaps by request (`index`), where they were asked for.
    pub answers: Vec<(u64, Gaps)>,
    /// Why no more requests were sent than were, where neither count nor duration was reached.
    pub stopped_early: Option<String>,
    /// A job of fixed size: from its submission to its last answer.
    pub makespan_ns: Option<u64>,
}

impl SampleData {
    /// Completed requests.
    pub fn completed(&self) -> impl Iterator<Item = &RequestRecord> {
        self.requests.iter().filter(|r| r.status == Status::Ok)
    }

    /// First `start` to last `last_token` of the measured requests, nanoseconds after the sample's start.
    pub fn window(&self) -> Option<(u64, u64)> {
        window(&self.requests)
    }
}

/// First `start` to last `last_token`, nanoseconds after the sample's start.
pub fn window(requests: &[RequestRecord]) -> Option<(u64, u64)> {
    let from = requests.iter().map(|r| r.start_ns).min()?;
    let to = requests.iter().filter_map(|r| r.last_token_ns).max()?;
    (to > from).then_some((from, to))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A completed request: first token `ttft` after `start`, last token `e2el` after it, one event a token.
    pub(crate) fn request(index: u64, start: u64, ttft: u64, e2el: u64, tokens: u32) -> RequestRecord {
        RequestRecord {
            index,
            status: Status::Ok,
            http_status: 200,
            intended_ns: start,
            start_ns: start,
            first_token_ns: Some(start + ttft),
            first_visible_ns: Some(start + ttft),
            last_token_ns: Some(start + e2el),
            end_ns: start + e2el,
            max_gap_us: 0,
            requested_input: Some(100),
            requested_output: tokens,
            input_tokens: Some(100),
            output_tokens: Some(tokens),
            cached_tokens: None,
            token_events: tokens,
            error: None,
        }
    }

    pub(crate) fn sample(shape: LoadShape, requests: Vec<RequestRecord>) -> SampleData {
        SampleData {
            shape,
            requests,
            gaps: Histogram::default(),
            connect_ns: Vec::new(),
            started_wall_ns: 1_795_000_000_000_000_000,
            exact_output: true,
            client_cpu_fraction: None,
            recv_lag: Histogram::default(),
            answers: Vec::new(),
            stopped_early: None,
            makespan_ns: None,
        }
    }

    #[test]
    fn a_record_leaves_room_in_its_two_hundred_bytes() {
        assert!(size_of::<RequestRecord>() <= 144, "{}", size_of::<RequestRecord>());
    }

    #[test]
    fn gaps_keep_their_order_and_their_length() {
        let all = [5, 9_000_000_000, 7, u64::from(u32::MAX), u64::MAX];
        let mut gaps = Gaps::default();
        all.iter().for_each(|ns| gaps.push(*ns));
        assert_eq!(gaps.iter().collect::<Vec<_>>(), all);
        assert_eq!(gaps.len(), 5);
    }

    #[test]
    fn tpot_is_undefined_without_a_gap() {
        let ms = 1_000_000;
        assert_eq!(request(0, 0, 10 * ms, 110 * ms, 11).tpot_ns(), Some(10.0 * ms as f64));
        assert_eq!(request(0, 0, 10 * ms, 10 * ms, 1).tpot_ns(), None);
        let burst = RequestRecord { token_events: 1, ..request(0, 0, 10 * ms, 10 * ms, 16) };
        assert_eq!(burst.tpot_ns(), None);
    }
}
