//! What a sample says about each metric that can be compared.

use crate::spec::gate;
use crate::stats::{Dist, Summary};
use crate::store::record::SampleRecord;

/// The metrics of a comparison that names none.
pub const USUAL: [&str; 5] = ["p50_ttft", "p99_ttft", "p50_tpot", "output_throughput", "request_throughput"];

/// The values of a sample by the full names of metrics; what was not measured is left out.
pub fn values(sample: &SampleRecord) -> Vec<(String, f64)> {
    let s = &sample.summary;
    let cost = sample.cost_usd.filter(|_| s.output_tokens > 0).map(|usd| usd / s.output_tokens as f64 * 1e6);
    let cost = cost.map(|usd| (COST.to_string(), usd));
    of_summary(s).into_iter().chain(cost).filter(|(_, v)| v.is_finite()).collect()
}

const COST: &str = "usd_per_1m_output_tokens";

/// A latency of the whole job; its name carries its unit.
const MAKESPAN: &str = "makespan_s";

/// The same where no cost is known.
pub fn of_summary(summary: &Summary) -> Vec<(String, f64)> {
    let names = gate::metrics().into_iter().filter(|m| m != COST);
    names.filter_map(|m| value(summary, &m).map(|v| (m, v))).filter(|(_, v)| v.is_finite()).collect()
}

fn value(s: &Summary, metric: &str) -> Option<f64> {
    match metric {
        "request_throughput" => s.request_throughput,
        "output_throughput" => s.output_throughput,
        "total_token_throughput" => s.total_token_throughput,
        "output_throughput_steady" => s.output_throughput_steady,
        "request_goodput" => s.request_goodput,
        "output_throughput_per_gpu" => s.output_throughput_per_gpu,
        "output_tokens_per_user" => s.output_tokens_per_user,
        "error_rate" => Some(s.error_rate),
        MAKESPAN => s.makespan_s,
        latency => {
            let (aggregate, name) = latency.split_once('_')?;
            aggregated(distribution(s, name)?, aggregate)
        }
    }
}

fn distribution<'s>(s: &'s Summary, name: &str) -> Option<&'s Dist> {
    Some(match name {
        "ttft" => &s.ttft,
        "ttfo" => &s.ttfo,
        "tpot" => &s.tpot,
        "itl" => &s.itl,
        "e2el" => &s.e2el,
        _ => return None,
    })
}

fn aggregated(d: &Dist, aggregate: &str) -> Option<f64> {
    match aggregate {
        "mean" => d.mean,
        "p50" => d.p50,
        "p90" => d.p90,
        "p95" => d.p95,
        "p99" => d.p99,
        _ => None,
    }
}

/// The unit of a metric's values; `""` where there is none.
pub fn unit(metric: &str) -> &'static str {
    match metric {
        "request_throughput" | "request_goodput" => "1/s",
        "error_rate" => "",
        MAKESPAN => "s",
        COST => "USD",
        m if gate::is_latency(m) => "ms",
        _ => "tokens/s",
    }
}

/// The column of the results file that has a metric: latencies carry their unit.
pub fn column(metric: &str) -> String {
    if gate::is_latency(metric) { format!("{metric}_ms") } else { metric.to_string() }
}

/// `TTFT p95`, `output throughput`.
pub fn title(metric: &str) -> String {
    match metric.split_once('_').filter(|_| gate::is_latency(metric)) {
        Some((aggregate, latency)) => format!("{} {aggregate}", latency.to_uppercase()),
        None if metric == MAKESPAN => "makespan".into(),
        None => metric.replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_column_and_a_value_where_it_was_measured() {
        let columns: Vec<&str> = crate::store::row::columns().iter().map(|c| c.name).collect();
        for metric in gate::metrics().iter().filter(|m| !m.ends_with("ttfo")) {
            assert!(columns.contains(&column(metric).as_str()), "{metric}");
        }
        let sample = crate::compare::testing::sample("20261124T020000Z-n", 1, 1, 100.0);
        let names: Vec<String> = values(&sample).into_iter().map(|(m, _)| m).collect();
        for metric in USUAL {
            assert!(names.iter().any(|n| n == metric), "{metric} {names:?}");
        }
        assert_eq!((unit("p95_ttft"), unit("output_throughput"), unit("request_goodput")), ("ms", "tokens/s", "1/s"));
        assert_eq!((title("p95_ttft"), title("output_throughput")), ("TTFT p95".into(), "output throughput".into()));
    }
}
