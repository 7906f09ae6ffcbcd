//! Continuous batching: in each step every running sequence yields one token, and what is left of the step's token budget
//! goes to prompts, in chunks. A step's length is linear in what it does (see [`Costs`]). With [`Policy::Static`], a batch
//! is closed once it runs, padded to its longest prompt, and holds the engine until its longest answer ends.

use std::collections::{HashMap, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ledger::Life;
use super::{BLOCK, Emission, Job, Ledger, Nanos, PrefixCache};
use crate::sim::preset::Costs;

/// How batches are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Continuous,
    /// Waits this long for a batch to fill.
    Static {
        fill: Nanos,
    },
}

/// What a batching engine can do, and what it costs.
#[derive(Clone, Copy, Debug)]
pub struct BatchingConfig {
    pub costs: Costs,
    pub policy: Policy,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: u32,
    pub tokens_per_step: u32,
    /// Relative standard deviation of a step's length.
    pub noise: f64,
    pub seed: u64,
}

/// An engine that batches: requests in, tokens out, at times that its cost model gives.
#[derive(Debug)]
pub struct Batching {
    config: BatchingConfig,
    capacity: u64,
    kv_used: u64,
    waiting: VecDeque<u64>,
    /// In order of admission; the last one is the first to be preempted.
    running: Vec<u64>,
    seqs: HashMap<u64, Seq>,
    step: Option<Step>,
    /// A static batch: its rows, and the width that all are padded to.
    padded: Option<(u64, u64)>,
    /// When a static batch stops waiting for more rows.
    fill_until: Option<Nanos>,
    rng: ChaCha8Rng,
    pub(super) prefix: PrefixCache,
    ledger: Ledger,
}

#[derive(Debug)]
struct Seq {
    job: Job,
    life: Life,
    cached: u32,
    /// Tokens of context whose KV is there.
    computed: u32,
    /// Tokens of context that a prefill has to make; more than the prompt after a preemption.
    target: u32,
    /// KV tokens reserved.
    kv: u64,
    admitted: bool,
}

#[derive(Debug)]
struct Step {
    ends: Nanos,
    latency: Nanos,
    work: Vec<(u64, Work)>,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Decode(u32),
    Prefill(u32),
}

fn blocks_of(tokens: u64) -> u64 {
    tokens.next_multiple_of(u64::from(BLOCK))
}

impl Seq {
    fn left(&self) -> u32 {
        self.job.output_tokens - self.life.generated
    }

    fn decoding(&self) -> bool {
        self.computed >= self.target
    }
}

impl Batching {
    pub fn new(config: BatchingConfig, prefix: PrefixCache) -> Batching {
        let capacity = blocks_of(config.costs.kv_tokens);
        Batching {
            config,
            capacity,
            kv_used: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            seqs: HashMap::new(),
            step: None,
            padded: None,
            fill_until: None,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            prefix,
            ledger: Ledger::new(capacity),
        }
    }

    pub fn submit(&mut self, job: Job, now: Nanos) {
        self.ledger.received += 1;
        let life = Life::new(now, job.prompt_tokens);
        let target = job.prompt_tokens;
        self.waiting.push_back(job.id);
        self.seqs.insert(job.id, Seq { job, life, cached: 0, computed: 0, target, kv: 0, admitted: false });
        if self.step.is_none() {
            self.begin(now);
        }
    }

    pub fn cancel(&mut self, id: u64) {
        if let Some(seq) = self.seqs.remove(&id) {
            self.kv_used -= seq.kv;
            self.running.retain(|r| *r != id);
            self.waiting.retain(|w| *w != id);
            self.ledger.aborted += 1;
        }
    }

    /// When [`advance`](Self::advance) has something to do next; `None` while idle.
    pub fn deadline(&self) -> Option<Nanos> {
        self.step.as_ref().map(|s| s.ends).or(self.fill_until)
    }

    /// Lets time pass up to `now`, and stops early when `out` holds `limit` emissions.
    pub fn advance(&mut self, now: Nanos, limit: usize, out: &mut Vec<Emission>) {
        while out.len() < limit {
            match self.deadline() {
                Some(at) if at <= now => {
                    if let Some(step) = self.step.take() {
                        self.complete(step, out);
                    }
                    self.begin(at);
                }
                _ => return,
            }
        }
    }

    pub fn ledger(&mut self) -> &mut Ledger {
        self.ledger.running = self.running.len();
        self.ledger.waiting = self.waiting.len();
        self.ledger.kv_used = self.kv_used;
        &mut self.ledger
    }

