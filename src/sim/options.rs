//! The options of a simulated engine: their types, their defaults, and how they are read from the `[sim]` table of a
//! template or from a command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::flavor::Flavor;
use crate::units::{parse_bytes, parse_duration};
use crate::value::{Table, Value};

/// Why the simulator cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("the simulator has no option `{name}`{}. Its options are: {}", suggest(suggestion), names())]
    UnknownOption { name: String, suggestion: Option<&'static str> },
    #[error("the simulator's option `{name}` is `{value}`: {expected}")]
    BadOption { name: &'static str, value: String, expected: String },
    #[error("the simulator has no flavor `{given}`{}. Flavors are: {}", suggest(suggestion), flavors())]
    UnknownFlavor { given: String, suggestion: Option<&'static str> },
    #[error("the simulator needs the option `flavor`, one of: {}", flavors())]
    NoFlavor,
    #[error("the simulated engine cannot listen on {addr}: {source}. Is the port taken? Port 0 takes any free one")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("cannot start the thread of the simulated engine: {source}")]
    Thread { source: std::io::Error },
}

fn suggest(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|s| format!("; did you mean `{s}`?")).unwrap_or_default()
}

fn flavors() -> String {
    Flavor::ALL.map(|f| f.as_str()).join(", ")
}

fn names() -> String {
    OPTIONS.iter().map(|o| o.name).collect::<Vec<_>>().join(", ")
}

/// The candidate that looks most like `given`, if any is close.
pub(super) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(given, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().min(given.len()) / 3)
        .min()
        .map(|(_, c)| c)
}

/// How a start goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCrash {
    /// The device has too little memory for the weights.
    Oom,
    /// No memory is left for the KV cache.
    Kv,
    /// The model is gated and the token is missing.
    Gated,
    /// The engine does not know the architecture.
    Arch,
    /// The hub has no such model.
    Model,
}

/// What an engine says that works and makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// No token has any text.
    Empty,
    /// Every token is the same.
    Repeat,
}

/// Everything that a simulated engine can be told. [`SimOptions::new`] gives the defaults of a flavor.
#[derive(Clone, Debug, PartialEq)]
pub struct SimOptions {
    pub flavor: Flavor,
    /// The served name, which requests must use where the real engine checks it.
    pub model: String,
    pub host: IpAddr,
    /// 0 takes any free port.
    pub port: u16,
    /// The model whose size decides the costs, when it is not `model`: any name with a size in it, such as `70B`.
    pub preset: Option<String>,
    pub tensor_parallel: u32,
    pub quantization: Option<String>,
    /// With `itl`: fixed timing instead of the batching model.
    pub fixed: Option<FixedTiming>,
    /// Divides every simulated time.
    pub speed: f64,
    /// Relative standard deviation of a step's duration.
    pub noise: f64,
    pub seed: u64,
    pub load_time: Duration,
    pub max_model_len: u32,
    pub max_num_seqs: u32,
    pub max_num_batched_tokens: u32,
    /// Tokens that the KV cache holds; the preset's when unset.
    pub kv_tokens: Option<u64>,
    pub prefix_caching: bool,
    /// Usage says how many prompt tokens came from the prefix cache.
    pub cache_report: bool,
    /// Tokens per event, the first event excepted; the engine produces one token per step all the same.
    pub stream_interval: u32,
    /// Tokens that a step yields per request, as speculative decoding does.
    pub tokens_per_event: u32,
    /// Share of tokens whose text is empty.
    pub empty_text: f64,
    /// Tokens at the start of a chat answer that are reasoning.
    pub reasoning: u32,
    /// OpenAI's files and batches are served too.
    pub batch_api: bool,
    /// The role-only chat delta is sent when the request arrives, not when the first token is ready.
    pub early_role: bool,
    /// How long an idle connection is kept; `None` for ever.
    pub keep_alive: Option<Duration>,
    /// Records when each token was written; see [`super::SimServer::take_trace`].
    pub trace: bool,
    pub metrics: MetricsAt,
    /// Metrics have the names of older versions.
    pub old_metrics: bool,
    /// Memory of the host that loading takes and keeps, in bytes.
    pub host_memory: u64,
    /// For NIM: whether an image of the first generation or of a later one is impersonated.
    pub nim_generation: u32,
    pub faults: Faults,
}

/// Where the metrics are to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// On the server's own port.
    Server,
    /// On a port of their own, and not on the server's.
    Port(u16),
    /// Switched off.
    Nowhere,
}

/// Timing that does not depend on load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedTiming {
    /// From the last byte of the request to the first token.
    pub ttft: Duration,
    /// Between successive token events of one answer.
    pub itl: Duration,
}

