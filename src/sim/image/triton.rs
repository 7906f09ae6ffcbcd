//! `tritonserver`: options, then a model repository in which each model has a configuration and, for our three stacks, a
//! file that says what to load.

use serde_json::{Map, Value};

use super::arguments::{Arguments, Style};
use super::flags::{FROM_PRETRAINED, TRITON, VLLM_ENGINE};
use super::pbtxt::{self, Message};
use super::vllm::Told;
use super::{Container, Refusal, source, trtllm, vllm};
use crate::sim::flavor::Triton;
use crate::sim::options::{MetricsAt, SimOptions};

const STYLE: Style = Style::Getopt { prog: "tritonserver" };

pub fn image(base: SimOptions, model: Triton, words: &[&str], container: &Container) -> Result<SimOptions, Refusal> {
    let words = match words {
        ["tritonserver", rest @ ..] => rest,
        [other, ..] => return Err(Refusal::no_program(other)),
        [] => return Err(Refusal { lines: Vec::new(), exit_code: 0 }),
    };
    let a = Arguments::read(STYLE, &TRITON, words, 0)?;
    let base = listening(base, &a)?;
    let Some(repository) = a.text(&["model-repository", "model-store"]) else {
        return Err(creating("Invalid argument - --model-repository must be specified"));
    };
    if !container.is_dir(repository) {
        return Err(creating(&format!("Internal - failed to stat file {repository}")));
    }
    let Some(name) = container.names(repository).into_iter().find(|n| container.is_dir(&format!("{repository}/{n}")))
    else {
        // It serves, and no model: every path of one is unknown.
        return Ok(SimOptions { model: "\u{0}".into(), ..base });
    };
    Repository { container, root: repository.trim_end_matches('/'), name: &name }.load(base, model)
}

fn listening(base: SimOptions, a: &Arguments) -> Result<SimOptions, Refusal> {
    let port = |name: &str, default: u64| {
        let port = a.integer(&[name]).unwrap_or(default);
        u16::try_from(port).map_err(|_| usage(&format!("invalid port number: {port}")))
    };
    let on = |name: &str| a.switch(name) != Some(false);
    let (http, grpc, metrics) = (port("http-port", 8000)?, port("grpc-port", 8001)?, port("metrics-port", 8002)?);
    let mut taken: Vec<(&str, u16)> = Vec::new();
    for (name, port) in [("HTTP", http), ("GRPC", grpc), ("metrics", metrics)] {
        if !on(&format!("allow-{}", name.to_lowercase())) {
            continue;
        }
        if let Some((other, _)) = taken.iter().find(|(_, p)| *p == port) {
            let what = "requests at the same address and port";
            return Err(usage(&format!(
                "The server cannot listen to {other} requests and {name} {what} 0.0.0.0:{port}"
            )));
        }
        taken.push((name, port));
    }
    if !on("allow-http") {
        return Err(usage("the simulated tritonserver speaks HTTP alone: --allow-http=false leaves nothing to serve"));
    }
    for setting in a.all("backend-config") {
        if !setting.split_once(',').is_some_and(|(_, rest)| rest.contains('=')) && !setting.contains('=') {
            return Err(usage("--backend-config option format is <backend name>,<setting>=<value>. Got ".trim_end()));
        }
    }
    let host = vllm::address(a.text(&["http-address"]).unwrap_or("0.0.0.0"))?;
    let metrics = if on("allow-metrics") { MetricsAt::Port(metrics) } else { MetricsAt::Nowhere };
    Ok(SimOptions { host, port: http, metrics, ..base })
}

fn usage(what: &str) -> Refusal {
    Refusal::new(1, [what, "Usage: tritonserver [options]"])
}

fn creating(why: &str) -> Refusal {
    Refusal::new(1, [format!("error: creating server: {why}")])
}

/// The first model of a repository: ours have one.
struct Repository<'a> {
    container: &'a Container,
    root: &'a str,
    name: &'a str,
}

