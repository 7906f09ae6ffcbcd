//! From a sample's records to its summary. Each formula is stated in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::window;
use super::{Dist, LoadShape, RequestRecord, SampleData, Status, Summary, TokenSource, steady};

/// Most error messages that a summary lists.
const MAX_ERRORS: usize = 10;

/// Summarizes a sample. `slo` maps `ttft`, `ttfo`, `tpot`, `itl`, `e2el` to per-request limits; other keys (aggregate
/// limits such as `p95_ttft`) are none of a request's business. `gpus` of 0 leaves the per-GPU figure out.
pub fn summarize(data: &SampleData, slo: &BTreeMap<String, Duration>, gpus: u32) -> Summary {
    let ok: Vec<&RequestRecord> = data.completed().collect();
    let count = |status| data.requests.iter().filter(|r| r.status == status).count() as u64;
    let (n_error, n_cancelled) = (count(Status::Error), count(Status::Cancelled));
    let n_ok = ok.len() as u64;
    let makespan = data.makespan_ns.map(|ns| ns as f64 / 1e9);
    // Without a token that was seen, the length of the job is all there is.
    let handed_over = data.shape == LoadShape::Job;
    let seconds = if handed_over { makespan } else { data.window().map(|(from, to)| (to - from) as f64 / 1e9) };
    let per_second = |n: f64| seconds.map(|s| n / s);

    let input_tokens: u64 = ok.iter().map(|r| input(r)).sum();
    let output_tokens: u64 = ok.iter().map(|r| r.output()).sum();
    let token_events: u64 = ok.iter().map(|r| u64::from(r.token_events)).sum();
    let output_throughput = per_second(output_tokens as f64);
    let steady = steady::window(data);
    let queue_delay = Dist::of_ns(data.requests.iter().filter(|_| !handed_over).map(RequestRecord::queue_delay_ns));
    let tpot: Vec<f64> = ok.iter().filter_map(|r| r.tpot_ns()).map(|ns| ns / 1e6).collect();
    let per_user: Vec<f64> = tpot.iter().filter(|ms| **ms > 0.0).map(|ms| 1e3 / ms).collect();

    Summary {
        n_sent: data.requests.len() as u64,
        n_ok,
        n_error,
        n_cancelled,
        error_rate: ratio(n_error, n_ok + n_error).unwrap_or(0.0),
        input_tokens,
        output_tokens,
        isl_actual_mean: ratio(input_tokens, n_ok),
        osl_actual_mean: ratio(output_tokens, n_ok),
        output_tokens_source: source(&ok),
        cached_input_tokens: sum_known(ok.iter().map(|r| r.cached_tokens.map(u64::from))),
        duration_s: seconds.unwrap_or(0.0),
        makespan_s: makespan,
        request_throughput: per_second(n_ok as f64),
        output_throughput,
        total_token_throughput: per_second((input_tokens + output_tokens) as f64),
        output_throughput_steady: steady.map(|w| steady::output_throughput(data, w)),
        steady_reached: steady.is_some(),
        ttft: Dist::of_ns(ok.iter().filter_map(|r| r.ttft_ns())),
        ttfo: Dist::of_ns(ok.iter().filter_map(|r| r.ttfo_ns())),
        output_tokens_per_user: mean(&per_user),
        tpot: Dist::of_ms(tpot),
        itl: Dist::of_histogram(&data.gaps),
        e2el: Dist::of_ns(ok.iter().filter_map(|r| r.e2el_ns())),
        e2el_intended: Dist::of_ns(ok.iter().filter_map(|r| Some(r.last_token_ns?.saturating_sub(r.intended_ns)))),
        queue_delay_p99_ms: queue_delay.p99,
        queue_delay,
        ttft_adj: Dist::with_failures(ok.iter().filter_map(|r| r.ttft_ns()), n_error),
        e2el_adj: Dist::with_failures(ok.iter().filter_map(|r| r.e2el_ns()), n_error),
        connect: Dist::of_ns(data.connect_ns.iter().copied()),
        tokens_per_event: ratio(output_tokens, token_events),
        request_goodput: goodput(&data.requests, slo),
        output_throughput_per_gpu: output_throughput.filter(|_| gpus > 0).map(|t| t / f64::from(gpus)),
        recv_lag_p99_ms: Dist::of_histogram(&data.recv_lag).p99,
        client_cpu_fraction: data.client_cpu_fraction,
        wrong_output_length: ok.iter().filter(|r| r.wrong_length()).count() as u64,
        errors: errors(data),
    }
}

