//! Whether a sample can be believed, and why not.

use super::Summary;

/// What a sample was supposed to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleContext {
    /// Share of failed requests above which a sample is not valid.
    pub max_error_rate: f64,
    /// Requests start by a schedule.
    pub open_loop: bool,
    /// Every request must have the output length that it asked for.
    pub exact_output: bool,
}

/// Least queueing delay (p99, milliseconds) that says that an open-loop client fell behind.
const QUEUE_DELAY_FLOOR_MS: f64 = 10.0;
/// The same as a share of the median E2EL, where that is more.
const QUEUE_DELAY_SHARE: f64 = 0.01;
/// CPU share of a load worker above which its stamps are late for want of CPU.
const CPU_LIMIT: f64 = 0.9;
/// Receive lag (p99) above which the client was the bottleneck.
const RECV_LAG_LIMIT_MS: f64 = 10.0;

/// The reason why a sample is not valid; `None` when it is.
pub fn validity(s: &Summary, context: &SampleContext) -> Option<String> {
    nothing_measured(s)
        .or_else(|| too_many_errors(s, context))
        .or_else(|| wrong_lengths(s, context))
        .or_else(|| fell_behind(s, context))
        .or_else(|| client_bound(s))
}

fn nothing_measured(s: &Summary) -> Option<String> {
    if s.n_sent == 0 {
        return Some("no request was sent".into());
    }
    if s.n_ok == 0 {
        return Some(match s.errors.first() {
            Some((message, _)) => format!("no request of {} completed: {message}", s.n_sent),
            None => format!("no request of {} completed within the duration: lengthen it", s.n_sent),
        });
    }
    (s.ttft.n == 0).then(|| format!("none of {} answers held any text", s.n_ok))
}

fn too_many_errors(s: &Summary, context: &SampleContext) -> Option<String> {
    if s.error_rate <= context.max_error_rate {
        return None;
    }
    let commonest = s.errors.first().map(|(message, n)| format!("; {n} × {message}")).unwrap_or_default();
    Some(format!(
        "{} of {} requests failed ({:.1} %, the limit is {:.1} %){commonest}",
        s.n_error,
        s.n_ok + s.n_error,
        100.0 * s.error_rate,
        100.0 * context.max_error_rate
    ))
}

fn wrong_lengths(s: &Summary, context: &SampleContext) -> Option<String> {
    (context.exact_output && s.wrong_output_length > 0).then(|| {
        let mean = s.osl_actual_mean.map(|m| format!(" (the mean was {m:.1})")).unwrap_or_default();
        format!(
            "{} of {} answers had another length than was asked for{mean}: the engine may not honour ignore_eos and \
             min_tokens, or max_model_len is too small",
            s.wrong_output_length, s.n_ok
        )
    })
}

fn fell_behind(s: &Summary, context: &SampleContext) -> Option<String> {
    let delay = s.queue_delay_p99_ms.filter(|_| context.open_loop)?;
    let limit = (QUEUE_DELAY_SHARE * s.e2el.p50.unwrap_or(0.0)).max(QUEUE_DELAY_FLOOR_MS);
    (delay > limit).then(|| {
        format!(
            "requests started late: queue_delay_p99 is {delay:.1} ms, the limit is {limit:.1} ms. The concurrency cap or \
             the client could not follow the rate"
        )
    })
}

fn client_bound(s: &Summary) -> Option<String> {
    if let Some(cpu) = s.client_cpu_fraction.filter(|c| *c > CPU_LIMIT) {
        return Some(format!(
            "the client was the bottleneck: a load worker used {:.0} % of a core. Use more workers or a faster host",
            100.0 * cpu
        ));
    }
    let lag = s.recv_lag_p99_ms.filter(|ms| *ms > RECV_LAG_LIMIT_MS)?;
    Some(format!("the client was the bottleneck: its stamps are up to {lag:.1} ms (p99) behind the kernel"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::record::tests::{request, sample};
    use super::super::{LoadShape, RequestRecord, SampleData, Status, summarize};
    use super::*;

    const MS: u64 = 1_000_000;
    const CONTEXT: SampleContext = SampleContext { max_error_rate: 0.01, open_loop: true, exact_output: true };

    fn reason(change: impl Fn(&mut SampleData), context: SampleContext) -> Option<String> {
        let requests = (0..100).map(|i| request(i, i * 100 * MS, 10 * MS, 60 * MS, 8)).collect();
        let mut data = sample(LoadShape::Open { rate: 10.0, cap: None }, requests);
        change(&mut data);
        validity(&summarize(&data, &BTreeMap::new(), 1), &context)
    }

    #[test]
    fn each_rule_has_its_reason() {
        assert_eq!(reason(|_| {}, CONTEXT), None);
        assert_eq!(reason(|d| d.requests.clear(), CONTEXT).unwrap(), "no request was sent");
        let fail = |d: &mut SampleData, n: usize| {
            for r in &mut d.requests[..n] {
                (r.status, r.error) = (Status::Error, Some("HTTP 500".into()));
            }
        };
        assert_eq!(reason(|d| fail(d, 1), CONTEXT), None);
        assert!(reason(|d| fail(d, 2), CONTEXT).unwrap().contains("2 of 100 requests failed (2.0 %"));
        assert!(reason(|d| fail(d, 100), CONTEXT).unwrap().contains("HTTP 500"));
        let wrong = |d: &mut SampleData| d.requests[3].output_tokens = Some(7);
        assert!(reason(wrong, CONTEXT).unwrap().contains("1 of 100 answers"));
        assert_eq!(reason(wrong, SampleContext { exact_output: false, ..CONTEXT }), None);
        let late = |d: &mut SampleData| d.requests.iter_mut().for_each(|r| r.start_ns += 11 * MS);
        assert!(reason(late, CONTEXT).unwrap().contains("queue_delay_p99"));
        assert_eq!(reason(late, SampleContext { open_loop: false, ..CONTEXT }), None);
        let silent = |d: &mut SampleData| {
            for r in &mut d.requests {
                *r = RequestRecord { first_token_ns: None, last_token_ns: None, first_visible_ns: None, ..r.clone() };
            }
        };
        assert!(reason(silent, CONTEXT).unwrap().contains("any text"));
        assert!(reason(|d| d.client_cpu_fraction = Some(0.97), CONTEXT).unwrap().contains("97 %"));
    }

    #[test]
    fn the_queue_limit_grows_with_the_latency() {
        let slow = |d: &mut SampleData| {
            for r in &mut d.requests {
                *r = RequestRecord {
                    intended_ns: r.start_ns,
                    ..request(r.index, r.start_ns + 11 * MS, MS, 2000 * MS, 8)
                };
            }
        };
        assert_eq!(reason(slow, CONTEXT), None);
    }
}
