//! `trtllm-serve`, and the arguments of TensorRT-LLM's LLM API that its YAML file and our Triton model share.

use serde_json::{Map, Value};

use super::arguments::{Arguments, Style, click};
use super::flags::{Flags, Kind, TRTLLM_KV_CACHE, TRTLLM_LLM, TRTLLM_SERVE};
use super::vllm::address;
use super::{Container, Refusal, source};
use crate::sim::options::{MetricsAt, SimOptions};

const PROG: &str = "trtllm-serve serve";

pub fn image(base: SimOptions, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    let words = match words {
        ["trtllm-serve", "serve", rest @ ..] | ["trtllm-serve", rest @ ..] => rest,
        [other, ..] => return Err(Refusal::no_program(other)),
        [] => return Err(Refusal { lines: Vec::new(), exit_code: 0 }),
    };
    let a = Arguments::read(Style::Click { prog: PROG }, &TRTLLM_SERVE, words, 1)?;
    let Some(model) = a.positional().first() else {
        return Err(click(PROG, "Missing argument 'MODEL'."));
    };
    let mut arguments = from_command(&a, model);
    if let Some(path) = a.text(&["extra_llm_api_options", "config"]) {
        // What stands in the file wins, as in the versions whose behaviour is copied.
        merge(&mut arguments, from_file(container, path)?);
    }
    let measured = arguments.get("return_perf_metrics").and_then(Value::as_bool) == Some(true);
    let port = a.integer(&["port"]).unwrap_or(8000);
    let base = SimOptions {
        host: address(a.text(&["host"]).unwrap_or("localhost"))?,
        port: u16::try_from(port).map_err(|_| Refusal::exception("OverflowError: bind(): port must be 0-65535."))?,
        metrics: if measured { base.metrics } else { MetricsAt::Nowhere },
        ..base
    };
    let local = model.starts_with('/').then(|| model.trim_end_matches('/').rsplit('/').next().unwrap_or(model));
    llm(base, &arguments, local.unwrap_or(model), container).map_err(Refusal::exception)
}

/// Options of the command line as arguments of the LLM API.
fn from_command(a: &Arguments, model: &str) -> Map<String, Value> {
    let mut out = Map::from_iter([("model".to_string(), model.into())]);
    for (names, key) in [
        (["tensor_parallel_size", "tp_size"], "tensor_parallel_size"),
        (["pipeline_parallel_size", "pp_size"], "pipeline_parallel_size"),
        (["moe_expert_parallel_size", "ep_size"], "moe_expert_parallel_size"),
        (["max_batch_size", ""], "max_batch_size"),
        (["max_num_tokens", ""], "max_num_tokens"),
        (["max_seq_len", ""], "max_seq_len"),
    ] {
        out.extend(a.integer(&names).map(|n| (key.to_string(), n.into())));
    }
    out
}

fn from_file(container: &Container, path: &str) -> Result<Map<String, Value>, Refusal> {
    let text = container
        .text(path)
        .map_err(|_| Refusal::exception(format!("FileNotFoundError: [Errno 2] No such file or directory: '{path}'")))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        // YAML is more than JSON; the simulator reads no more than JSON of it.
        Ok(_) => Err(Refusal::exception(format!("TypeError: {path} holds no mapping"))),
        Err(e) => Err(Refusal::exception(format!("yaml.scanner.ScannerError: {path} (the simulator reads JSON): {e}"))),
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => _ = into.insert(key, value),
        }
    }
}

/// Settings of an engine that is started with `arguments`, or the exception that it ends with.
pub fn llm(
    base: SimOptions,
    arguments: &Map<String, Value>,
    served: &str,
    container: &Container,
) -> Result<SimOptions, String> {
    fields("TorchLlmArgs", &TRTLLM_LLM, arguments)?;
    let kv = arguments.get("kv_cache_config").and_then(Value::as_object).cloned().unwrap_or_default();
    fields("KvCacheConfig", &TRTLLM_KV_CACHE, &kv)?;
    let number = |key: &str| arguments.get(key).and_then(Value::as_u64);
    let Some(model) = arguments.get("model").and_then(Value::as_str) else {
        return Err("TypeError: LLM.__init__() missing 1 required positional argument: 'model'".into());
    };
    let found = source::find(container, model).map_err(|why| why.exception(model))?;
    if let Some(share) = kv.get("free_gpu_memory_fraction").and_then(Value::as_f64).filter(|s| !(0.0..=1.0).contains(s))
    {
        return Err(format!(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for KvCacheConfig: \
             free_gpu_memory_fraction: Value error, must be between 0 and 1 [input_value={share}, input_type=float]"
        ));
    }
    let tp = number("tensor_parallel_size").unwrap_or(1).max(1);
    let ep = number("moe_expert_parallel_size").unwrap_or(1).max(1);
    if !tp.is_multiple_of(ep) {
        return Err(format!(
            "ValueError: moe_tp_size * moe_ep_size must equal tp_size: {tp} is not a multiple of {ep}"
        ));
    }
    let world = tp * number("pipeline_parallel_size").unwrap_or(1).max(1);
    if let Some(gpus) = container.gpus().filter(|gpus| *gpus < world) {
        return Err(format!("RuntimeError: world size {world} needs as many GPUs, and {gpus} are visible"));
    }
    if let Some((needed, free)) = container.short_shm() {
        return Err(format!("RuntimeError: Bus error: /dev/shm has {free} MiB and MPI needs {needed} MiB"));
    }
    let small = |key: &str, default: u32| number(key).and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
    Ok(SimOptions {
        model: served.to_string(),
        preset: base.preset.clone().or_else(|| (served != model).then(|| model.to_string())),
        tensor_parallel: u32::try_from(tp).unwrap_or(1),
        max_model_len: small("max_seq_len", found.longest.unwrap_or(base.max_model_len)),
        max_num_seqs: small("max_batch_size", base.max_num_seqs),
        max_num_batched_tokens: small("max_num_tokens", base.max_num_batched_tokens),
        stream_interval: small("stream_interval", base.stream_interval),
        prefix_caching: kv.get("enable_block_reuse").and_then(Value::as_bool).unwrap_or(true),
        ..base
    })
}

/// Checks names and types of a configuration as pydantic does.
fn fields(class: &str, known: &Flags, given: &Map<String, Value>) -> Result<(), String> {
    let wrong = |key: &str, what: &str, kind: &str, value: &Value| {
        format!(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for {class}: {key}: {what} \
             [type={kind}, input_value={value}]"
        )
    };
    for (key, value) in given {
        let Some(kind) = known.get(key.as_str()) else {
            return Err(wrong(key, "Extra inputs are not permitted", "extra_forbidden", value));
        };
        let fits = match kind {
            _ if value.is_null() => true,
            Kind::Switch => value.is_boolean(),
            Kind::Int => value.is_i64() || value.is_u64(),
            Kind::Float => value.is_number(),
            Kind::Json => value.is_object(),
            Kind::Words => value.is_array(),
            Kind::Text => value.is_string() || value.is_boolean(),
            _ => true,
        };
        if !fits {
            return Err(wrong(key, "Input has the wrong type", "type_error", value));
        }
    }
    Ok(())
}