/// What goes wrong on purpose. Requests are counted from 1 in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// The first so many requests are served without fault.
    pub skip: u64,
    /// Of the others, every N-th suffers the faults of its stream.
    pub every: u64,
    pub fail_rate: f64,
    pub fail_every: Option<u64>,
    pub fail_after: Option<u64>,
    pub drop_after: Option<u32>,
    pub stall_after: Option<u32>,
    pub error_in_stream: Option<u32>,
    pub wrong_length: u32,
    pub nonsense: Option<Nonsense>,
    pub no_usage: bool,
    pub no_done: bool,
    pub crash_after: Option<u64>,
    pub crash_at_start: Option<StartCrash>,
    pub never_ready: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            skip: 0,
            every: 1,
            fail_rate: 0.0,
            fail_every: None,
            fail_after: None,
            drop_after: None,
            stall_after: None,
            error_in_stream: None,
            wrong_length: 0,
            nonsense: None,
            no_usage: false,
            no_done: false,
            crash_after: None,
            crash_at_start: None,
            never_ready: false,
        }
    }
}

impl SimOptions {
    /// The flavor's defaults: a preset for `model`, no fault, ready at once.
    pub fn new(flavor: Flavor, model: impl Into<String>) -> SimOptions {
        use super::flavor::{Family, Openai};
        let (max_num_seqs, keep_alive) = match flavor.family() {
            Family::Triton(super::flavor::Triton::Python) => (8, None),
            Family::Triton(_) => (256, None),
            Family::Openai(Openai::Nim) => (256, Some(Duration::from_secs(75))),
            Family::Openai(_) => (256, Some(Duration::from_secs(5))),
        };
        SimOptions {
            flavor,
            model: model.into(),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            preset: None,
            tensor_parallel: 1,
            quantization: None,
            fixed: None,
            speed: 1.0,
            noise: 0.0,
            seed: 0,
            load_time: Duration::ZERO,
            max_model_len: 32_768,
            max_num_seqs,
            max_num_batched_tokens: 8192,
            kv_tokens: None,
            prefix_caching: true,
            cache_report: false,
            old_metrics: false,
            stream_interval: 1,
            tokens_per_event: 1,
            empty_text: 0.03,
            reasoning: 0,
            batch_api: false,
            early_role: false,
            keep_alive,
            trace: false,
            metrics: MetricsAt::Server,
            host_memory: 0,
            nim_generation: 2,
            faults: Faults::default(),
        }
    }

    /// Fixed timing, and text in every token: what a client's own error is measured against.
    pub fn with_fixed(mut self, ttft: Duration, itl: Duration) -> SimOptions {
        self.fixed = Some(FixedTiming { ttft, itl });
        self.empty_text = 0.0;
        self
    }

    /// Reads a `[sim]` table. `flavor` is required; `model` defaults to `sim-8b`.
    pub fn from_table(table: &Table) -> Result<SimOptions, SimError> {
        let flavor: Flavor = match table.get("flavor") {
            None => return Err(SimError::NoFlavor),
            Some(v) => v.as_str().ok_or_else(|| bad("flavor", v, "must be a string"))?.parse()?,
        };
        let mut options = SimOptions::new(flavor, "sim-8b");
        let mut ttft = None;
        let mut itl = None;
        for (name, value) in table {
            let option = OPTIONS.iter().find(|o| o.name == &**name).ok_or_else(|| SimError::UnknownOption {
                name: name.chars().take(60).collect(),
                suggestion: nearest(name, OPTIONS.iter().map(|o| o.name)),
            })?;
            match option.name {
                "ttft" => ttft = Some(duration("ttft", value)?),
                "itl" => itl = Some(duration("itl", value)?),
                _ => options.set(option.name, value)?,
            }
        }
        match (ttft, itl) {
            (None, None) => {}
            (Some(ttft), Some(itl)) => {
                options.fixed = Some(FixedTiming { ttft, itl });
                if !table.contains_key("empty_text") {
                    options.empty_text = 0.0;
                }
            }
            (Some(_), None) => return Err(bad("ttft", &table["ttft"], "fixed timing needs `itl` too")),
            (None, Some(_)) => return Err(bad("itl", &table["itl"], "fixed timing needs `ttft` too")),
        }
        Ok(options)
    }

