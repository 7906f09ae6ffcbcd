//! The simulator as the image of each stack, held against the templates: what a template renders to is what the image
//! takes, and what it would get wrong is refused. No container is started: the image's reading of its command line,
//! environment and files is asked.

mod support;

use std::fs;
use std::path::Path;

use llmatrix::sim::image::{self, Container, Refusal};
use llmatrix::sim::{Flavor, MetricsAt, SimOptions};
use llmatrix::template::spec::{ContainerSpec, DeploySpec};
use llmatrix::units::parse_bytes;
use regex::Regex;
use support::rendering::{MINIMAL, render};

const STACKS: [&str; 8] =
    ["hf/vllm", "hf/sglang", "hf/trtllm", "triton/vllm", "triton/python", "triton/trtllm", "nim/vllm", "unim/vllm"];

/// As much as each stack can honour, with options that its engine really has.
fn much(stack: &str) -> &'static str {
    match stack {
        "triton/python" => {
            r#"{"model": "/llmatrix/models/m", "tokenizer": "org/tok", "served_model": "m", "gpus": 2, "data_parallel": 2,
                "dtype": "bfloat16", "max_model_len": 4096, "max_num_seqs": 16,
                "engine_args": {"attn-implementation": "sdpa", "trust_remote_code": true}}"#
        }
        "hf/trtllm" | "triton/trtllm" => {
            r#"{"model": "org/Model-8B-FP8", "revision": "r1", "tokenizer": "org/tok", "gpus": 8, "tensor_parallel": 4,
                "pipeline_parallel": 2, "expert_parallel": 4, "dp_attention": true, "dtype": "bfloat16",
                "quantization": "fp8", "kv_cache_dtype": "fp8", "max_model_len": 32768, "gpu_memory_utilization": 0.85,
                "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"max-num-tokens": 16384, "kv_cache_config": {"tokens_per_block": 64},
                                "cuda_graph_config": {"enable_padding": true}}}"#
        }
        "hf/sglang" => {
            r#"{"model": "/llmatrix/models/m", "served_model": "m", "gpus": 8, "tensor_parallel": 8, "pipeline_parallel": 1,
                "expert_parallel": 8, "dp_attention": true, "dtype": "bfloat16", "quantization": "fp8",
                "kv_cache_dtype": "fp8", "max_model_len": 8192, "gpu_memory_utilization": 0.85, "max_num_seqs": 128,
                "engine_args": {"chunked_prefill_size": 8192, "disable_cuda_graph": true}}"#
        }
        "triton/vllm" => {
            r#"{"model": "/llmatrix/models/m", "tokenizer": "org/tok", "served_model": "m", "gpus": 8, "tensor_parallel": 4,
                "pipeline_parallel": 2, "expert_parallel": 4, "dtype": "bfloat16", "quantization": "fp8",
                "kv_cache_dtype": "fp8", "max_model_len": 8192, "gpu_memory_utilization": 0.85, "max_num_seqs": 128,
                "prefix_caching": true, "engine_args": {"enforce-eager": true}}"#
        }
        "nim/vllm" => {
            r#"{"model": "meta-llama/Meta-Llama-3.1-8B-Instruct", "served_model": "m", "gpus": 4, "tensor_parallel": 4,
                "expert_parallel": 4, "dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8",
                "max_model_len": 32768, "gpu_memory_utilization": 0.85, "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"speculative_config": {"method": "ngram"}, "enable_chunked_prefill": false}}"#
        }
        _ => {
            r#"{"model": "org/Model-8B", "revision": "r1", "tokenizer": "org/tok", "served_model": "m", "gpus": 8,
                "tensor_parallel": 4, "pipeline_parallel": 2, "dp_attention": true, "dtype": "bfloat16",
                "quantization": "fp4", "kv_cache_dtype": "fp8", "max_model_len": 32768, "gpu_memory_utilization": 0.85,
                "max_num_seqs": 128, "prefix_caching": true,
                "engine_args": {"max_num_batched_tokens": 16384, "enforce_eager": true, "enable_lora": false,
                                "compilation_config": {"level": 3}}}"#
        }
    }
}

