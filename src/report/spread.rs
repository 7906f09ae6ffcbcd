//! Distributions over the requests of a unit's samples, pooled: what a summary of each sample cannot say.

use crate::stats::{Histogram, RequestRecord, Status};

/// The latencies of completed requests, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    pub ttft: Histogram,
    pub tpot: Histogram,
    pub e2el: Histogram,
}

impl Spread {
    /// Counts the requests of another sample.
    pub fn add(&mut self, requests: &[RequestRecord]) {
        for r in requests.iter().filter(|r| r.status == Status::Ok) {
            r.ttft_ns().into_iter().for_each(|ns| self.ttft.record(ns));
            r.tpot_ns().into_iter().for_each(|ns| self.tpot.record(ns.round() as u64));
            r.e2el_ns().into_iter().for_each(|ns| self.e2el.record(ns));
        }
    }
}

/// The value below which this share (0 to 1) of the values lies, milliseconds; the nearest of those that there are.
pub fn quantile(values: &Histogram, share: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    Some(values.at((share * last as f64).round() as u64) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::record::tests::request;

    #[test]
    fn samples_are_pooled_and_failures_left_out() {
        let ms = 1_000_000;
        let failed = RequestRecord { status: Status::Error, ..request(9, 0, 900 * ms, 901 * ms, 2) };
        let mut spread = Spread::default();
        spread.add(&[request(0, 0, 10 * ms, 40 * ms, 4), failed]);
        spread.add(&[request(0, 0, 30 * ms, 90 * ms, 4), request(1, 0, 20 * ms, 50 * ms, 1)]);
        assert_eq!((spread.ttft.len(), spread.tpot.len()), (3, 2), "one token has no time between tokens");
        assert_eq!(quantile(&spread.ttft, 0.0), Some(10.0));
        assert_eq!(quantile(&spread.e2el, 1.0), Some(90.0));
        let median = quantile(&spread.ttft, 0.5).unwrap();
        assert!((median - 20.0).abs() < 0.02, "{median}");
        assert_eq!(quantile(&Histogram::default(), 0.5), None);
    }
}