    /// Sets one option other than `ttft` and `itl`. `name` is from [`OPTIONS`].
    fn set(&mut self, name: &'static str, v: &Value) -> Result<(), SimError> {
        let f = &mut self.faults;
        match name {
            "flavor" => {}
            "model" => self.model = text(name, v)?,
            "host" => self.host = text(name, v)?.parse().map_err(|_| bad(name, v, "must be an IP address"))?,
            "port" => self.port = integer(name, v, 0, u64::from(u16::MAX))? as u16,
            "preset" => self.preset = Some(text(name, v)?),
            "tensor_parallel" => self.tensor_parallel = integer(name, v, 1, 1024)? as u32,
            "quantization" => self.quantization = Some(text(name, v)?),
            "speed" => self.speed = float(name, v, 1e-6, 1e9)?,
            "noise" => self.noise = float(name, v, 0.0, 1.0)?,
            "seed" => self.seed = integer(name, v, 0, i64::MAX as u64)?,
            "load_time" => self.load_time = duration(name, v)?,
            "max_model_len" => self.max_model_len = integer(name, v, 1, 1 << 24)? as u32,
            "max_num_seqs" => self.max_num_seqs = integer(name, v, 1, 1 << 20)? as u32,
            "max_num_batched_tokens" => self.max_num_batched_tokens = integer(name, v, 1, 1 << 24)? as u32,
            "kv_tokens" => self.kv_tokens = Some(integer(name, v, 1, 1 << 40)?),
            "prefix_caching" => self.prefix_caching = boolean(name, v)?,
            "cache_report" => self.cache_report = boolean(name, v)?,
            "stream_interval" => self.stream_interval = integer(name, v, 1, 1 << 20)? as u32,
            "tokens_per_event" => self.tokens_per_event = integer(name, v, 1, 1 << 10)? as u32,
            "empty_text" => self.empty_text = float(name, v, 0.0, 0.9)?,
            "reasoning" => self.reasoning = integer(name, v, 0, 1 << 24)? as u32,
            "batch_api" => self.batch_api = boolean(name, v)?,
            "early_role" => self.early_role = boolean(name, v)?,
            "keep_alive" => self.keep_alive = Some(duration(name, v)?).filter(|d| !d.is_zero()),
            "trace" => self.trace = boolean(name, v)?,
            "old_metrics" => self.old_metrics = boolean(name, v)?,
            "metrics_port" => self.metrics = MetricsAt::Port(integer(name, v, 1, u64::from(u16::MAX))? as u16),
            "host_memory" => self.host_memory = bytes(name, v)?,
            "nim_generation" => self.nim_generation = integer(name, v, 1, 2)? as u32,
            "fault_skip" => f.skip = integer(name, v, 0, 1 << 40)?,
            "fault_every" => f.every = integer(name, v, 1, 1 << 40)?,
            "fail_rate" => f.fail_rate = float(name, v, 0.0, 1.0)?,
            "fail_every" => f.fail_every = Some(integer(name, v, 1, 1 << 40)?),
            "fail_after" => f.fail_after = Some(integer(name, v, 0, 1 << 40)?),
            "drop_after" => f.drop_after = Some(integer(name, v, 0, 1 << 24)? as u32),
            "stall_after" => f.stall_after = Some(integer(name, v, 0, 1 << 24)? as u32),
            "error_in_stream" => f.error_in_stream = Some(integer(name, v, 0, 1 << 24)? as u32),
            "wrong_length" => f.wrong_length = integer(name, v, 0, 1 << 24)? as u32,
            "nonsense" => f.nonsense = nonsense(name, v)?,
            "no_usage" => f.no_usage = boolean(name, v)?,
            "no_done" => f.no_done = boolean(name, v)?,
            "crash_after" => f.crash_after = Some(integer(name, v, 0, 1 << 40)?),
            "crash_at_start" => f.crash_at_start = start_crash(name, v)?,
            "never_ready" => f.never_ready = boolean(name, v)?,
            other => unreachable!("`{other}` stands in OPTIONS and is read above"),
        }
        Ok(())
    }

    /// The name whose size decides the costs.
    pub(super) fn sized_by(&self) -> &str {
        self.preset.as_deref().unwrap_or(&self.model)
    }
}

fn bad(name: &'static str, value: &Value, expected: impl Into<String>) -> SimError {
    SimError::BadOption { name, value: value.to_string().chars().take(60).collect(), expected: expected.into() }
}

fn text(name: &'static str, v: &Value) -> Result<String, SimError> {
    match v.as_str() {
        Some(s) if !s.is_empty() => Ok(s.to_string()),
        _ => Err(bad(name, v, "must be a string that is not empty")),
    }
}

fn boolean(name: &'static str, v: &Value) -> Result<bool, SimError> {
    v.as_bool().ok_or_else(|| bad(name, v, "must be true or false"))
}

