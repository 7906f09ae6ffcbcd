//! The lines that an engine writes while it starts and when it dies, in its own words, so that milestones and failure
//! patterns can be told from a simulated log as from a real one.

use super::flavor::{Family, Flavor, Openai, Triton};
use super::options::{SimOptions, StartCrash};
use super::preset::{Costs, billions};

/// Lines of a start, each with the share of the load time after which it comes.
pub fn startup(options: &SimOptions, costs: &Costs) -> Vec<(f64, String)> {
    let model = &options.model;
    let weights = billions(options.sized_by()).unwrap_or(8.0) * 2.0 / f64::from(options.tensor_parallel);
    let load = options.load_time.as_secs_f64() / options.speed;
    let kv = costs.kv_tokens;
    let version = options.flavor.version();
    let at = format!("http://{}:{}", options.host, options.port);
    let mut lines =
        vec![(0.0, format!("simulated engine, flavor {}: no model is loaded, no GPU is used", options.flavor))];
    lines.extend(match options.flavor.family() {
        Family::Openai(Openai::Vllm) => vllm(options, costs, weights, load),
        Family::Openai(Openai::Nim) => {
            let profile = (0.0, format!("INFO [profiles.py] Selected profile: {}", "0".repeat(64)));
            std::iter::once(profile).chain(vllm(options, costs, weights, load)).collect()
        }
        Family::Openai(Openai::Sglang) => vec![
            (0.0, format!("server_args=ServerArgs(model_path='{model}', sampling_defaults='model')")),
            (
                0.6,
                format!(
                    "Load weight end. elapsed={:.2} s, avail mem={:.2} GB, mem usage={weights:.2} GB.",
                    load * 0.5,
                    72.0 - weights
                ),
            ),
            (
                0.8,
                format!(
                    "max_total_num_tokens={kv}, chunked_prefill_size={}, max_running_requests={}",
                    options.max_num_batched_tokens, options.max_num_seqs
                ),
            ),
            (1.0, "The server is fired up and ready to roll!".to_string()),
        ],
        Family::Openai(Openai::Trtllm) => vec![
            (0.0, format!("[TensorRT-LLM] TensorRT LLM version: {version}")),
            (0.6, format!("[TRT-LLM] [I] Weights loading took {:.2} seconds", load * 0.5)),
            (0.8, format!("[TRT-LLM] [I] Max KV cache tokens: {kv}")),
            (1.0, "INFO:     Application startup complete.".to_string()),
            (1.0, format!("INFO:     Uvicorn running on {at}")),
        ],
        Family::Triton(backend) => [
            (0.0, format!("I server.cc] \"Triton {version}\"")),
            (0.1, format!("I model_lifecycle.cc] \"loading: {model}:1\"")),
        ]
        .into_iter()
        .chain(if backend == Triton::Vllm { engine(options, costs, weights, load) } else { Vec::new() })
        .chain([
            (0.99, format!("I model_lifecycle.cc] \"successfully loaded '{model}'\"")),
            (0.99, format!("| {model} | 1 | READY |")),
            (1.0, format!("I http_server.cc] \"Started HTTPService at {}:{}\"", options.host, options.port)),
            (1.0, format!("I http_server.cc] \"Started Metrics Service at {}\"", options.host)),
        ])
        .collect(),
    });
    lines
}

/// vLLM as a server.
fn vllm(options: &SimOptions, costs: &Costs, weights: f64, load: f64) -> Vec<(f64, String)> {
    let mut lines = vec![(0.0, format!("INFO [api_server.py] vLLM API server version {}", options.flavor.version()))];
    lines.extend(engine(options, costs, weights, load));
    let at = format!("http://{}:{}", options.host, options.port);
    lines.push((1.0, format!("INFO [launcher.py] Starting vLLM server on {at}")));
    lines.push((1.0, "INFO:     Application startup complete.".to_string()));
    lines
}

/// vLLM's engine, alone or inside a server. `weights` in GiB, `load` in seconds.
fn engine(options: &SimOptions, costs: &Costs, weights: f64, load: f64) -> Vec<(f64, String)> {
    let (kv, longest) = (costs.kv_tokens, options.max_model_len);
    let fits = kv as f64 / f64::from(longest);
    let cache = kv as f64 * 131e3 / 1.074e9;
    [
        (0.05, "core.py", format!("Initializing a V1 LLM engine with config: model='{}'", options.model)),
        (0.6, "default_loader.py", format!("Loading weights took {:.2} seconds", load * 0.5)),
        (
            0.65,
            "gpu_model_runner.py",
            format!("Model loading took {weights:.4} GiB memory and {:.6} seconds", load * 0.6),
        ),
        (0.7, "monitor.py", format!("torch.compile takes {:.2} s in total", load * 0.1)),
        (0.8, "gpu_worker.py", format!("Available KV cache memory: {cache:.2} GiB")),
        (
            0.8,
            "kv_cache_utils.py",
            format!(
                "GPU KV cache size: {} tokens, Maximum concurrency for {} tokens per request: {fits:.2}x",
                thousands(kv),
                thousands(u64::from(longest))
            ),
        ),
        (0.95, "gpu_model_runner.py", format!("Graph capturing finished in {:.0} secs, took 0.50 GiB", load * 0.15)),
        (
            0.98,
            "core.py",
            format!("init engine (profile, create kv cache, warmup model) took {:.2} seconds", load * 0.35),
        ),
    ]
    .map(|(share, file, said)| (share, format!("INFO [{file}] {said}")))
    .into()
}

