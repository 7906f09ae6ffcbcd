//! `[run]`, `[slo]`, `[cost]` and `[gate]`: what is never hashed.

use std::time::Duration;

use super::gate::{self, Limit};
use super::policy::{ErrorTerm, Evict, Gate, RunPolicy, SanityCheck, Slo};
use super::read::Reader;
use super::tree::{Entry, Node};
use crate::diag::{self, Diagnostic};
use crate::units;
use crate::value::Value;

/// One checked setting of `[run]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSetting {
    key: &'static str,
    value: SettingValue,
}

#[derive(Clone, Debug, PartialEq)]
enum SettingValue {
    Count(u64),
    Flag(bool),
    Time(Duration),
    Share(f64),
    Evict(Evict),
    Sanity(SanityCheck),
    Text(String),
    Texts(Vec<String>),
}

/// The keys of `[run]`; each flag of `run` has one of its name.
pub const RUN_KEYS: &[&str] = &[
    "repeats",
    "starts",
    "attempts",
    "ready_timeout",
    "request_timeout",
    "measure_timeout",
    "settle",
    "max_error_rate",
    "max_units",
    "max_age",
    "budget",
    "fail_fast",
    "retry_failed",
    "force",
    "offline",
    "simulate",
    "gate",
    "sanity",
    "parallel",
    "devices",
    "evict",
    "prefetch",
    "float",
    "seed",
    "scrape_interval",
    "dcgm",
    "webhook",
];

/// What `float` can name.
pub const FLOAT: [&str; 3] = ["image", "model", "asset"];

impl RunSetting {
    /// Checks one key and its value. The message says what the key takes.
    pub fn new(key: &str, value: &Value) -> Result<RunSetting, String> {
        let key =
            RUN_KEYS.iter().find(|k| **k == key).copied().ok_or_else(|| format!("`{key}` is not a key of [run]"))?;
        let wanted = match key {
            "repeats" | "starts" | "attempts" | "parallel" | "max_units" | "seed" => {
                let least = u64::from(key != "seed");
                let count = value.as_u64().filter(|n| *n >= least && (key == "seed" || *n <= u64::from(u32::MAX)));
                count.map(SettingValue::Count).ok_or("a whole number of at least 1")
            }
            "fail_fast" | "retry_failed" | "force" | "offline" | "simulate" | "prefetch" => {
                value.as_bool().map(SettingValue::Flag).ok_or("true or false")
            }
            "evict" => Evict::read(value).map(SettingValue::Evict).ok_or("true, false or \"all\""),
            "max_error_rate" => {
                let share = value.as_f64().filter(|f| (0.0..=1.0).contains(f));
                share.map(SettingValue::Share).ok_or("a number between 0 and 1")
            }
            "sanity" => {
                let word = value.as_str().and_then(SanityCheck::parse);
                word.map(SettingValue::Sanity).ok_or("one of \"off\", \"warn\" and \"require\"")
            }
            "gate" | "webhook" | "dcgm" => value.as_str().map(|s| SettingValue::Text(s.into())).ok_or("a string"),
            "float" => {
                let kinds = texts(value).filter(|words| words.iter().all(|w| FLOAT.contains(&w.as_str())));
                kinds.map(SettingValue::Texts).ok_or("a list of \"image\", \"model\" and \"asset\"")
            }
            "devices" => texts(value).map(SettingValue::Texts).ok_or("a list of strings"),
            _ => match value.as_str().map(units::parse_duration) {
                Some(Ok(d)) => Ok(SettingValue::Time(d)),
                Some(Err(e)) => return Err(format!("`{key}`: {e}")),
                None => Err("a duration such as \"20m\""),
            },
        };
        let value = wanted.map_err(|w| format!("`{key}` takes {w}, not {} ({value})", value.type_name()))?;
        Ok(RunSetting { key, value })
    }

