//! What fits in memory, through the binary: sizes into the lock, verdicts out of it, without the network.

mod support;

#[path = "../src/hub/model/stand_in.rs"]
mod stand_in;

use stand_in::StandIn;
use support::{Sandbox, finish};

/// Llama 3.1 70B on one H100 and on four.
const LARGE: &str = r#"name = "large"
[defaults]
image = "engine@sha256:1111111111111111111111111111111111111111111111111111111111111111"
hardware = "h100-sxm-80gb"
max_model_len = 8192
[[matrix]]
model = "org/large"
method = "hf"
engine = "vllm"
tensor_parallel = [1, 4]
tokens = { input = 1024, output = 128 }
concurrency = [1, 16]
"#;

const LOCKED: &str = r#"version = 1
[models."org/large"]
commit = "1111111111111111111111111111111111111111"
"#;

const SIZES: &str = r#"weight_bytes = 141107412992
kv_bytes_per_token = 327680
[models."org/large".shape]
architecture = "llama"
parameters = 70553706496
active_parameters = 70553706496
embedding_parameters = 2101346304
layers = 80
hidden_size = 8192
vocab_size = 128256
kv_heads = 8
kv_head_width = 256
max_position = 131072
dtype = "bfloat16"
"#;

fn config(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/models/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `plan --json` of the large model with this lock.
fn planned(lock: &str) -> (Sandbox, support::Plan) {
    let s = Sandbox::new();
    s.write("large.toml", LARGE);
    s.write("large.lock", lock);
    let plan = s.plan("large.toml");
    (s, plan)
}

#[test]
fn a_plan_tells_offline_what_does_not_fit() {
    let (s, plan) = planned(&format!("{LOCKED}{SIZES}"));
    let deployments = plan.0["deployments"].as_array().unwrap();
    let fit = |tensor: u64| {
        let gpus = |d: &&serde_json::Value| d["gpus"] == tensor;
        &deployments.iter().find(gpus).expect("a deployment")["fit"]
    };
    assert_eq!((&fit(1)["verdict"], &fit(4)["verdict"]), (&"does not fit".into(), &"fits".into()), "{}", plan.0);
    assert_eq!((&fit(1)["weights_gib"], &fit(4)["weights_gib"]), (&131.42.into(), &32.85.into()));
    assert_eq!(fit(4)["kv"]["bytes_per_token"], 327_680.0);
    assert_eq!(fit(4)["kv"]["bytes_per_token_per_gpu"], 81_920.0);
    assert_eq!(fit(4)["kv"]["largest"]["sequences"], 16);
    let warnings: Vec<&str> = plan.0["warnings"].as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
    let memory: Vec<&&str> = warnings.iter().filter(|w| w.contains("GiB")).collect();
    assert_eq!(memory.len(), 1, "{warnings:?}");
    assert!(memory[0].contains(") will not fit in 80 GiB: weights 131.4 GiB over 1 GPU + "), "{memory:?}");
    assert!(memory[0].contains("; try tensor_parallel = "), "{memory:?}");

    let text = s.run("plan large.toml").success().stdout;
    assert!(
        text.contains("MEMORY") && text.contains("does not fit") && text.contains("will not fit in 80 GiB"),
        "{text}"
    );

    let unit = |verdict: &str| {
        let of = |d: &&serde_json::Value| d["fit"]["verdict"] == verdict;
        deployments.iter().find(of).unwrap()["units"][0].as_str().unwrap().to_string()
    };
    let told = s.run(&format!("explain {} large.toml", unit("does not fit"))).success().stdout;
    assert!(told.contains("memory      does not fit: weights 131.4 GiB over 1 GPU"), "{told}");
    assert!(told.contains("better with tensor_parallel = "), "{told}");
    let json = s.run(&format!("explain --json {} large.toml", unit("fits"))).success().json();
    assert_eq!(json["fit"]["verdict"], "fits", "{json}");
}

#[test]
fn without_sizes_there_is_no_verdict_and_every_id_is_the_same() {
    let (_, sized) = planned(&format!("{LOCKED}{SIZES}"));
    let (s, bare) = planned(LOCKED);
    assert_eq!(sized.ids(), bare.ids());
    assert_eq!(sized.deploy_ids(), bare.deploy_ids());
    for deployment in bare.0["deployments"].as_array().unwrap() {
        assert!(deployment.as_object().unwrap().contains_key("fit") && deployment["fit"].is_null(), "{deployment}");
    }
    assert!(!bare.0["warnings"].to_string().contains("GiB"), "{}", bare.0["warnings"]);
    assert!(!s.run("plan large.toml").success().stdout.contains("MEMORY"));
    let unit = bare.ids().into_iter().next().unwrap();
    let told = s.run(&format!("explain {unit} large.toml")).success().stdout;
    assert!(told.contains("memory      not estimated: the lock has no size of the model"), "{told}");
    // Bytes alone, as locks of earlier versions have them, say enough.
    let (_, old) = planned(&format!("{LOCKED}weight_bytes = 141107412992\n"));
    assert!(old.0["warnings"].to_string().contains("will not fit in 80 GiB"), "{}", old.0["warnings"]);
    assert_eq!(old.ids(), bare.ids());
}

#[test]
fn a_rehearsal_has_no_memory() {
    let s = Sandbox::new();
    s.write("large.toml", LARGE);
    s.write("large.lock", format!("{LOCKED}{SIZES}"));
    let plan = s.plan("--simulate large.toml");
    assert!(plan.0["deployments"].as_array().unwrap().iter().all(|d| d["fit"].is_null()), "{}", plan.0);
    assert!(!plan.0["warnings"].to_string().contains("GiB"));
}

#[test]
fn a_local_model_is_locked_with_its_sizes() {
    let s = Sandbox::new();
    s.write("x.toml", LARGE.replace("org/large", "./model"));
    s.write("model/config.json", config("llama-3.1-70b"));
    s.write("model/model-00001-of-00002.safetensors", [1; 700]);
    s.write("model/model-00002-of-00002.safetensors", [2; 300]);
    s.write("model/original/consolidated.00.pth", [3; 5000]);
    s.run("lock --offline x.toml").success();
    let lock = s.read("x.lock");
    for line in
        ["weight_bytes = 1000\n", "kv_bytes_per_token = 327680\n", "parameters = 70553706496\n", "kv_heads = 8\n"]
    {
        assert!(lock.contains(line), "{line}{lock}");
    }
    // Its name says bfloat16 and its size that it is not: it is taken as it is.
    let plan = s.plan("x.toml");
    assert_eq!(plan.0["deployments"][0]["fit"]["verdict"], "fits", "{}", plan.0);

    s.write("model/config.json", r#"{"model_type": "jamba", "num_experts": 16, "num_hidden_layers": 2}"#);
    let done = s.run("lock --offline x.toml").success();
    assert!(
        done.stderr.contains("./model: its size is known in bytes alone: its architecture `jamba` is not known"),
        "{done:?}"
    );
    let lock = s.read("x.lock");
    assert!(lock.contains("weight_bytes = 1000\n") && !lock.contains("shape"), "{lock}");
}

#[test]
fn a_lock_without_sizes_gets_those_of_its_commit() {
    let (s, hub) = (Sandbox::new(), StandIn::start());
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    hub.put("org/large", '1', &[("config.json", &config("llama-3.1-70b")), ("model.safetensors", &[1; 600])]);
    hub.put("org/large", '2', &[("config.json", &config("llama-3.1-8b")), ("model.safetensors", &[1; 900])]);
    s.write("large.toml", LARGE);
    s.write("large.lock", LOCKED);
    let lock = |flags: &str, code: i32| {
        let mut command = s.command(format!("lock {flags} large.toml").split_whitespace());
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.url);
        let done = finish(&mut command, "lock").exit(code);
        (done.stderr, s.read("large.lock"))
    };
    let (told, text) = lock("", 0);
    assert!(told.contains("wrote the sizes of models into large.lock"), "{told}");
    assert!(text.contains(&one) && text.contains("weight_bytes = 600\n"), "{text}");
    assert!(text.contains("parameters = 70553706496\n") && text.contains("layers = 80\n"), "{text}");
    let asked = hub.requests().len();
    let (told, again) = lock("", 0);
    assert!(told.contains("unchanged") && again == text && hub.requests().len() == asked, "{told}");
    // The image is in no engine's reach.
    let (_, moved) = lock("--update", 7);
    assert!(moved.contains(&two) && moved.contains("parameters = 8030261248\n"), "{moved}");
}

#[test]
fn words_of_precision_are_held_against_what_engines_take() {
    let s = Sandbox::new();
    s.write("slip.toml", format!("{LARGE}quantization = [\"none\", \"pf8\"]\n"));
    let done = s.run("validate slip.toml").exit(3);
    assert!(done.stderr.contains("did you mean `fp8`?"), "{done:?}");
    s.write("other.toml", format!("{LARGE}kv_cache_dtype = [\"fp8\", \"fp4_e2m1\"]\n"));
    let plan = s.plan("other.toml");
    let refused = plan.with("unsupported");
    assert_eq!(refused.len(), 4, "{}", plan.0);
    let note = refused[0]["note"].as_str().unwrap();
    assert!(note.starts_with("hf × vllm cannot honour `kv_cache_dtype = \"fp4_e2m1\"`: vllm takes "), "{note}");
    s.write("own.toml", format!("{LARGE}quantization = \"deepspeedfp\"\n"));
    s.plan("own.toml").all("new", "a word that nobody knows is the engine's");
}
