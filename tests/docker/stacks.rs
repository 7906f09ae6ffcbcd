//! All eight stacks: the experiment of the repository, what each refuses, and a stack that is a template alone.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::image;
use super::workspace::{Done, Workspace, docker, finish};

const STACKS: [(&str, &str); 8] = [
    ("hf", "vllm"),
    ("hf", "sglang"),
    ("hf", "trtllm"),
    ("triton", "vllm"),
    ("triton", "python"),
    ("triton", "trtllm"),
    ("nim", "vllm"),
    ("unim", "vllm"),
];

/// What the containers are given and nothing else may hold.
const SECRET: &str = "not-to-be-seen-anywhere";

/// `experiments/eight-stacks.toml`, with a model and a tag of this workspace's own, so that tests can share an engine.
fn experiment(w: &Workspace) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/eight-stacks.toml")).unwrap();
    let mut own = text.clone();
    for (old, new) in [
        ("\"eight-stacks\"", format!("\"{}\"", w.name)),
        ("Qwen/Qwen2.5-0.5B-Instruct", w.model()),
        (":test\"", format!(":{}\"", image::tag())),
    ] {
        assert_eq!(own.matches(old).count(), 1, "{old}");
        own = own.replace(old, &new);
    }
    own
}

/// What was seen of running containers.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

/// Looks at the running containers of an experiment until told to end.
fn watch(experiment: &str, end: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let label = format!("label=llmatrix.experiment={experiment}");
    while !end.load(Ordering::Relaxed) {
        let lines = docker(&["ps", "--filter", &label, "--format", "{{.Names}} {{.Networks}} {{.Mounts}}"]);
        for line in lines.lines() {
            let mut words = line.split(' ');
            seen.names.extend(words.next().map(str::to_string));
            seen.networks.extend(words.next().map(str::to_string));
            // Volumes have names; what is mounted of the host has a path.
            let mounts = words.next().unwrap_or_default().split(',').filter(|m| !m.is_empty() && !m.starts_with('/'));
            seen.volumes.extend(mounts.map(str::to_string));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    seen
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn all_eight_stacks_are_measured_in_containers() {
    let Some(w) = Workspace::new("eight") else { return };
    let file = w.write(&experiment(&w));
    let file = file.to_str().unwrap();
    let end = AtomicBool::new(false);
    let (done, seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&w.name, &end));
        let mut command = w.command(&["run", "--json", file]);
        command.env("HF_TOKEN", SECRET).env("NGC_API_KEY", SECRET);
        let done = finish(command.spawn().unwrap());
        end.store(true, Ordering::Relaxed);
        (done, watching.join().unwrap())
    });
    let done = done.expect(0);
    assert_eq!(done.event("run_finished")["measured"], 16);
    let wanted: BTreeSet<String> = STACKS.iter().map(|(method, engine)| w.container(method, engine)).collect();
    assert_eq!(seen.names, wanted, "exactly the conventional names");
    for (method, engine) in STACKS {
        measured(&w, method, engine);
    }
    w.assert_clean();
    assert_eq!(seen.networks, BTreeSet::from(["bridge".to_string()]), "no network was made");
    let volumes = docker(&["volume", "ls", "--quiet"]);
    assert!(volumes.lines().all(|v| !seen.volumes.contains(v)), "volumes are left: {:?}", seen.volumes);
    assert!(!(done.stdout + &done.stderr).contains(SECRET));
    let found = Command::new("grep").args(["-rl", SECRET]).arg(w.path()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "files with the secret");
    let again = w.run(&["run", "--json", file]).expect(0);
    assert_eq!(again.event("run_finished")["cached"], 16);
}

/// The artifacts of one stack are whole, and tell how they came about.
fn measured(w: &Workspace, method: &str, engine: &str) {
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image::of(method, engine)]);
    let dir = w.path().join(format!("artifacts/org--{}-1B_{method}_{engine}", w.name));
    let csv = |name: &str| name.starts_with("benchmark_") && name.ends_with(".csv");
    let there = names(&dir);
    assert_eq!(there.iter().filter(|n| csv(n)).count(), 1, "{there:?}");
    let units = names(&dir.join("units"));
    assert_eq!(units.len(), 2, "{units:?}");
    for unit in units {
        let unit = dir.join("units").join(unit);
        let result: Value = serde_json::from_slice(&fs::read(unit.join("result.json")).unwrap()).unwrap();
        let sample = &result["samples"][0];
        let provenance = &sample["provenance"];
        assert_eq!(provenance["image_digest"], id.trim(), "{provenance}");
        assert_eq!(provenance["network_path"], "bridge", "{provenance}");
        let version = provenance["engine_version"].as_str().unwrap_or_default();
        assert!(version.contains("+sim."), "{method} {engine} tells its version: {provenance}");
        // Its own dialect, with its own counts: every answer as long as it was to be.
        let request = fs::read_to_string(unit.join("sample-1/requests.csv")).unwrap();
        let mut rows = csv::Reader::from_reader(request.as_bytes());
        let header = rows.headers().unwrap().clone();
        let column = |name: &str| header.iter().position(|h| h == name).unwrap_or_else(|| panic!("{name}: {header:?}"));
        let output = column("output_tokens");
        for row in rows.records() {
            assert_eq!(&row.unwrap()[output], "16", "{method} {engine}");
        }
        // Its own metrics, where it has them.
        let telemetry = fs::read_to_string(unit.join("sample-1/telemetry.csv")).unwrap();
        assert!(telemetry.lines().count() > 1, "the metrics of {method} {engine}");
        let log = fs::read_to_string(unit.join("sample-1/engine.log")).unwrap();
        assert!(!log.trim().is_empty(), "the log of {method} {engine}");
    }
}

