//! Every built-in template, rendered with few and with many parameters: what would be started, as a snapshot.

mod support;

use std::fmt::Write;

use llmatrix::template::{Rendered, TemplateError, Templates};
use llmatrix::value::Value;
use support::rendering::{MINIMAL, render};

fn refusal(stack: &str, set: &str) -> String {
    match render(stack, set) {
        Err(TemplateError::Unsupported(reason)) => reason,
        Err(other) => panic!("{stack}: {other}"),
        Ok(r) => panic!("{stack} was not refused:\n{}", r.text),
    }
}

/// As much as the stack can honour.
fn maximal(stack: &str) -> &'static str {
    match stack {
        "triton/python" => {
            r#"{"model": "org/Model-8B", "revision": "r1", "tokenizer": "org/tok", "served_model": "m", "image": "img:1",
                "gpus": 2, "data_parallel": 2, "dtype": "bfloat16", "max_model_len": 4096, "max_num_seqs": 16,
                "engine_args": {"attn-implementation": "sdpa"}}"#
        }
        "hf/trtllm" | "triton/trtllm" => {
            r#"{"model": "org/Model-8B-FP8", "revision": "r1", "tokenizer": "org/tok", "image": "img:1", "gpus": 8,
                "tensor_parallel": 4, "pipeline_parallel": 2, "expert_parallel": 4, "dp_attention": true,
                "dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8", "max_model_len": 32768,
                "gpu_memory_utilization": 0.85, "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"max-num-tokens": 16384, "kv_cache_config": {"tokens_per_block": 64}}}"#
        }
        "nim/vllm" => {
            r#"{"model": "meta-llama/Meta-Llama-3.1-8B-Instruct", "served_model": "m", "gpus": 4, "tensor_parallel": 4,
                "expert_parallel": 4, "dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8",
                "max_model_len": 32768, "gpu_memory_utilization": 0.85, "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"speculative_config": {"method": "ngram"}, "enable_chunked_prefill": false}}"#
        }
        "triton/vllm" => {
            r#"{"model": "/model", "tokenizer": "org/tok", "served_model": "m", "image": "img:1", "gpus": 8,
                "tensor_parallel": 4, "pipeline_parallel": 2, "expert_parallel": 4, "dtype": "bfloat16",
                "quantization": "fp8", "kv_cache_dtype": "fp8", "max_model_len": 32768, "gpu_memory_utilization": 0.85,
                "max_num_seqs": 128, "prefix_caching": true, "engine_args": {"enforce-eager": true}}"#
        }
        _ => {
            r#"{"model": "org/Model-8B", "revision": "r1", "tokenizer": "org/tok", "served_model": "m", "gpus": 8,
                "tensor_parallel": 4, "pipeline_parallel": 2, "dp_attention": true, "dtype": "bfloat16",
                "quantization": "fp8", "kv_cache_dtype": "fp8", "max_model_len": 32768, "gpu_memory_utilization": 0.85,
                "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"max_num_batched_tokens": 16384, "enforce_eager": true, "cuda_graphs": false,
                                "rope": {"factor": 2.5}, "sizes": [1, 2]}}"#
        }
    }
}

/// The rendering as lines; programs by their length, since they are files of their own right.
fn shown(rendered: &Rendered) -> String {
    let spec = &rendered.spec;
    let mut out = String::new();
    writeln!(out, "api: {}", serde_json::to_string(&spec.api).unwrap()).unwrap();
    writeln!(out, "served_model: {:?}  ignores: {:?}", spec.served_model, spec.ignores).unwrap();
    if let Some(sim) = &spec.sim {
        writeln!(out, "sim: {}", serde_json::to_string(sim).unwrap()).unwrap();
    }
    if let Some(c) = &spec.container {
        writeln!(out, "image: {}  port: {}  shm: {:?}", c.image, c.port, c.shm_size).unwrap();
        writeln!(out, "user: {:?}  workdir: {:?}  ulimits: {:?}", c.user, c.workdir, c.ulimits).unwrap();
        for word in &c.command {
            writeln!(out, "  {word}").unwrap();
        }
        for (name, value) in &c.env {
            writeln!(out, "env {name}={value}").unwrap();
        }
        for mount in &c.mounts {
            writeln!(out, "mount {} -> {}", mount.source, mount.target).unwrap();
        }
        for (path, content) in &c.files {
            if path.ends_with(".py") {
                assert!(content.lines().count() > 50, "{path} is a program");
                writeln!(out, "file {path} (program)").unwrap();
            } else {
                writeln!(out, "file {path}\n{content}").unwrap();
            }
        }
    }
    out
}

