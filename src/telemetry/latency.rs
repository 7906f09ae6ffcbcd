//! Mean latencies of a window as the server measured them, from the histograms of each engine: sum and count after, less
//! sum and count before. Newer names of a metric go before older ones.

use super::Totals;
use crate::stats::ServerMeans;
use crate::wire::Dialect;

/// A pair of totals whose quotient is a mean, and what makes milliseconds of it.
struct Source {
    sum: &'static str,
    count: &'static str,
    to_ms: f64,
}

macro_rules! histogram {
    ($name:literal, $to_ms:literal) => {
        Source { sum: concat!($name, "_sum"), count: concat!($name, "_count"), to_ms: $to_ms }
    };
}

const TTFT: &[Source] = &[
    histogram!("vllm:time_to_first_token_seconds", 1e3),
    histogram!("sglang:time_to_first_token_seconds", 1e3),
    histogram!("trtllm_time_to_first_token_seconds", 1e3),
    // NIM 1.x.
    histogram!("time_to_first_token_seconds", 1e3),
    histogram!("nv_inference_first_response_histogram_ms", 1.0),
];

const ITL: &[Source] = &[
    histogram!("vllm:inter_token_latency_seconds", 1e3),
    histogram!("vllm:time_per_output_token_seconds", 1e3),
    histogram!("sglang:inter_token_latency_seconds", 1e3),
    histogram!("sglang:time_per_output_token_seconds", 1e3),
    histogram!("trtllm_time_per_output_token_seconds", 1e3),
    histogram!("time_per_output_token_seconds", 1e3),
];

const E2EL: &[Source] = &[
    histogram!("vllm:e2e_request_latency_seconds", 1e3),
    histogram!("sglang:e2e_request_latency_seconds", 1e3),
    histogram!("trtllm_e2e_request_latency_seconds", 1e3),
    histogram!("e2e_request_latency_seconds", 1e3),
];

/// When a process of the server began, in every exporter that follows Prometheus' conventions.
const BEGAN: &str = "process_start_time_seconds";

/// Triton's own: from a request's arrival until the model has let go of it. Our transformers model holds a request until
/// it is answered. A model that hands requests to an engine of its own lets go at once and answers later: of such a one
/// (the vLLM backend, our TensorRT-LLM model) this says nothing.
const TRITON_E2EL: &[Source] =
    &[Source { sum: "nv_inference_request_duration_us", count: "nv_inference_request_success", to_ms: 1e-3 }];

/// Whether a total takes part in any mean, or tells one start of the server from another.
pub fn is_used(name: &str) -> bool {
    name == BEGAN || [TTFT, ITL, E2EL, TRITON_E2EL].into_iter().flatten().any(|s| s.sum == name || s.count == name)
}

/// The means between two looks at a server of this kind, the first at `at`, in seconds since 1970.
pub fn means(dialect: Dialect, at: f64, before: &Totals, after: &Totals) -> ServerMeans {
    let (ttft, itl) = (mean(TTFT, before, after), mean(ITL, before, after));
    let held = dialect == Dialect::TritonPython;
    let e2el = mean(E2EL, before, after).or_else(|| held.then(|| mean(TRITON_E2EL, before, after)).flatten());
    ServerMeans {
        server_ttft_mean_ms: ttft.map(|(ms, _)| ms),
        server_itl_mean_ms: itl.map(|(ms, _)| ms),
        server_e2el_mean_ms: e2el.map(|(ms, _)| ms),
        requests: ttft.or(e2el).map(|(_, n)| n as u64),
        restarted: restarted(at, before, after),
    }
}

/// A server's clock may be behind this host's by so many seconds.
const BEHIND: f64 = 60.0;

/// A start after the first look or, where starts are not told, a count that is smaller than it was. An earlier start is that
/// of another server behind the same address.
fn restarted(at: f64, before: &Totals, after: &Totals) -> bool {
    if let Some((then, now)) = before.get(BEGAN).zip(after.get(BEGAN)) {
        return now > then && *now >= at - BEHIND;
    }
    let shrunk = |s: &Source| before.get(s.count).zip(after.get(s.count)).is_some_and(|(then, now)| now < then);
    [TTFT, ITL, E2EL, TRITON_E2EL].into_iter().flatten().any(shrunk)
}