fn integer(name: &'static str, v: &Value, min: u64, max: u64) -> Result<u64, SimError> {
    v.as_u64()
        .filter(|i| (min..=max).contains(i))
        .ok_or_else(|| bad(name, v, format!("must be an integer from {min} to {max}")))
}

fn float(name: &'static str, v: &Value, min: f64, max: f64) -> Result<f64, SimError> {
    v.as_f64()
        .filter(|f| (min..=max).contains(f))
        .ok_or_else(|| bad(name, v, format!("must be a number from {min} to {max}")))
}

fn duration(name: &'static str, v: &Value) -> Result<Duration, SimError> {
    let text = v.as_str().ok_or_else(|| bad(name, v, "must be a string with a unit, such as `20ms`"))?;
    parse_duration(text).map_err(|e| bad(name, v, e.to_string()))
}

fn nonsense(name: &'static str, v: &Value) -> Result<Option<Nonsense>, SimError> {
    Ok(Some(match v.as_str() {
        Some("empty") => Nonsense::Empty,
        Some("repeat") => Nonsense::Repeat,
        _ => return Err(bad(name, v, "must be one of `empty`, `repeat`")),
    }))
}

fn bytes(name: &'static str, v: &Value) -> Result<u64, SimError> {
    let text = v.as_str().ok_or_else(|| bad(name, v, "must be a string with a unit, such as `256MiB`"))?;
    parse_bytes(text).map_err(|e| bad(name, v, e.to_string()))
}

fn start_crash(name: &'static str, v: &Value) -> Result<Option<StartCrash>, SimError> {
    Ok(match v {
        Value::Bool(false) => None,
        Value::Bool(true) => Some(StartCrash::Oom),
        _ => Some(match v.as_str() {
            Some("oom") => StartCrash::Oom,
            Some("kv") => StartCrash::Kv,
            Some("gated") => StartCrash::Gated,
            Some("arch") => StartCrash::Arch,
            Some("model") => StartCrash::Model,
            _ => return Err(bad(name, v, "must be true or one of `oom`, `kv`, `gated`, `arch`, `model`")),
        }),
    })
}

/// One option, for `--help` and the docs.
#[derive(Clone, Copy, Debug)]
pub struct OptionDoc {
    pub name: &'static str,
    /// An example value as TOML.
    pub example: &'static str,
    pub doc: &'static str,
}

const fn o(name: &'static str, example: &'static str, doc: &'static str) -> OptionDoc {
    OptionDoc { name, example, doc }
}

