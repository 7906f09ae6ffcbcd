//! What a search judges its probes by: whether the samples of a unit meet the SLOs, how sure that is, and the score by
//! which a knee is found. The rules are stated for users in `docs/search.md`.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dist::moments;
use super::interval::t_quantile_one_sided;
use super::{Dist, Summary};

/// Share of requests that must meet the per-request limits where there are no others.
pub const GOODPUT_SHARE: f64 = 0.95;
/// Confidence of a bound over several samples.
pub const CONFIDENCE: &str = "95 %";

/// One sample of a probe.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub summary: &'a Summary,
    /// Share of requests within the per-request limits; only where the rule asks for it.
    pub share: Option<f64>,
}

/// Where one figure of a probe stands against its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// `p95_ttft`, …, or `goodput_share`.
    pub metric: String,
    /// Mean over the samples: milliseconds, or a share. `None` where a sample has no such figure: a percentile that falls
    /// on a failed request.
    pub mean: Option<f64>,
    /// What is held against the limit: the one-sided confidence bound of the mean; the mean itself of one sample.
    pub bound: Option<f64>,
    pub limit: f64,
    pub met: bool,
}

/// How probes are judged: by the aggregate limits where there are any, else by the share of requests that meet the
/// per-request ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Metric with its statistic, and its limit in milliseconds.
    Aggregate(Vec<(String, f64)>),
    /// The per-request limits.
    Share(BTreeMap<String, Duration>),
}

impl Rule {
    /// `None` without any limit.
    pub fn of(slo: &BTreeMap<String, Duration>) -> Option<Rule> {
        let aggregate: Vec<(String, f64)> = slo
            .iter()
            .filter(|(key, _)| key.contains('_'))
            .map(|(key, limit)| (key.clone(), limit.as_secs_f64() * 1e3))
            .collect();
        match () {
            () if !aggregate.is_empty() => Some(Rule::Aggregate(aggregate)),
            () if !slo.is_empty() => Some(Rule::Share(slo.clone())),
            () => None,
        }
    }

    /// Where each figure of these samples stands. They pass when every limit is met.
    pub fn judge(&self, samples: &[Evidence]) -> Vec<Margin> {
        match self {
            Rule::Aggregate(limits) => limits
                .iter()
                .map(|(metric, limit)| {
                    let values: Option<Vec<f64>> = samples.iter().map(|s| latency(s.summary, metric)).collect();
                    margin(metric, values, *limit, Side::AtMost)
                })
                .collect(),
            Rule::Share(_) => {
                let values = samples.iter().map(|s| s.share).collect();
                vec![margin("goodput_share", values, GOODPUT_SHARE, Side::AtLeast)]
            }
        }
    }