/// Mean in milliseconds and count of the first source that counted anything. A server that counts less than before has
/// been started anew in between: what it says then is not of the window.
fn mean(sources: &[Source], before: &Totals, after: &Totals) -> Option<(f64, f64)> {
    let grown = |name: &str| {
        let now = after.get(name)?;
        // A label set may appear with its first request.
        let grown = now - before.get(name).copied().unwrap_or(0.0);
        (grown.is_finite() && grown >= 0.0).then_some(grown)
    };
    sources.iter().find_map(|source| {
        let (sum, count) = (grown(source.sum)?, grown(source.count)?);
        (count > 0.0).then(|| (sum / count * source.to_ms, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(pairs: &[(&str, f64)]) -> Totals {
        pairs.iter().map(|(n, v)| (n.to_string(), *v)).collect()
    }

    #[test]
    fn a_mean_is_of_the_window_only() {
        let before =
            totals(&[("vllm:time_to_first_token_seconds_sum", 10.0), ("vllm:time_to_first_token_seconds_count", 5.0)]);
        let after = totals(&[
            ("vllm:time_to_first_token_seconds_sum", 11.0),
            ("vllm:time_to_first_token_seconds_count", 9.0),
            ("vllm:e2e_request_latency_seconds_sum", 4.0),
            ("vllm:e2e_request_latency_seconds_count", 2.0),
        ]);
        let m = means(Dialect::Openai, 0.0, &before, &after);
        assert_eq!(
            (m.server_ttft_mean_ms, m.server_itl_mean_ms, m.server_e2el_mean_ms),
            (Some(250.0), None, Some(2000.0))
        );
        assert_eq!(m.requests, Some(4));
        assert_eq!(means(Dialect::Openai, 0.0, &after, &after), ServerMeans::default(), "nothing happened");
        let backwards = means(Dialect::Openai, 0.0, &after, &before);
        assert_eq!(backwards.server_ttft_mean_ms, None, "started anew");
        assert!(backwards.restarted && !m.restarted);
    }

    #[test]
    fn another_time_of_start_is_another_server() {
        let began = |at| totals(&[("process_start_time_seconds", at)]);
        let looked = 1.75e9 + 3600.0;
        let restarted = |before: &Totals, after: &Totals| means(Dialect::Openai, looked, before, after).restarted;
        assert!(restarted(&began(1.75e9), &began(looked + 10.0)));
        assert!(!restarted(&began(1.75e9), &began(1.75e9)));
        assert!(!restarted(&Totals::new(), &began(1.75e9)));
        // Two servers that take turns.
        assert!(!restarted(&began(1.75e9), &began(1.75e9 + 60.0)) && !restarted(&began(1.75e9 + 60.0), &began(1.75e9)));
    }

    #[test]
    fn old_names_are_known_and_new_ones_go_first() {
        let old = totals(&[
            ("vllm:time_per_output_token_seconds_sum", 1.0),
            ("vllm:time_per_output_token_seconds_count", 10.0),
        ]);
        assert_eq!(means(Dialect::Openai, 0.0, &Totals::new(), &old).server_itl_mean_ms, Some(100.0));
        let mut both = old.clone();
        both.extend(totals(&[
            ("vllm:inter_token_latency_seconds_sum", 0.5),
            ("vllm:inter_token_latency_seconds_count", 10.0),
        ]));
        assert_eq!(means(Dialect::Openai, 0.0, &Totals::new(), &both).server_itl_mean_ms, Some(50.0));
        let triton = totals(&[("nv_inference_request_duration_us", 3e6), ("nv_inference_request_success", 2.0)]);
        let e2el = |dialect| means(dialect, 0.0, &Totals::new(), &triton).server_e2el_mean_ms;
        assert_eq!(e2el(Dialect::TritonPython), Some(1500.0));
        assert_eq!((e2el(Dialect::TritonVllm), e2el(Dialect::TritonTrtllm)), (None, None), "they let go at once");
    }
}
