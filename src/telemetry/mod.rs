//! What an engine says of itself: its Prometheus metrics, read right before and right after the measured part of a sample
//! and never in between. Talks to the metrics path over the client that it is handed.

pub mod latency;
pub mod prometheus;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::stats::ServerMeans;
use crate::wire::{ApiSpec, Dialect};

/// Largest metrics text that is read.
const MAX_TEXT: usize = 16 << 20;
/// Pauses before a second look and further ones, where the server does not yet know of all requests.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

/// Sums and counts by name, over all label sets.
pub type Totals = BTreeMap<String, f64>;

/// Reads the metrics of one engine around a sample. Nothing of it can make a sample fail: what cannot be read is not known.
#[derive(Clone, Debug)]
pub struct Scraper {
    client: reqwest::Client,
    url: String,
    dialect: Dialect,
    /// The first look and when it was, in seconds since 1970.
    before: Arc<Mutex<Option<(f64, Totals)>>>,
    since: Stopwatch,
    /// Every look that was answered: seconds since the scraper was made, and what it saw.
    looks: Arc<Mutex<Vec<(f64, Totals)>>>,
}

impl Scraper {
    /// `None` where the API has no metrics, or the base URL is none. `client` brings headers, TLS and a time limit.
    pub fn new(client: reqwest::Client, base_url: &str, api: &ApiSpec) -> Option<Scraper> {
        let url = metrics_url(base_url, api)?;
        let (dialect, before, looks) = (api.dialect, Arc::default(), Arc::default());
        Some(Scraper { client, url, dialect, before, since: Stopwatch::start(), looks })
    }

    /// The look before the measured part.
    pub async fn look_before(&self) {
        let at = SystemClock.now().as_millisecond() as f64 / 1e3;
        let totals = self.look().await.map(|totals| (at, totals));
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// The look after it, and what lies in between. `requests` completed: a server that counts its requests a little
    /// later than it answers them is given a moment.
    pub async fn means_after(&self, requests: u64) -> ServerMeans {
        let Some((at, before)) = self.before.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return ServerMeans::default();
        };
        let mut means = ServerMeans::default();
        for pause in std::iter::once(Duration::ZERO).chain(PAUSES) {
            tokio::time::sleep(pause).await;
            let Some(after) = self.look().await else { break };
            means = latency::means(self.dialect, at, &before, &after);
            if means.requests.is_none_or(|n| n >= requests) {
                break;
            }
        }
        means
    }

    async fn look(&self) -> Option<Totals> {
        let totals = self.read().await?;
        let at = self.since.elapsed().as_secs_f64();
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).push((at, totals.clone()));
        Some(totals)
    }

    /// What every look saw, as `telemetry.csv`: one row per look and metric.
    pub fn write_csv(&self, out: impl Write) -> std::io::Result<()> {
        let mut csv = csv_header(out)?;
        for (at, totals) in self.looks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (metric, value) in totals {
                csv.write_record([&format!("{at:.6}"), metric, &value.to_string()])?;
            }
        }
        csv.flush()
    }

    async fn read(&self) -> Option<Totals> {
        let mut answer = self.client.get(&self.url).send().await.ok()?.error_for_status().ok()?;
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.ok()? {
            if text.len() + part.len() > MAX_TEXT {
                return None;
            }
            text.extend_from_slice(&part);
        }
        let text = String::from_utf8(text).ok()?;
        prometheus::totals(&text, latency::is_used).ok()
    }
}

/// `telemetry.csv` of a server that has no metrics: the columns alone.
pub fn write_empty_csv(out: impl Write) -> std::io::Result<()> {
    csv_header(out)?.flush()
}

fn csv_header<W: Write>(out: W) -> std::io::Result<csv::Writer<W>> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(["seconds", "metric", "value"])?;
    Ok(csv)
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

    fn api(rest: &str) -> ApiSpec {
        toml::from_str(&format!("dialect = \"openai\"\ndefault = \"chat\"\n{rest}")).unwrap()
    }

    /// A server that answers each request with the next of these texts, the last one for ever.
    async fn serving(texts: &'static [&'static str]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for i in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let text = texts[texts.len().min(i + 1) - 1];
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
                stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
            }
        });
        url
    }

    async fn scraped(texts: &'static [&'static str], requests: u64) -> ServerMeans {
        let url = serving(texts).await;
        let api = api("metrics = \"/metrics\"");
        let target = crate::load::Target {
            base_url: url.clone(),
            api: api.clone(),
            model: "m".into(),
            headers: Vec::new(),
            tls: Default::default(),
            dataset: None,
            tokenizer: None,
        };
        let client = crate::load::control_client(&target, Duration::from_secs(5)).await.unwrap();
        let scraper = Scraper::new(client, &url, &api).unwrap();
        scraper.look_before().await;
        scraper.means_after(requests).await
    }

    const BEFORE: &str = "sglang:e2e_request_latency_seconds_sum 10\nsglang:e2e_request_latency_seconds_count 2\n";
    const HALF: &str = "sglang:e2e_request_latency_seconds_sum 11\nsglang:e2e_request_latency_seconds_count 3\n";
    const AFTER: &str = "sglang:e2e_request_latency_seconds_sum 14\nsglang:e2e_request_latency_seconds_count 4\n";

    #[tokio::test]
    async fn requests_that_the_server_counts_late_are_waited_for() {
        let means = scraped(&[BEFORE, HALF, AFTER], 2).await;
        assert_eq!((means.server_e2el_mean_ms, means.requests), (Some(2000.0), Some(2)));
        let means = scraped(&[BEFORE, HALF, AFTER], 1).await;
        assert_eq!((means.server_e2el_mean_ms, means.requests), (Some(1000.0), Some(1)));
    }

    #[tokio::test]
    async fn what_is_no_metrics_is_not_known() {
        assert_eq!(scraped(&["[{\"iter\": 1}]"], 1).await, ServerMeans::default());
        assert_eq!(scraped(&[BEFORE, "<html>"], 1).await, ServerMeans::default());
    }

    #[test]
    fn metrics_may_have_a_port_of_their_own() {
        let url = |base: &str, rest: &str| metrics_url(base, &api(rest));
        assert_eq!(url("http://h:1", ""), None);
        assert_eq!(url("http://h:1/v/", "metrics = \"/metrics\"").unwrap(), "http://h:1/v/metrics");
        assert_eq!(url("http://h:1", "metrics = \"/metrics\"\nmetrics_port = 8002").unwrap(), "http://h:8002/metrics");
    }
}
