//! The script is run by a real shell whose `docker`, `curl` and `llmatrix` only write down what they were asked.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::cli::args::{Cli, Command as Asked};
use crate::cli::load_flags;
use crate::deploy::tests::deployment;
use crate::plan::identity;
use crate::sim::{OPTIONS, SimOptions};
use crate::spec::params::{PARAMS, Scope};
use crate::spec::set::parse_set;
use crate::spec::types::Vocabulary;
use crate::value::{Table, Value};

fn recipe(spec: &str, cell: &[(&str, Value)]) -> Recipe {
    let mut pairs: Vec<(Arc<str>, Value)> = cell.iter().map(|(k, v)| (Arc::from(*k), v.clone())).collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Recipe {
        unit: UnitId::of(&Value::str("u")),
        deployment: deployment(spec),
        cell: Cell(pairs),
        image: None,
        sample: 3,
        base: "/e".into(),
        patience: Duration::from_secs(60),
    }
}

/// Runs a script with stand-ins for the programs that it calls, and gives what each call was, a word per `|`.
fn played(script: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for (name, answer) in [
        ("docker", "case $1 in port) echo 127.0.0.1:99;; inspect) echo true;; image) exit 1;; esac"),
        ("curl", "true"),
        ("llmatrix", "case $1 in sim) echo http://127.0.0.1:98; exec sleep 60;; esac"),
    ] {
        let path = dir.path().join(name);
        // What a container would see of its files and of its variables is written down too.
        let told = "{ printf %s \"${0##*/}\"; printf '|%s' \"$@\"; printf ' KEY=%s' \"${KEY-}\"; echo; } >> \"$LOG\"";
        fs::write(&path, format!("#!/bin/sh\n{told}\n{answer}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", "--json"]).env("PATH", path).env("LOG", &log).env("TMPDIR", dir.path());
    bash.env("SECRET", "s e$cret").env("HF_TOKEN", "hf_x").env_remove("GPUS").env_remove("HF_ENDPOINT");
    let ran = bash.env_remove("HF_HUB_OFFLINE").output().unwrap();
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    fs::read_to_string(log).unwrap().lines().map(str::to_string).collect()
}

fn script(recipe: &Recipe, cache: &Path) -> String {
    let hub = HubSettings::from(|_| None);
    recipe.script(&recipe.steps(&Host { cache, hub: &hub }).unwrap())
}

const CONTAINER: &str = r#"
served_model = "m's"
[api]
dialect = "openai"
default = "completions"
health = "/health"
[container]
image = "org/image:1"
port = 8000
entrypoint = ["/bin/serve", "-v"]
command = ["--model", "a b", "--json", "{\"x\": \"it's\"}"]
shm_size = "1GiB"
memory = "2GiB"
ipc = "host"
user = "1000:0"
workdir = "/w"
ulimits = { memlock = -1 }
devices = ["/dev/fuse"]
env = { KEY = "Bearer ${SECRET}", PLAIN = "$5 off", HF_TOKEN = "${HF_TOKEN}" }
mounts = [{ source = "cache:hub", target = "/hub" }, { source = "data", target = "/d,x", read_only = true }]
[container.files]
"/etc/model/config.pbtxt" = "name: \"$x\"\n"
"#;

#[test]
fn a_container_is_asked_for_word_by_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(CONTAINER, &[("requests", Value::Int(5))]);
    (recipe.deployment.served_model, recipe.deployment.gpus) = (Some("m's".into()), 2);
    recipe.deployment.hardware = "h100-sxm-80gb".into();
    recipe.image = Some("sha256:ab".into());
    let script = script(&recipe, dir.path());
    assert!(!script.contains("hf_x") && !script.contains("s e$cret"), "{script}");
    let calls = played(&script);
    let run = calls.iter().find(|c| c.starts_with("docker|run|")).unwrap();
    let name = run.split("--name|").nth(1).unwrap().split('|').next().unwrap();
    assert!(name.starts_with("org--m-hf-vllm-rerun-"), "{name}");
    let scratch = run.split("type=bind,source=").last().unwrap().split("/0-config").next().unwrap();
    let cache = dir.path().join("hf/hub");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o777, "any user may write");
    let asked = run.replace(name, "NAME").replace(scratch, "SCRATCH").replace(&cache.display().to_string(), "CACHE");
    assert_eq!(
        asked,
        "docker|run|--detach|--init|--no-healthcheck|--name|NAME|--publish|127.0.0.1::8000|--log-driver|json-file|\
         --log-opt|max-size=100m|--log-opt|max-file=2|--gpus|\"device=0,1\"|--shm-size|1073741824|--memory|2147483648|\
         --memory-swap|2147483648|--ipc|host|--ulimit|memlock=-1:-1|--device|/dev/fuse|--user|1000:0|--workdir|/w|\
         --env|HF_TOKEN|--env|KEY|--env|PLAIN=$5 off|--mount|type=bind,source=CACHE,target=/hub|\
         --mount|type=bind,source=/e/data,\"target=/d,x\",readonly|\
         --mount|type=bind,source=SCRATCH/0-config.pbtxt,target=/etc/model/config.pbtxt,readonly|\
         --entrypoint|/bin/serve|org/image@sha256:ab|-v|--model|a b|--json|{\"x\": \"it's\"} KEY=Bearer s e$cret"
    );
    let unit = recipe.unit;
    let last: Vec<&str> = calls.iter().rev().take(2).map(String::as_str).collect();
    assert_eq!(last[0], format!("docker|rm|--force|--volumes|{name} KEY="));
    assert_eq!(
        last[1],
        format!(
            "llmatrix|measure|--endpoint|http://127.0.0.1:99|--method|hf|--engine|vllm|--model|m's|--requests|5|\
             --prompts-of|{unit}|--sample|3|--json KEY="
        )
    );
    assert!(!Path::new(scratch).exists(), "what was written is removed");
}