    /// The rule in a sentence, for samples of this number.
    pub fn text(&self, samples: u32) -> String {
        let limits: Vec<String> = match self {
            Rule::Aggregate(limits) => limits.iter().map(|(metric, ms)| format!("{metric} ≤ {ms} ms")).collect(),
            Rule::Share(limits) => {
                let each: Vec<String> =
                    limits.iter().map(|(metric, d)| format!("{metric} ≤ {} ms", d.as_secs_f64() * 1e3)).collect();
                vec![format!("at least {} % of requests with {}", 100.0 * GOODPUT_SHARE, each.join(" and "))]
            }
        };
        let how = match samples {
            0 | 1 => "judged by one sample, which says nothing about how runs differ".to_string(),
            n => format!("judged by the one-sided {CONFIDENCE} confidence bound of the mean over {n} samples"),
        };
        format!("{}; {how}", limits.join(", "))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    AtMost,
    AtLeast,
}

fn margin(metric: &str, values: Option<Vec<f64>>, limit: f64, side: Side) -> Margin {
    let values = values.filter(|v| !v.is_empty());
    let (mean, bound) = match &values {
        None => (None, None),
        Some(values) => {
            let (n, mean, std) = moments(values.iter().copied());
            let width = std.map_or(0.0, |s| t_quantile_one_sided(n - 1) * s / (n as f64).sqrt());
            (mean, mean.map(|m| if side == Side::AtMost { m + width } else { m - width }))
        }
    };
    let met = bound.is_some_and(|b| if side == Side::AtMost { b <= limit } else { b >= limit });
    Margin { metric: metric.to_string(), mean, bound, limit, met }
}

/// `p95_ttft` of a sample, milliseconds. Failed requests count as infinite where the summary can say so (percentiles of
/// TTFT and E2EL); elsewhere the limit on the error rate has to keep them few.
fn latency(s: &Summary, metric: &str) -> Option<f64> {
    let (stat, name) = metric.split_once('_')?;
    let of: fn(&Dist) -> Option<f64> = match stat {
        "mean" => |d| d.mean,
        "p50" => |d| d.p50,
        "p90" => |d| d.p90,
        "p95" => |d| d.p95,
        "p99" => |d| d.p99,
        _ => return None,
    };
    let failed = s.n_error > 0 && stat != "mean";
    match name {
        "ttft" if failed => of(&s.ttft_adj),
        "e2el" if failed => of(&s.e2el_adj),
        "ttft" => of(&s.ttft),
        "ttfo" => of(&s.ttfo),
        "e2el" => of(&s.e2el),
        // Without a second token there is no time between tokens that could be too long.
        "tpot" if s.tpot.n == 0 => Some(0.0),
        "itl" if s.itl.n == 0 => Some(0.0),
        "tpot" => of(&s.tpot),
        "itl" => of(&s.itl),
        _ => None,
    }
}

/// Kleinrock's power of a system: throughput over latency, here completed requests per second over the mean E2EL from
/// their intended start, in seconds. Largest at the knee: in a closed loop, where latency is concurrency over throughput,
/// that is the last load from which doubling it gives at least √2 times the throughput. The mean over the samples.
pub fn power(samples: &[&Summary]) -> Option<f64> {
    let of = |s: &&Summary| Some(s.request_throughput? / (s.e2el_intended.mean.filter(|ms| *ms > 0.0)? / 1e3));
    let all: Option<Vec<f64>> = samples.iter().map(of).collect();
    moments(all?.into_iter()).1
}

/// Share of a sample's finished requests (failed ones among them, cancelled ones not) that met every per-request limit,
/// from its `requests.csv`. `None` when the file cannot be read, or has no finished request.
pub fn share_within(requests_csv: impl Read, slo: &BTreeMap<String, Duration>) -> Option<f64> {
    let mut reader = csv::Reader::from_reader(requests_csv);
    let headers = reader.headers().ok()?.clone();
    let at = |name: &str| headers.iter().position(|h| h == name);
    let status = at("status")?;
    let columns = [
        "ttft_ms",
        "tpot_ms",
        "e2el_ms",
        "start_ms",
        "first_visible_ms",
        "first_token_ms",
        "last_token_ms",
        "token_events",
    ];
    let columns: Option<Vec<usize>> = columns.into_iter().map(at).collect();
    let columns = columns?;
    let (mut finished, mut good) = (0u64, 0u64);
    for record in reader.records() {
        let record = record.ok()?;
        let value = |i: usize| record.get(columns[i]).and_then(|t| t.parse::<f64>().ok());
        match record.get(status)? {
            "ok" => {}
            "error" => {
                finished += 1;
                continue;
            }
            _ => continue,
        }
        finished += 1;
        let must = |key: &str, ms: Option<f64>| {
            slo.get(key).is_none_or(|limit| ms.is_some_and(|ms| ms <= limit.as_secs_f64() * 1e3))
        };
        let may = |key: &str, ms: Option<f64>| ms.is_none() || must(key, ms);
        let gap = || Some((value(6)? - value(5)?) / (value(7).filter(|n| *n > 1.0)? - 1.0));
        let met = must("ttft", value(0))
            && must("e2el", value(2))
            && must("ttfo", value(4).zip(value(3)).map(|(visible, start)| visible - start))
            && may("tpot", value(1))
            && may("itl", gap());
        good += u64::from(met);
    }
    (finished > 0).then(|| good as f64 / finished as f64)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{request, sample};
    use super::super::{LoadShape, Status, summarize, write_requests_csv};
    use super::*;

    const MS: u64 = 1_000_000;

    fn slo(limits: &[(&str, u64)]) -> BTreeMap<String, Duration> {
        limits.iter().map(|(k, ms)| (k.to_string(), Duration::from_millis(*ms))).collect()
    }

    /// Hundred requests whose TTFT is `ttft` milliseconds and whose answers end 100 ms later; `failed` of them fail.
    fn data(ttft: u64, failed: usize) -> crate::stats::SampleData {
        let requests = (0..100).map(|i| request(i, i * 10 * MS, ttft * MS, (ttft + 100) * MS, 11)).collect();
        let mut data = sample(LoadShape::Open { rate: 100.0, cap: None }, requests);
        for r in &mut data.requests[..failed] {
            (r.status, r.error) = (Status::Error, Some("HTTP 500".into()));
        }
        data
    }

    fn judged(limits: &[(&str, u64)], ttfts: &[u64]) -> Vec<Margin> {
        let summaries: Vec<Summary> = ttfts.iter().map(|t| summarize(&data(*t, 0), &BTreeMap::new(), 1)).collect();
        let samples: Vec<Evidence> = summaries.iter().map(|summary| Evidence { summary, share: None }).collect();
        Rule::of(&slo(limits)).unwrap().judge(&samples)
    }

    #[test]
    fn one_sample_is_judged_as_it_is_and_several_by_their_bound() {
        let one = judged(&[("p95_ttft", 50)], &[50]);
        assert_eq!((one[0].mean, one[0].bound, one[0].met), (Some(50.0), Some(50.0), true));
        let spread = judged(&[("p95_ttft", 50)], &[46, 48, 50]);
        assert_eq!(spread[0].mean, Some(48.0));
        assert!((spread[0].bound.unwrap() - (48.0 + 2.919_986 * 2.0 / 3f64.sqrt())).abs() < 1e-9);
        assert!(!spread[0].met, "the mean is below the limit, and not surely so");
        assert!(judged(&[("p95_ttft", 52)], &[46, 48, 50])[0].met);
        let two = judged(&[("p95_ttft", 100), ("mean_tpot", 9)], &[50]);
        assert_eq!(
            two.iter().map(|m| (m.metric.as_str(), m.met)).collect::<Vec<_>>(),
            [("mean_tpot", false), ("p95_ttft", true)]
        );
    }

    #[test]
    fn failed_requests_do_not_vanish_from_percentiles() {
        let judge = |failed| {
            let summary = summarize(&data(10, failed), &BTreeMap::new(), 1);
            Rule::of(&slo(&[("p95_ttft", 50)])).unwrap().judge(&[Evidence { summary: &summary, share: None }])[0]
                .clone()
        };
        assert!(judge(4).met);
        assert_eq!((judge(6).bound, judge(6).met), (None, false));
    }

    #[test]
    fn the_share_of_good_requests_is_read_from_the_file() {
        let mut data = data(10, 2);
        for r in &mut data.requests[2..6] {
            r.first_token_ns = Some(r.start_ns + 60 * MS);
        }
        data.requests[99].status = Status::Cancelled;
        let mut file = Vec::new();
        write_requests_csv(&data, &mut file).unwrap();
        let limits = slo(&[("ttft", 50), ("tpot", 50), ("itl", 50), ("e2el", 200)]);
        assert_eq!(share_within(&file[..], &limits), Some(93.0 / 99.0));
        assert_eq!(share_within(&file[..], &slo(&[("tpot", 5)])), Some(4.0 / 99.0));
        assert_eq!(share_within(&b"index\n0\n"[..], &limits), None);
        let rule = Rule::of(&limits).unwrap();
        let summary = summarize(&data, &limits, 1);
        let share = |share| rule.judge(&[Evidence { summary: &summary, share }])[0].met;
        assert!(share(Some(0.95)) && !share(Some(0.94)) && !share(None));
        // The same requests as the goodput counts.
        let finished = (summary.n_ok + summary.n_error) as f64;
        let good = summary.request_goodput.unwrap() * summary.duration_s;
        assert!((good / finished - 93.0 / 99.0).abs() < 1e-9);
    }

    #[test]
    fn aggregate_limits_go_before_per_request_ones() {
        let rule = Rule::of(&slo(&[("ttft", 50), ("p95_ttft", 70)])).unwrap();
        assert_eq!(rule, Rule::Aggregate(vec![("p95_ttft".into(), 70.0)]));
        assert!(rule.text(1).starts_with("p95_ttft ≤ 70 ms; judged by one sample"));
        assert!(rule.text(3).contains("95 % confidence bound of the mean over 3 samples"));
        assert_eq!(Rule::of(&slo(&[])), None);
    }

    #[test]
    fn power_is_throughput_over_latency() {
        let summary = summarize(&data(10, 0), &BTreeMap::new(), 1);
        let expected = summary.request_throughput.unwrap() / 0.110;
        assert!((power(&[&summary]).unwrap() - expected).abs() < 1e-9);
        assert_eq!(power(&[]), None);
    }
}