impl Repository<'_> {
    fn load(&self, base: SimOptions, model: Triton) -> Result<SimOptions, Refusal> {
        let path = format!("{}/{}/config.pbtxt", self.root, self.name);
        let text = self.container.text(&path).unwrap_or_default();
        let config = pbtxt::read(&text).map_err(|wrong| {
            self.not_polled(vec![wrong.to_string()], &format!("failed to read text proto from {path}"))
        })?;
        let versions = self.container.names(&format!("{}/{}", self.root, self.name));
        if !versions.iter().any(|v| v.parse::<u32>().is_ok()) {
            return Err(self.unavailable(
                "Invalid argument: at least one version must be available under the version \
                                         policy of the model",
            ));
        }
        self.check(&config, model).map_err(|why| self.unavailable(&why))?;
        let options = SimOptions { model: self.name.to_string(), ..base };
        match model {
            Triton::Vllm => self.vllm(options, &config),
            Triton::Python => self.python(options, &config),
            Triton::Trtllm => self.trtllm(options, &config),
        }
        .map_err(|why| self.unavailable(&why))
    }

    fn not_polled(&self, mut lines: Vec<String>, why: &str) -> Refusal {
        lines.push(format!(
            "E1124 06:15:00.000000 1 model_repository_manager.cc:1460] \"Poll failed for model directory '{}': {why}\"",
            self.name
        ));
        lines.push("error: creating server: Internal - failed to load all models".into());
        Refusal { lines, exit_code: 1 }
    }

    fn unavailable(&self, why: &str) -> Refusal {
        let rule = format!("+{}+---------+{}+", "-".repeat(self.name.len() + 2), "-".repeat(why.len() + 15));
        Refusal::new(
            1,
            [
                rule.clone(),
                format!("| {} | 1       | UNAVAILABLE: {why} |", self.name),
                rule,
                "error: creating server: Internal - failed to load all models".to_string(),
            ],
        )
    }

    /// What Triton itself checks before a backend sees the model.
    fn check(&self, config: &Message, model: Triton) -> Result<(), String> {
        let wanted = if model == Triton::Vllm { "vllm" } else { "python" };
        match config.text("backend") {
            Some(backend) if backend == wanted => {}
            Some(other) => {
                return Err(format!(
                    "Invalid argument: unable to find backend library for backend '{other}', try specifying runtime on \
                     the model configuration."
                ));
            }
            None => {
                return Err(format!("Invalid argument: model configuration must specify 'backend' for {}", self.name));
            }
        }
        if config.text("name").is_some_and(|n| n != self.name) {
            return Err(format!("Invalid argument: unexpected directory name '{}' for the model's name", self.name));
        }
        let visible = self.container.gpus();
        for gpu in config.messages("instance_group").flat_map(|g| g.texts("gpus")) {
            if let (Ok(index), Some(visible)) = (gpu.parse::<u64>(), visible)
                && index >= visible
            {
                return Err(format!(
                    "Invalid argument: instance group {}_0 of model {} specifies invalid or unsupported gpu id {gpu}",
                    self.name, self.name
                ));
            }
        }
        Ok(())
    }

    /// A JSON object beside the model's code.
    fn json(&self, file: &str, missing: &str) -> Result<Map<String, Value>, String> {
        let path = format!("{}/{}/1/{file}", self.root, self.name);
        let text = self.container.text(&path).map_err(|_| format!("Internal: {missing}: '{path}'"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(format!("Internal: TypeError: {path} holds no object")),
            Err(e) => Err(format!("Internal: json.decoder.JSONDecodeError: {path}: {e}")),
        }
    }

    /// vLLM's backend: the file holds arguments of `AsyncEngineArgs`.
    fn vllm(&self, base: SimOptions, config: &Message) -> Result<SimOptions, String> {
        let given = self.json("model.json", "AssertionError: vllm engine args must be provided in a file")?;
        for (key, value) in &given {
            let flag = key.replace('_', "-");
            let known = key == "model" || (!key.contains('-') && VLLM_ENGINE.contains_key(flag.as_str()));
            if !known {
                return Err(format!(
                    "Internal: TypeError: AsyncEngineArgs.__init__() got an unexpected keyword argument '{key}'"
                ));
            }
            if value.is_null() {
                return Err(format!("Internal: ValidationError: {key}: Input should not be null"));
            }
        }
        let number = |key: &str| given.get(key).and_then(Value::as_u64);
        let text = |key: &str| given.get(key).and_then(Value::as_str);
        let model = text("model").ok_or("Internal: ValueError: model.json names no `model`")?;
        let found = source::find(self.container, model).map_err(|why| format!("Internal: {}", why.exception(model)))?;
        let told = Told {
            model,
            served: self.name,
            longest: found.longest,
            max_model_len: number("max_model_len"),
            share: given.get("gpu_memory_utilization").and_then(Value::as_f64),
            tensor_parallel: number("tensor_parallel_size").unwrap_or(1),
            pipeline_parallel: number("pipeline_parallel_size").unwrap_or(1),
            data_parallel: 1,
            max_num_seqs: number("max_num_seqs"),
            max_num_batched_tokens: number("max_num_batched_tokens"),
            quantization: text("quantization"),
            prefix_caching: given.get("enable_prefix_caching").and_then(Value::as_bool),
            stream_interval: number("stream_interval"),
            seed: number("seed"),
        };
        let one_device = config.messages("instance_group").any(|g| g.text("kind") == Some("KIND_GPU"));
        if told.tensor_parallel * told.pipeline_parallel > 1 && one_device {
            return Err("Internal: ValueError: KIND_GPU is for one device; tensor or pipeline parallelism needs \
                        KIND_MODEL"
                .into());
        }
        told.options(base, self.container).map_err(|e| format!("Internal: {e}"))
    }

    /// What Triton's Python backend needs, whatever the model does: its program, its inputs and outputs, shared memory.
    fn program(&self, config: &Message, inputs: &[&str], outputs: &[&str]) -> Result<(), String> {
        let path = format!("{}/{}/1/model.py", self.root, self.name);
        if self.container.text(&path).map_or(true, |t| !t.contains("class TritonPythonModel")) {
            return Err(format!("Internal: Python model file not found in '{path}'"));
        }
        if let Some((needed, free)) = self.container.short_shm() {
            return Err(format!(
                "Internal: Failed to initialize Python stub: unable to initialize shared memory key \
                 'triton_python_backend_shm_region_1' to requested size ({} bytes). If you are running Triton inside \
                 docker, use '--shm-size' flag to control the shared memory region size. Error: No space left on \
                 device ({free} MiB)",
                needed << 20
            ));
        }
        for (field, wanted) in [("input", inputs), ("output", outputs)] {
            let declared: Vec<&str> = config.messages(field).filter_map(|m| m.text("name")).collect();
            if let Some(missing) = wanted.iter().find(|w| !declared.contains(w)) {
                return Err(format!("Internal: the model configuration declares no {field} '{missing}'"));
            }
        }
        let policy = config.messages("model_transaction_policy").next();
        match policy.and_then(|p| p.text("decoupled")) {
            Some("true") => Ok(()),
            _ => {
                Err("Internal: ValueError: the model streams; it needs model_transaction_policy { decoupled: true }"
                    .into())
            }
        }
    }

    /// Our model on the transformers library.
    fn python(&self, base: SimOptions, config: &Message) -> Result<SimOptions, String> {
        let outputs = ["text_output", "num_input_tokens", "num_output_tokens", "finish_reason"];
        self.program(config, &["text_input", "max_tokens", "ignore_eos", "stream"], &outputs)?;
        let given = self.json("model.json", "FileNotFoundError: [Errno 2] No such file or directory")?;
        let model = given.get("model").and_then(Value::as_str).ok_or("Internal: KeyError: 'model'")?;
        let load = given.get("load").and_then(Value::as_object).ok_or("Internal: KeyError: 'load'")?;
        if let Some(key) = load.keys().find(|k| !FROM_PRETRAINED.contains_key(k.as_str())) {
            return Err(format!(
                "Internal: TypeError: SimForCausalLM.__init__() got an unexpected keyword argument '{key}'"
            ));
        }
        let found = source::find(self.container, model).map_err(|why| format!("Internal: {}", why.exception(model)))?;
        let batch = config.text("max_batch_size").and_then(|n| n.parse().ok()).unwrap_or(0);
        let longest = given.get("max_model_len").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        Ok(SimOptions {
            preset: base.preset.clone().or_else(|| Some(model.to_string())),
            max_num_seqs: std::cmp::max(batch, 1),
            max_model_len: longest.or(found.longest).unwrap_or(base.max_model_len),
            ..base
        })
    }

    /// Our model on TensorRT-LLM's LLM API.
    fn trtllm(&self, base: SimOptions, config: &Message) -> Result<SimOptions, String> {
        let inputs = ["text_input", "streaming", "sampling_param_max_tokens", "sampling_param_ignore_eos"];
        self.program(config, &inputs, &["text_output", "finish_reason", "num_input_tokens", "num_output_tokens"])?;
        if config.text("max_batch_size").is_some_and(|n| n != "0") {
            return Err("Internal: AssertionError: max_batch_size must be 0: the engine batches".into());
        }
        let given = self.json("llm.json", "FileNotFoundError: [Errno 2] No such file or directory")?;
        trtllm::llm(base, &given, self.name, self.container).map_err(|e| format!("Internal: {e}"))
    }
}