    /// Plans the step that starts at `t`, if there is anything to do.
    fn begin(&mut self, t: Nanos) {
        self.fill_until = None;
        // A late driver may bring jobs that arrived after the step it is completing.
        let t = match self.waiting.front() {
            Some(id) if self.running.is_empty() => t.max(self.seqs[id].life.arrived),
            _ => t,
        };
        let mut work = Vec::new();
        let mut budget = self.config.max_num_batched_tokens;
        match self.config.policy {
            Policy::Continuous => {
                let preempted = self.plan_decodes(&mut work, &mut budget);
                self.plan_running_prefills(&mut work, &mut budget);
                if !preempted {
                    self.admit(t, &mut work, &mut budget);
                }
            }
            Policy::Static { fill } => {
                if self.running.is_empty() && !self.close_batch(t, fill) {
                    return;
                }
                self.plan_static(&mut work);
            }
        }
        if work.is_empty() {
            return;
        }
        let latency = self.latency(&work);
        self.step = Some(Step { ends: t + latency, latency, work });
    }

    /// Every sequence past its prefill takes its next tokens; when the KV cache is full, the newest one is put back.
    fn plan_decodes(&mut self, work: &mut Vec<(u64, Work)>, budget: &mut u32) -> bool {
        let mut preempted = false;
        let mut i = 0;
        while i < self.running.len() {
            let id = self.running[i];
            let seq = &self.seqs[&id];
            if !seq.decoding() {
                i += 1;
                continue;
            }
            let tokens = self.config.tokens_per_step.min(seq.left());
            let need = blocks_of(u64::from(seq.job.prompt_tokens + seq.life.generated + tokens));
            while self.kv_used - self.seqs[&id].kv + need > self.capacity && self.running.len() > 1 {
                preempted = true;
                self.preempt_newest();
                if self.running.len() == i {
                    return true;
                }
            }
            self.reserve(id, need);
            *budget = budget.saturating_sub(tokens);
            work.push((id, Work::Decode(tokens)));
            i += 1;
        }
        preempted
    }

    fn plan_running_prefills(&mut self, work: &mut Vec<(u64, Work)>, budget: &mut u32) {
        for id in &self.running {
            let seq = &self.seqs[id];
            let chunk = seq.target.saturating_sub(seq.computed).min(*budget);
            if chunk > 0 {
                *budget -= chunk;
                work.push((*id, Work::Prefill(chunk)));
            }
        }
    }

    /// Lets waiting requests in, in order, while there is room for them.
    fn admit(&mut self, t: Nanos, work: &mut Vec<(u64, Work)>, budget: &mut u32) {
        while *budget > 0 && self.running.len() < self.config.max_num_seqs {
            let Some(&id) = self.waiting.front() else { return };
            let seq = &self.seqs[&id];
            let need = blocks_of(u64::from(seq.target) + 1);
            let full = self.kv_used + need > self.capacity && !self.running.is_empty();
            if full || seq.life.arrived > t {
                return;
            }
            self.waiting.pop_front();
            self.schedule(id, t);
            self.reserve(id, need);
            let seq = &self.seqs[&id];
            let chunk = (seq.target - seq.computed).min(*budget);
            *budget -= chunk;
            work.push((id, Work::Prefill(chunk)));
        }
    }

    /// Puts a request into the batch, looking up its prompt in the prefix cache.
    fn schedule(&mut self, id: u64, t: Nanos) {
        let seq = self.seqs.get_mut(&id).expect("a waiting request is known");
        let cached = self.prefix.lookup(&seq.job.blocks, seq.job.prompt_tokens);
        seq.computed = cached;
        if !seq.admitted {
            seq.admitted = true;
            seq.cached = cached;
            seq.life.scheduled = t;
            if self.prefix.enabled() {
                self.ledger.looked_up(seq.job.prompt_tokens, cached);
            }
        }
        self.running.push(id);
    }

    fn reserve(&mut self, id: u64, tokens: u64) {
        let seq = self.seqs.get_mut(&id).expect("a running request is known");
        self.kv_used = self.kv_used - seq.kv + tokens;
        seq.kv = tokens;
    }

