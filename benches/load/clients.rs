//! The clients and what they say.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use llmatrix::load::{LoadOptions, Target, TlsConfig, run_sample};
use llmatrix::stats::{Progress, summarize};
use llmatrix::wire::Api;
use llmatrix::workload::{Arrival, TokenLengths, Workload};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::child::{self, Done};
use super::truth::Null;

const ISL: u32 = 512;

/// What a client measured, milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Said {
    pub ttft_ms: f64,
    pub itl_ms: f64,
    pub p99_itl_ms: f64,
}

impl Said {
    /// `gaps` ascend.
    pub fn of_ns(ttft: &[u64], gaps: &[u64]) -> Said {
        let mean = |all: &[u64]| all.iter().sum::<u64>() as f64 / all.len() as f64 / 1e6;
        let p99 = gaps.get(((gaps.len().max(1) - 1) as f64 * 0.99).round() as usize).copied().unwrap_or(0);
        Said {
            ttft_ms: mean(ttft),
            itl_ms: if gaps.is_empty() { 0.0 } else { mean(gaps) },
            p99_itl_ms: p99 as f64 / 1e6,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers")
    }
}

/// A client to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Raw,
    Library,
    Binary,
}

impl Client {
    pub fn name(self) -> &'static str {
        match self {
            Client::Raw => "raw",
            Client::Library => "library",
            Client::Binary => "binary",
        }
    }

    /// Runs it on core 1 against a server.
    pub fn run(self, server: &Null, streams: u32, requests: u64, tokens: u32) -> (Done, Said) {
        let done = child::run(&mut self.command(server, streams, requests, tokens));
        let said = match self {
            Client::Binary => {
                let row: serde_json::Value = serde_json::from_str(&done.stdout)
                    .unwrap_or_else(|e| panic!("`measure --json`: {e}: {}", done.stdout));
                let get = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} is missing: {row}"));
                assert_eq!(get("n_ok") as u64, requests, "{row}");
                Said { ttft_ms: get("mean_ttft_ms"), itl_ms: get("mean_itl_ms"), p99_itl_ms: get("p99_itl_ms") }
            }
            _ => serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout)),
        };
        (done, said)
    }

    fn command(self, server: &Null, streams: u32, requests: u64, tokens: u32) -> Command {
        let numbers = [streams.to_string(), requests.to_string(), tokens.to_string()];
        if self != Client::Binary {
            let mut command = Command::new(std::env::current_exe().expect("the benchmark's own path"));
            command.args([self.name(), &server.address]).args(numbers);
            return command;
        }
        let [streams, requests, tokens] = numbers;
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmatrix"));
        command
            .args(["measure", "--json", "--quiet", "--model", "null", "--api", "completions", "--warmup", "0"])
            .args(["--engine", "vllm", "--endpoint", &format!("http://{}", server.address)])
            .args(["--input-tokens-mean", &ISL.to_string(), "--output-tokens-mean", &tokens])
            .args(["--concurrency", &streams, "--requests", &requests])
            .stderr(Stdio::null());
        command
    }
}

/// The library's own path, in this process.
pub fn library(address: &str, streams: u32, requests: u64, tokens: u32) {
    llmatrix::host::raise_open_files();
    let target = Target {
        base_url: format!("http://{address}"),
        api: serde_json::from_str(r#"{"dialect":"openai","default":"completions","token_ids":true}"#).expect("an API"),
        model: "null".into(),
        headers: Vec::new(),
        tls: TlsConfig::default(),
        dataset: None,
        tokenizer: None,
    };
    let workload = Workload {
        api: Api::Completions,
        tokens: TokenLengths {
            input: Some(ISL),
            output: Some(tokens),
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
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (options, progress) = (LoadOptions::default(), Arc::new(Progress::default()));
    let taken = runtime.block_on(run_sample(&target, &workload, &options, progress, CancellationToken::new()));
    let s = summarize(&taken.unwrap_or_else(|e| panic!("{e}")), &BTreeMap::new(), 1);
    assert_eq!((s.n_ok, s.wrong_output_length), (requests, 0), "{:?}", s.errors);
    let said = Said {
        ttft_ms: s.ttft.mean.expect("a TTFT"),
        itl_ms: s.itl.mean.unwrap_or(0.0),
        p99_itl_ms: s.itl.p99.unwrap_or(0.0),
    };
    println!("{}", said.json());
}
