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
use crate::plan::lock::Lock;
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
    let templates = Templates::new(Vec::new());
    let lock = Lock::new();
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
        let at = Directories { base: &cache, cache: &cache };
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
        logins: None,
        base: ".".into(),
        cache: "/nowhere/cache".into(),
        experiment: "e".into(),
        run: Arc::default(),
        gpus: Vec::new(),
        devices: Vec::new(),
        gpu_locks: "/nowhere/locks".into(),
        offline: false,
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
async fn gpus_that_are_not_there_are_told_before_anything_is_asked() {
    let failure = deployer("unix:///nowhere.sock").start(&planned("hf", "vllm"), &|_| {}).await.err().unwrap();
    assert!(failure.environment);
    let cause = "cannot start meta-llama--Llama-3.1-8B-Instruct-hf-vllm: it needs 2 GPUs, and this host has no GPU";
    assert_eq!(failure.cause, cause);
}