/// The last words of an engine that dies while loading.
pub fn start_crash(options: &SimOptions, crash: StartCrash, costs: &Costs) -> Vec<String> {
    let model = &options.model;
    let sglang = options.flavor.family() == Family::Openai(Openai::Sglang);
    let root = match crash {
        StartCrash::Oom => "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total \
                            capacity of 79.11 GiB of which 1.13 GiB is free."
            .to_string(),
        StartCrash::Kv if sglang => {
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.".to_string()
        }
        StartCrash::Kv if costs.kv_tokens < u64::from(options.max_model_len) => format!(
            "ValueError: To serve at least one request with the model's max seq len ({}), ({:.2} GiB KV cache is needed, \
             which is larger than the available KV cache memory ({:.2} GiB). Based on the available memory, the \
             estimated maximum model length is {}.",
            options.max_model_len,
            f64::from(options.max_model_len) * 131e3 / 1.074e9,
            costs.kv_tokens as f64 * 131e3 / 1.074e9,
            costs.kv_tokens
        ),
        StartCrash::Kv => "ValueError: No available memory for the cache blocks. Try increasing \
                           `gpu_memory_utilization` when initializing the engine."
            .to_string(),
        StartCrash::Gated => format!(
            "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url \
             /{model}/resolve/main/config.json."
        ),
        StartCrash::Model => format!(
            "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. Repository Not Found for url \
             /api/models/{model}."
        ),
        StartCrash::Arch => "ValueError: Model architectures ['SimForCausalLM'] are not supported for now.".to_string(),
    };
    let mut lines = vec![root.clone()];
    match options.flavor.family() {
        Family::Openai(Openai::Vllm | Openai::Nim) => {
            lines.push("RuntimeError: Engine core initialization failed. See root cause above.".to_string());
        }
        Family::Openai(Openai::Sglang) => {
            lines[0] = format!("Scheduler hit an exception: {root}");
            lines.push("Received sigquit from a child process. SIGQUIT received.".to_string());
        }
        Family::Openai(Openai::Trtllm) => {}
        Family::Triton(_) => {
            lines.push(format!("| {model} | 1 | UNAVAILABLE: Internal: {root} |"));
            lines.push("error: creating server: Internal - failed to load all models".to_string());
        }
    }
    lines
}

/// What an engine says that dies while serving.
pub fn crash(flavor: Flavor) -> String {
    match flavor.family() {
        Family::Openai(Openai::Sglang) => {
            "Scheduler hit an exception: RuntimeError: CUDA error: an illegal memory access \
                                           was encountered (simulated). SIGQUIT received."
                .to_string()
        }
        Family::Openai(_) => {
            "ERROR [core.py] EngineCore encountered a fatal error. RuntimeError: CUDA error: an illegal \
                              memory access was encountered (simulated)"
                .to_string()
        }
        Family::Triton(_) => "E Stub process is not healthy. Signal (11) received (simulated)".to_string(),
    }
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_says_its_milestones_in_order() {
        for (flavor, lines) in [
            (
                Flavor::HfVllm,
                ["Loading weights took", "GPU KV cache size: 1,234,567 tokens", "Application startup complete"],
            ),
            (Flavor::HfSglang, ["Load weight end. elapsed=", "max_total_num_tokens=1234567", "ready to roll"]),
            (Flavor::TritonTrtllm, ["successfully loaded 'm-8B'", "READY", "Started HTTPService"]),
        ] {
            let mut o = SimOptions::new(flavor, "m-8B");
            o.kv_tokens = Some(1_234_567);
            let log = startup(&o, &Costs::of(&o));
            assert!(log.windows(2).all(|w| w[0].0 <= w[1].0));
            let text: Vec<_> = log.into_iter().map(|l| l.1).collect();
            let text = text.join("\n");
            let at = lines.map(|l| text.find(l).unwrap_or_else(|| panic!("{flavor}: {l} in {text}")));
            assert!(at.is_sorted());
        }
    }

    #[test]
    fn the_root_cause_is_the_first_line() {
        let o = SimOptions::new(Flavor::HfVllm, "m-8B");
        let lines = start_crash(&o, StartCrash::Oom, &Costs::of(&o));
        assert!(lines[0].contains("CUDA out of memory") && lines[1].contains("See root cause above"));
        let o = SimOptions::new(Flavor::TritonVllm, "m-8B");
        let lines = start_crash(&o, StartCrash::Arch, &Costs::of(&o));
        assert!(lines[1].contains("UNAVAILABLE: Internal: ValueError"));
    }
}