#[test]
fn every_stack_renders_with_few_and_with_many_parameters() {
    let templates = Templates::new(Vec::new());
    let names: Vec<&str> = templates.names().collect();
    assert_eq!(names.len(), 17);
    for stack in names {
        let few = if stack == "external/python" { r#"{"model": "llm", "gpus": 0}"# } else { MINIMAL };
        let text = format!(
            "{}\n---- many\n{}",
            shown(&render(stack, few).unwrap_or_else(|e| panic!("{stack}: {e}"))),
            shown(&render(stack, maximal(stack)).unwrap_or_else(|e| panic!("{stack}: {e}")))
        );
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(stack.replace('/', "-"), text);
        });
    }
}

#[test]
fn the_first_nim_generation_is_configured_by_environment_alone() {
    for (stack, image) in
        [("nim/vllm", "nvcr.io/nim/meta/llama-3.1-8b-instruct:1.13.1"), ("unim/vllm", "llm-nim:1.15.5")]
    {
        let set = format!(
            r#"{{"model": "meta-llama/Llama-3.1-8B-Instruct", "image": "{image}", "gpus": 1, "max_model_len": 8192,
                 "max_num_seqs": 64, "gpu_memory_utilization": 0.8, "engine_args": {{"disable_cuda_graph": true}}}}"#
        );
        let c = render(stack, &set).unwrap().spec.container.unwrap();
        assert_eq!(c.env["NIM_DISABLE_CUDA_GRAPH"], "1", "{stack}");
        assert_eq!(c.env["NIM_ENABLE_KV_CACHE_REUSE"], "0");
        assert_eq!(c.env["NIM_KVCACHE_PERCENT"], "0.8");
        assert!(!c.env.contains_key("NIM_PASSTHROUGH_ARGS"));
        assert!(c.command.is_empty());
    }
    let hf = render("unim/vllm", r#"{"model": "org/m", "image": "reg:5000/nim/nvidia/llm-nim", "gpus": 1}"#).unwrap();
    assert_eq!(hf.spec.container.unwrap().env["NIM_MODEL_NAME"], "hf://org/m");
    let hf = render("unim/vllm", r#"{"model": "org/m", "revision": "abc", "gpus": 1}"#).unwrap();
    assert_eq!(hf.spec.container.unwrap().env["NIM_MODEL_PATH"], "hf://org/m:abc");
}

#[test]
fn a_quantization_flag_only_where_the_checkpoint_does_not_say_so() {
    let flag = |model: &str, q: &str| {
        let set = format!(r#"{{"model": "{model}", "quantization": "{q}", "gpus": 1}}"#);
        let command = render("hf/vllm", &set).unwrap().spec.container.unwrap().command;
        command.iter().position(|w| w == "--quantization").map(|i| command[i + 1].clone())
    };
    assert_eq!(flag("Qwen/Qwen3-8B", "none"), None);
    assert_eq!(flag("Qwen/Qwen3-8B", "fp8").as_deref(), Some("fp8"));
    assert_eq!(flag("Qwen/Qwen3-8B-FP8", "fp8"), None);
    assert_eq!(flag("nvidia/Llama-3.1-8B-Instruct-NVFP4", "fp4"), None);
    assert_eq!(flag("org/m", "fp4").as_deref(), Some("modelopt_fp4"));
}

#[test]
fn attention_data_parallelism_lies_inside_the_tensor_group() {
    let words = |stack: &str, set: &str| render(stack, set).unwrap().spec.container.unwrap().command.join(" ");
    let eight = r#"{"model": "org/m", "gpus": 8, "tensor_parallel": 8, "dp_attention": true}"#;
    let four = r#"{"model": "org/m", "gpus": 8, "tensor_parallel": 8, "data_parallel": 4, "dp_attention": true}"#;
    let vllm = words("hf/vllm", eight);
    assert!(vllm.contains("--tensor-parallel-size 1 --data-parallel-size 8 --enable-expert-parallel"), "{vllm}");
    assert!(words("hf/vllm", four).contains("--tensor-parallel-size 2 --data-parallel-size 4"));
    assert!(words("hf/sglang", four).contains("--tp-size 8 --dp-size 4 --enable-dp-attention"));
    let three = r#"{"model": "org/m", "gpus": 8, "tensor_parallel": 8, "data_parallel": 3, "dp_attention": true}"#;
    assert!(refusal("hf/vllm", three).contains("3 does not divide tensor_parallel 8"));
    assert!(refusal("hf/trtllm", four).contains("whole tensor group"));
}

#[test]
fn what_an_engine_cannot_honour_is_refused_with_the_reason() {
    for (stack, set, says) in [
        ("hf/trtllm", r#"{"model": "org/m", "served_model": "x"}"#, "no option for the served name"),
        ("hf/trtllm", r#"{"model": "org/m", "data_parallel": 2}"#, "replicas"),
        ("hf/vllm", r#"{"model": "org/m", "expert_parallel": 2}"#, "expert_parallel must be 1"),
        ("triton/vllm", r#"{"model": "org/m", "served_model": "a/b"}"#, "cannot contain `/`"),
        ("triton/vllm", r#"{"model": "org/m", "data_parallel": 2}"#, "no data parallelism"),
        ("triton/python", r#"{"model": "org/m", "tensor_parallel": 2, "gpus": 2}"#, "not tensor"),
        ("triton/python", r#"{"model": "org/m", "prefix_caching": true, "gpus": 1}"#, "no KV cache"),
        ("nim/vllm", r#"{"model": "/model"}"#, "method unim"),
        ("nim/vllm", r#"{"model": "o/m", "image": "x:1.13", "tensor_parallel": 2}"#, "NIM_MODEL_PROFILE"),
        ("unim/vllm", r#"{"model": "o/m", "image": "x:1.13", "revision": "r"}"#, "revision"),
        ("external/python", r#"{"model": "o/m"}"#, "served_model"),
    ] {
        let reason = refusal(stack, set);
        assert!(reason.contains(says), "{stack} {set}: {reason}");
    }
    let profile = r#"{"model": "o/m", "image": "x:1.13", "tensor_parallel": 2, "env": {"NIM_MODEL_PROFILE": "ab"}}"#;
    assert!(render("nim/vllm", profile).is_ok());
}

#[test]
fn external_servers_take_descriptions_but_no_options() {
    let templates = Templates::new(Vec::new());
    for engine in ["openai", "vllm", "sglang", "trtllm", "python"] {
        let name = format!("external/{engine}");
        let spec = render(&name, r#"{"model": "m", "gpus": 0}"#).unwrap().spec;
        assert!(spec.container.is_none() && spec.sim.is_none());
        for refused in ["engine_args", "max_num_seqs", "gpu_memory_utilization", "prefix_caching", "image"] {
            assert!(!templates.mentions(&name, refused) && !spec.ignores.iter().any(|i| i == refused), "{refused}");
        }
        assert!(spec.ignores.iter().any(|i| i == "quantization"));
    }
}

#[test]
fn the_simulator_understands_its_templates() {
    for engine in ["vllm", "sglang", "trtllm", "python"] {
        let set = r#"{"model": "org/Model-32B", "gpus": 1, "tensor_parallel": 2, "quantization": "fp8",
                      "max_model_len": 8192, "max_num_seqs": 16, "prefix_caching": true,
                      "engine_args": {"speed": 20, "load-time": "100ms", "fail_rate": 0.5}}"#;
        let spec = render(&format!("sim/{engine}"), set).unwrap().spec;
        let options = llmatrix::sim::SimOptions::from_table(&spec.sim.expect("a simulated engine")).unwrap();
        assert_eq!(Some(&options.model), spec.served_model.as_ref());
        assert_eq!((options.preset.as_deref(), options.tensor_parallel), (Some("org/Model-32B"), 2));
        assert_eq!((options.max_num_seqs, options.max_model_len, options.speed), (16, 8192, 20.0));
        assert!(options.prefix_caching && options.load_time.as_millis() == 100);
    }
}

#[test]
fn the_triton_programs_are_whole() {
    for stack in ["triton/python", "triton/trtllm"] {
        let files = render(stack, MINIMAL).unwrap().spec.container.unwrap().files;
        let program = &files["/models/llm/1/model.py"];
        assert!(program.starts_with("\"\"\"") && program.contains("class TritonPythonModel:"), "{stack}");
        assert!(program.trim_end().lines().all(|l| !l.contains('\t')));
        let config: Value = serde_json::from_str(
            files.get("/models/llm/1/llm.json").or(files.get("/models/llm/1/model.json")).expect("options"),
        )
        .unwrap();
        assert_eq!(config.as_map().unwrap()["model"], Value::str("Qwen/Qwen3-8B"));
    }
}
