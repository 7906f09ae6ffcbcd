//! Requests written out ahead of their time. Making a prompt of 30,000 tokens takes longer than a token takes to arrive:
//! a thread of low priority does it, so that no worker does while its streams wait to be read. A worker that finds
//! nothing ready makes its request itself, even the one that the thread is at: requests are taken in order, and nobody
//! waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::link::{Link, Loaded};
use super::scheduler::yield_to_others;
use crate::wire::request::RequestError;
use crate::workload::prompts::{Phase, Prompts};

/// Bytes that are held ready, unless one request is larger.
const MOST_BYTES: usize = 8 << 20;
/// Buffers kept for use again.
const MOST_SPARE: usize = 64;

/// The requests of a sample in order, or every so-manieth of them.
pub struct Feed {
    link: Arc<Link>,
    prompts: Arc<Prompts>,
    /// From one request to the next.
    step: u64,
    /// Requests below this number exist.
    limit: u64,
    /// Requests that are held ready.
    ahead: usize,
    state: Mutex<State>,
    wanted: Condvar,
}

struct State {
    next: u64,
    /// What the filler is making, unless a worker took that over.
    making: Option<u64>,
    ready: VecDeque<Result<Loaded, RequestError>>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    over: bool,
}

impl Feed {
    /// Requests `first`, `first + step`, … below `limit`; `ahead` of them are held ready by whoever calls
    /// [`fill`](Feed::fill).
    pub fn new(link: Arc<Link>, prompts: Arc<Prompts>, (first, step, limit): (u64, u64, u64), ahead: usize) -> Feed {
        let state =
            State { next: first, making: None, ready: VecDeque::new(), bytes: 0, spare: Vec::new(), over: false };
        Feed { link, prompts, step, limit, ahead, state: Mutex::new(state), wanted: Condvar::new() }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request; `None` when all are taken. `used` is the buffer of an earlier one.
    pub fn take(&self, used: Vec<u8>) -> Result<Option<Loaded>, RequestError> {
        let index = {
            let mut state = self.locked();
            if let Some(ready) = state.ready.pop_front() {
                state.bytes -= size(&ready);
                if used.capacity() > 0 && state.spare.len() < MOST_SPARE {
                    state.spare.push(used);
                }
                if state.ready.len() <= self.ahead / 2 {
                    self.wanted.notify_one();
                }
                return ready.map(Some);
            }
            match state.making.take().or_else(|| self.number(&mut state)) {
                Some(index) => index,
                None => return Ok(None),
            }
        };
        self.make(index, used).map(Some)
    }

    /// Keeps requests ready until [`close`](Feed::close), or until there are no more.
    pub fn fill(&self) {
        let mut state = self.locked();
        loop {
            while !state.over && (state.ready.len() >= self.ahead || state.bytes >= MOST_BYTES) {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.over {
                return;
            }
            let Some(index) = self.number(&mut state) else { return };
            state.making = Some(index);
            let buffer = state.spare.pop().unwrap_or_default();
            drop(state);
            let made = self.make(index, buffer);
            state = self.locked();
            if state.making.take_if(|making| *making == index).is_some() {
                state.bytes += size(&made);
                state.ready.push_back(made);
            } else if let Ok(Loaded { bytes, .. }) = made {
                state.spare.push(bytes);
            }
        }
    }

    /// Ends [`fill`](Feed::fill).
    pub fn close(&self) {
        self.locked().over = true;
        self.wanted.notify_all();
    }

    fn number(&self, state: &mut State) -> Option<u64> {
        let index = state.next;
        (index < self.limit).then(|| {
            state.next = index.saturating_add(self.step);
            index
        })
    }

    fn make(&self, index: u64, buffer: Vec<u8>) -> Result<Loaded, RequestError> {
        self.link.load(index, &self.prompts.get(Phase::Measured, index), buffer)
    }
}

fn size(made: &Result<Loaded, RequestError>) -> usize {
    made.as_ref().map_or(0, |loaded| loaded.bytes.len())
}

/// The thread that fills a feed; ends with this.
pub struct Filler(Arc<Feed>);

impl Filler {
    pub fn start(feed: Arc<Feed>) -> std::io::Result<Filler> {
        let filled = feed.clone();
        std::thread::Builder::new().name("load-feed".into()).spawn(move || {
            yield_to_others();
            filled.fill();
        })?;
        Ok(Filler(feed))
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::Endpoint;
    use super::super::tests::{target, workload};
    use super::*;
    use crate::wire::{Api, Dialect};
    use crate::workload::prompts::Form;

    async fn feed(numbers: (u64, u64, u64), ahead: usize) -> Arc<Feed> {
        let target = target("http://127.0.0.1:1", Dialect::Openai);
        let endpoint = Endpoint::resolve(&target).await.unwrap();
        let link = Arc::new(Link::new(endpoint, &target, Api::Completions, 0.0, true));
        let prompts = Prompts::new(&workload(1, 1), Form::Ids, None, b"u", 0).unwrap();
        Arc::new(Feed::new(link, Arc::new(prompts), numbers, ahead))
    }

    #[tokio::test]
    async fn requests_are_taken_in_order_each_once_whoever_made_them() {
        let feed = feed((1, 3, 3000), 4).await;
        let _filler = Filler::start(feed.clone()).unwrap();
        let mut taken = Vec::new();
        let mut used = Vec::new();
        while let Some(loaded) = feed.take(used).unwrap() {
            taken.push(loaded.index);
            used = loaded.bytes;
        }
        assert_eq!(taken, (1..3000).step_by(3).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn so_many_are_held_ready_and_no_more() {
        let feed = feed((0, 1, u64::MAX), 5).await;
        let filler = Filler::start(feed.clone()).unwrap();
        while feed.locked().ready.len() < 5 {
            std::thread::yield_now();
        }
        drop(filler);
        feed.fill();
        assert_eq!(feed.locked().ready.len(), 5);
    }
}