#[test]
fn a_running_server_is_measured_and_nothing_else() {
    let mut recipe = recipe("[api]\ndialect = \"openai\"\ndefault = \"chat\"\n", &[("rate", Value::Float(2.5))]);
    let d = &mut recipe.deployment;
    (d.method, d.endpoint) = ("external".into(), Some("https://host/${TENANT}".into()));
    d.headers = vec![("Authorization".into(), "Bearer ${KEY}".into())];
    d.tls.insecure = true;
    assert_eq!(
        played(&script(&recipe, Path::new("/c"))),
        ["llmatrix|measure|--endpoint|https://host/${TENANT}|--engine|vllm|--model|org/m|--header|\
          Authorization: Bearer ${KEY}|--insecure|--rate|2.5|--json KEY="]
    );
    recipe.deployment.endpoint = None;
    let hub = HubSettings::from(|_| None);
    assert!(recipe.steps(&Host { cache: Path::new("/c"), hub: &hub }).is_err(), "there is nothing to measure");
}

#[test]
fn the_simulator_gets_the_options_that_it_had() {
    let mut text = String::from("[api]\ndialect = \"openai\"\ndefault = \"chat\"\nhealth = \"/health\"\n[sim]\n");
    let kept = OPTIONS.iter().filter(|o| !matches!(o.name, "host" | "port"));
    kept.for_each(|o| text.push_str(&format!("{} = {}\n", o.name, o.example)));
    let recipe = recipe(&text, &[]);
    let calls = played(&script(&recipe, Path::new("/c")));
    let words: Vec<String> = calls[0].strip_suffix(" KEY=").unwrap().split('|').map(str::to_string).collect();
    assert_eq!(words[..3], ["llmatrix", "sim", "--flavor"]);
    let mut table = crate::cli::sim::flags(&words[4..]).unwrap();
    table.insert("flavor".into(), Value::str(&words[3]));
    assert_eq!(table.remove("port"), Some(Value::Int(0)));
    let of = |table: &Table| SimOptions::from_table(table).unwrap();
    assert_eq!(of(&table), of(recipe.deployment.spec.sim.as_ref().unwrap()));
    assert!(calls[1].starts_with("curl|") && calls[1].contains("http://127.0.0.1:98/health"), "{calls:?}");
    assert!(calls[2].contains("--endpoint|http://127.0.0.1:98|"), "{calls:?}");
}

