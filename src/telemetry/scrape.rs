//! One look at an engine's metrics endpoint.

use std::time::Duration;

use super::vocabulary::{self, Values};
use super::{Totals, iterations, latency, prometheus};
use crate::wire::{ApiSpec, Dialect};

/// Largest metrics text that is read.
const MAX_TEXT: usize = 16 << 20;
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks one engine for its metrics.
#[derive(Clone, Debug)]
pub struct Scraper {
    client: reqwest::Client,
    url: String,
    pub(super) dialect: Dialect,
}

/// What a metrics text said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub values: Values,
    /// Sums and counts of latencies.
    pub totals: Totals,
}

impl Scraper {
    /// `None` where the API has no metrics, or the base URL is none. `client` brings headers, TLS and a time limit.
    pub fn new(client: reqwest::Client, base_url: &str, api: &ApiSpec) -> Option<Scraper> {
        Some(Scraper { client, url: metrics_url(base_url, api)?, dialect: api.dialect })
    }

    pub(super) async fn look(&self) -> Option<Look> {
        read(&fetch(&self.client, &self.url).await?)
    }
}

/// The text of a metrics endpoint that answers well.
pub(super) async fn fetch(client: &reqwest::Client, url: &str) -> Option<String> {
    let mut answer = client.get(url).timeout(PATIENCE).send().await.ok()?.error_for_status().ok()?;
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await.ok()? {
        if text.len() + part.len() > MAX_TEXT {
            return None;
        }
        text.extend_from_slice(&part);
    }
    String::from_utf8(text).ok()
}

/// `None` where it is in none of the formats.
fn read(text: &str) -> Option<Look> {
    if text.trim_start().starts_with('[') {
        return Some(Look { values: iterations::read(text)?, totals: Totals::new() });
    }
    let mut reader = vocabulary::Reader::default();
    let mut totals = Totals::new();
    let read = prometheus::samples(text, |sample| {
        reader.take(sample);
        if latency::is_used(sample.name) {
            *totals.entry(sample.name.to_string()).or_insert(0.0) += sample.value;
        }
    });
    read.ok()?;
    Some(Look { values: reader.finish(), totals })
}

/// The metrics path on the engine's address, or on a port of its own there.
fn metrics_url(base_url: &str, api: &ApiSpec) -> Option<String> {
    let path = api.metrics.as_deref()?;
    let Some(port) = api.metrics_port else { return Some(format!("{}{path}", base_url.trim_end_matches('/'))) };
    let mut url = url::Url::parse(base_url).ok()?;
    url.set_port(Some(port)).ok()?;
    url.set_path(path);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_may_have_a_port_of_their_own() {
        let url = |base: &str, rest: &str| {
            let api = toml::from_str(&format!("dialect = \"openai\"\ndefault = \"chat\"\n{rest}")).unwrap();
            metrics_url(base, &api)
        };
        assert_eq!(url("http://h:1", ""), None);
        assert_eq!(url("http://h:1/v/", "metrics = \"/metrics\"").unwrap(), "http://h:1/v/metrics");
        assert_eq!(url("http://h:1", "metrics = \"/metrics\"\nmetrics_port = 8002").unwrap(), "http://h:8002/metrics");
    }

    #[test]
    fn what_is_no_metrics_is_not_known() {
        assert_eq!(read("<html>"), None);
        assert_eq!(read("[1, 2]"), None);
        assert_eq!(read(""), Some(Look::default()));
        let look = read("vllm:e2e_request_latency_seconds_count 2\nvllm:num_requests_running 1\n").unwrap();
        assert_eq!(look.totals["vllm:e2e_request_latency_seconds_count"], 2.0);
        assert!(!look.values.is_empty());
    }
}