/// What the container of a specification would see below `root`.
fn container(root: &Path, spec: &ContainerSpec, gpus: usize) -> Container {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let write = |path: &str, text: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    };
    write("/llmatrix/models/m/config.json", r#"{"max_position_embeddings": 8192}"#);
    for mount in &spec.mounts {
        fs::create_dir_all(at(&mount.target)).unwrap();
    }
    for (path, text) in &spec.files {
        write(path, text);
    }
    let mut env = spec.env.clone();
    env.insert("NGC_API_KEY".into(), "key".into());
    let ids: Vec<String> = (0..gpus).map(|i| format!("GPU-{i}")).collect();
    env.insert("NVIDIA_VISIBLE_DEVICES".into(), ids.join(","));
    let shm = spec.shm_size.as_deref().map_or(64 << 20, |s| parse_bytes(s).unwrap());
    Container { env, root: root.into(), shm: Some(shm) }
}

/// The image's reading of a rendered template.
fn started(stack: &str, spec: &DeploySpec, gpus: usize, generation: u32) -> Result<SimOptions, Refusal> {
    let root = tempfile::tempdir().unwrap();
    let wanted = spec.container.as_ref().expect("a stack in a container");
    let flavor: Flavor = stack.replace('/', "-").parse().unwrap();
    let base = SimOptions { nim_generation: generation, ..SimOptions::new(flavor, "org/of-the-image") };
    image::read(base, &wanted.command, &container(root.path(), wanted, gpus))
}

#[track_caller]
fn accepted(stack: &str, set: &str, gpus: usize, generation: u32) -> SimOptions {
    let spec = render(stack, set).unwrap_or_else(|e| panic!("{stack}: {e}")).spec;
    let options = started(stack, &spec, gpus, generation).unwrap_or_else(|r| panic!("{stack} refuses: {r:#?}"));
    let wanted = spec.container.as_ref().unwrap();
    assert_eq!(options.port, wanted.port, "{stack} listens where the template says");
    assert!(options.host.is_unspecified(), "{stack} can be reached from outside its container");
    assert_eq!(Some(&options.model), spec.served_model.as_ref(), "{stack} serves under the name that requests have");
    let metrics = spec.api.metrics_port.map_or(MetricsAt::Server, MetricsAt::Port);
    assert_eq!(options.metrics, metrics, "{stack} has its metrics where they are looked for");
    options
}

#[test]
fn every_template_is_understood_by_the_image_it_is_for() {
    for stack in STACKS {
        let few = accepted(stack, MINIMAL, 1, 2);
        if stack != "triton/python" {
            assert!(!few.prefix_caching, "{stack}: no prefix cache unless it is asked for");
        }
        let many = accepted(stack, much(stack), 8, 2);
        let length = if many.preset.as_deref().is_some_and(|p| p.starts_with('/')) { 8192 } else { 32_768 };
        let length = if stack == "triton/python" { 4096 } else { length };
        assert_eq!(many.max_model_len, length, "{stack}");
        assert_eq!(many.max_num_seqs, if stack == "triton/python" { 16 } else { 128 }, "{stack}");
    }
}

#[test]
fn the_first_generation_of_nims_is_understood() {
    let set = |image: &str| {
        format!(
            r#"{{"model": "meta-llama/Llama-3.1-8B-Instruct", "image": "{image}", "gpus": 1, "max_model_len": 8192,
                 "max_num_seqs": 64, "gpu_memory_utilization": 0.8, "engine_args": {{"disable_cuda_graph": true}}}}"#
        )
    };
    for (stack, image) in
        [("nim/vllm", "nvcr.io/nim/meta/llama-3.1-8b-instruct:1.13.1"), ("unim/vllm", "llm-nim:1.15.5")]
    {
        let o = accepted(stack, &set(image), 1, 1);
        assert_eq!((o.max_model_len, o.max_num_seqs), (8192, 64), "{stack}");
        // A variable of one generation means nothing to the other.
        let spec = render(stack, &set(image)).unwrap().spec;
        assert!(started(stack, &spec, 1, 2).is_err(), "{stack}");
        assert!(started(stack, &render(stack, MINIMAL).unwrap().spec, 1, 1).is_err(), "{stack}");
    }
}

