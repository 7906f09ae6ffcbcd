use super::*;
use crate::sim::flavor::Flavor;
use crate::sim::options::MetricsAt;

/// A container's file system with these files.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(files: &[(&str, &str)]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Disk(dir)
    }

    fn container(&self, env: &[(&str, &str)]) -> Container {
        let env = env.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Container { env, root: self.0.path().into(), shm: Some(1 << 30) }
    }
}

fn run(flavor: Flavor, words: &str, container: &Container) -> Result<SimOptions, Refusal> {
    let words: Vec<String> = words.split_whitespace().map(str::to_string).collect();
    read(SimOptions::new(flavor, "org/of-the-image"), &words, container)
}

#[track_caller]
fn refused(result: Result<SimOptions, Refusal>, code: u8, said: &str) {
    let refusal = result.expect_err(said);
    assert_eq!(refusal.exit_code, code, "{refusal:?}");
    assert!(refusal.lines.iter().any(|l| l.contains(said)), "`{said}` is not in {:#?}", refusal.lines);
}

#[test]
fn vllm_is_told_by_its_command_line() {
    let disk = Disk::new(&[("/m/config.json", r#"{"max_position_embeddings": 4096}"#)]);
    let container = disk.container(&[("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "3600")]);
    let line = "org/m-8B --served-model-name m --port 9 --tensor-parallel-size 2 --max-model-len 2048 --max-num-seqs 7 \
                --no-enable-prefix-caching --enable-prompt-tokens-details --stream-interval 3";
    let o = run(Flavor::HfVllm, line, &container).unwrap();
    assert_eq!((o.model.as_str(), o.preset.as_deref(), o.port), ("m", Some("org/m-8B"), 9));
    assert_eq!((o.tensor_parallel, o.max_model_len, o.max_num_seqs, o.stream_interval), (2, 2048, 7, 3));
    assert!(!o.prefix_caching && o.cache_report && o.host.is_unspecified());
    assert_eq!(o.keep_alive.unwrap().as_secs(), 3600);
    assert_eq!(run(Flavor::HfVllm, "/m", &container).unwrap().max_model_len, 4096);
    let refuse = |line: &str, code, said: &str| refused(run(Flavor::HfVllm, line, &container), code, said);
    refuse("org/m --disable-log-requests", 2, "vllm: error: unrecognized arguments: --disable-log-requests");
    refuse("org/m --quantization fp3", 2, "argument --quantization: invalid choice: 'fp3'");
    refuse("org/m --gpu-memory-utilization 1.5", 1, "gpu_memory_utilization");
    refuse("/models/none", 1, "Invalid repository ID or local directory specified: '/models/none'");
    refuse("/m --max-model-len 8192", 1, "User-specified max_model_len (8192) is greater than the derived");
    let small = Container { shm: Some(64 << 20), ..container.clone() };
    refused(run(Flavor::HfVllm, "org/m", &small), 1, "Insufficient space in /dev/shm");
    let mut two = container.clone();
    two.env.insert("NVIDIA_VISIBLE_DEVICES".into(), "GPU-1,GPU-2".into());
    assert!(run(Flavor::HfVllm, "org/m --tensor-parallel-size 2", &two).is_ok());
    refused(run(Flavor::HfVllm, "org/m --tensor-parallel-size 4", &two), 1, "World size (4)");
}

#[test]
fn sglang_needs_its_program_its_model_and_its_host() {
    let disk = Disk::new(&[]);
    let container = disk.container(&[]);
    let line = "python3 -m sglang.launch_server --model-path org/m --host 0.0.0.0 --tp-size 2 --context-length 4096 \
                --enable-metrics --disable-radix-cache --random-seed 0";
    let o = run(Flavor::HfSglang, line, &container).unwrap();
    assert_eq!((o.port, o.max_model_len, o.metrics), (30_000, 4096, MetricsAt::Server));
    assert!(!o.prefix_caching && !o.cache_report && o.host.is_unspecified());
    let silent = run(Flavor::HfSglang, "sglang serve org/m", &container).unwrap();
    assert!(silent.host.is_loopback() && silent.metrics == MetricsAt::Nowhere);
    let refuse = |line: &str, code, said: &str| refused(run(Flavor::HfSglang, line, &container), code, said);
    refuse("python3 -m sglang.launch_server", 2, "the following arguments are required: --model-path");
    refuse(
        "python3 -m sglang.launch_server --model-path m --max-model-len 9",
        2,
        "unrecognized arguments: --max-model-len 9",
    );
    refuse("python3 -m sglang.launch_server --model-path m --max_running_requests 9", 2, "unrecognized arguments");
    refuse("python3 -m sglang.lunch_server", 1, "No module named sglang.lunch_server");
    refuse("--model-path m", 127, "exec: --model-path: not found");
}

#[test]
fn trtllm_reads_its_command_line_and_its_file() {
    let yaml = r#"{"max_seq_len": 4096, "max_batch_size": 16, "return_perf_metrics": true,
                   "kv_cache_config": {"enable_block_reuse": false}}"#;
    let disk = Disk::new(&[
        ("/etc/a.yaml", yaml),
        ("/etc/typo.yaml", r#"{"max_seq_length": 4096}"#),
        ("/etc/deep.yaml", r#"{"kv_cache_config": {"enable_reuse": false}}"#),
        ("/etc/type.yaml", r#"{"max_batch_size": "16"}"#),
    ]);
    let container = disk.container(&[]);
    let o = run(Flavor::HfTrtllm, "trtllm-serve org/m --host 0.0.0.0 --extra_llm_api_options /etc/a.yaml", &container);
    let o = o.unwrap();
    assert_eq!((o.max_model_len, o.max_num_seqs, o.metrics), (4096, 16, MetricsAt::Server));
    assert!(!o.prefix_caching && o.host.is_unspecified());
    let plain = run(Flavor::HfTrtllm, "trtllm-serve serve org/m", &container).unwrap();
    assert!(plain.host.is_loopback() && plain.prefix_caching && plain.metrics == MetricsAt::Nowhere);
    let refuse = |line: &str, code, said: &str| refused(run(Flavor::HfTrtllm, line, &container), code, said);
    refuse("trtllm-serve org/m --served_model_name x", 2, "Error: No such option: --served_model_name");
    refuse("trtllm-serve", 2, "Error: Missing argument 'MODEL'.");
    refuse("trtllm-serve m --config /etc/typo.yaml", 1, "TorchLlmArgs: max_seq_length: Extra inputs are not permitted");
    refuse("trtllm-serve m --config /etc/deep.yaml", 1, "KvCacheConfig: enable_reuse: Extra inputs");
    refuse("trtllm-serve m --config /etc/type.yaml", 1, "max_batch_size: Input has the wrong type");
    refuse("trtllm-serve m --config /etc/none.yaml", 1, "No such file or directory: '/etc/none.yaml'");
}

const PYTHON: &str = "backend: \"python\" max_batch_size: 4\nmodel_transaction_policy { decoupled: true }\n\
    input [ { name: \"text_input\" }, { name: \"max_tokens\" }, { name: \"ignore_eos\" }, { name: \"stream\" } ]\n\
    output [ { name: \"text_output\" }, { name: \"num_input_tokens\" }, { name: \"num_output_tokens\" }, \
    { name: \"finish_reason\" } ]\n";

#[test]
fn triton_reads_its_model_repository() {
    let good = r#"{"model": "org/m-8B", "max_num_seqs": 5, "enable_prefix_caching": false, "max_model_len": 512}"#;
    let config = "backend: \"vllm\"\ninstance_group [ { count: 1 kind: KIND_MODEL } ]\n";
    let disk = Disk::new(&[
        ("/models/llm/config.pbtxt", config),
        ("/models/llm/1/model.json", good),
        ("/typo/llm/config.pbtxt", "backend: \"vllm\"\ninstance_gruop []"),
        ("/typo/llm/1/model.json", good),
        ("/key/llm/config.pbtxt", config),
        ("/key/llm/1/model.json", r#"{"model": "m", "disable_log_requests": true}"#),
        ("/bare/llm/config.pbtxt", config),
        ("/other/llm/config.pbtxt", "backend: \"onnx\""),
        ("/other/llm/1/x", ""),
        ("/python/llm/config.pbtxt", PYTHON),
        ("/python/llm/1/model.json", r#"{"model": "org/m", "load": {"dtype": "auto"}}"#),
        ("/python/llm/1/model.py", "class TritonPythonModel: pass"),
        ("/nocode/llm/config.pbtxt", PYTHON),
        ("/nocode/llm/1/model.json", "{}"),
    ]);
    let container = disk.container(&[]);
    let vllm = |line: &str| run(Flavor::TritonVllm, line, &container);
    let o = vllm("tritonserver --model-repository=/models --metrics-port 9002").unwrap();
    assert_eq!((o.model.as_str(), o.preset.as_deref(), o.port), ("llm", Some("org/m-8B"), 8000));
    assert_eq!((o.max_num_seqs, o.max_model_len, o.metrics), (5, 512, MetricsAt::Port(9002)));
    assert!(!o.prefix_caching);
    refused(vllm("tritonserver"), 1, "--model-repository must be specified");
    refused(vllm("tritonserver --model-repository=/none"), 1, "Internal - failed to stat file /none");
    refused(vllm("tritonserver --model-repo=/models"), 1, "unrecognized option '--model-repo'");
    refused(vllm("tritonserver --model-repository=/typo"), 1, "has no field named \"instance_gruop\"");
    refused(vllm("tritonserver --model-repository=/key"), 1, "unexpected keyword argument 'disable_log_requests'");
    refused(vllm("tritonserver --model-repository=/bare"), 1, "at least one version");
    refused(vllm("tritonserver --model-repository=/other"), 1, "unable to find backend library for backend 'onnx'");
    refused(
        vllm("tritonserver --model-repository=/models --metrics-port=8000"),
        1,
        "The server cannot listen to HTTP requests and metrics requests at the same address and port 0.0.0.0:8000",
    );
    let python = |line: &str, container: &Container| run(Flavor::TritonPython, line, container);
    assert_eq!(python("tritonserver --model-repository=/python", &container).unwrap().max_num_seqs, 4);
    refused(python("tritonserver --model-repository=/nocode", &container), 1, "Python model file not found");
    let small = Container { shm: Some(64 << 20), ..container.clone() };
    refused(python("tritonserver --model-repository=/python", &small), 1, "use '--shm-size' flag");
}

#[test]
fn nims_are_told_by_their_environment() {
    let disk = Disk::new(&[("/opt/nim/.cache/x", "")]);
    let with = |flavor, generation, env: &[(&str, &str)]| {
        let base = SimOptions { nim_generation: generation, ..SimOptions::new(flavor, "org/of-the-image") };
        read(base, &[], &disk.container(env))
    };
    let passed =
        ("NIM_PASSTHROUGH_ARGS", "--no-enable-prefix-caching --max-num-seqs 9 --speculative-config '{\"a\": 1}'");
    let o = with(Flavor::NimVllm, 2, &[("NIM_SERVED_MODEL_NAME", "m"), ("NIM_MAX_MODEL_LEN", "512"), passed]).unwrap();
    assert_eq!((o.model.as_str(), o.preset.as_deref()), ("m", Some("org/of-the-image")));
    assert_eq!((o.max_model_len, o.max_num_seqs, o.prefix_caching), (512, 9, false));
    let o = with(Flavor::UnimVllm, 2, &[("NIM_MODEL_PATH", "hf://org/m:r1")]).unwrap();
    assert_eq!(o.model, "org/m");
    refused(with(Flavor::UnimVllm, 2, &[]), 1, "set NIM_MODEL_PATH");
    refused(with(Flavor::UnimVllm, 2, &[("NIM_MODEL_NAME", "hf://m")]), 1, "reads no variable NIM_MODEL_NAME");
    let wrong = [("NIM_PASSTHROUGH_ARGS", "--no-such-flag 1")];
    refused(with(Flavor::NimVllm, 2, &wrong), 2, "unrecognized arguments: --no-such-flag 1");
    let profile = [("NIM_MODEL_PROFILE", "vllm-bf16-tp1")];
    refused(with(Flavor::NimVllm, 2, &profile), 1, "could not find a matching profile");
    refused(with(Flavor::NimVllm, 2, &[("NIM_MAX_MODEL_LEN", "long")]), 1, "(NIM_MAX_MODEL_LEN)");
    refused(with(Flavor::NimVllm, 2, &[("NIM_CACHE_PATH", "/nowhere")]), 1, "No such file or directory: '/nowhere");

    let key = ("NGC_API_KEY", "k");
    refused(with(Flavor::NimVllm, 1, &[]), 1, "NGC_API_KEY is not set");
    let o = with(Flavor::NimVllm, 1, &[key, ("NIM_MAX_BATCH_SIZE", "3"), ("NIM_KVCACHE_PERCENT", "0.8")]).unwrap();
    assert_eq!((o.max_num_seqs, o.prefix_caching), (3, false));
    refused(with(Flavor::UnimVllm, 1, &[key]), 1, "NIM_MODEL_NAME is not set");
    let o = with(Flavor::UnimVllm, 1, &[key, ("NIM_MODEL_NAME", "hf://org/m"), ("NIM_MODEL_PROFILE", "vllm")]).unwrap();
    assert_eq!(o.model, "org/m");
    refused(with(Flavor::UnimVllm, 1, &[key, passed]), 1, "reads no variable NIM_PASSTHROUGH_ARGS");
}
