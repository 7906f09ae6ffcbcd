//! Whether a sample can be believed, and why not.

use std::time::Duration;

use super::Summary;

/// Why a sample does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub reason: String,
    /// The host was in the way, not what was measured: another try may be good.
    pub passing: bool,
}

impl Invalid {
    /// Something that another try would meet again.
    pub fn lasting(reason: impl Into<String>) -> Invalid {
        Invalid { reason: reason.into(), passing: false }
    }

    /// Something that may be gone at the next try.
    pub fn passing(reason: impl Into<String>) -> Invalid {
        Invalid { reason: reason.into(), passing: true }
    }
}

/// What a sample was supposed to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleContext {
    /// Share of failed requests above which a sample is not valid.
    pub max_error_rate: f64,
    /// Requests start by a schedule.
    pub open_loop: bool,
    /// Every request must have the output length that it asked for.
    pub exact_output: bool,
    /// Share of the input that requests have in common, so that a server may well have it cached; `None` where that is
    /// not known.
    pub common_input: Option<f64>,
    /// How long the measured part was to last, where nothing else was to end it.
    pub duration: Option<Duration>,
    /// Requests in flight at most.
    pub concurrency: Option<u32>,
    /// The server was started anew in between.
    pub restarted: bool,
    /// All requests were handed over as one: nobody saw a token.
    pub handed_over: bool,
}

/// Least queueing delay (p99, milliseconds) that says that an open-loop client fell behind.
const QUEUE_DELAY_FLOOR_MS: f64 = 10.0;
/// The same as a share of the median E2EL, where that is more.
const QUEUE_DELAY_SHARE: f64 = 0.01;
/// CPU share of a load worker above which its stamps are late for want of CPU.
const CPU_LIMIT: f64 = 0.9;
/// Receive lag (p99) above which the client was the bottleneck.
const RECV_LAG_LIMIT_MS: f64 = 10.0;

/// Share of the input beyond what requests have in common that may come from a cache.
const CACHED_LIMIT: f64 = 0.5;
/// Share of the asked-for duration that the measured part must have lasted.
const DURATION_SHARE: f64 = 0.5;

/// The reason why a sample is not valid; `None` when it is.
pub fn validity(s: &Summary, context: &SampleContext) -> Option<Invalid> {
    restarted(context)
        .or_else(|| nothing_measured(s, context))
        .or_else(|| too_many_errors(s, context))
        .or_else(|| wrong_lengths(s, context))
        .or_else(|| cached_input(s, context))
        .or_else(|| too_short(s, context))
        .or_else(|| fell_behind(s, context))
        .map(Invalid::lasting)
        .or_else(|| client_bound(s).map(Invalid::passing))
}

fn restarted(context: &SampleContext) -> Option<String> {
    context
        .restarted
        .then(|| "the server was started anew during the sample: its caches were cold in a part of it".into())
}

/// A prompt whose keys and values are there already is not read: such a TTFT is that of another load.
fn cached_input(s: &Summary, context: &SampleContext) -> Option<String> {
    let (common, cached) = (context.common_input?, s.cached_input_tokens?);
    let share = cached as f64 / s.input_tokens.max(1) as f64;
    (share > common + CACHED_LIMIT * (1.0 - common)).then(|| {
        format!(
            "{:.0} % of the input came from the server's prefix cache, where requests have {:.0} % in common: no prompt is \
             sent twice, so something before the engine answers for it, or its report is wrong",
            100.0 * share,
            100.0 * common
        )
    })
}

fn too_short(s: &Summary, context: &SampleContext) -> Option<String> {
    if s.duration_s <= 0.0 {
        return Some("the measured part has no length: ask for more requests".into());
    }
    let asked = context.duration?.as_secs_f64();
    if s.duration_s < DURATION_SHARE * asked {
        return Some(format!("the measured part lasted {:.1} s of the {asked:.1} s that were asked for", s.duration_s));
    }
    let in_flight = context.concurrency.filter(|c| u64::from(*c) > s.n_ok && s.n_cancelled > 0)?;
    Some(format!(
        "{} requests completed within the duration, fewer than the {in_flight} in flight: those that take longest are \
         missing. Lengthen the duration",
        s.n_ok
    ))
}