/// Every stack, with one thing wrong.
#[test]
fn what_a_template_could_get_wrong_is_refused() {
    let refused = |stack: &str, change: &dyn Fn(&mut ContainerSpec)| {
        let mut spec = render(stack, MINIMAL).unwrap().spec;
        change(spec.container.as_mut().unwrap());
        match started(stack, &spec, 1, 2) {
            Ok(_) => panic!("{stack} takes it"),
            Err(refusal) => refusal.lines.join("\n"),
        }
    };
    for stack in ["hf/vllm", "hf/sglang", "hf/trtllm", "triton/vllm", "triton/python", "triton/trtllm"] {
        let said = refused(stack, &|c| c.command.push("--no-such-flag".into()));
        assert!(said.contains("--no-such-flag"), "{stack}: {said}");
    }
    for stack in ["nim/vllm", "unim/vllm"] {
        let said = refused(stack, &|c| _ = c.env.insert("NIM_PASSTHROUGH_ARGS".into(), "--no-such-flag".into()));
        assert!(said.contains("--no-such-flag"), "{stack}: {said}");
        let said = refused(stack, &|c| _ = c.env.insert("NIM_NO_SUCH_THING".into(), "1".into()));
        assert!(said.contains("NIM_NO_SUCH_THING"), "{stack}: {said}");
        let said = refused(stack, &|c| c.mounts.clear());
        assert!(said.contains("/opt/nim/.cache"), "{stack}: {said}");
    }
    for stack in ["hf/vllm", "hf/sglang", "hf/trtllm", "triton/vllm", "triton/python", "triton/trtllm", "nim/vllm"] {
        let said = refused(stack, &|c| c.shm_size = None);
        assert!(said.contains("shm"), "{stack}: {said}");
    }
    for stack in ["triton/vllm", "triton/python", "triton/trtllm"] {
        let said = refused(stack, &|c| c.files.clear());
        assert!(said.contains("failed to stat file /models"), "{stack}: {said}");
        let said = refused(stack, &|c| {
            let config = c.files.get_mut("/models/llm/config.pbtxt").unwrap();
            *config = config.replace("backend", "back_end");
        });
        assert!(said.contains("has no field named \"back_end\""), "{stack}: {said}");
    }
    let said = refused("hf/trtllm", &|c| c.files.clear());
    assert!(said.contains("No such file or directory: '/etc/llmatrix/trtllm.yaml'"), "{said}");
    for program in ["hf/sglang", "hf/trtllm", "triton/vllm"] {
        let said = refused(program, &|c| _ = c.command.remove(0));
        assert!(said.contains("not found"), "{program}: {said}");
    }
}

/// Milestones are looked for in the log of a real engine; the simulated one writes them in the same words.
#[test]
fn every_milestone_of_a_template_is_reached() {
    for stack in STACKS {
        let spec = render(stack, MINIMAL).unwrap().spec;
        let read = started(stack, &spec, 1, 2).unwrap();
        let options =
            SimOptions { host: std::net::Ipv4Addr::LOCALHOST.into(), port: 0, metrics: MetricsAt::Server, ..read };
        let mut server = llmatrix::sim::start(options).unwrap();
        let mut log = server.take_log().unwrap();
        let mut lines = Vec::new();
        // The server says all of it before it is ready, and ends its log when it stops.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(server.wait_loaded());
        server.stop();
        while let Some(line) = log.blocking_recv() {
            lines.push(line);
        }
        for (name, pattern) in spec.milestones.iter().filter(|(name, _)| *name != "clamped") {
            let pattern = Regex::new(pattern).unwrap();
            assert!(lines.iter().any(|l| pattern.is_match(l)), "{stack}: {name} is not in {lines:#?}");
        }
    }
}
