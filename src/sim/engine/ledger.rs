//! What the engine counts about itself: the source of everything that the metrics endpoints show.

use std::collections::VecDeque;

use super::{Finish, Nanos};

/// Bounds in seconds, those of vLLM's request histograms.
const LATENCY: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const GAP: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const LENGTH: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5];
const STEP: &[f64] = &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// Iterations kept for an endpoint that drains them.
const MAX_ITERATIONS: usize = 1000;

/// A Prometheus histogram.
#[derive(Clone, Debug)]
pub struct Histogram {
    pub bounds: &'static [f64],
    /// Observations per bound, the last one above all bounds; not cumulative.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|b| *b < value)] += 1;
        self.sum += value;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// One step of the engine, as `trtllm-serve` reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Iteration {
    pub index: u64,
    pub latency: Nanos,
    pub active: usize,
    pub used_blocks: u64,
    pub max_blocks: u64,
}

/// The counters and gauges of one engine.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub running: usize,
    pub waiting: usize,
    pub kv_used: u64,
    pub kv_capacity: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_queries: u64,
    pub generation_tokens: u64,
    pub preemptions: u64,
    pub received: u64,
    pub finished_stop: u64,
    pub finished_length: u64,
    pub aborted: u64,
    /// Answered with an error before the engine saw them.
    pub failed: u64,
    pub steps: u64,
    pub ttft: Histogram,
    pub itl: Histogram,
    pub tpot: Histogram,
    pub e2e: Histogram,
    pub queue: Histogram,
    pub prefill: Histogram,
    pub decode: Histogram,
    pub prompt_length: Histogram,
    pub output_length: Histogram,
    pub step_tokens: Histogram,
    pub iterations: VecDeque<Iteration>,
}

/// The clock points of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub arrived: Nanos,
    pub scheduled: Nanos,
    pub first: Option<Nanos>,
    pub last: Nanos,
    pub prompt_tokens: u32,
    pub generated: u32,
}

impl Life {
    pub fn new(arrived: Nanos, prompt_tokens: u32) -> Life {
        Life { arrived, scheduled: arrived, first: None, last: arrived, prompt_tokens, generated: 0 }
    }
}

fn seconds(from: Nanos, to: Nanos) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

impl Ledger {
    pub fn new(kv_capacity: u64) -> Ledger {
        Ledger {
            running: 0,
            waiting: 0,
            kv_used: 0,
            kv_capacity,
            prompt_tokens: 0,
            cached_tokens: 0,
            prefix_queries: 0,
            generation_tokens: 0,
            preemptions: 0,
            received: 0,
            finished_stop: 0,
            finished_length: 0,
            aborted: 0,
            failed: 0,
            steps: 0,
            ttft: Histogram::new(LATENCY),
            itl: Histogram::new(GAP),
            tpot: Histogram::new(GAP),
            e2e: Histogram::new(LATENCY),
            queue: Histogram::new(LATENCY),
            prefill: Histogram::new(LATENCY),
            decode: Histogram::new(LATENCY),
            prompt_length: Histogram::new(LENGTH),
            output_length: Histogram::new(LENGTH),
            step_tokens: Histogram::new(STEP),
            iterations: VecDeque::new(),
        }
    }

    pub fn finished(&self) -> u64 {
        self.finished_stop + self.finished_length
    }

    pub(super) fn looked_up(&mut self, prompt_tokens: u32, cached: u32) {
        self.prefix_queries += u64::from(prompt_tokens);
        self.cached_tokens += u64::from(cached);
    }

    /// `tokens` tokens of the request are ready at `at`.
    pub(super) fn tokens(&mut self, life: &mut Life, tokens: u32, at: Nanos) {
        if life.first.is_none() {
            life.first = Some(at);
            self.prompt_tokens += u64::from(life.prompt_tokens);
            self.ttft.observe(seconds(life.arrived, at));
            self.queue.observe(seconds(life.arrived, life.scheduled));
            self.prefill.observe(seconds(life.scheduled, at));
        } else {
            self.itl.observe(seconds(life.last, at));
        }
        life.last = at;
        life.generated += tokens;
        self.generation_tokens += u64::from(tokens);
    }

    pub(super) fn finish(&mut self, life: &Life, finish: Finish) {
        match finish {
            Finish::Stop => self.finished_stop += 1,
            Finish::Length => self.finished_length += 1,
        }
        let first = life.first.unwrap_or(life.last);
        self.e2e.observe(seconds(life.arrived, life.last));
        self.decode.observe(seconds(first, life.last));
        if life.generated > 1 {
            self.tpot.observe(seconds(first, life.last) / f64::from(life.generated - 1));
        }
        self.prompt_length.observe(f64::from(life.prompt_tokens));
        self.output_length.observe(f64::from(life.generated));
    }

    pub(super) fn step(&mut self, latency: Nanos, active: usize, tokens: u64, kv_used: u64) {
        let block = u64::from(super::BLOCK);
        if self.iterations.len() == MAX_ITERATIONS {
            self.iterations.pop_front();
        }
        self.iterations.push_back(Iteration {
            index: self.steps,
            latency,
            active,
            used_blocks: kv_used / block,
            max_blocks: self.kv_capacity / block,
        });
        self.steps += 1;
        self.step_tokens.observe(tokens as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_fall_into_the_bucket_whose_bound_is_not_less() {
        let mut h = Histogram::new(&[1.0, 2.0]);
        for v in [0.5, 1.0, 1.5, 9.0] {
            h.observe(v);
        }
        assert_eq!(h.counts, [2, 1, 1]);
        assert_eq!((h.count(), h.sum), (4, 12.0));
    }

    #[test]
    fn a_request_is_told_apart_into_queue_prefill_and_decode() {
        let mut l = Ledger::new(1000);
        let mut life = Life::new(1_000_000_000, 10);
        life.scheduled = 2_000_000_000;
        l.tokens(&mut life, 1, 4_000_000_000);
        l.tokens(&mut life, 1, 5_000_000_000);
        l.finish(&life, Finish::Length);
        assert_eq!((l.queue.sum, l.prefill.sum, l.ttft.sum, l.e2e.sum), (1.0, 2.0, 3.0, 4.0));
        assert_eq!((l.itl.sum, l.tpot.sum, l.prompt_tokens, l.generation_tokens), (1.0, 1.0, 10, 2));
    }
}
