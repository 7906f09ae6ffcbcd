//! `vllm serve`: the entrypoint of vLLM's image is that program, so the command line is a model and options.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::arguments::{Arguments, Style};
use super::flags::VLLM;
use super::source::{self, NoModel};
use super::{Container, Refusal};
use crate::sim::options::SimOptions;

const STYLE: Style = Style::Argparse { prog: "vllm serve", outer: "vllm", flexible: true };
/// What it serves when nobody says.
const DEFAULT_MODEL: &str = "Qwen/Qwen3-0.6B";
/// Last words of every failed start.
const POINTER: &str = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}";

pub fn image(base: SimOptions, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    serve(base, None, words, container)
}

/// The same where the model is known: what NIM starts.
pub fn serve(
    base: SimOptions,
    model: Option<&str>,
    words: &[&str],
    container: &Container,
) -> Result<SimOptions, Refusal> {
    let a = Arguments::read(STYLE, &VLLM, words, usize::from(model.is_none()))?;
    let named = model.or(a.positional().first().map(String::as_str)).or(a.text(&["model"]));
    engine(listening(base, &a, container)?, &a, named.unwrap_or(DEFAULT_MODEL), container)
}

/// Where it listens and under which name it serves.
fn listening(base: SimOptions, a: &Arguments, container: &Container) -> Result<SimOptions, Refusal> {
    let host = match a.text(&["host"]) {
        Some(text) => address(text)?,
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let port = a.integer(&["port"]).unwrap_or(8000);
    let port = u16::try_from(port).map_err(|_| Refusal::exception("OverflowError: bind(): port must be 0-65535."))?;
    let keep_alive = keep_alive(container, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", base.keep_alive)?;
    Ok(SimOptions { host, port, keep_alive, ..base })
}

/// An address to listen on, as Python's socket library takes it.
pub fn address(text: &str) -> Result<IpAddr, Refusal> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        text => text
            .parse()
            .map_err(|_| Refusal::exception(format!("socket.gaierror: [Errno -2] Name or service not known: {text}"))),
    }
}

/// Idle time of a connection in whole seconds, from a variable of the environment.
pub fn keep_alive(
    container: &Container,
    variable: &str,
    default: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
    match container.var(variable) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds)).filter(|d| !d.is_zero())),
            Err(_) => Err(Refusal::exception(format!(
                "ValueError: invalid literal for int() with base 10: '{text}' ({variable})"
            ))),
        },
    }
}

/// What the engine is told, checked in the order in which it finds out.
fn engine(base: SimOptions, a: &Arguments, model: &str, container: &Container) -> Result<SimOptions, Refusal> {
    let found = source::find(container, model).map_err(|why| no_model(model, &why))?;
    let served = a.text(&["served-model-name"]).unwrap_or(model);
    let told = Told {
        model,
        served,
        longest: found.longest,
        max_model_len: a.integer(&["max-model-len"]),
        share: a.float(&["gpu-memory-utilization"]),
        tensor_parallel: a.integer(&["tensor-parallel-size"]).unwrap_or(1),
        pipeline_parallel: a.integer(&["pipeline-parallel-size"]).unwrap_or(1),
        data_parallel: a.integer(&["data-parallel-size"]).unwrap_or(1),
        max_num_seqs: a.integer(&["max-num-seqs"]),
        max_num_batched_tokens: a.integer(&["max-num-batched-tokens"]),
        quantization: a.text(&["quantization"]),
        prefix_caching: a.switch("enable-prefix-caching"),
        stream_interval: a.integer(&["stream-interval"]),
        seed: a.integer(&["seed"]),
    };
    let options = told.options(base, container).map_err(failed_start)?;
    Ok(SimOptions { cache_report: a.switch("enable-prompt-tokens-details") == Some(true), ..options })
}

/// The settings that decide whether the engine comes up, wherever they were written.
pub struct Told<'a> {
    pub model: &'a str,
    pub served: &'a str,
    pub longest: Option<u32>,
    pub max_model_len: Option<u64>,
    /// Of the GPU's memory.
    pub share: Option<f64>,
    pub tensor_parallel: u64,
    pub pipeline_parallel: u64,
    pub data_parallel: u64,
    pub max_num_seqs: Option<u64>,
    pub max_num_batched_tokens: Option<u64>,
    pub quantization: Option<&'a str>,
    pub prefix_caching: Option<bool>,
    pub stream_interval: Option<u64>,
    pub seed: Option<u64>,
}

impl Told<'_> {
    /// The simulator's settings, or the exception that the engine ends with.
    pub fn options(&self, base: SimOptions, container: &Container) -> Result<SimOptions, String> {
        if let Some(share) = self.share.filter(|s| !(*s > 0.0 && *s <= 1.0)) {
            return Err(format!(
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig: \
                 gpu_memory_utilization: Input should be greater than 0 and less than or equal to 1 \
                 [input_value={share}, input_type=float]"
            ));
        }
        if let (Some(asked), Some(longest)) = (self.max_model_len, self.longest)
            && asked > u64::from(longest)
        {
            return Err(format!(
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig: Value error, \
                 User-specified max_model_len ({asked}) is greater than the derived max_model_len \
                 (max_position_embeddings={longest})."
            ));
        }
        let world = self.tensor_parallel.max(1) * self.pipeline_parallel.max(1) * self.data_parallel.max(1);
        if let Some(gpus) = container.gpus().filter(|gpus| *gpus < world) {
            return Err(format!(
                "ValueError: World size ({world}) is larger than the number of available GPUs ({gpus}) in this node."
            ));
        }
        if let Some((needed, free)) = container.short_shm() {
            return Err(format!(
                "RuntimeError: Insufficient space in /dev/shm for shared memory broadcast: {needed} MiB required, \
                 {free} MiB free. Increase /dev/shm (e.g. --shm-size or --ipc=host)."
            ));
        }
        let small = |n: Option<u64>, default: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
        let derived = self.longest.unwrap_or(base.max_model_len);
        Ok(SimOptions {
            model: self.served.to_string(),
            preset: base.preset.clone().or_else(|| (self.served != self.model).then(|| self.model.to_string())),
            tensor_parallel: small(Some(self.tensor_parallel), 1),
            quantization: self.quantization.map(str::to_string).or_else(|| base.quantization.clone()),
            max_model_len: small(self.max_model_len, derived),
            max_num_seqs: small(self.max_num_seqs, base.max_num_seqs),
            max_num_batched_tokens: small(self.max_num_batched_tokens, base.max_num_batched_tokens),
            prefix_caching: self.prefix_caching.unwrap_or(base.prefix_caching),
            stream_interval: small(self.stream_interval, base.stream_interval),
            seed: self.seed.unwrap_or(base.seed),
            ..base
        })
    }
}

fn failed_start(exception: String) -> Refusal {
    Refusal::new(1, ["Traceback (most recent call last):".to_string(), exception, POINTER.to_string()])
}

fn no_model(model: &str, why: &NoModel) -> Refusal {
    Refusal::new(
        1,
        [
            "Traceback (most recent call last):".to_string(),
            why.exception(model),
            format!("ValueError: Invalid repository ID or local directory specified: '{model}'."),
            "Please verify the following requirements:".to_string(),
            "1. Provide a valid Hugging Face repository ID.".to_string(),
            "2. Specify a local directory that contains a recognized configuration file.".to_string(),
        ],
    )
}
