//! The client held against a known truth, on this host: a null server in a thread of this process writes tokens at moments
//! that it keeps, the load generator measures it as it would measure anything, and the two are compared stamp by stamp.
//!
//! All streams start in step, the hard case. What the server is late by itself is no error: the truth is when it wrote.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::null_server::{NullServer, Script, Served, monotonic_ns};
use super::sample::take_sample;
use super::{LoadError, LoadOptions, Target, TlsConfig};
use crate::stats::{Dist, Gaps, Progress, RequestRecord, SampleData};
use crate::wire::{Api, ApiSpec, Dialect};
use crate::workload::{Arrival, TokenLengths, Workload};

/// TTFT of the null server.
const TTFT: Duration = Duration::from_millis(10);
/// Its ITL, where that does not make more tokens per second than it can write on time.
const ITL: Duration = Duration::from_millis(10);
/// Tokens per second that it writes at most: what a fast engine makes.
const MOST_TOKENS_PER_S: u32 = 25_600;
/// Length of one calibration, about, without its connections.
const LENGTH: Duration = Duration::from_millis(400);
/// Tokens of an answer.
const TOKENS: u32 = 10;

/// What the client's figures are off by at a load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Requests in flight.
    pub streams: u32,
    /// The null server's, milliseconds.
    pub itl_ms: f64,
    /// Tokens per second, over all streams.
    pub tokens_per_s: f64,
    /// From the moment a first token was written to its stamp, milliseconds: mean over requests.
    pub error_ttft_ms: f64,
    pub p99_error_ttft_ms: f64,
    /// Mean of the absolute differences between a gap as measured and as written, milliseconds.
    pub error_itl_ms: f64,
    /// What the mean ITL is off by, as a share of it.
    pub itl_bias: f64,
    pub recv_lag_p99_ms: Option<f64>,
    pub client_cpu_fraction: Option<f64>,
}

impl Calibration {
    /// TTFT off by less than a millisecond, mean ITL by less than a hundredth.
    pub fn is_exact(&self) -> bool {
        self.error_ttft_ms < 1.0 && self.itl_bias.abs() < 0.01
    }
}

/// How far this host can measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    /// Most streams up to which TTFT is off by less than 1 ms and ITL by less than 1 %; 0 when there are none.
    pub streams: u32,
    /// Tokens per second that were measured within the same bounds, at most.
    pub tokens_per_s: f64,
    /// More and more streams, at the ITL that an engine would give them.
    pub by_streams: Vec<Calibration>,
    /// More and more tokens per second over 64 streams.
    pub by_rate: Vec<Calibration>,
}

/// Streams that [`capability`] tries.
const STREAMS: [u32; 8] = [1, 8, 32, 64, 128, 256, 512, 1024];
/// Streams over which it tries rates.
const RATE_STREAMS: u32 = 64;
/// Nanoseconds between the tokens of each of them.
const RATE_ITLS: [u64; 5] = [10_000_000, 5_000_000, 2_500_000, 1_250_000, 625_000];

/// Measures what the client is off by at so many streams; takes about half a second.
pub async fn calibrate(streams: u32, workers: Option<usize>) -> Result<Calibration, LoadError> {
    let streams = streams.max(1);
    let itl = ITL.max(Duration::from_secs(1) * streams / MOST_TOKENS_PER_S);
    held_against(streams, itl, workers).await
}

/// Finds out how far this host can measure: takes about ten seconds. `progress` is told of each step.
pub async fn capability(
    workers: Option<usize>,
    mut progress: impl FnMut(&Calibration),
) -> Result<Capability, LoadError> {
    let (mut by_streams, mut by_rate) = (Vec::new(), Vec::new());
    for streams in STREAMS {
        let calibration = calibrate(streams, workers).await?;
        progress(&calibration);
        by_streams.push(calibration);
    }
    for itl in RATE_ITLS.map(Duration::from_nanos) {
        let calibration = held_against(RATE_STREAMS, itl, workers).await?;
        progress(&calibration);
        by_rate.push(calibration);
    }
    let streams = exact(&by_streams).last().map_or(0, |c| c.streams);
    let fastest = exact(&by_streams).chain(exact(&by_rate)).map(|c| c.tokens_per_s).fold(0.0, f64::max);
    Ok(Capability { streams, tokens_per_s: fastest, by_streams, by_rate })
}

/// Those before the first that is not exact.
fn exact(steps: &[Calibration]) -> impl Iterator<Item = &Calibration> {
    steps.iter().take_while(|c| c.is_exact())
}

async fn held_against(streams: u32, itl: Duration, workers: Option<usize>) -> Result<Calibration, LoadError> {
    let server = NullServer::start(Script { ttft: TTFT, itl, per_segment: 1 }, true).map_err(LoadError::NullServer)?;
    let wave = TTFT + itl * (TOKENS - 1);
    let waves = LENGTH.div_duration_f64(wave).round().clamp(1.0, 10.0) as u64;
    let workload = workload(streams, u64::from(streams) * waves);
    let options = LoadOptions { workers, keep_gaps: true, ..LoadOptions::default() };
    // One clock in two notations.
    let (instant, ns) = (std::time::Instant::now(), monotonic_ns());
    let (data, start) = take_sample(
        &target(server.address()),
        &workload,
        &options,
        Arc::new(Progress::default()),
        CancellationToken::new(),
    )
    .await?;
    let started_ns = ns + start.epoch.saturating_duration_since(instant).as_nanos() as u64;
    compare(&data, &server.finish(), started_ns, (streams, itl)).ok_or(LoadError::NoCalibration)
}