/// Completed requests per second that met every per-request limit of `slo`; `None` when no key is per request, or when
/// there is no window. What a sample's requests came to under other limits than those of its run.
pub fn goodput(requests: &[RequestRecord], slo: &BTreeMap<String, Duration>) -> Option<f64> {
    let limits = Limits::of(slo)?;
    let (from, to) = window(requests)?;
    let met = requests.iter().filter(|r| r.status == Status::Ok && limits.met_by(r)).count();
    Some(met as f64 / ((to - from) as f64 / 1e9))
}

/// The server's count, else what was asked for.
fn input(r: &RequestRecord) -> u64 {
    u64::from(r.input_tokens.or(r.requested_input).unwrap_or(0))
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn sum_known(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().fold(None, |sum, n| Some(sum.unwrap_or(0) + n))
}

/// The weakest source among the completed requests.
fn source(ok: &[&RequestRecord]) -> Option<TokenSource> {
    if ok.is_empty() {
        return None;
    }
    let weak = ok.iter().any(|r| r.output_source() == TokenSource::Events);
    Some(if weak { TokenSource::Events } else { TokenSource::Usage })
}

fn errors(data: &SampleData) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for message in data.requests.iter().filter_map(|r| r.error.as_deref()) {
        *counts.entry(message).or_default() += 1;
    }
    let mut all: Vec<(String, u64)> = counts.into_iter().map(|(m, n)| (m.to_string(), n)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(MAX_ERRORS);
    all
}

/// Per-request limits, nanoseconds.
struct Limits {
    ttft: Option<f64>,
    ttfo: Option<f64>,
    tpot: Option<f64>,
    itl: Option<f64>,
    e2el: Option<f64>,
}

impl Limits {
    /// `None` when no key is per request.
    fn of(slo: &BTreeMap<String, Duration>) -> Option<Limits> {
        let get = |key: &str| slo.get(key).map(|d| d.as_nanos() as f64);
        let all =
            Limits { ttft: get("ttft"), ttfo: get("ttfo"), tpot: get("tpot"), itl: get("itl"), e2el: get("e2el") };
        [all.ttft, all.ttfo, all.tpot, all.itl, all.e2el].iter().any(Option::is_some).then_some(all)
    }

    fn met_by(&self, r: &RequestRecord) -> bool {
        // A latency that a completed request must have: without text it has met nothing.
        let must = |limit: Option<f64>, value: Option<u64>| {
            limit.is_none_or(|limit| value.is_some_and(|ns| ns as f64 <= limit))
        };
        // A gap that a request of one token does not have.
        let may = |limit: Option<f64>, value: Option<f64>| limit.is_none_or(|limit| value.is_none_or(|ns| ns <= limit));
        must(self.ttft, r.ttft_ns())
            && must(self.ttfo, r.ttfo_ns())
            && must(self.e2el, r.e2el_ns())
            && may(self.tpot, r.tpot_ns())
            && may(self.itl, r.mean_gap_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{request, sample};
    use super::*;

    const MS: u64 = 1_000_000;

    fn failed(index: u64, start: u64, message: &str) -> RequestRecord {
        RequestRecord {
            status: Status::Error,
            first_token_ns: None,
            first_visible_ns: None,
            last_token_ns: None,
            output_tokens: None,
            token_events: 0,
            error: Some(message.into()),
            ..request(index, start, 0, 5 * MS, 11)
        }
    }

    fn data() -> SampleData {
        let mut data = sample(
            LoadShape::Closed { concurrency: 2 },
            vec![
                request(0, 0, 100 * MS, 200 * MS, 11),
                RequestRecord { intended_ns: 10 * MS, ..request(1, 30 * MS, 50 * MS, 470 * MS, 22) },
                failed(2, 200 * MS, "boom"),
                RequestRecord { status: Status::Cancelled, ..failed(3, 210 * MS, "x") },
            ],
        );
        data.requests[3].error = None;
        for ms in [10, 20, 30] {
            data.gaps.record(ms * MS);
        }
        data
    }

    #[test]
    fn every_figure_of_a_hand_made_sample() {
        let slo = BTreeMap::from([
            ("ttft".to_string(), Duration::from_millis(60)),
            ("p95_ttft".to_string(), Duration::from_millis(1)),
        ]);
        let s = summarize(&data(), &slo, 4);
        assert_eq!((s.n_sent, s.n_ok, s.n_error, s.n_cancelled), (4, 2, 1, 1));
        assert!((s.error_rate - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((s.input_tokens, s.output_tokens), (200, 33));
        // 0 to 500 ms.
        assert_eq!(s.duration_s, 0.5);
        assert_eq!(s.request_throughput, Some(4.0));
        assert_eq!(s.output_throughput, Some(66.0));
        assert_eq!(s.total_token_throughput, Some(466.0));
        assert_eq!(s.output_throughput_per_gpu, Some(16.5));
        assert_eq!((s.ttft.p50, s.ttft.mean), (Some(75.0), Some(75.0)));
        assert_eq!(s.tpot.min, Some(10.0));
        assert_eq!(s.tpot.max, Some(20.0));
        assert_eq!(s.output_tokens_per_user, Some(75.0));
        assert_eq!((s.itl.n, s.itl.min, s.itl.mean, s.itl.max), (3, Some(10.0), Some(20.0), Some(30.0)));
        assert!((s.itl.p50.unwrap() - 20.0).abs() < 0.01, "{:?}", s.itl);
        assert_eq!(s.e2el.max, Some(470.0));
        assert_eq!(s.e2el_intended.max, Some(490.0));
        assert_eq!(s.queue_delay.max, Some(20.0));
        assert_eq!(s.ttft_adj.n, 3);
        assert_eq!((s.ttft_adj.p50, s.ttft_adj.p90), (Some(100.0), None));
        assert_eq!(s.request_goodput, Some(2.0));
        assert_eq!(s.output_tokens_source, Some(TokenSource::Usage));
        assert_eq!(s.wrong_output_length, 0);
        assert_eq!(s.errors, [("boom".to_string(), 1)]);
    }

    #[test]
    fn without_limits_of_a_request_there_is_no_goodput() {
        let slo = BTreeMap::from([("p99_ttft".to_string(), Duration::from_secs(1))]);
        assert_eq!(summarize(&data(), &slo, 0).request_goodput, None);
        assert_eq!(summarize(&data(), &slo, 0).output_throughput_per_gpu, None);
    }

    #[test]
    fn a_missing_usage_falls_back_to_events_and_says_so() {
        let mut data = data();
        data.requests[0].output_tokens = None;
        let s = summarize(&data, &BTreeMap::new(), 1);
        assert_eq!(s.output_tokens_source, Some(TokenSource::Events));
        assert_eq!(s.output_tokens, 33);
    }

    #[test]
    fn an_empty_sample_has_no_figures() {
        let s = summarize(&sample(LoadShape::Closed { concurrency: 1 }, Vec::new()), &BTreeMap::new(), 1);
        assert_eq!((s.n_sent, s.duration_s, s.request_throughput, s.ttft.n), (0, 0.0, None, 0));
    }
}
