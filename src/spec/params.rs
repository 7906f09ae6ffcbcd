//! The table of parameters: the one source of the types, defaults, suggestions, JSON Schema and reference docs.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::value::Value;

/// What a parameter decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// How the engine is started; hashed into the deployment.
    Deploy,
    /// What is asked of it; hashed into the unit.
    Unit,
}

/// The type of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Str,
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A duration such as `30s`; kept as its shortest text.
    Duration,
    /// Two integers, the ends of a range, both included.
    Pair,
    /// A list of `{ rate, to, duration }` or `{ concurrency, to, duration }`.
    Stages,
    /// A number of tokens, or a duration.
    TokensOrTime,
    /// A table of anything under names of the user's choice.
    Open,
    /// A table of text under names of the user's choice.
    Strings,
    /// A method: one that has templates, or a built-in one.
    Method,
    /// An engine: one that has a template, or a built-in one.
    Engine,
}

/// A parameter that is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// Nothing: the engine's or the model's own default, or the feature is off.
    Unset,
    Bool(bool),
    Int(i64),
    Float(f64),
    Word(&'static str),
    /// Derived from the other parameters, as the text says; the derived value is what is hashed.
    Derived(&'static str),
}

impl DefaultValue {
    /// The value, where there is a fixed one.
    pub fn value(self) -> Option<Value> {
        match self {
            DefaultValue::Unset | DefaultValue::Derived(_) => None,
            DefaultValue::Bool(b) => Some(Value::Bool(b)),
            DefaultValue::Int(i) => Some(Value::Int(i)),
            DefaultValue::Float(f) => Value::number(f),
            DefaultValue::Word(w) => Some(Value::str(w)),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Dotted path. An open parameter owns everything below its path.
    pub name: &'static str,
    pub scope: Scope,
    pub kind: Kind,
    pub default: DefaultValue,
    pub doc: &'static str,
}

const fn p(name: &'static str, scope: Scope, kind: Kind, default: DefaultValue, doc: &'static str) -> Param {
    Param { name, scope, kind, default, doc }
}

const COUNT: Kind = Kind::Int { min: 1, max: 1_000_000 };
const TOKENS: Kind = Kind::Int { min: 1, max: 16_000_000 };
const NATURAL: Kind = Kind::Int { min: 0, max: 1_000_000_000 };
const POSITIVE: Kind = Kind::Float { min: f64::MIN_POSITIVE, max: 1e9 };
const NOT_NEGATIVE: Kind = Kind::Float { min: 0.0, max: 1e9 };
const FRACTION: Kind = Kind::Float { min: 0.0, max: 1.0 };

use DefaultValue::{Derived, Unset};
use Kind::{Bool, Duration, Open, Pair, Str, Strings, Word};
use Scope::{Deploy, Unit};

/// Every parameter a cell can have.
pub const PARAMS: &[Param] = &[
    p("model", Deploy, Str, Unset, "Model to serve: a Hugging Face id, or a local directory (`./`, `../` or `/`)."),
    p("revision", Deploy, Str, Unset, "Branch, tag or commit of the model."),
    p(
        "tokenizer",
        Deploy,
        Str,
        Unset,
        "Tokenizer, when it is not the model's own; as a path it also makes text prompts of exact length.",
    ),
    p("served_model", Deploy, Str, Unset, "Name the server gives the model; its own choice when unset."),
    p(
        "method",
        Deploy,
        Kind::Method,
        Unset,
        "How the model is served: `hf`, `triton`, `nim`, `unim`, `sim`, `external`, or a directory of `templates/`.",
    ),
    p(
        "engine",
        Deploy,
        Kind::Engine,
        Unset,
        "What serves it: `vllm`, `sglang`, `trtllm`, `python`, or a file of `templates/METHOD/`; `openai` for `external`.",
    ),
    p("image", Deploy, Str, Unset, "Container image, instead of the template's."),
    p(
        "hardware",
        Deploy,
        Str,
        Derived("the lock's hardware class, else this host's"),
        "Hardware class, such as `h100-sxm-80gb`.",
    ),
    p(
        "gpus",
        Deploy,
        Kind::Int { min: 0, max: 4096 },
        Derived(
            "tensor × pipeline × data parallel; data parallel counts inside the tensor group with `dp_attention`; 0 where the file's `hardware` is `cpu`",
        ),
        "GPUs of the deployment.",
    ),
    p("tensor_parallel", Deploy, COUNT, DefaultValue::Int(1), "Tensor parallel size."),
    p("pipeline_parallel", Deploy, COUNT, DefaultValue::Int(1), "Pipeline parallel size."),
    p("data_parallel", Deploy, COUNT, DefaultValue::Int(1), "Data parallel size."),
    p("expert_parallel", Deploy, COUNT, DefaultValue::Int(1), "Expert parallel size; 1 is off."),
    p("dp_attention", Deploy, Bool, DefaultValue::Bool(false), "Data-parallel attention inside the tensor group."),
    p("dtype", Deploy, Str, Unset, "Type of activations and unquantized weights, such as `bfloat16`."),
    p("quantization", Deploy, Str, Unset, "What the served weights are: `none`, `fp8`, `fp4`, `awq`, …"),
    p("kv_cache_dtype", Deploy, Str, Unset, "Type of the KV cache, such as `fp8`."),
    p("max_model_len", Deploy, TOKENS, Unset, "Longest prompt plus answer, in tokens."),
    p("gpu_memory_utilization", Deploy, FRACTION, Unset, "Share of GPU memory; each engine means its own share by it."),
    p("max_num_seqs", Deploy, COUNT, Unset, "Most sequences in one batch."),
    p("prefix_caching", Deploy, Bool, DefaultValue::Bool(false), "Reuse the KV cache of equal prefixes."),
    p(
        "engine_args",
        Deploy,
        Open,
        Unset,
        "The engine's own options: `-` equals `_`, `true` is a bare flag, a table is JSON or YAML as the engine takes it.",
    ),
    p(
        "env",
        Deploy,
        Strings,
        Unset,
        "Environment of the engine; `${NAME}` is read from this process's environment at start.",
    ),
    p(
        "assets",
        Deploy,
        Strings,
        Unset,
        "Files and directories mounted read-only: a path or `hf://org/name@rev`; used as `{{ assets.NAME }}`.",
    ),
    p(
        "container",
        Deploy,
        Open,
        Unset,
        "Merged over the rendered container: `mounts`, `shm_size`, `memory`, `user`, `entrypoint`, `ulimits`, …",
    ),
    p("endpoint", Deploy, Str, Unset, "URL of a running server (method `external`)."),
    p("headers", Deploy, Strings, Unset, "HTTP headers of every request; `${NAME}` is read from the environment."),
    p("tls.ca", Deploy, Str, Unset, "Certificate authority file."),
    p("tls.cert", Deploy, Str, Unset, "Client certificate file."),
    p("tls.key", Deploy, Str, Unset, "Client key file."),
    p("tls.insecure", Deploy, Bool, DefaultValue::Bool(false), "Accept any server certificate."),
    p("tokens.input", Unit, TOKENS, Unset, "Input sequence length (ISL), in tokens."),
    p("tokens.output", Unit, TOKENS, Unset, "Output sequence length (OSL), in tokens."),
    p(
        "tokens.input_stddev",
        Unit,
        NOT_NEGATIVE,
        DefaultValue::Int(0),
        "Standard deviation of the ISL, normal distribution.",
    ),
    p(
        "tokens.output_stddev",
        Unit,
        NOT_NEGATIVE,
        DefaultValue::Int(0),
        "Standard deviation of the OSL, normal distribution.",
    ),
    p("tokens.input_range", Unit, Pair, Unset, "Uniform ISL between two lengths, instead of `tokens.input`."),
    p(
        "tokens.shared_prefix",
        Unit,
        Kind::Int { min: 0, max: 16_000_000 },
        DefaultValue::Int(0),
        "Tokens at the start of the input that the requests of a group share.",
    ),
    p("tokens.prefix_groups", Unit, COUNT, DefaultValue::Int(1), "Number of distinct shared prefixes."),
    p(
        "tokens.turns",
        Unit,
        COUNT,
        DefaultValue::Int(1),
        "Turns of a conversation over the chat API: each is a request with all that was said before it, and `tokens.input` is what the user adds.",
    ),
    p(
        "concurrency",
        Unit,
        COUNT,
        Derived("1 where `rate` is not set; for a batch all `requests`, at most 1024"),
        "Requests in flight (closed loop); with `rate`, a cap.",
    ),
    p("rate", Unit, POSITIVE, Unset, "Requests per second (open loop)."),
    p(
        "arrival",
        Unit,
        Word(&["poisson", "constant", "gamma"]),
        DefaultValue::Word("poisson"),
        "When open-loop requests start.",
    ),
    p(
        "burstiness",
        Unit,
        POSITIVE,
        DefaultValue::Int(1),
        "Shape of the gamma arrival process; 1 is Poisson, above is more regular.",
    ),
    p(
        "requests",
        Unit,
        Kind::Int { min: 1, max: 1_000_000_000 },
        Derived("10 × `concurrency`, at least 100, where `duration` is not set"),
        "Measured requests.",
    ),
    p(
        "stages",
        Unit,
        Kind::Stages,
        Unset,
        "Load that changes: stages of `{ rate, to, duration }` or `{ concurrency, to, duration }`, one after the other; `to` makes a linear ramp. Instead of `rate`, `duration` and, for stages of it, `concurrency`.",
    ),
    p("ramp", Unit, Duration, Unset, "Time over which `rate`, or without it `concurrency`, rises linearly from zero."),
    p("duration", Unit, Duration, Unset, "Length of the measurement; with `requests`, whichever ends first."),
    p("warmup", Unit, NATURAL, DefaultValue::Int(0), "Requests sent before the measurement and discarded."),
    p("seed", Unit, Kind::Int { min: 0, max: i64::MAX }, DefaultValue::Int(0), "Seed of prompts and arrivals."),
    p("dataset", Unit, Str, Unset, "File of prompts, relative to the experiment file."),
    p(
        "format",
        Unit,
        Word(&["jsonl", "sharegpt", "trace", "azure"]),
        Unset,
        "Format of the data set; by its extension when unset. `trace` and `azure` hold arrivals and lengths.",
    ),
    p(
        "replay_speed",
        Unit,
        POSITIVE,
        DefaultValue::Int(1),
        "How much faster a trace is replayed than it was recorded, where neither `rate` nor `stages` is set.",
    ),
    p(
        "api",
        Unit,
        Word(&["chat", "completions", "generate", "batch"]),
        Derived("the stack's own: token-exact where it has one"),
        "API the unit is measured over; `batch` measures a job of `requests` requests, as fast as the engine takes them.",
    ),
    p("temperature", Unit, Kind::Float { min: 0.0, max: 100.0 }, DefaultValue::Int(0), "Sampling temperature."),
    p(
        "cancel_rate",
        Unit,
        FRACTION,
        DefaultValue::Int(0),
        "Share of requests that the client gives up before their end.",
    ),
    p(
        "cancel_after",
        Unit,
        Kind::TokensOrTime,
        DefaultValue::Int(1),
        "When it does: after so many token events, or after a duration.",
    ),
    p("ignore_eos", Unit, Bool, DefaultValue::Bool(true), "Generate exactly the asked number of tokens."),
];

/// Names that are reserved for deployments over several machines.
pub const RESERVED: &[&str] = &["nodes", "roles"];

/// Methods and engines that the binary has templates for, beside those found in `templates/`.
pub const BUILTIN_METHODS: &[&str] = &["hf", "triton", "nim", "unim", "sim", "external"];
pub const BUILTIN_ENGINES: &[&str] = &["vllm", "sglang", "trtllm", "python", "openai"];

/// What a dotted path means.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// A parameter, or a name below an open one.
    Param(&'static Param),
    /// A table that holds parameters: `tokens`, `tls`.
    Table,
    Unknown,
}

/// Rows by name, and the names of tables that hold them.
static INDEX: LazyLock<HashMap<&'static str, Lookup>> = LazyLock::new(|| {
    let mut index = HashMap::new();
    for param in PARAMS {
        index.insert(param.name, Lookup::Param(param));
        if let Some((table, _)) = param.name.split_once('.') {
            index.insert(table, Lookup::Table);
        }
    }
    index
});

/// Finds the row that owns a path.
pub fn lookup(path: &str) -> Lookup {
    if let Some(found) = INDEX.get(path) {
        return *found;
    }
    let head = path.split('.').next().unwrap_or(path);
    match INDEX.get(head) {
        Some(Lookup::Param(param)) if param.is_open() => Lookup::Param(param),
        _ => Lookup::Unknown,
    }
}

impl Param {
    /// Open parameters own everything below their name.
    pub fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Open | Kind::Strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_row() {
        assert!(matches!(lookup("tokens.input"), Lookup::Param(p) if p.name == "tokens.input"));
        assert!(matches!(lookup("tokens"), Lookup::Table));
        assert!(matches!(lookup("engine_args.a.b"), Lookup::Param(p) if p.name == "engine_args"));
        assert!(matches!(lookup("tokens.inputs"), Lookup::Unknown));
        assert!(matches!(lookup("concurency"), Lookup::Unknown));
        assert!(matches!(lookup("model.x"), Lookup::Unknown));
    }
}