/// Every option of the `[sim]` table.
pub const OPTIONS: &[OptionDoc] = &[
    o("flavor", "\"hf-vllm\"", "The stack to impersonate. Required."),
    o(
        "model",
        "\"meta-llama/Llama-3.1-8B-Instruct\"",
        "Served name of the model; for Triton the model's directory name.",
    ),
    o("host", "\"127.0.0.1\"", "Address to listen on."),
    o("port", "8000", "Port to listen on; 0 takes any free one."),
    o("preset", "\"70B\"", "Name whose size decides the costs, when it is not `model`. Without a size in it: 8B."),
    o("tensor_parallel", "1", "GPUs that share the work of one replica."),
    o("quantization", "\"fp8\"", "What the weights are; fewer bits make a faster step and leave more room for KV."),
    o(
        "ttft",
        "\"50ms\"",
        "With `itl`: fixed timing, no queueing. Time from the request's last byte to the first token.",
    ),
    o("itl", "\"10ms\"", "With `ttft`: time between token events of one answer."),
    o("speed", "1", "Divides every simulated time; 10 is ten times faster than the real engine."),
    o("noise", "0", "Relative standard deviation of a step's duration, seeded."),
    o("seed", "0", "Seed of answers, answer lengths, noise and random faults."),
    o("load_time", "\"0s\"", "Time from start to ready."),
    o("max_model_len", "32768", "Longest prompt plus answer."),
    o("max_num_seqs", "256", "Most requests in a batch; for `triton-python` the static batch size, 8 by default."),
    o("max_num_batched_tokens", "8192", "Tokens that one step can take: the chunk of chunked prefill."),
    o("kv_tokens", "400000", "Tokens that the KV cache holds; by default what the preset leaves of 72 GB per GPU."),
    o("prefix_caching", "true", "Prompts reuse the KV blocks of earlier prompts with the same start."),
    o("cache_report", "false", "Usage tells the cached prompt tokens (`hf-trtllm` always does)."),
    o("stream_interval", "1", "Tokens per event after the first, as the engines' option of that name."),
    o("tokens_per_event", "1", "Tokens that one step yields per request, as speculative decoding does."),
    o("empty_text", "0.03", "Share of tokens with empty text, never the first; 0 with fixed timing."),
    o("reasoning", "0", "Tokens at the start of a chat answer that are reasoning."),
    o(
        "batch_api",
        "false",
        "OpenAI's `/v1/files` and `/v1/batches` are served too, as some gateways do; not by Triton.",
    ),
    o("early_role", "false", "Chat: sends the role-only delta at once instead of with the first token."),
    o("keep_alive", "\"5s\"", "Idle connections are closed after this; `0s` never. By default as the stack does."),
    o("trace", "false", "Records when each token was written, for the library's caller."),
    o("old_metrics", "false", "Metrics have the names that older versions of the engine had for them."),
    o("metrics_port", "8002", "Port of the metrics alone, as with Triton; without it they are on the server's own."),
    o("host_memory", "\"256MiB\"", "Memory of the host that loading takes and keeps."),
    o("nim_generation", "2", "Whether a NIM 1.x (`1`) or a later one (`2`) is impersonated by `--as-image`."),
    o("fault_skip", "0", "The first so many requests are served without fault."),
    o("fault_every", "1", "Of the others, every N-th suffers the faults of its stream."),
    o("fail_rate", "0", "Share of requests that get HTTP 500."),
    o("fail_every", "10", "Every N-th request gets HTTP 500."),
    o("fail_after", "100", "Every request after so many gets HTTP 500."),
    o("drop_after", "5", "The connection is closed after so many tokens."),
    o("stall_after", "5", "The stream stops after so many tokens; the connection stays open."),
    o("error_in_stream", "5", "After so many tokens the stream, already 200, carries an error."),
    o("wrong_length", "1", "So many tokens are missing at the end of the answer."),
    o(
        "nonsense",
        "\"repeat\"",
        "Answers make no sense: `empty` ones have no text, `repeat` says one token over and over.",
    ),
    o("no_usage", "false", "Token counts are never sent."),
    o("no_done", "false", "`[DONE]` is never sent."),
    o("crash_after", "100", "The server dies at the first request after so many."),
    o("crash_at_start", "\"oom\"", "The engine dies while loading: `oom`, `kv`, `gated`, `arch` or `model`."),
    o("never_ready", "false", "Loading never ends."),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_option_reads_its_own_example() {
        let mut all = String::new();
        for option in OPTIONS {
            all.push_str(&format!("{} = {}\n", option.name, option.example));
        }
        let options = SimOptions::from_table(&table(&all)).unwrap();
        assert_eq!(options.fixed.unwrap().itl, Duration::from_millis(10));
        assert_eq!(options.faults.crash_at_start, Some(StartCrash::Oom));
        assert_eq!((options.port, options.empty_text), (8000, 0.03));
    }

    #[test]
    fn the_docs_list_exactly_these_options() {
        let docs = include_str!("../../docs/simulator.md");
        let listed: Vec<&str> = docs.lines().skip_while(|l| *l != "| option | example | |").skip(2).collect();
        let expected: Vec<String> =
            OPTIONS.iter().map(|o| format!("| `{}` | `{}` | {} |", o.name, o.example, o.doc)).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn fixed_timing_has_text_in_every_token_unless_asked() {
        let options = SimOptions::from_table(&table("flavor='hf-vllm'\nttft='1ms'\nitl='1ms'")).unwrap();
        assert_eq!(options.empty_text, 0.0);
        assert_eq!(SimOptions::from_table(&table("flavor='hf-vllm'")).unwrap().empty_text, 0.03);
    }

    #[test]
    fn mistakes_name_the_option_and_what_it_takes() {
        for (text, expected) in [
            ("", "needs the option `flavor`"),
            ("flavor='hf-vllm'\nttfd='1ms'", "did you mean `ttft`?"),
            ("flavor='hf-vllm'\nttft='1ms'", "needs `itl` too"),
            ("flavor='hf-vllm'\nitl='1ms'", "needs `ttft` too"),
            ("flavor='hf-vllm'\nload_time=3", "must be a string with a unit"),
            ("flavor='hf-vllm'\nload_time='3 parsecs'", "is not a duration"),
            ("flavor='hf-vllm'\nfail_rate=1.5", "a number from 0 to 1"),
            ("flavor='hf-vllm'\nmax_num_seqs=0", "an integer from 1"),
            ("flavor='hf-vllm'\ncrash_at_start='fire'", "`oom`, `kv`"),
            ("flavor='hf-python'", "Flavors are: hf-vllm"),
            ("flavor='tritonpython'", "did you mean `triton-python`?"),
        ] {
            let e = SimOptions::from_table(&table(text)).unwrap_err().to_string();
            assert!(e.contains(expected), "{text}: {e}");
        }
    }
}