fn target(address: SocketAddr) -> Target {
    Target {
        base_url: format!("http://{address}"),
        api: ApiSpec {
            dialect: Dialect::Openai,
            default: Api::Completions,
            token_ids: true,
            usage: true,
            min_tokens: true,
            ignore_eos: true,
            seed: true,
            health: None,
            models: None,
            version: None,
            metrics: None,
            metrics_port: None,
            batch: None,
            files: None,
        },
        model: "null".into(),
        headers: Vec::new(),
        tls: TlsConfig::default(),
        dataset: None,
        tokenizer: None,
    }
}

fn workload(streams: u32, requests: u64) -> Workload {
    Workload {
        api: Api::Completions,
        tokens: TokenLengths {
            input: Some(64),
            output: Some(TOKENS),
            input_stddev: 0.0,
            output_stddev: 0.0,
            input_range: None,
            shared_prefix: 0,
            prefix_groups: 1,
            turns: 1,
        },
        concurrency: Some(streams),
        rate: None,
        arrival: Arrival::Constant,
        burstiness: 1.0,
        requests: Some(requests),
        duration: None,
        warmup: 0,
        seed: 0,
        dataset: None,
        temperature: 0.0,
        ignore_eos: true,
        profile: None,
        replay_speed: 1.0,
        cancel: None,
    }
}

/// What was said against what was true. The server numbers its answers in place of their input tokens.
fn compare(
    data: &SampleData,
    served: &[Served],
    started_ns: u64,
    (streams, itl): (u32, Duration),
) -> Option<Calibration> {
    let truth: BTreeMap<u32, &Served> = served.iter().map(|s| (s.sequence, s)).collect();
    let gaps: BTreeMap<u64, &Gaps> = data.answers.iter().map(|(index, gaps)| (*index, gaps)).collect();
    let pairs: Vec<(&RequestRecord, &Served)> =
        data.completed().filter_map(|r| Some((r, *truth.get(&r.input_tokens?)?))).collect();
    let first = pairs.iter().filter_map(|(r, s)| Some((started_ns + r.first_token_ns?).abs_diff(s.first_ns)));
    let ttft = Dist::of_ns(first);
    let (mut n, mut apart, mut said, mut true_ns) = (0u64, 0u64, 0u64, 0u64);
    for (record, served) in &pairs {
        for (a, b) in gaps.get(&record.index)?.iter().zip(served.gaps.iter()) {
            n += 1;
            apart += a.abs_diff(b);
            said += a;
            true_ns += b;
        }
    }
    let (from, to) = data.window()?;
    let tokens: u64 = pairs.iter().map(|(r, _)| r.output()).sum();
    (n > 0).then_some(Calibration {
        streams,
        itl_ms: itl.as_secs_f64() * 1e3,
        tokens_per_s: tokens as f64 / ((to - from) as f64 / 1e9),
        error_ttft_ms: ttft.mean?,
        p99_error_ttft_ms: ttft.p99?,
        error_itl_ms: apart as f64 / n as f64 / 1e6,
        itl_bias: said as f64 / true_ns as f64 - 1.0,
        recv_lag_p99_ms: Dist::of_histogram(&data.recv_lag).p99,
        client_cpu_fraction: data.client_cpu_fraction,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::LoadShape;
    use crate::stats::record::tests::{request, sample};

    const MS: u64 = 1_000_000;

    fn gaps(all: &[u64]) -> Gaps {
        let mut gaps = Gaps::default();
        all.iter().for_each(|ns| gaps.push(*ns));
        gaps
    }

    #[test]
    fn what_was_said_is_held_against_what_was_written() {
        // Two requests that begin 5 ms after the start of a sample that began at 100 ms; their stamps are 1 and 3 ms late.
        let record = |index, ttft, sequence| RequestRecord {
            input_tokens: Some(sequence),
            ..request(index, 5 * MS, ttft, ttft + 20 * MS, 3)
        };
        let mut data = sample(LoadShape::Closed { concurrency: 2 }, vec![record(0, 11 * MS, 8), record(1, 13 * MS, 9)]);
        data.answers = vec![(0, gaps(&[10 * MS, 12 * MS])), (1, gaps(&[9 * MS, 11 * MS]))];
        let served = |sequence| Served {
            sequence,
            read_ns: 105 * MS,
            first_ns: 115 * MS,
            last_ns: 135 * MS,
            tokens: 3,
            gaps: gaps(&[10 * MS, 10 * MS]),
        };
        let c = compare(&data, &[served(9), served(7), served(8)], 100 * MS, (2, ITL)).unwrap();
        assert_eq!((c.error_ttft_ms, c.error_itl_ms), (2.0, 1.0));
        assert!((c.itl_bias - 0.05).abs() < 1e-12);
        assert!(!c.is_exact());
        assert_eq!(compare(&data, &[served(7)], 0, (2, ITL)), None);
    }

    #[test]
    fn what_comes_after_the_first_failure_does_not_count() {
        let step = |streams, error| Calibration {
            streams,
            itl_ms: 10.0,
            tokens_per_s: 100.0,
            error_ttft_ms: error,
            p99_error_ttft_ms: error,
            error_itl_ms: 0.0,
            itl_bias: 0.0,
            recv_lag_p99_ms: None,
            client_cpu_fraction: None,
        };
        let steps = [step(1, 0.1), step(8, 0.9), step(32, 1.1), step(64, 0.2)];
        assert_eq!(exact(&steps).last().map(|c| c.streams), Some(8));
    }

    #[tokio::test]
    async fn a_calibration_pairs_every_request_with_its_truth() {
        let c = calibrate(3, Some(2)).await.unwrap();
        assert_eq!((c.streams, c.itl_ms), (3, 10.0));
        // A stamp is never before its write.
        assert!(c.error_ttft_ms > 0.0 && c.p99_error_ttft_ms >= c.error_ttft_ms && c.tokens_per_s > 0.0);
    }
}
