//! Where the parts meet: requests go into the engine, its emissions go out to their answers, on time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, mpsc};

use super::answer::{Answer, Ask, Plan, RequestTrace, Shape, Traces};
use super::batch;
use super::engine::{Batching, BatchingConfig, Engine, Finish, Job, Nanos, Paced, Policy, PrefixCache};
use super::fault::{self, StreamFaults, Verdict};
use super::flavor::{Family, Triton};
use super::http::Socket;
use super::options::{Nonsense, SimOptions};
use super::preset::Costs;
use super::timer::Timer;
use super::tokens::{Prose, mix};

/// Emissions handled before others get a turn on the thread.
const BATCH: usize = 512;
/// Longest answer of a request that neither limits it nor ignores the model's wish to stop.
const LONGEST_FREE_ANSWER: u32 = 1024;
/// How long a static batch waits to fill.
const STATIC_FILL: Duration = Duration::from_millis(2);

/// The state that all connections share. One thread only.
pub struct Hub {
    pub options: SimOptions,
    pub ready: Cell<bool>,
    /// Where the server can be reached from here, once it has its port.
    pub addr: Cell<Option<SocketAddr>>,
    pub batches: batch::Desk,
    /// Notified when the server is to die.
    pub crash: Notify,
    epoch: Instant,
    engine: RefCell<Engine>,
    answers: RefCell<HashMap<u64, Rc<Answer>>>,
    /// A new job may be due before the one that is waited for.
    changed: Notify,
    /// Requests that reached the engine, or would have.
    requests: Cell<u64>,
    log: mpsc::UnboundedSender<String>,
    traces: Traces,
}

/// A connection's hold on its request.
pub struct Ticket {
    pub id: u64,
    pub answer: Rc<Answer>,
}

impl Hub {
    pub fn new(options: SimOptions, costs: Costs, log: mpsc::UnboundedSender<String>, traces: Traces) -> Hub {
        Hub {
            ready: Cell::new(false),
            addr: Cell::new(None),
            batches: batch::Desk::default(),
            crash: Notify::new(),
            epoch: Instant::now(),
            engine: RefCell::new(engine(&options, costs)),
            answers: RefCell::default(),
            changed: Notify::new(),
            requests: Cell::new(0),
            log,
            traces,
            options,
        }
    }

    pub fn log(&self, line: impl Into<String>) {
        // Nobody may be listening.
        let _ = self.log.send(line.into());
    }

