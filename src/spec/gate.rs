//! What a regression gate allows: metrics, the better end of each, and limits as people write them.

use super::sections::{AGGREGATES, REQUEST_METRICS, SAMPLE_METRICS};
use crate::units;

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// What a gate asks of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The largest change for the worse that is allowed, as a share of the baseline: 0.05 is `+5%` of a latency and `-5%`
    /// of a throughput.
    Change(f64),
    /// The worst value that is allowed: milliseconds of a latency, else the metric's own unit.
    Absolute(f64),
}

/// Limits that hold where a gate names none.
pub const DEFAULT_LIMITS: [(&str, &str); 3] =
    [("mean_ttft", "+5%"), ("mean_tpot", "+5%"), ("output_throughput", "-5%")];
/// Share of regressions reported that may be false.
pub const DEFAULT_FDR: f64 = 0.01;

/// The full name of a metric, with its aggregate: a latency without one is its mean. `None` for what is no metric.
pub fn metric(name: &str) -> Option<String> {
    // The results file has latencies with their unit.
    let name = name.strip_suffix("_ms").unwrap_or(name);
    if SAMPLE_METRICS.contains(&name) {
        return Some(name.to_string());
    }
    if REQUEST_METRICS.contains(&name) {
        return Some(format!("mean_{name}"));
    }
    let (aggregate, latency) = name.split_once('_')?;
    (AGGREGATES.contains(&aggregate) && REQUEST_METRICS.contains(&latency)).then(|| name.to_string())
}

/// Every metric by its full name: latencies by aggregate, then those of a whole sample.
pub fn metrics() -> Vec<String> {
    let latencies = REQUEST_METRICS.iter().flat_map(|l| AGGREGATES.iter().map(move |a| format!("{a}_{l}")));
    latencies.chain(SAMPLE_METRICS.iter().map(ToString::to_string)).collect()
}

/// Every name by which a metric may be called.
pub fn names() -> Vec<String> {
    metrics().into_iter().chain(REQUEST_METRICS.iter().map(ToString::to_string)).collect()
}

/// Which end of a metric is the good one.
pub fn better(metric: &str) -> Better {
    let higher = ["throughput", "goodput", "tokens_per_user"];
    if higher.iter().any(|h| metric.contains(h)) { Better::Higher } else { Better::Lower }
}

/// Whether values are milliseconds.
pub fn is_latency(metric: &str) -> bool {
    !SAMPLE_METRICS.contains(&metric)
}

impl Limit {
    /// Reads `+10%`, `-5%`, `5%`, `500ms` or `1000`. The message says what is wrong with the text.
    pub fn parse(metric: &str, text: &str) -> Result<Limit, String> {
        let text = text.trim();
        let good = better(metric);
        if let Some(percent) = text.strip_suffix('%') {
            return change(metric, good, percent.trim());
        }
        let wrong = |wanted: &str| {
            format!("`{metric}` takes an allowed change such as \"{}\", or {wanted}, not {text:?}", sign(good, "5"))
        };
        if is_latency(metric) {
            let limit = units::parse_duration(text).map_err(|_| wrong("a limit such as \"500ms\""))?;
            return Ok(Limit::Absolute(limit.as_secs_f64() * 1e3));
        }
        let limit = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
        limit.map(Limit::Absolute).ok_or_else(|| wrong("a limit such as \"1000\""))
    }

    /// As it is shown: `+5%`, `≤ 500 ms`.
    pub fn text(self, metric: &str) -> String {
        match (self, better(metric)) {
            (Limit::Change(share), good) => sign(good, &percent(share)),
            (Limit::Absolute(x), Better::Lower) if metric == "makespan_s" => format!("≤ {x} s"),
            (Limit::Absolute(x), Better::Lower) => format!("≤ {x}{}", if is_latency(metric) { " ms" } else { "" }),
            (Limit::Absolute(x), Better::Higher) => format!("≥ {x}"),
        }
    }
}

fn change(metric: &str, good: Better, percent: &str) -> Result<Limit, String> {
    let wrong = || format!("`{metric}` takes an allowed change such as \"{}\", not \"{percent}%\"", sign(good, "5"));
    let share = percent.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(wrong)? / 100.0;
    let signed = percent.starts_with(['+', '-']);
    let worse = match good {
        Better::Lower => share,
        Better::Higher if signed => -share,
        Better::Higher => share,
    };
    match worse {
        w if w < 0.0 => Err(format!(
            "`{metric}` gets worse in the other direction: write \"{}\" for what may be lost",
            sign(good, percent.trim_start_matches(['+', '-']))
        )),
        w if good == Better::Higher && w >= 1.0 => {
            Err(format!("`{metric}` cannot fall by {percent}%: nothing would be left"))
        }
        0.0 => Err(format!("`{metric}` needs an allowed change above 0%: noise alone is more than that")),
        w => Ok(Limit::Change(w)),
    }
}

fn sign(good: Better, percent: &str) -> String {
    format!("{}{percent}%", if good == Better::Lower { '+' } else { '-' })
}

/// A share in percent without trailing zeros.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Reads a share such as `1%` or `0.01`.
pub fn parse_share(text: &str) -> Option<f64> {
    let (number, scale) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |n| (n.trim(), 100.0));
    number.parse::<f64>().ok().map(|x| x / scale).filter(|x| *x > 0.0 && *x < 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_full_names_and_a_good_end() {
        assert_eq!(metric("ttft").as_deref(), Some("mean_ttft"));
        assert_eq!(metric("p95_ttft_ms").as_deref(), Some("p95_ttft"));
        assert_eq!(metric("output_throughput").as_deref(), Some("output_throughput"));
        assert!(
            metric("p42_ttft").is_none() && metric("throughput").is_none() && metric("p95_output_throughput").is_none()
        );
        assert_eq!((better("request_goodput"), better("error_rate")), (Better::Higher, Better::Lower));
        assert_eq!(metrics().len(), 5 * 5 + 10);
        assert_eq!(Limit::parse("makespan_s", "90").unwrap().text("makespan_s"), "≤ 90 s");
    }

    #[test]
    fn limits() {
        let read = Limit::parse;
        assert_eq!(read("p95_ttft", "+10%"), Ok(Limit::Change(0.1)));
        assert_eq!(read("output_throughput", "-5%"), Ok(Limit::Change(0.05)));
        assert_eq!(read("output_throughput", "5 %"), Ok(Limit::Change(0.05)));
        assert_eq!(read("p95_ttft", "0.5s"), Ok(Limit::Absolute(500.0)));
        assert_eq!(read("error_rate", "0.01"), Ok(Limit::Absolute(0.01)));
        assert!(read("p95_ttft", "-10%").unwrap_err().contains("+10%"));
        assert!(read("output_throughput", "+5%").unwrap_err().contains("-5%"));
        assert!(read("p95_ttft", "1000").unwrap_err().contains("500ms"));
        for text in ["ten", "", "%", "+x%", "0%"] {
            assert!(read("p95_ttft", text).is_err(), "{text}");
        }
        assert!(read("output_throughput", "-100%").is_err());
        assert_eq!(Limit::Change(0.05).text("output_throughput"), "-5%");
        assert_eq!(Limit::Change(0.075).text("p95_ttft"), "+7.5%");
        assert_eq!(Limit::Absolute(500.0).text("p95_ttft"), "≤ 500 ms");
        assert_eq!((parse_share("1%"), parse_share("0.05"), parse_share("0")), (Some(0.01), Some(0.05), None));
    }
}
