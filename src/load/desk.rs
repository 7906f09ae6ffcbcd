//! What the slots of one worker share: buffers, clock, and what they hand over in the end. Nothing here is seen by another
//! thread before the sample is over, but for the progress counters.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::Registry;

use super::link::Link;
use super::marks::Seen;
use crate::stats::{Gaps, Histogram, Progress, RequestRecord, Status};

/// Bytes read at once.
const READ_SIZE: usize = 128 * 1024;

/// The times that bound a request.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Clock points are counted from here.
    pub epoch: Instant,
    pub request_timeout: Duration,
    /// Requests that still run then are cancelled; nanoseconds after the epoch.
    pub cutoff: Option<u64>,
}

impl Timing {
    /// Nanoseconds since the epoch.
    pub fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.epoch).as_nanos() as u64
    }
}

/// What the slots of a worker hand over in the end.
#[derive(Debug, Default)]
pub struct Output {
    pub requests: Vec<RequestRecord>,
    pub gaps: Histogram,
    pub connect_ns: Vec<u64>,
    pub recv_lag: Histogram,
    /// Gaps by request, where they are kept.
    pub answers: Vec<(u64, Gaps)>,
}

/// Records moved at once where two lists become one, so that both do not stand in memory whole.
const MOVED_AT_ONCE: usize = 64 * 1024;

impl Output {
    /// Moves everything of `other` here.
    pub fn take_from(&mut self, mut other: Output) {
        if self.requests.is_empty() {
            self.requests = std::mem::take(&mut other.requests);
        }
        while !other.requests.is_empty() {
            let from = other.requests.len().saturating_sub(MOVED_AT_ONCE);
            self.requests.extend(other.requests.drain(from..));
            other.requests.shrink_to_fit();
        }
        self.gaps.merge(&other.gaps);
        self.connect_ns.append(&mut other.connect_ns);
        self.recv_lag.merge(&other.recv_lag);
        self.answers.append(&mut other.answers);
    }
}

/// Shared by the slots of one worker.
pub struct Desk {
    pub link: Arc<Link>,
    pub registry: Registry,
    pub timing: Timing,
    /// Bytes are read and handled without a pause in between, so one buffer does.
    pub buffer: Box<[u8]>,
    pub output: Output,
    /// Since when what is read now may have been there, nanoseconds after the epoch; only some waits are looked at.
    pub there_since: Option<u64>,
    /// The last look at the clock.
    pub stamp: u64,
    /// Token events that the progress counters do not know of yet.
    pub untold: u64,
    pub progress: Option<Arc<Progress>>,
    /// Keep the gaps of each request apart as well.
    pub keep_gaps: bool,
}

impl Desk {
    pub fn new(link: Arc<Link>, registry: Registry, timing: Timing) -> Desk {
        Desk {
            link,
            registry,
            timing,
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            output: Output::default(),
            there_since: None,
            stamp: 0,
            untold: 0,
            progress: None,
            keep_gaps: false,
        }
    }

    /// Takes the time at which bytes were read.
    #[inline]
    pub fn take_stamp(&mut self) -> u64 {
        self.stamp = self.timing.now();
        self.stamp
    }

    /// Says how long what had the last stamp may have lain there, once for each token in it: of many tokens that come late
    /// in one read, each is late.
    #[inline]
    pub fn note_lag(&mut self, tokens: u64) {
        if let Some(since) = self.there_since {
            self.output.recv_lag.record_n(self.stamp.saturating_sub(since), tokens.max(1));
        }
    }

    /// Moves the progress counters.
    pub fn tell_tokens(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold > 0
            && let Some(progress) = &self.progress
        {
            progress.output_tokens.fetch_add(untold, Relaxed);
        }
    }

    pub fn tell_sent(&self) {
        if let Some(progress) = &self.progress {
            progress.sent.fetch_add(1, Relaxed);
        }
    }

    pub fn tell_end(&self, record: &RequestRecord) {
        let Some(progress) = &self.progress else { return };
        match record.status {
            Status::Ok => progress.done.fetch_add(1, Relaxed),
            Status::Error => progress.failed.fetch_add(1, Relaxed),
            Status::Cancelled => 0,
        };
        // An event of several tokens has been told as one.
        progress.output_tokens.fetch_add(record.output().saturating_sub(u64::from(record.token_events)), Relaxed);
        if let Some(ttft) = record.ttft_ns().filter(|_| record.status == Status::Ok) {
            progress.ttft_us_sum.fetch_add(ttft / 1000, Relaxed);
            progress.ttft_count.fetch_add(1, Relaxed);
        }
    }

    /// Keeps the gaps of a completed request.
    pub fn keep_gaps(&mut self, index: u64, seen: &Seen) {
        seen.gaps.iter().for_each(|ns| self.output.gaps.record(ns));
        if self.keep_gaps {
            self.output.answers.push((index, seen.gaps.clone()));
        }
    }
}