/// A value of each unit parameter.
fn examples() -> Vec<(&'static str, Value)> {
    let stage =
        |pairs: &[(&str, Value)]| Value::map(pairs.iter().map(|(k, v)| (Arc::from(*k), v.clone())).collect::<Table>());
    let stages = vec![
        stage(&[("rate", Value::Int(2)), ("duration", "30s".into())]),
        stage(&[("rate", Value::Float(2.5)), ("to", Value::Int(8)), ("duration", "1m".into())]),
    ];
    vec![
        ("tokens.input", Value::Int(100)),
        ("tokens.output", Value::Int(10)),
        ("tokens.input_stddev", Value::Float(1.5)),
        ("tokens.output_stddev", Value::Int(2)),
        ("tokens.input_range", Value::list(vec![Value::Int(10), Value::Int(20)])),
        ("tokens.shared_prefix", Value::Int(5)),
        ("tokens.prefix_groups", Value::Int(2)),
        ("tokens.turns", Value::Int(3)),
        ("concurrency", Value::Int(4)),
        ("rate", Value::Float(0.25)),
        ("arrival", "gamma".into()),
        ("burstiness", Value::Float(0.5)),
        ("requests", Value::Int(7)),
        ("stages", Value::list(stages)),
        ("ramp", "5s".into()),
        ("duration", "1m".into()),
        ("warmup", Value::Int(1)),
        ("seed", Value::Int(9)),
        ("dataset", "/a b/it's.jsonl".into()),
        ("format", "jsonl".into()),
        ("replay_speed", Value::Int(2)),
        ("api", "chat".into()),
        ("temperature", Value::Float(0.7)),
        ("cancel_rate", Value::Float(0.1)),
        ("cancel_after", "200ms".into()),
        ("ignore_eos", false.into()),
    ]
}

#[test]
fn every_unit_parameter_is_a_flag_of_measure() {
    let unit = |p: &&crate::spec::params::Param| p.scope == Scope::Unit;
    let all: BTreeSet<&str> = PARAMS.iter().filter(unit).map(|p| p.name).collect();
    assert_eq!(all, examples().iter().map(|(name, _)| *name).collect());
    let words = Vocabulary { methods: Vec::new(), engines: Vec::new() };
    for (name, value) in examples() {
        let mut recipe = recipe("[api]\ndialect = \"openai\"\ndefault = \"chat\"\n", &[(name, value.clone())]);
        recipe.deployment.endpoint = Some("http://h".into());
        let calls = played(&script(&recipe, Path::new("/c")));
        let line = calls[0].strip_suffix(" KEY=").unwrap();
        let cli = Cli::try_parse_from(line.split('|')).unwrap_or_else(|e| panic!("{line}: {e}"));
        let Asked::Measure(args) = cli.command else { panic!("{line}") };
        let given = load_flags::assignments(&args.load);
        assert_eq!(given.len(), 1, "{line}");
        let read = parse_set(&given[0], &words).unwrap();
        assert_eq!((&*read.path, read.term.fixed()), (name, Some(&value)));
    }
}

#[test]
fn a_deployment_is_made_again_from_its_parameters() {
    let pairs: Vec<(Arc<str>, Value)> = [
        ("assets.lora", "./l"),
        ("engine", "vllm"),
        ("headers.a", "b"),
        ("method", "hf"),
        ("model", "org/m"),
        ("requests", "5"),
        ("tls.ca", "x.pem"),
    ]
    .map(|(k, v)| (Arc::from(k), Value::str(v)))
    .to_vec();
    let spec = deployment("served_model = \"s\"\n[api]\ndialect = \"openai\"\ndefault = \"chat\"\n").spec;
    let d = identity::deployment(&pairs, Value::str("d"), spec, "cpu".into(), 0, None);
    assert_eq!((d.container.as_str(), d.served_model.as_deref()), ("org--m-hf-vllm", Some("s")));
    assert_eq!((d.assets.len(), d.headers.len(), d.tls.ca.as_deref()), (1, 1, Some("x.pem")));
}
