//! What the workers of a sample wait on: each other, the end of it all, and the cap on requests in flight. Touched once
//! per request at most.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mio::Waker;

use super::LoadError;

/// Ends a sample: workers look at it whenever they wake, and it wakes them.
#[derive(Default)]
pub struct Stop {
    over: AtomicBool,
    /// By worker.
    wakers: Vec<Waker>,
    gate: Mutex<Gate>,
    opened: Condvar,
}

/// Where workers wait for each other.
#[derive(Default)]
struct Gate {
    waiting: usize,
    /// How often it has opened.
    round: u64,
}

/// Ends the sample when it is dropped.
pub struct StopGuard(pub Arc<Stop>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stop {
    /// One waker for each worker.
    pub fn new(wakers: Vec<Waker>) -> Stop {
        Stop { wakers, ..Stop::default() }
    }

    pub fn stop(&self) {
        self.over.store(true, Relaxed);
        (0..self.wakers.len()).for_each(|worker| self.wake(worker));
        // With the lock: a worker that has just looked is already waiting when it is told.
        let _gate = locked(&self.gate);
        self.opened.notify_all();
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// [`LoadError::Cancelled`] once it is over.
    pub fn check(&self) -> Result<(), LoadError> {
        if self.is_over() { Err(LoadError::Cancelled) } else { Ok(()) }
    }

    fn wake(&self, worker: usize) {
        // A worker whose poll is gone needs no waking.
        let _ = self.wakers[worker].wake();
    }

    /// Waits until all workers are here. True for the last one.
    pub fn meet(&self) -> Result<bool, LoadError> {
        let mut gate = locked(&self.gate);
        self.check()?;
        gate.waiting += 1;
        if gate.waiting == self.wakers.len() {
            gate.waiting = 0;
            gate.round += 1;
            self.opened.notify_all();
            return Ok(true);
        }
        let round = gate.round;
        while gate.round == round {
            gate = self.opened.wait(gate).unwrap_or_else(PoisonError::into_inner);
            self.check()?;
        }
        Ok(false)
    }
}

/// At most so many requests in flight, over all workers.
pub struct Cap {
    state: Mutex<CapState>,
    stop: Arc<Stop>,
}

struct CapState {
    free: u32,
    /// Workers to wake when there is one.
    waiting: Vec<usize>,
}

impl Cap {
    pub fn new(free: u32, stop: Arc<Stop>) -> Cap {
        Cap { state: Mutex::new(CapState { free, waiting: Vec::new() }), stop }
    }

    /// Takes one; where there is none, the worker is woken when there may be.
    pub fn take(&self, worker: usize) -> bool {
        let mut state = locked(&self.state);
        if state.free > 0 {
            state.free -= 1;
            return true;
        }
        if !state.waiting.contains(&worker) {
            state.waiting.push(worker);
        }
        false
    }

    /// Gives one back. All that wait are woken: one of them may not need it any more.
    pub fn give(&self) {
        let waiting = {
            let mut state = locked(&self.state);
            state.free += 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|worker| self.stop.wake(worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(workers: usize) -> Arc<Stop> {
        let wakers = (0..workers).map(|_| {
            let poll = mio::Poll::new().unwrap();
            Waker::new(poll.registry(), mio::Token(0)).unwrap()
        });
        Arc::new(Stop::new(wakers.collect()))
    }

    #[test]
    fn workers_meet_and_one_of_them_is_the_last() {
        let stop = stop(3);
        for _ in 0..50 {
            let last: usize = std::thread::scope(|s| {
                let all: Vec<_> = (0..3).map(|_| s.spawn(|| usize::from(stop.meet().unwrap()))).collect();
                all.into_iter().map(|t| t.join().unwrap()).sum()
            });
            assert_eq!(last, 1);
        }
    }

    #[test]
    fn whoever_waits_is_let_go_when_it_is_over() {
        let stop = stop(2);
        std::thread::scope(|s| {
            let waiting = s.spawn(|| stop.meet());
            drop(StopGuard(stop.clone()));
            assert!(matches!(waiting.join().unwrap(), Err(LoadError::Cancelled)));
        });
        assert!(stop.meet().is_err());
    }

    #[test]
    fn a_cap_lets_so_many_through() {
        let cap = Cap::new(2, stop(1));
        assert_eq!([cap.take(0), cap.take(0), cap.take(0), cap.take(0)], [true, true, false, false]);
        assert_eq!(cap.state.lock().unwrap().waiting, [0]);
        cap.give();
        assert!(cap.take(0) && !cap.take(0));
    }
}
