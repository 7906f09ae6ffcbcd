//! Which fault a request suffers: a pure function of its number, counted from 1, and the seed.

use super::options::{Faults, Nonsense};
use super::tokens::mix;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Serve(StreamFaults),
    /// HTTP 500.
    Fail,
    /// The whole server dies.
    Crash,
}

/// What goes wrong with an answer; nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamFaults {
    /// After so many tokens, this happens.
    pub cut: Option<(u32, Cut)>,
    pub missing_tokens: u32,
    pub nonsense: Option<Nonsense>,
    pub no_usage: bool,
    pub no_done: bool,
}

/// How a stream is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Drop,
    Stall,
    Error,
}

/// The verdict for request `number`.
pub fn verdict(faults: &Faults, seed: u64, number: u64) -> Verdict {
    if faults.crash_after.is_some_and(|n| number > n) {
        return Verdict::Crash;
    }
    if number <= faults.skip {
        return Verdict::Serve(StreamFaults::default());
    }
    let counted = number - faults.skip;
    let chance = (mix(seed, number) >> 11) as f64 / (1u64 << 53) as f64;
    let failed = chance < faults.fail_rate
        || faults.fail_every.is_some_and(|n| counted.is_multiple_of(n))
        || faults.fail_after.is_some_and(|n| counted > n);
    if failed {
        return Verdict::Fail;
    }
    if !counted.is_multiple_of(faults.every) {
        return Verdict::Serve(StreamFaults::default());
    }
    let cuts = [(faults.drop_after, Cut::Drop), (faults.stall_after, Cut::Stall), (faults.error_in_stream, Cut::Error)];
    Verdict::Serve(StreamFaults {
        // The earliest cut happens; the others are then too late.
        cut: cuts.into_iter().filter_map(|(n, cut)| Some((n?, cut))).min_by_key(|(n, _)| *n),
        missing_tokens: faults.wrong_length,
        nonsense: faults.nonsense,
        no_usage: faults.no_usage,
        no_done: faults.no_done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(faults: &Faults, seed: u64, n: u64) -> Vec<u64> {
        (1..=n).filter(|i| verdict(faults, seed, *i) == Verdict::Fail).collect()
    }

    #[test]
    fn failures_are_counted_after_the_skipped_requests() {
        let f = Faults { fail_every: Some(3), ..Faults::default() };
        assert_eq!(failing(&f, 0, 10), [3, 6, 9]);
        let f = Faults { fail_after: Some(2), skip: 1, ..Faults::default() };
        assert_eq!(failing(&f, 0, 6), [4, 5, 6]);
    }

    #[test]
    fn random_failures_keep_to_rate_and_seed() {
        let f = Faults { fail_rate: 0.1, ..Faults::default() };
        let count = failing(&f, 1, 10_000).len();
        assert!((850..1150).contains(&count), "{count}");
        assert_eq!(failing(&f, 1, 100), failing(&f, 1, 100));
        assert_ne!(failing(&f, 1, 100), failing(&f, 2, 100));
    }

    #[test]
    fn stream_faults_come_every_so_often_and_the_earliest_cut_wins() {
        let f = Faults { every: 2, drop_after: Some(9), stall_after: Some(4), ..Faults::default() };
        assert_eq!(verdict(&f, 0, 1), Verdict::Serve(StreamFaults::default()));
        let Verdict::Serve(s) = verdict(&f, 0, 2) else { panic!() };
        assert_eq!(s.cut, Some((4, Cut::Stall)));
        let f = Faults { crash_after: Some(2), skip: 10, ..Faults::default() };
        assert_eq!(verdict(&f, 0, 3), Verdict::Crash);
    }
}
