//! The load generator against scripted servers: exact bytes on loopback sockets.

mod connections;
mod jobs;
mod lengths;
mod pitfalls;
mod runs;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{LoadError, LoadOptions, Target, TlsConfig, run_sample};
use crate::stats::{Progress, SampleData, Summary, summarize};
use crate::wire::{Api, ApiSpec, Dialect};
use crate::workload::{Arrival, TokenLengths, Workload};

fn api(dialect: Dialect) -> ApiSpec {
    let default = if dialect == Dialect::Openai { Api::Completions } else { Api::Generate };
    serde_json::from_value(json!({ "dialect": dialect, "default": default, "token_ids": dialect == Dialect::Openai }))
        .unwrap()
}

pub fn target(url: &str, dialect: Dialect) -> Target {
    Target {
        base_url: url.into(),
        api: api(dialect),
        model: "m".into(),
        headers: Vec::new(),
        tls: TlsConfig::default(),
        dataset: None,
        tokenizer: None,
    }
}

/// A closed loop of `requests` requests: 32 tokens in, 4 out.
pub fn workload(concurrency: u32, requests: u64) -> Workload {
    Workload {
        api: Api::Completions,
        tokens: TokenLengths {
            input: Some(32),
            output: Some(4),
            input_stddev: 0.0,
            output_stddev: 0.0,
            input_range: None,
            shared_prefix: 0,
            prefix_groups: 1,
            turns: 1,
        },
        concurrency: Some(concurrency),
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

fn options() -> LoadOptions {
    LoadOptions { salt: b"unit".to_vec(), request_timeout: Duration::from_secs(30), ..LoadOptions::default() }
}

async fn sample(target: &Target, workload: &Workload) -> Result<SampleData, LoadError> {
    run_sample(target, workload, &options(), Arc::new(Progress::default()), CancellationToken::new()).await
}

fn summary(data: &SampleData) -> Summary {
    summarize(data, &BTreeMap::new(), 1)
}
