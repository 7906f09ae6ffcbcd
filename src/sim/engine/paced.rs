//! Fixed timing: the first token at exactly `ttft` after the request, then one event per `itl`, from absolute deadlines,
//! whatever the load. The truth that a client's own error is measured against.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::ledger::Life;
use super::{Emission, Job, Ledger, Nanos, PrefixCache};

/// An engine with fixed timing: every token of every request at a time known beforehand, no queueing.
#[derive(Debug)]
pub struct Paced {
    ttft: Nanos,
    itl: Nanos,
    tokens_per_event: u32,
    /// Deadline, then order of arrival.
    due: BinaryHeap<Reverse<(Nanos, u64)>>,
    jobs: HashMap<u64, Answering>,
    pub(super) prefix: PrefixCache,
    ledger: Ledger,
}

#[derive(Debug)]
struct Answering {
    job: Job,
    life: Life,
    cached: u32,
}

impl Paced {
    pub fn new(ttft: Nanos, itl: Nanos, tokens_per_event: u32, prefix: PrefixCache, kv_tokens: u64) -> Paced {
        Paced {
            ttft,
            itl,
            tokens_per_event,
            due: BinaryHeap::new(),
            jobs: HashMap::new(),
            prefix,
            ledger: Ledger::new(kv_tokens),
        }
    }

    pub fn submit(&mut self, job: Job, now: Nanos) {
        let cached = self.prefix.lookup(&job.blocks, job.prompt_tokens);
        if self.prefix.enabled() {
            self.ledger.looked_up(job.prompt_tokens, cached);
        }
        self.prefix.insert(&job.blocks);
        self.ledger.received += 1;
        self.due.push(Reverse((now + self.ttft, job.id)));
        let life = Life::new(now, job.prompt_tokens);
        self.jobs.insert(job.id, Answering { job, life, cached });
    }

    pub fn cancel(&mut self, id: u64) {
        // Its entry in `due` is skipped when it comes up.
        if self.jobs.remove(&id).is_some() {
            self.ledger.aborted += 1;
        }
    }

    pub fn deadline(&self) -> Option<Nanos> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    pub fn advance(&mut self, now: Nanos, limit: usize, out: &mut Vec<Emission>) {
        while out.len() < limit {
            let Some(&Reverse((at, id))) = self.due.peek() else { return };
            if at > now {
                return;
            }
            self.due.pop();
            let Some(a) = self.jobs.get_mut(&id) else { continue };
            let left = a.job.output_tokens - a.life.generated;
            let tokens = if a.life.first.is_none() { 1 } else { self.tokens_per_event.min(left) };
            self.ledger.tokens(&mut a.life, tokens, at);
            let finished = tokens == left;
            out.push(Emission { id, at, tokens, cached: a.cached, finished });
            if finished {
                let a = self.jobs.remove(&id).expect("it was just there");
                self.ledger.finish(&a.life, a.job.finish);
            } else {
                self.due.push(Reverse((at + self.itl, id)));
            }
        }
    }

    pub fn ledger(&mut self) -> &mut Ledger {
        self.ledger.running = self.jobs.len();
        let context = |a: &Answering| u64::from(a.job.prompt_tokens + a.life.generated);
        self.ledger.kv_used = self.jobs.values().map(context).sum::<u64>().min(self.ledger.kv_capacity);
        &mut self.ledger
    }
}

#[cfg(test)]
mod tests {
    use super::super::Finish;
    use super::*;

    fn job(id: u64, output_tokens: u32) -> Job {
        Job { id, prompt_tokens: 10, blocks: vec![], output_tokens, finish: Finish::Length }
    }

    #[test]
    fn deadlines_are_absolute_however_late_the_driver_is() {
        let mut e = Paced::new(50, 10, 1, PrefixCache::default(), 1000);
        e.submit(job(1, 4), 100);
        e.submit(job(2, 2), 103);
        let mut out = vec![];
        e.advance(149, usize::MAX, &mut out);
        assert!(out.is_empty());
        assert_eq!(e.deadline(), Some(150));
        e.advance(171, usize::MAX, &mut out);
        assert_eq!(
            out.iter().map(|o| (o.id, o.at)).collect::<Vec<_>>(),
            [(1, 150), (2, 153), (1, 160), (2, 163), (1, 170)]
        );
        assert!(out[3].finished);
        assert_eq!(e.deadline(), Some(180));
        e.cancel(1);
        e.advance(1000, usize::MAX, &mut out);
        assert_eq!((out.len(), e.deadline()), (5, None));
        assert_eq!((e.ledger().aborted, e.ledger().finished()), (1, 1));
    }

    #[test]
    fn several_tokens_per_event_end_at_the_exact_length() {
        let mut e = Paced::new(5, 5, 3, PrefixCache::default(), 1000);
        e.submit(job(1, 6), 0);
        let mut out = vec![];
        e.advance(100, usize::MAX, &mut out);
        assert_eq!(out.iter().map(|o| o.tokens).collect::<Vec<_>>(), [1, 3, 2]);
        let mut few = vec![];
        e.submit(job(2, 6), 0);
        e.advance(100, 2, &mut few);
        assert_eq!(few.len(), 2, "the limit holds");
    }
}
