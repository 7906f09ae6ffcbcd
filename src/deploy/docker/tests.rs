//! What is asked of the container engine for every stack, as a snapshot; and what needs no engine to fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::place::{self, Directories};
use super::request::{self, Gpus, Placement};
use super::scratch::Scratch;
use super::*;
use crate::deploy::FailureClass;
use crate::deploy::tests::deployment;
use crate::plan::identity::{Contents, Resolver};
use crate::plan::lock::{Lock, LockedModel};
use crate::template::Templates;
use crate::value::Value;

struct NoFiles;

impl Contents for NoFiles {
    fn digest(&self, path: &str) -> Result<crate::digest::Digest, String> {
        Err(format!("{path} is not there"))
    }
}

/// The deployment of a cell, as the planner makes it.
fn planned(method: &str, engine: &str) -> Deployment {
    planned_with(method, engine, Lock::new())
}

fn planned_with(method: &str, engine: &str, lock: Lock) -> Deployment {
    let templates = Templates::new(Vec::new());
    let resolver = Resolver::new(&templates, &lock, &NoFiles, "h100-sxm-80gb", false, 1);
    let mut pairs: Vec<(Arc<str>, Value)> = vec![
        ("engine".into(), engine.into()),
        ("method".into(), method.into()),
        ("model".into(), "meta-llama/Llama-3.1-8B-Instruct".into()),
        ("tensor_parallel".into(), Value::Int(2)),
    ];
    if method == "triton" && engine == "python" {
        pairs.pop();
    }
    resolver.resolve(&pairs).unwrap().deployment
}

#[test]
fn an_engine_is_told_the_commit_that_the_lock_knows() {
    let commit = "3".repeat(40);
    let mut lock = Lock::new();
    let model = LockedModel { commit: Some(commit.clone()), ..LockedModel::default() };
    lock.models.insert("meta-llama/Llama-3.1-8B-Instruct".into(), model);
    for (stack, told) in [
        ("hf/vllm", true),
        ("hf/sglang", true),
        ("hf/trtllm", true),
        ("triton/vllm", true),
        ("triton/python", true),
        ("triton/trtllm", true),
        // Its image has the model.
        ("nim/vllm", false),
        ("unim/vllm", true),
    ] {
        let (method, engine) = stack.split_once('/').unwrap();
        let deployment = planned_with(method, engine, lock.clone());
        let started = serde_json::to_string(&deployment.spec).unwrap();
        assert_eq!(started.contains(&commit), told, "{stack}: {started}");
        // What the experiment says stays what it is identified by.
        let document = deployment.document.as_map().unwrap();
        assert!(
            !document["spec"].to_string().contains(&commit) && deployment.locked_model() == Some(&commit),
            "{stack}"
        );
    }
}

#[test]
fn requests_for_all_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().canonicalize().unwrap();
    let variables: Variables = Arc::new(|name| match name {
        "HF_TOKEN" => Some("hf_secret".into()),
        "NGC_API_KEY" => Some("nvapi_secret".into()),
        _ => None,
    });
    for stack in
        ["hf/vllm", "hf/sglang", "hf/trtllm", "triton/vllm", "triton/python", "triton/trtllm", "nim/vllm", "unim/vllm"]
    {
        let (method, engine) = stack.split_once('/').unwrap();
        let deployment = planned(method, engine);
        let spec = deployment.spec.container.as_ref().unwrap();
        let environment = place::environment(&deployment, spec, &variables).unwrap();
        let scratch = Scratch::create(&cache, "abc", &Owner::this()).unwrap();
        let (hub, assets) = (HubSettings::from(|_| None), BTreeMap::new());
        let at = Directories { base: &cache, cache: &cache, hub: &hub, assets: &assets };
        let placement = Placement {
            image: spec.image.clone(),
            env: environment.variables.clone(),
            binds: place::binds(&deployment, spec, at, &scratch, None).unwrap(),
            gpus: Gpus::Nvidia((0..deployment.gpus).map(|i| format!("GPU-{i}")).collect()),
            labels: [("llmatrix.tool".to_string(), "0".to_string())].into(),
            ports: deployment.spec.api.metrics_port.into_iter().collect(),
            without_ulimits: false,
        };
        let body = request::body(spec, &placement).unwrap();
        // Through a map, so that keys are sorted.
        let sorted: BTreeMap<String, serde_json::Value> =
            serde_json::from_value(serde_json::to_value(body).unwrap()).unwrap();
        let text = serde_json::to_string_pretty(&sorted).unwrap();
        let text = text.replace(&scratch.path().display().to_string(), "SCRATCH");
        let text = text.replace(&cache.display().to_string(), "CACHE");
        insta::assert_snapshot!(format!("request-{method}-{engine}"), text);
    }
}

fn deployer(host: &str) -> DockerDeployer {
    DockerDeployer::new(DockerOptions {
        host: Some(host.into()),
        tls: None,
        logins: None,
        base: ".".into(),
        cache: "/nowhere/cache".into(),
        experiment: "e".into(),
        run: Arc::default(),
        gpus: Vec::new(),
        devices: Vec::new(),
        gpu_locks: "/nowhere/locks".into(),
        offline: false,
        downloads: Arc::default(),
        by_hand: None,
        variables: Arc::new(|_| None),
    })
}

#[tokio::test]
async fn a_host_without_an_engine_lacks_what_every_container_needs() {
    let spec =
        "[api]\ndialect = \"openai\"\ndefault = \"chat\"\nhealth = \"/health\"\n[container]\nimage = \"i\"\nport = 1\n";
    let failure = deployer("unix:///nowhere.sock").start(&deployment(spec), &|_| {}).await.err().unwrap();
    assert!(failure.environment);
    assert_eq!(failure.class, FailureClass::Infrastructure);
    for part in ["cannot start org--m-hf-vllm", "unix:///nowhere.sock", "Start Docker", "--simulate"] {
        assert!(failure.cause.contains(part), "{}", failure.cause);
    }
}

#[tokio::test]
async fn gpus_that_are_not_there_are_told_with_what_else_is_missing() {
    let failure = deployer("unix:///nowhere.sock").start(&planned("hf", "vllm"), &|_| {}).await.err().unwrap();
    assert!(failure.environment && failure.cause.contains("no container engine answers"), "{}", failure.cause);
    let besides = ". Besides, it needs 2 GPUs, and this host has no GPU. `gpus = 0` starts it without";
    assert!(failure.cause.ends_with(besides), "{}", failure.cause);
}