    pub fn engine(&self) -> std::cell::RefMut<'_, Engine> {
        self.engine.borrow_mut()
    }

    fn nanos(&self, at: Instant) -> Nanos {
        at.saturating_duration_since(self.epoch).as_nanos() as Nanos
    }

    /// Counts a request and says what becomes of it.
    pub fn judge(&self) -> (u64, Verdict) {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        let verdict = fault::verdict(&self.options.faults, self.options.seed, number);
        if verdict == Verdict::Fail {
            self.engine().ledger().failed += 1;
        }
        (number, verdict)
    }

    /// Hands a request to the engine.
    pub fn submit(&self, socket: &Rc<Socket>, received: Instant, number: u64, order: Order) -> Ticket {
        let Order { mut ask, shape, faults, keep_alive } = order;
        // An engine that makes no sense does not come to an end either.
        ask.ignore_eos |= faults.nonsense.is_some();
        let o = &self.options;
        let seed = mix(mix(o.seed, ask.prompt.digest), ask.seed.unwrap_or(0));
        let (output_tokens, finish) = answer_length(&ask, o.max_model_len, faults.missing_tokens, seed);
        let record = RequestTrace { number, received, events: Vec::new() };
        let trace = o.trace.then(|| (record, self.traces.clone()));
        let plan = Plan {
            shape,
            prose: match faults.nonsense {
                None => Prose::new(seed, o.empty_text),
                Some(Nonsense::Empty) => Prose::always(""),
                Some(Nonsense::Repeat) => Prose::always("!"),
            },
            faults,
            finish,
            delivery: ask.delivery,
            stream_interval: o.stream_interval,
            server: o.flavor.server_header(),
            keep_alive,
            prompt_tokens: ask.prompt.tokens,
            trace,
        };
        let answer = Answer::begin(socket.clone(), plan);
        let job =
            Job { id: number, prompt_tokens: ask.prompt.tokens, blocks: ask.prompt.blocks, output_tokens, finish };
        self.answers.borrow_mut().insert(number, answer.clone());
        self.engine().submit(job, self.nanos(received));
        self.changed.notify_one();
        Ticket { id: number, answer }
    }

    /// The client of a request is gone.
    pub fn cancel(&self, id: u64) {
        if let Some(answer) = self.answers.borrow_mut().remove(&id) {
            self.engine().cancel(id);
            answer.abandon();
        }
    }

    /// Runs the engine on time, for ever.
    pub async fn drive(&self, timer: Timer) {
        let mut out = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.engine.borrow().deadline();
            let Some(at) = deadline.map(|at| self.epoch + Duration::from_nanos(at)) else {
                self.changed.notified().await;
                continue;
            };
            if at > Instant::now() {
                tokio::select! {
                    () = timer.wait_until(at) => {}
                    () = self.changed.notified() => continue,
                }
            }
            self.engine.borrow_mut().advance(self.nanos(Instant::now()), BATCH, &mut out);
            for emission in out.drain(..) {
                let answer = self.answers.borrow().get(&emission.id).cloned();
                let Some(answer) = answer else { continue };
                if answer.deliver(&emission).is_some() {
                    self.answers.borrow_mut().remove(&emission.id);
                    self.engine().cancel(emission.id);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A request that was read and judged.
pub struct Order {
    pub ask: Ask,
    pub shape: Box<dyn Shape>,
    pub faults: StreamFaults,
    pub keep_alive: bool,
}

fn engine(options: &SimOptions, costs: Costs) -> Engine {
    let static_batches = options.flavor.family() == Family::Triton(Triton::Python);
    let cache_tokens = if options.prefix_caching && !static_batches { costs.kv_tokens } else { 0 };
    let prefix = PrefixCache::new(cache_tokens);
    let scaled = |d: Duration| (d.as_nanos() as f64 / options.speed).round() as Nanos;
    match options.fixed {
        Some(fixed) => Engine::Paced(Box::new(Paced::new(
            scaled(fixed.ttft),
            scaled(fixed.itl),
            options.tokens_per_event,
            prefix,
            costs.kv_tokens,
        ))),
        None => {
            let policy = match static_batches {
                true => Policy::Static { fill: scaled(STATIC_FILL) },
                false => Policy::Continuous,
            };
            let config = BatchingConfig {
                costs,
                policy,
                max_num_seqs: options.max_num_seqs as usize,
                max_num_batched_tokens: options.max_num_batched_tokens,
                tokens_per_step: options.tokens_per_event,
                noise: options.noise,
                seed: options.seed,
            };
            Engine::Batching(Box::new(Batching::new(config, prefix)))
        }
    }
}

/// How long an answer is and why it ends there.
fn answer_length(ask: &Ask, max_model_len: u32, missing: u32, seed: u64) -> (u32, Finish) {
    let room = max_model_len.saturating_sub(ask.prompt.tokens).max(1);
    let most = ask.max_tokens.unwrap_or(room).min(room);
    let (tokens, finish) = if ask.ignore_eos {
        (most, Finish::Length)
    } else {
        let high = if ask.max_tokens.is_some() { most } else { most.min(LONGEST_FREE_ANSWER) };
        let low = ask.min_tokens.max(high / 4).max(2).min(high);
        let tokens = ChaCha8Rng::seed_from_u64(seed).random_range(low..=high);
        (tokens, if tokens == most { Finish::Length } else { Finish::Stop })
    };
    if missing == 0 { (tokens, finish) } else { (tokens.saturating_sub(missing).max(1), Finish::Stop) }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Delivery, Prompt};
    use super::*;

    fn ask(max_tokens: Option<u32>, min_tokens: u32, ignore_eos: bool) -> Ask {
        let prompt = Prompt::of(&[1; 100]);
        Ask { prompt, max_tokens, min_tokens, ignore_eos, seed: None, delivery: Delivery::Events }
    }

    #[test]
    fn answers_are_exact_with_ignore_eos_and_seeded_without() {
        assert_eq!(answer_length(&ask(Some(50), 0, true), 1000, 0, 1), (50, Finish::Length));
        assert_eq!(answer_length(&ask(None, 0, true), 1000, 0, 1), (900, Finish::Length));
        assert_eq!(answer_length(&ask(Some(50), 0, true), 1000, 3, 1), (47, Finish::Stop));
        assert_eq!(answer_length(&ask(Some(50), 50, false), 1000, 0, 1), (50, Finish::Length));
        assert_eq!(answer_length(&ask(Some(1), 0, false), 1000, 0, 1), (1, Finish::Length));
        let lengths: Vec<_> = (0..500).map(|s| answer_length(&ask(Some(100), 40, false), 1000, 0, s)).collect();
        assert!(lengths.iter().all(|(n, f)| (40..=100).contains(n) && (*f == Finish::Length) == (*n == 100)));
        assert!(lengths.iter().filter(|(n, _)| *n < 100).count() > 450);
        assert_eq!(lengths[7], answer_length(&ask(Some(100), 40, false), 1000, 0, 7));
        assert!(answer_length(&ask(None, 0, false), 1_000_000, 0, 3).0 <= LONGEST_FREE_ANSWER);
    }
}
