//! The engine inside the simulator, as a pure state machine over virtual time: jobs in, token emissions out. No clock, no
//! network; whoever drives it says what time it is. Two timings exist: continuous batching with its queue, its KV cache
//! and its prefix cache, and a fixed one that never depends on load.

mod batching;
mod ledger;
mod paced;
mod prefix;

pub use batching::{Batching, BatchingConfig, Policy};
pub use ledger::{Histogram, Iteration, Ledger};
pub use paced::Paced;
pub use prefix::{BLOCK, PrefixCache, block_hashes};

/// Nanoseconds since the engine started.
pub type Nanos = u64;

/// A request as the engine sees it.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: u64,
    pub prompt_tokens: u32,
    /// Hashes of the prompt's full blocks, each including all before it.
    pub blocks: Vec<u64>,
    /// At least 1.
    pub output_tokens: u32,
    pub finish: Finish,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    Stop,
    /// The asked length is reached.
    Length,
}

impl Finish {
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// Tokens of one request that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emission {
    pub id: u64,
    /// When they were ready, which is not later than the time the engine was advanced to.
    pub at: Nanos,
    pub tokens: u32,
    /// Prompt tokens that came from the prefix cache.
    pub cached: u32,
    pub finished: bool,
}

/// One of the two timings.
#[derive(Debug)]
pub enum Engine {
    Batching(Box<Batching>),
    Paced(Box<Paced>),
}

impl Engine {
    /// Takes a job that arrives at `now`. The id must be new.
    pub fn submit(&mut self, job: Job, now: Nanos) {
        match self {
            Engine::Batching(e) => e.submit(job, now),
            Engine::Paced(e) => e.submit(job, now),
        }
    }

    /// Forgets a job whose client is gone; unknown ids are fine.
    pub fn cancel(&mut self, id: u64) {
        match self {
            Engine::Batching(e) => e.cancel(id),
            Engine::Paced(e) => e.cancel(id),
        }
    }

    /// When [`Engine::advance`] next has something to do; `None` when idle.
    pub fn deadline(&self) -> Option<Nanos> {
        match self {
            Engine::Batching(e) => e.deadline(),
            Engine::Paced(e) => e.deadline(),
        }
    }

    /// Does what is due by `now`, appending to `out` in order of time; stops early once `out` has `limit` entries.
    pub fn advance(&mut self, now: Nanos, limit: usize, out: &mut Vec<Emission>) {
        match self {
            Engine::Batching(e) => e.advance(now, limit, out),
            Engine::Paced(e) => e.advance(now, limit, out),
        }
    }

    pub fn reset_prefix_cache(&mut self) {
        match self {
            Engine::Batching(e) => e.prefix.clear(),
            Engine::Paced(e) => e.prefix.clear(),
        }
    }

    /// The counters, with the gauges as of now.
    pub fn ledger(&mut self) -> &mut Ledger {
        match self {
            Engine::Batching(e) => e.ledger(),
            Engine::Paced(e) => e.ledger(),
        }
    }
}
