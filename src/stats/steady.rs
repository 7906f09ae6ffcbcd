//! The steady-state window of a sample: ramp and drain left out.

use super::{LoadShape, RequestRecord, SampleData};

/// Share of the target that the time-averaged concurrency of the window must reach.
const CLOSED_SHARE: f64 = 0.95;

/// The window, nanoseconds after the sample's start; `None` when the sample never was steady.
///
/// Closed loop: from the first to the last moment with `concurrency` requests in flight. It counts when at least as many
/// requests ended in it as there are slots, and the mean concurrency in it is at least 95 % of the target.
///
/// Open loop: from the 90th percentile of E2EL after the first start (the system has filled) to the last start. It counts
/// when it is at least as long as that percentile, and the arrivals and the endings in it differ by at most 5 %, or two standard deviations of a Poisson count where
/// that is more: otherwise the queue grew or shrank all the while.
pub fn window(data: &SampleData) -> Option<(u64, u64)> {
    match data.shape {
        LoadShape::Closed { concurrency } => closed(&data.requests, concurrency),
        LoadShape::Open { .. } => open(data),
        LoadShape::Job => None,
    }
}

/// A start or an end, in eight bytes: the time, and in its lowest bit whether it is a start. So they sort by time, and an
/// end comes before a start at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change(u64);

impl Change {
    fn at(self) -> u64 {
        self.0 >> 1
    }

    /// What it does to the number of requests in flight.
    fn by(self) -> i64 {
        if self.0 & 1 == 1 { 1 } else { -1 }
    }
}

fn changes(requests: &[RequestRecord]) -> Vec<Change> {
    let mut all = Vec::with_capacity(2 * requests.len());
    all.extend(requests.iter().flat_map(|r| [Change(r.start_ns << 1 | 1), Change(r.end_ns << 1)]));
    all.sort_unstable();
    all
}

fn closed(requests: &[RequestRecord], concurrency: u32) -> Option<(u64, u64)> {
    let target = i64::from(concurrency);
    let (mut flying, mut from, mut to) = (0i64, None, None);
    let changes = changes(requests);
    for change in &changes {
        if flying >= target {
            to = Some(change.at());
        }
        flying += change.by();
        if flying >= target && from.is_none() {
            from = Some(change.at());
        }
    }
    let (from, to) = (from?, to?);
    let ended = requests.iter().filter(|r| (from..=to).contains(&r.end_ns)).count() as u64;
    let mean = mean_concurrency(&changes, from, to)?;
    (ended >= u64::from(concurrency) && mean >= CLOSED_SHARE * f64::from(concurrency)).then_some((from, to))
}

fn mean_concurrency(changes: &[Change], from: u64, to: u64) -> Option<f64> {
    let (mut flying, mut last, mut area) = (0i64, from, 0.0);
    for change in changes {
        let at = change.at().clamp(from, to);
        area += flying as f64 * (at - last) as f64;
        last = at;
        flying += change.by();
    }
    area += flying as f64 * (to - last) as f64;
    (to > from).then(|| area / (to - from) as f64)
}

fn open(data: &SampleData) -> Option<(u64, u64)> {
    let mut latencies: Vec<f64> = data.completed().filter_map(|r| r.e2el_ns()).map(|ns| ns as f64).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    let fill = super::dist::percentile(&latencies, 0.9)?;
    let first = data.requests.iter().map(|r| r.start_ns).min()?;
    let to = data.requests.iter().map(|r| r.start_ns).max()?;
    let from = first + fill as u64;
    // Shorter than one request, the window says nothing about balance.
    if to.saturating_sub(from) < (fill as u64).max(1) {
        return None;
    }
    let within = |t: u64| from <= t && t <= to;
    let arrived = data.requests.iter().filter(|r| within(r.intended_ns)).count() as f64;
    let ended = data.requests.iter().filter(|r| within(r.end_ns)).count() as f64;
    (ended > 0.0 && (arrived - ended).abs() <= (0.05 * arrived).max(2.0 * arrived.sqrt())).then_some((from, to))
}

/// Output tokens per second within a window. A request's tokens count as spread evenly from its first to its last token.
pub fn output_throughput(data: &SampleData, (from, to): (u64, u64)) -> f64 {
    let tokens: f64 = data.completed().map(|r| tokens_within(r, from, to)).sum();
    tokens / ((to - from) as f64 / 1e9)
}

fn tokens_within(r: &RequestRecord, from: u64, to: u64) -> f64 {
    let (Some(first), Some(last)) = (r.first_token_ns, r.last_token_ns) else { return 0.0 };
    if first == last {
        return if (from..=to).contains(&first) { r.output() as f64 } else { 0.0 };
    }
    let overlap = last.min(to).saturating_sub(first.max(from));
    r.output() as f64 * overlap as f64 / (last - first) as f64
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{request, sample};
    use super::*;

    const MS: u64 = 1_000_000;

    /// `n` requests on `slots` slots, each 100 ms of 10 tokens, back to back.
    fn closed_sample(slots: u64, n: u64) -> SampleData {
        let requests = (0..n).map(|i| request(i, i / slots * 100 * MS, 10 * MS, 100 * MS, 10)).collect();
        sample(LoadShape::Closed { concurrency: slots as u32 }, requests)
    }

    #[test]
    fn closed_loop_window_leaves_the_drain_out() {
        let data = closed_sample(2, 9);
        let (from, to) = window(&data).unwrap();
        assert_eq!((from, to), (0, 400 * MS));
        // Four waves of two requests: 80 tokens in 0.4 s.
        assert!((output_throughput(&data, (from, to)) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn a_sample_that_never_fills_is_not_steady() {
        let mut data = closed_sample(2, 9);
        data.shape = LoadShape::Closed { concurrency: 3 };
        assert_eq!(window(&data), None);
        assert_eq!(window(&closed_sample(4, 3)), None);
    }

    #[test]
    fn open_loop_is_steady_when_endings_keep_up() {
        let open = |service: u64| {
            let requests = (0..200).map(|i| request(i, i * 10 * MS, MS, service + i * service / 50, 10)).collect();
            sample(LoadShape::Open { rate: 100.0, cap: None }, requests)
        };
        let steady: Vec<RequestRecord> = (0..200).map(|i| request(i, i * 10 * MS, MS, 50 * MS, 10)).collect();
        let data = sample(LoadShape::Open { rate: 100.0, cap: None }, steady);
        assert_eq!(window(&data), Some((50 * MS, 1990 * MS)));
        assert_eq!(window(&open(400 * MS)), None);
    }

    #[test]
    fn tokens_at_the_edges_count_by_their_share() {
        let r = request(0, 0, 100 * MS, 200 * MS, 11);
        assert!((tokens_within(&r, 150 * MS, 900 * MS) - 5.5).abs() < 1e-9);
        assert_eq!(tokens_within(&r, 300 * MS, 900 * MS), 0.0);
    }
}
