//! SGLang's image has no program of its own to start: the command line is `python3 -m sglang.launch_server` or
//! `sglang serve`, with options.

use super::arguments::{Arguments, Style, argparse};
use super::flags::SGLANG;
use super::vllm::{address, keep_alive};
use super::{Container, Refusal, source};
use crate::sim::options::{MetricsAt, SimOptions};

pub fn image(base: SimOptions, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    let (prog, words) = program(words)?;
    let style = Style::Argparse { prog, outer: prog, flexible: false };
    let a = Arguments::read(style, &SGLANG, words, usize::from(prog == "sglang serve"))?;
    let named = a.text(&["model-path", "model"]).or(a.positional().first().map(String::as_str));
    let Some(model) = named else {
        return Err(argparse(prog, "the following arguments are required: --model-path/--model"));
    };
    let options = listening(base, &a, container)?;
    engine(options, &a, model, container).map_err(|exception| {
        let dead = "Received sigquit from a child process. It usually means the child failed.";
        Refusal::new(1, ["Traceback (most recent call last):", &exception, dead])
    })
}

fn program<'a>(words: &'a [&'a str]) -> Result<(&'static str, &'a [&'a str]), Refusal> {
    match words {
        ["python" | "python3", "-m", "sglang.launch_server", rest @ ..] => Ok(("launch_server.py", rest)),
        ["python" | "python3", "-m", module, ..] => {
            Err(Refusal::new(1, [format!("/usr/bin/python3: No module named {module}")]))
        }
        ["sglang", "serve", rest @ ..] => Ok(("sglang serve", rest)),
        ["sglang", ..] => Err(argparse("sglang", "the following arguments are required: subcommand")),
        [other, ..] => Err(Refusal::no_program(other)),
        // A shell, which ends at once.
        [] => Err(Refusal { lines: Vec::new(), exit_code: 0 }),
    }
}

fn listening(base: SimOptions, a: &Arguments, container: &Container) -> Result<SimOptions, Refusal> {
    let port = a.integer(&["port"]).unwrap_or(30_000);
    Ok(SimOptions {
        // The loopback unless told otherwise: nobody outside the container gets there.
        host: address(a.text(&["host"]).unwrap_or("127.0.0.1"))?,
        port: u16::try_from(port).map_err(|_| Refusal::exception("OverflowError: bind(): port must be 0-65535."))?,
        keep_alive: keep_alive(container, "SGLANG_TIMEOUT_KEEP_ALIVE", base.keep_alive)?,
        metrics: if a.has("enable-metrics") { base.metrics } else { MetricsAt::Nowhere },
        cache_report: a.has("enable-cache-report"),
        ..base
    })
}

fn engine(base: SimOptions, a: &Arguments, model: &str, container: &Container) -> Result<SimOptions, String> {
    let found = source::find(container, model).map_err(|why| why.exception(model))?;
    let number = |names: &[&str], default: u64| a.integer(names).unwrap_or(default);
    if let Some(share) = a.float(&["mem-fraction-static"]).filter(|s| !(*s > 0.0 && *s < 1.0)) {
        return Err(format!(
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. ({share})"
        ));
    }
    let length = a.integer(&["context-length"]);
    if let (Some(asked), Some(longest)) = (length, found.longest)
        && asked > u64::from(longest)
        && container.var("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN").is_none()
    {
        return Err(format!(
            "ValueError: User-specified context_length ({asked}) is greater than the derived context_length ({longest})."
        ));
    }
    let tp = number(&["tp-size", "tensor-parallel-size"], 1);
    let dp = number(&["dp-size", "data-parallel-size"], 1);
    let ep = number(&["ep-size", "ep", "expert-parallel-size"], 1);
    let pp = number(&["pp-size", "pipeline-parallel-size"], 1);
    let attention = a.has("enable-dp-attention");
    if (attention && !tp.is_multiple_of(dp.max(1))) || !tp.is_multiple_of(ep.max(1)) {
        return Err(format!("AssertionError: tp_size ({tp}) must be divisible by dp_size ({dp}) and ep_size ({ep})"));
    }
    let world = tp * pp * if attention { 1 } else { dp };
    if let Some(gpus) = container.gpus().filter(|gpus| *gpus < world) {
        return Err(format!("torch.AcceleratorError: CUDA error: invalid device ordinal (needs {world}, has {gpus})"));
    }
    if let Some((needed, free)) = container.short_shm() {
        return Err(format!("RuntimeError: Bus error: /dev/shm has {free} MiB and NCCL needs {needed} MiB"));
    }
    let small = |n: Option<u64>, default: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
    let served = a.text(&["served-model-name"]).unwrap_or(model);
    Ok(SimOptions {
        model: served.to_string(),
        preset: base.preset.clone().or_else(|| (served != model).then(|| model.to_string())),
        tensor_parallel: small(Some(tp), 1),
        quantization: a.text(&["quantization"]).map(str::to_string).or_else(|| base.quantization.clone()),
        max_model_len: small(length, found.longest.unwrap_or(base.max_model_len)),
        max_num_seqs: small(a.integer(&["max-running-requests"]), base.max_num_seqs),
        max_num_batched_tokens: small(a.integer(&["chunked-prefill-size"]), base.max_num_batched_tokens),
        prefix_caching: !a.has("disable-radix-cache"),
        stream_interval: small(a.integer(&["stream-interval"]), base.stream_interval),
        seed: a.integer(&["random-seed"]).unwrap_or(base.seed),
        ..base
    })
}