fn failures(done: &Done) -> Vec<Value> {
    done.json().into_iter().filter(|e| e["event"] == "deployment_failed").collect()
}

#[test]
fn every_stack_refuses_an_option_that_its_engine_does_not_have() {
    let Some(w) = Workspace::new("refuse") else { return };
    let text = experiment(&w).replace("warmup = 2\n", "warmup = 2\nengine_args.no_such_option = 1\n");
    let file = w.write(&text);
    let done = w.run(&["run", "--json", "--only", "concurrency=1", file.to_str().unwrap()]).expect(5);
    let failed = failures(&done);
    assert_eq!(failed.len(), STACKS.len(), "{}", done.stdout);
    for failure in failed {
        assert_eq!((&failure["stage"], &failure["class"]), (&"start".into(), &"deterministic".into()), "{failure}");
        let said = format!("{} {}", failure["cause"], failure["log_tail"]).replace('-', "_");
        assert!(said.contains("no_such_option"), "{failure}");
    }
    w.assert_clean();
}

/// Twelve cells of one engine, and three of another.
fn shared(w: &Workspace, sglang: &str) -> String {
    format!(
        "name = \"{name}\"\n[defaults]\nmodel = \"{model}\"\nmethod = \"hf\"\ngpus = 0\nrequests = 4\n\
         image = \"llmatrix-sim/hf-{{{{ engine }}}}:{tag}\"\n[[matrix]]\nengine = \"vllm\"\n\
         tokens = [{{ input = 16, output = 4 }}, {{ input = 32, output = 4 }}, {{ input = 64, output = 4 }}]\n\
         concurrency = [1, 2, 3, 4]\n[[matrix]]\nengine = \"sglang\"\ntokens = {{ input = 16, output = 4 }}\n\
         concurrency = [1, 2, 3]\n{sglang}\n[run]\nready_timeout = \"10m\"\n",
        name = w.name,
        model = w.model(),
        tag = image::tag(),
    )
}

#[test]
fn cells_of_one_configuration_share_a_start_and_a_changed_flag_restarts_only_its_own() {
    let Some(w) = Workspace::new("share") else { return };
    let starts = |done: &Done| -> Vec<String> {
        let events = done.json();
        let starting = events.iter().filter(|e| e["event"] == "deployment_starting");
        starting.map(|e| e["container"].as_str().unwrap().to_string()).collect()
    };
    let file = w.write(&shared(&w, ""));
    let file = file.to_str().unwrap();
    let first = w.run(&["run", "--json", file]).expect(0);
    let (vllm, sglang) = (w.container("hf", "vllm"), w.container("hf", "sglang"));
    assert_eq!(BTreeSet::from_iter(starts(&first)), BTreeSet::from([vllm.clone(), sglang.clone()]));
    assert_eq!(starts(&first).len(), 2, "each is started once");
    assert_eq!(first.event("run_finished")["measured"], 15);

    w.write(&shared(&w, "engine_args.schedule_conservativeness = 0.5"));
    let second = w.run(&["run", "--json", file]).expect(0);
    assert_eq!(starts(&second), [sglang]);
    let finished = second.event("run_finished");
    assert_eq!((&finished["measured"], &finished["cached"]), (&3.into(), &12.into()), "{finished}");
    w.assert_clean();
}

/// The example of the documentation, as a person would copy it.
fn documented_template() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md")).unwrap();
    let from = page.find("```jinja\n").expect("an example") + "```jinja\n".len();
    let length = page[from..].find("```").expect("the example ends");
    page[from..from + length].to_string()
}

#[test]
fn a_stack_that_is_a_template_alone_runs() {
    let Some(w) = Workspace::new("template") else { return };
    let template = documented_template();
    assert!(template.contains("llama-server") && template.contains("port = 8080"), "{template}");
    fs::create_dir_all(w.path().join("templates/hf")).unwrap();
    fs::write(w.path().join("templates/hf/llamacpp.toml.j2"), template).unwrap();
    // An engine of ours where llama.cpp's would be: the same paths, another command line.
    let engine = "[\"/bin/llmatrix\", \"sim\", \"--flavor\", \"hf-vllm\", \"--host\", \"0.0.0.0\", \"--port\", \"8080\", \
                  \"--model\", \"mine\"]";
    let file = w.write(&format!(
        "name = \"{name}\"\n[defaults]\ncontainer = {{ entrypoint = {engine}, command = [] }}\n[[matrix]]\n\
         method = \"hf\"\nengine = \"llamacpp\"\nmodel = \"{model}\"\nserved_model = \"mine\"\n\
         gpus = 0\nimage = \"{image}\"\nmax_model_len = 4096\nmax_num_seqs = 4\ntokens = {{ input = 16, output = 4 }}\n\
         requests = 5\nconcurrency = 1\n",
        name = w.name,
        model = w.model(),
        image = image::base(),
    ));
    let done = w.run(&["run", "--json", file.to_str().unwrap()]).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 1);
    let started = done.event("deployment_starting");
    assert_eq!(started["container"], w.container("hf", "llamacpp").as_str());
    assert!(w.path().join(format!("artifacts/org--{}-1B_hf_llamacpp", w.name)).is_dir());
    w.assert_clean();
}