fn nothing_measured(s: &Summary, context: &SampleContext) -> Option<String> {
    if s.n_sent == 0 {
        return Some("no request was sent".into());
    }
    if s.n_ok == 0 {
        return Some(match s.errors.first() {
            Some((message, _)) => format!("no request of {} completed: {message}", s.n_sent),
            None => format!("no request of {} completed within the duration: lengthen it", s.n_sent),
        });
    }
    let empty = if context.handed_over { s.output_tokens == 0 } else { s.ttft.n == 0 };
    empty.then(|| format!("none of {} answers held any text", s.n_ok))
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
    const CONTEXT: SampleContext = SampleContext {
        max_error_rate: 0.01,
        open_loop: true,
        exact_output: true,
        common_input: Some(0.0),
        duration: None,
        concurrency: None,
        restarted: false,
        handed_over: false,
    };

    fn reason(change: impl Fn(&mut SampleData), context: SampleContext) -> Option<String> {
        invalid(change, context).map(|i| i.reason)
    }

    fn invalid(change: impl Fn(&mut SampleData), context: SampleContext) -> Option<Invalid> {
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
        let busy = invalid(|d| d.client_cpu_fraction = Some(0.97), CONTEXT).unwrap();
        assert!(busy.reason.contains("97 %") && busy.passing);
        assert!(!invalid(silent, CONTEXT).unwrap().passing);
    }

    #[test]
    fn prompts_that_came_from_a_cache_do_not_count() {
        // 100 tokens of input each.
        let cached =
            |tokens: u32| move |d: &mut SampleData| d.requests.iter_mut().for_each(|r| r.cached_tokens = Some(tokens));
        assert_eq!(reason(cached(16), CONTEXT), None);
        assert!(reason(cached(96), CONTEXT).unwrap().contains("96 % of the input came from the server's prefix cache"));
        let prefix = SampleContext { common_input: Some(0.8), ..CONTEXT };
        assert_eq!(reason(cached(80), prefix), None);
        assert!(reason(cached(100), prefix).is_some());
        assert_eq!(reason(cached(100), SampleContext { common_input: None, ..CONTEXT }), None);
    }

    #[test]
    fn a_window_that_is_too_short_does_not_count() {
        // Ten seconds of requests.
        let within = |s| SampleContext { duration: Some(Duration::from_secs(s)), ..CONTEXT };
        assert_eq!(reason(|_| {}, within(10)), None);
        assert!(reason(|_| {}, within(60)).unwrap().contains("lasted 10.0 s of the 60.0 s"));
        let cut = |d: &mut SampleData| {
            d.requests[3..].iter_mut().for_each(|r| (r.status, r.error) = (Status::Cancelled, None));
        };
        let crowd = SampleContext { concurrency: Some(97), duration: Some(Duration::from_millis(100)), ..CONTEXT };
        assert!(reason(cut, crowd).unwrap().contains("3 requests completed within the duration, fewer than the 97"));
        assert_eq!(reason(cut, SampleContext { concurrency: Some(3), ..crowd }), None);
        let instant = |d: &mut SampleData| {
            d.requests.truncate(1);
            let r = &mut d.requests[0];
            (r.first_token_ns, r.last_token_ns, r.first_visible_ns) = (Some(0), Some(0), Some(0));
        };
        assert!(reason(instant, CONTEXT).unwrap().contains("no length"));
    }

    #[test]
    fn a_server_that_was_started_anew_does_not_count() {
        assert!(reason(|_| {}, SampleContext { restarted: true, ..CONTEXT }).unwrap().contains("started anew"));
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