    /// The newest running request loses its KV and waits, first in line, to compute it again.
    fn preempt_newest(&mut self) {
        let id = self.running.pop().expect("preemption needs a running request");
        let seq = self.seqs.get_mut(&id).expect("a running request is known");
        self.kv_used -= seq.kv;
        seq.kv = 0;
        seq.computed = 0;
        seq.target = seq.job.prompt_tokens + seq.life.generated;
        self.waiting.push_front(id);
        self.ledger.preemptions += 1;
    }

    /// Whether a static batch can start at `t`; if so, moves its requests in.
    fn close_batch(&mut self, t: Nanos, fill: Nanos) -> bool {
        self.padded = None;
        let Some(first) = self.waiting.front() else { return false };
        let full_at = self.seqs[first].life.arrived + fill;
        if self.waiting.len() < self.config.max_num_seqs && t < full_at {
            self.fill_until = Some(full_at);
            return false;
        }
        while self.running.len() < self.config.max_num_seqs {
            let Some(&id) = self.waiting.front() else { break };
            let seq = &self.seqs[&id];
            let need = blocks_of(u64::from(seq.job.prompt_tokens + seq.job.output_tokens));
            if seq.life.arrived > t || self.kv_used + need > self.capacity && !self.running.is_empty() {
                break;
            }
            self.waiting.pop_front();
            self.schedule(id, t);
            self.reserve(id, need);
        }
        let width = self.running.iter().map(|id| self.seqs[id].job.prompt_tokens).max().unwrap_or(0);
        self.padded = Some((self.running.len() as u64, u64::from(width)));
        true
    }

    fn plan_static(&mut self, work: &mut Vec<(u64, Work)>) {
        for id in &self.running {
            let seq = &self.seqs[id];
            work.push((*id, if seq.decoding() { Work::Decode(1) } else { Work::Prefill(seq.target) }));
        }
    }

    fn latency(&mut self, work: &[(u64, Work)]) -> Nanos {
        let (mut decoding, mut context, mut prefilled) = (0u64, 0u64, 0u64);
        for (id, work) in work {
            match work {
                Work::Decode(tokens) => {
                    decoding += u64::from(*tokens);
                    let seq = &self.seqs[id];
                    context += u64::from(seq.job.prompt_tokens + seq.life.generated);
                }
                Work::Prefill(chunk) => prefilled += u64::from(*chunk),
            }
        }
        if let Some((rows, width)) = self.padded {
            // Rows that are done, and padding, cost as much as the others.
            let made = work.iter().map(|(id, _)| u64::from(self.seqs[id].life.generated)).max().unwrap_or(0);
            (decoding, context, prefilled) =
                if made > 0 { (rows, rows * (width + made), 0) } else { (0, 0, rows * width) };
        }
        let c = &self.config.costs;
        let seconds =
            c.base + c.per_seq * decoding as f64 + c.per_kv * context as f64 + prefilled as f64 / c.prefill_rate;
        ((seconds * self.jitter() * 1e9).round() as Nanos).max(1)
    }

    /// 1, or with noise a normal variate around it, cut at three deviations.
    fn jitter(&mut self) -> f64 {
        if self.config.noise == 0.0 {
            return 1.0;
        }
        // The sum of twelve uniform variates is close enough to normal.
        let z: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
        (1.0 + self.config.noise * z.clamp(-3.0, 3.0)).max(0.05)
    }

    /// Hands out what the step made.
    fn complete(&mut self, step: Step, out: &mut Vec<Emission>) {
        let mut tokens_done = 0;
        for (id, work) in step.work {
            // Cancelled while the step ran.
            let Some(seq) = self.seqs.get_mut(&id) else { continue };
            let tokens = match work {
                Work::Decode(tokens) => tokens,
                Work::Prefill(chunk) => {
                    tokens_done += u64::from(chunk);
                    seq.computed = (seq.computed + chunk).min(seq.target);
                    if !seq.decoding() {
                        continue;
                    }
                    self.prefix.insert(&seq.job.blocks);
                    1
                }
            };
            tokens_done += u64::from(tokens);
            self.ledger.tokens(&mut seq.life, tokens, step.ends);
            let finished = seq.left() == 0;
            out.push(Emission { id, at: step.ends, tokens, cached: seq.cached, finished });
            if finished {
                let seq = self.seqs.remove(&id).expect("it was just there");
                self.ledger.finish(&seq.life, seq.job.finish);
                self.kv_used -= seq.kv;
                self.running.retain(|r| *r != id);
            }
        }
        self.ledger.step(step.latency, self.running.len(), tokens_done, self.kv_used);
    }
}

#[cfg(test)]
mod tests;
