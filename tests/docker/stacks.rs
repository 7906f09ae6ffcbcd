//! One experiment over all eight stacks.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::image;
use super::workspace::{Workspace, docker, finish};

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

fn experiment(w: &Workspace) -> String {
    let mut text = format!(
        "name = \"{}\"\n[defaults]\nmodel = \"{}\"\nimage = \"{}\"\nhardware = \"cpu\"\nrequests = 6\n[[matrix]]\n\
         method = [\"hf\", \"triton\", \"nim\", \"unim\"]\nengine = [\"vllm\", \"sglang\", \"trtllm\", \"python\"]\n\
         tokens = {{ input = 16, output = 4 }}\nconcurrency = [1, 2]\nexclude = [{{ method = \"triton\", engine = \"sglang\" }}, \
         {{ method = \"hf\", engine = \"python\" }}, {{ method = [\"nim\", \"unim\"], engine.ne = \"vllm\" }}]\n[run]\n\
         ready_timeout = \"60s\"\n",
        w.name,
        w.model(),
        image::tag()
    );
    for (method, engine) in STACKS {
        text.push_str(&format!(
            "[[override]]\nwhen = {{ method = \"{method}\", engine = \"{engine}\" }}\nset = {{ container = {{ entrypoint = {}, \
             command = [] }} }}\n",
            w.entrypoint(method, engine, &["--speed", "4", "--load-time", "2s"])
        ));
    }
    text
}

/// The names of running containers, looked at until told to end.
fn watch(end: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while !end.load(Ordering::Relaxed) {
        let names = docker(&["ps", "--filter", "label=llmatrix.tool", "--format", "{{.Names}}"]);
        seen.extend(names.lines().map(str::to_string));
        std::thread::sleep(Duration::from_millis(50));
    }
    seen
}

#[test]
fn all_eight_stacks_are_measured_in_containers() {
    let Some(w) = Workspace::new("eight") else { return };
    let file = w.write(&experiment(&w));
    let file = file.to_str().unwrap();
    let end = AtomicBool::new(false);
    let (done, seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&end));
        let mut command = w.command(&["run", "--json", file]);
        command.env("HF_TOKEN", SECRET).env("NGC_API_KEY", SECRET);
        let done = finish(command.spawn().unwrap());
        end.store(true, Ordering::Relaxed);
        (done, watching.join().unwrap())
    });
    let done = done.expect(0);
    assert_eq!(done.event("run_finished")["measured"], 16);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", image::tag()]);
    for (method, engine) in STACKS {
        let container = w.container(method, engine);
        assert!(seen.contains(&container), "{container} was never seen: {seen:?}");
        let dir = w.path().join(format!("artifacts/org--{}-1B_{method}_{engine}", w.name));
        let csv = |name: &str| name.starts_with("benchmark_") && name.ends_with(".csv");
        let names: Vec<String> = names(&dir);
        assert_eq!(names.iter().filter(|n| csv(n)).count(), 1, "{names:?}");
        for unit in self::names(&dir.join("units")) {
            let unit = dir.join("units").join(unit);
            let result: Value = serde_json::from_slice(&fs::read(unit.join("result.json")).unwrap()).unwrap();
            let provenance = &result["samples"][0]["provenance"];
            assert_eq!(provenance["image_digest"], id.trim(), "{provenance}");
            assert_eq!(provenance["network_path"], "bridge", "{provenance}");
            let log = fs::read_to_string(unit.join("sample-1/engine.log")).unwrap();
            assert!(!log.trim().is_empty(), "the log of {container}");
        }
    }
    w.assert_clean();
    assert!(!(done.stdout + &done.stderr).contains(SECRET));
    let found = Command::new("grep").args(["-rl", SECRET]).arg(w.path()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "files with the secret");
    let again = w.run(&["run", "--json", file]).expect(0);
    assert_eq!(again.event("run_finished")["cached"], 16);
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}