    /// Writes the setting into a policy.
    pub fn apply(&self, run: &mut RunPolicy) {
        match (self.key, &self.value) {
            ("repeats", SettingValue::Count(n)) => run.repeats = *n as u32,
            ("starts", SettingValue::Count(n)) => run.starts = *n as u32,
            ("attempts", SettingValue::Count(n)) => run.attempts = *n as u32,
            ("parallel", SettingValue::Count(n)) => run.parallel = *n as u32,
            ("max_units", SettingValue::Count(n)) => run.max_units = *n,
            ("seed", SettingValue::Count(n)) => run.seed = *n,
            ("fail_fast", SettingValue::Flag(b)) => run.fail_fast = *b,
            ("retry_failed", SettingValue::Flag(b)) => run.retry_failed = *b,
            ("force", SettingValue::Flag(b)) => run.force = *b,
            ("offline", SettingValue::Flag(b)) => run.offline = *b,
            ("simulate", SettingValue::Flag(b)) => run.simulate = *b,
            ("evict", SettingValue::Evict(e)) => run.evict = *e,
            ("prefetch", SettingValue::Flag(b)) => run.prefetch = *b,
            ("max_error_rate", SettingValue::Share(f)) => run.max_error_rate = *f,
            ("sanity", SettingValue::Sanity(s)) => run.sanity = *s,
            ("gate", SettingValue::Text(s)) => run.gate = Some(s.clone()),
            ("webhook", SettingValue::Text(s)) => run.webhook = Some(s.clone()),
            ("dcgm", SettingValue::Text(s)) => run.dcgm = Some(s.clone()),
            ("devices", SettingValue::Texts(l)) => run.devices = l.clone(),
            ("float", SettingValue::Texts(l)) => run.float = l.clone(),
            ("ready_timeout", SettingValue::Time(d)) => run.ready_timeout = *d,
            ("request_timeout", SettingValue::Time(d)) => run.request_timeout = *d,
            ("measure_timeout", SettingValue::Time(d)) => run.measure_timeout = *d,
            ("settle", SettingValue::Time(d)) => run.settle = *d,
            ("scrape_interval", SettingValue::Time(d)) => run.scrape_interval = *d,
            ("max_age", SettingValue::Time(d)) => run.max_age = Some(*d),
            ("budget", SettingValue::Time(d)) => run.budget = Some(*d),
            (key, value) => unreachable!("`{key}` was checked and cannot be {value:?}"),
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_list()?.iter().map(|v| v.as_str().map(str::to_string)).collect()
}

/// Metrics with a limit per request.
pub const REQUEST_METRICS: &[&str] = &["ttft", "ttfo", "tpot", "itl", "e2el"];
/// Prefixes of a latency that make it one of a whole sample, as in `p95_ttft`.
pub const AGGREGATES: &[&str] = &["mean", "p50", "p90", "p95", "p99"];
/// Metrics of a whole sample that a gate may limit.
pub const SAMPLE_METRICS: &[&str] = &[
    "request_throughput",
    "output_throughput",
    "total_token_throughput",
    "output_throughput_steady",
    "request_goodput",
    "output_throughput_per_gpu",
    "output_tokens_per_user",
    "error_rate",
    "makespan_s",
    "usd_per_1m_output_tokens",
];

/// `ttft`, or `p95_ttft`.
fn is_latency(key: &str) -> bool {
    let base = key.split_once('_').filter(|(a, _)| AGGREGATES.contains(a)).map_or(key, |(_, b)| b);
    REQUEST_METRICS.contains(&base)
}

impl Reader<'_> {
    pub(super) fn run_settings(&mut self, entries: &[Entry]) -> Vec<RunSetting> {
        let mut out = Vec::new();
        for entry in entries {
            match RunSetting::new(&entry.key, &entry.node.to_value()) {
                Ok(setting) => out.push(setting),
                Err(message) if RUN_KEYS.contains(&&*entry.key) => {
                    self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
                }
                Err(message) => {
                    let help = diag::did_you_mean(&entry.key, RUN_KEYS.iter().copied());
                    let help = help.unwrap_or_else(|| format!("the keys are {}", RUN_KEYS.join(", ")));
                    self.push(Diagnostic::new("unknown_setting", message).help(help), &entry.key_span);
                }
            }
        }
        out
    }

    pub(super) fn slo(&mut self, entries: &[Entry]) -> Slo {
        let mut slo = Slo::default();
        for entry in entries {
            if !is_latency(&entry.key) {
                self.unknown_metric("slo", entry, REQUEST_METRICS);
            } else if let Some(limit) = self.limit(&entry.key, &entry.node) {
                slo.0.insert(entry.key.to_string(), limit);
            }
        }
        slo
    }

    fn limit(&mut self, key: &str, node: &Node) -> Option<Duration> {
        let problem = match node.as_scalar().and_then(Value::as_str).map(units::parse_duration) {
            Some(Ok(d)) => return Some(d),
            Some(Err(e)) => e.to_string(),
            None => format!("`{key}` takes a duration such as \"500ms\", not {}", node.type_name()),
        };
        self.push(Diagnostic::new("wrong_type", problem), &node.span);
        None
    }

    fn unknown_metric(&mut self, section: &str, entry: &Entry, known: &[&str]) {
        let help = diag::did_you_mean(&entry.key, known.iter().copied()).unwrap_or_else(|| {
            format!("the metrics are {}; latencies also as mean_…, p50_…, p90_…, p95_…, p99_…", known.join(", "))
        });
        let message = format!("`{}` is not a metric of [{section}]", entry.key);
        self.push(Diagnostic::new("unknown_metric", message).help(help), &entry.key_span);
    }

    pub(super) fn gate(&mut self, entries: &[Entry]) -> Gate {
        let mut gate = Gate::default();
        for entry in entries {
            let value = entry.node.to_value();
            match &*entry.key {
                "against" if value.as_str().is_some() || value.as_map().is_some() => gate.against = Some(value),
                "control" if value.as_map().is_some() => gate.control = Some(value),
                "against" | "control" => {
                    let message = format!("`{}` cannot be {}", entry.key, entry.node.type_name());
                    self.push(
                        Diagnostic::new("wrong_type", message).help("name a baseline, or give a table of parameters"),
                        &entry.node.span,
                    );
                }
                "fdr" => match gate_share(&value) {
                    Some(share) => gate.fdr = share,
                    None => {
                        let message = format!("`fdr` takes a share above 0 and below 1 such as \"1%\", not {value}");
                        self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
                    }
                },
                "error" => match value.as_str() {
                    Some("starts") => gate.error = ErrorTerm::Starts,
                    Some("samples") => gate.error = ErrorTerm::Samples,
                    _ => {
                        let message = format!("`error` takes \"starts\" or \"samples\", not {value}");
                        self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
                    }
                },
                key if is_latency(key) || SAMPLE_METRICS.contains(&key) => {
                    self.gate_limit(key, entry, &value, &mut gate)
                }
                _ => {
                    let known: Vec<&str> = REQUEST_METRICS
                        .iter()
                        .chain(SAMPLE_METRICS)
                        .chain(&["against", "control", "fdr", "error"])
                        .copied()
                        .collect();
                    self.unknown_metric("gate", entry, &known);
                }
            }
        }
        gate
    }

    fn gate_limit(&mut self, key: &str, entry: &Entry, value: &Value, gate: &mut Gate) {
        let metric = gate::metric(key).unwrap_or_else(|| key.to_string());
        let text = value.as_str().map(str::to_string).or_else(|| value.as_f64().map(|x| x.to_string()));
        match text.as_deref().map(|t| Limit::parse(&metric, t)) {
            Some(Ok(_)) => {
                gate.limits.insert(key.to_string(), text.unwrap_or_default());
            }
            Some(Err(message)) => self.push(Diagnostic::new("wrong_type", message), &entry.node.span),
            None => {
                let help = "write \"+10%\", \"-5%\", or an absolute limit such as \"500ms\" or \"1000\"";
                let message = format!("`{key}` takes an allowed change or a limit, not {value}");
                self.push(Diagnostic::new("wrong_type", message).help(help), &entry.node.span);
            }
        }
    }
}

fn gate_share(value: &Value) -> Option<f64> {
    let number = value.as_f64().filter(|x| *x > 0.0 && *x < 1.0);
    number.or_else(|| value.as_str().and_then(gate::parse_share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_key_can_be_read_and_applied() {
        let mut run = RunPolicy::default();
        for key in RUN_KEYS {
            let value = [
                Value::Int(2),
                Value::Bool(true),
                Value::Float(0.5),
                "5m".into(),
                "warn".into(),
                Value::list(vec!["image".into()]),
            ];
            let setting = value.iter().find_map(|v| RunSetting::new(key, v).ok()).unwrap_or_else(|| panic!("{key}"));
            setting.apply(&mut run);
        }
        assert_eq!((run.repeats, run.budget, run.fail_fast), (2, Some(Duration::from_secs(300)), true));
    }

    #[test]
    fn latencies_may_have_an_aggregate() {
        assert!(is_latency("ttft") && is_latency("p95_ttft") && is_latency("mean_tpot"));
        assert!(!is_latency("p42_ttft") && !is_latency("throughput"));
    }
}
