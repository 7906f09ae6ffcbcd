//! What is downloaded before a start: models and assets from a stand-in hub, images from a registry of our own. Whether
//! there is room, what is downloaded ahead, what is removed again, what floats.

use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::image;
use super::stand_in::{StandIn, TOKEN, read_head};
use super::workspace::{Done, Workspace, docker, finish};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn own_image() -> String {
    image::of("hf", "vllm")
}

/// Runs with a hub that can be asked.
fn run(w: &Workspace, hub: &StandIn, token: Option<&str>, args: &[&str]) -> Done {
    let mut command = w.command(args);
    command.env("HF_ENDPOINT", &hub.url);
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    finish(command.spawn().unwrap())
}

/// Of the newest sample of all units.
fn provenance(w: &Workspace) -> Value {
    let units = w.path().join(format!("artifacts/org--{}-1B_hf_vllm/units", w.name));
    let samples = fs::read_dir(units).unwrap().flat_map(|unit| {
        let path = unit.unwrap().path().join("result.json");
        let result: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        result["samples"].as_array().unwrap().clone()
    });
    let newest = samples.max_by_key(|s| s["started_at"].as_str().unwrap().to_string()).unwrap();
    newest["provenance"].clone()
}

#[test]
fn a_model_is_downloaded_into_the_cache_that_the_engine_mounts() {
    let Some(w) = Workspace::new("model") else { return };
    let hub = StandIn::start();
    hub.put(&w.model(), '1', &[("config.json", b"{}"), ("model.safetensors", &[7; 5000])]);
    let file = w.one_cell(&[], "");
    let file = file.to_str().unwrap();
    let done = run(&w, &hub, None, &["run", "--json", file]).expect(0);
    assert!(done.stdout.contains(&format!("downloading {}", w.model())), "{}", done.stdout);
    assert_eq!(provenance(&w)["model_commit"], "1".repeat(40));
    let snapshot = |home: &Path, digit: &str| {
        let repo = format!("hub/models--org--{}-1B/snapshots/{}", w.name, digit.repeat(40));
        home.join(repo).join("model.safetensors")
    };
    let cached = snapshot(&w.path().join(".cache/hf/huggingface"), "1");
    assert_eq!(fs::read(cached).unwrap().len(), 5000);

    // Locked, the engine is told the commit, wherever the branch is by then.
    run(&w, &hub, None, &["lock", file]).expect(0);
    hub.put(&w.model(), '2', &[("config.json", b"{ }")]);
    run(&w, &hub, None, &["run", "--json", "--force", file]).expect(0);
    let locked = provenance(&w);
    assert_eq!(locked["model_commit"], "1".repeat(40));

    // The user's own cache, where one is named.
    let home = w.path().join("own-cache");
    let mut command = w.command(&["run", "--json", "--force", file]);
    command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", &home);
    fs::remove_file(w.path().join(format!("{}.lock", w.name))).unwrap();
    finish(command.spawn().unwrap()).expect(0);
    assert!(home.join(format!("hub/models--org--{}-1B/refs/main", w.name)).exists());
    assert_eq!(provenance(&w)["model_commit"], "2".repeat(40));
    w.assert_clean();
}

#[test]
fn a_model_that_cannot_be_had_is_told_before_anything_is_pulled() {
    let Some(w) = Workspace::new("gated") else { return };
    let hub = StandIn::start();
    // The image is nowhere: whatever fails first is the model.
    let file = w.one_cell(&[], "[[override]]\nset = { image = \"127.0.0.1:1/nobody/nothing:1\" }\n");
    let file = file.to_str().unwrap();
    let failed = |token, args: &[&str], code| {
        let done = run(&w, &hub, token, args).expect(code);
        assert!(!done.stdout.contains("hf_other"), "{}", done.stdout);
        let failed = done.event("deployment_failed");
        assert_eq!(failed["stage"], "pull", "{failed}");
        (failed["class"].clone(), failed["cause"].as_str().unwrap().to_string())
    };
    let (class, cause) = failed(None, &["run", "--json", file], 5);
    assert!(class == "deterministic" && cause.contains("has no repository"), "{cause}");
    hub.put(&w.model(), '1', &[("config.json", b"{}")]);
    hub.gate(&w.model());
    let again = ["run", "--json", "--retry-failed", file];
    let (class, cause) = failed(None, &again, 5);
    assert!(class == "deterministic" && cause.contains("is gated, and HF_TOKEN is not set"), "{cause}");
    let (_, cause) = failed(Some("hf_other"), &again, 5);
    assert!(cause.contains("the token in HF_TOKEN may not read it"), "{cause}");
    // With the right one it is the image's turn.
    let (_, cause) = failed(Some(TOKEN), &again, 5);
    assert!(cause.contains("cannot pull the image"), "{cause}");
    w.assert_clean();
}

#[test]
fn what_will_not_fit_is_refused_with_what_is_needed_and_free() {
    let Some(w) = Workspace::new("room") else { return };
    let hub = StandIn::start();
    hub.put(&w.model(), '1', &[("config.json", b"{}"), ("model.safetensors", &[7; 10])]);
    hub.claim(&w.model(), "model.safetensors", 4_000_000_000_000_000);
    let file = w.one_cell(&[], "");
    let file = file.to_str().unwrap();
    let done = run(&w, &hub, None, &["run", "--json", file]).expect(7);
    let failed = done.event("deployment_failed");
    let cause = failed["cause"].as_str().unwrap();
    assert!(failed["environment"] == true && cause.contains("it needs about 4000000.0 GB for org/"), "{cause}");
    assert!(cause.contains("GB free"), "{cause}");

    let registry = Registry::start(&[("1", None), ("huge", Some(3_000_000_000_000_000))]);
    w.with_image(Path::new(file), &registry.reference("huge"));
    hub.claim(&w.model(), "model.safetensors", 10);
    let done = run(&w, &hub, None, &["run", "--json", file]).expect(7);
    let cause = done.event("deployment_failed")["cause"].as_str().unwrap().to_string();
    // Twice the compressed layers.
    assert!(cause.contains("it needs about 6000000.") && cause.contains(" GB for the image 127.0.0.1:"), "{cause}");
    assert!(registry.asked().iter().all(|p| !p.contains("/blobs/")), "nothing was pulled");
    w.assert_clean();
}

#[test]
fn assets_of_the_hub_are_mounted_read_only_where_the_template_names_them() {
    let Some(w) = Workspace::new("asset") else { return };
    let hub = StandIn::start();
    hub.put(&w.model(), '1', &[("config.json", b"{}")]);
    hub.put("org/lora", '2', &[("adapter_config.json", b"{\"r\": 8}"), ("sub/adapter.safetensors", &[1; 100])]);
    let (model, image) = (w.model(), format!("image={}", image::of("hf", "vllm")));
    let args = [
        "start",
        "--json",
        "--method",
        "hf",
        "--engine",
        "vllm",
        "--model",
        &model,
        "--set",
        &image,
        "--set",
        "gpus=0",
        "--set",
        "assets.lora=hf://org/lora",
    ];
    let started = run(&w, &hub, None, &args).expect(0);
    let name = started.json()[0]["container"].as_str().unwrap().to_string();
    let inspected = docker(&["inspect", "--format", "{{json .Mounts}} {{json .Config.Env}}", &name]);
    w.run(&["stop", &name]).expect(0);
    for part in ["/llmatrix/assets/lora/adapter_config.json", "/llmatrix/assets/lora/sub/adapter.safetensors"] {
        let at = inspected.find(part).unwrap_or_else(|| panic!("{part} in {inspected}"));
        let mount = &inspected[at..inspected[at..].find('}').map_or(inspected.len(), |end| at + end)];
        assert!(mount.contains("\"RW\":false"), "{mount}");
    }
    assert!(inspected.contains(&"2".repeat(40)) || inspected.contains("/blobs/"), "{inspected}");

    // Without the hub, what is here does; what is not here is said.
    w.run(&args).expect(0);
    w.run(&["stop", &name]).expect(0);
    fs::remove_dir_all(w.path().join(".cache/huggingface")).unwrap();
    let failed = w.run(&args).expect(7);
    assert!(failed.stderr.contains("the asset `lora` (org/lora) is not on this host"), "{}", failed.stderr);
    w.assert_clean();
}

/// Two cells on images of a registry, the first of which takes a while to measure.
fn two_images(w: &Workspace, registry: &Registry, policy: &str) -> String {
    let text = format!(
        "name = \"{name}\"\n[defaults]\nmodel = \"{model}\"\nmethod = \"hf\"\nengine = \"vllm\"\ngpus = 0\n\
         env.LLMATRIX_SIM = \"--ttft 20ms --itl 20ms\"\n[[matrix]]\nimage = [\"{first}\", \"{second}\"]\n\
         tokens = {{ input = 16, output = 8 }}\nconcurrency = 1\nrequests = 20\n[run]\nready_timeout = \"60s\"\n\
         attempts = 1\n{policy}",
        name = w.name,
        model = w.model(),
        first = registry.reference("1"),
        second = registry.reference("2"),
    );
    w.write(&text).to_str().unwrap().to_string()
}

fn is_here(reference: &str) -> bool {
    !docker(&["image", "ls", "--quiet", reference]).trim().is_empty()
}

#[test]
fn the_next_image_is_pulled_while_one_is_measured_and_removed_when_it_is_not_needed() {
    let Some(w) = Workspace::new("ahead") else { return };
    let registry = Registry::start(&[("1", None), ("2", Some(0))]);
    let (first, second) = (registry.reference("1"), registry.reference("2"));
    let _pulled = [Pulled(first.clone()), Pulled(second.clone())];
    // One of the two is the user's.
    docker(&["pull", "--quiet", &first]);
    let file = two_images(&w, &registry, "evict = true\n");
    let plan = w.run(&["plan", &file]).expect(0);
    assert!(plan.stdout.contains(&format!("image {second}, after ")), "{}", plan.stdout);
    let done = w.run(&["run", "--json", &file]).expect(0);
    let events = done.json();
    let at = |what: &str| {
        events.iter().position(|e| e.to_string().contains(what)).unwrap_or_else(|| panic!("{what}: {}", done.stdout))
    };
    assert!(at("was downloaded ahead, in ") < at("deployment_stopped"), "{}", done.stdout);
    assert!(
        done.stdout.contains(&format!("removed what no later deployment needs: the image {second}")),
        "{}",
        done.stdout
    );
    assert!(is_here(&first) && !is_here(&second));

    let done = w.run(&["run", "--json", "--force", "--evict=all", "--prefetch", "false", &file]).expect(0);
    assert!(!done.stdout.contains("downloaded ahead"), "{}", done.stdout);
    assert!(!is_here(&first) && !is_here(&second), "{}", done.stdout);
    w.assert_clean();
}

#[test]
fn a_floating_image_is_resolved_for_the_run_alone() {
    let Some(w) = Workspace::new("float") else { return };
    let registry = Registry::start(&[("1", None), ("2", Some(0))]);
    let reference = registry.reference("1");
    let pinned: Vec<Pulled> = ["1", "2"].map(|tag| Pulled(registry.pinned(tag))).into();
    let file = w.one_cell(&[], "float = [\"image\"]\n");
    w.with_image(&file, &reference);
    let path = file.to_str().unwrap();
    w.run(&["lock", path]).expect(7);
    let lock = w.path().join(format!("{}.lock", w.name));
    let committed = fs::read_to_string(&lock).unwrap();
    assert!(committed.contains(&registry.digest("1")), "{committed}");
    w.run(&["run", "--json", path]).expect(0);

    registry.retag("1", "2");
    let done = w.run(&["run", "--json", path]).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 1, "another image is another unit: {}", done.stdout);
    assert_eq!(fs::read_to_string(&lock).unwrap(), committed);
    let runs = fs::read_dir(w.path().join("artifacts/runs")).unwrap().map(|r| r.unwrap().path().join("float.lock"));
    let mut kept: Vec<String> = runs.map(|p| fs::read_to_string(p).unwrap()).collect();
    kept.sort();
    assert!(kept.iter().any(|k| k.contains(&registry.digest("2"))), "{kept:?}");
    // Offline the committed lock stands.
    let offline = w.run(&["run", "--json", "--offline", path]).expect(0);
    assert_eq!(offline.event("run_finished")["cached"], 1);
    drop(pinned);
    w.assert_clean();
}

/// Removes an image of the engine at the end of the test.
struct Pulled(String);

impl Drop for Pulled {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", &self.0]).output();
    }
}

/// A registry on the loopback, open to everybody: one image under several tags, each with a configuration of its own.
struct Registry {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// Tag → digest of its manifest.
    tags: HashMap<String, String>,
    asked: Vec<String>,
}

impl State {
    fn add(&mut self, dir: &Path, bytes: Vec<u8>) -> (String, usize) {
        let path = dir.join("blob");
        fs::write(&path, &bytes).unwrap();
        let output = Command::new("sha256sum").arg(&path).output().unwrap();
        let digest = format!("sha256:{}", String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap());
        let size = bytes.len();
        self.blobs.insert(digest.clone(), bytes);
        (digest, size)
    }
}

impl Registry {
    /// With a tag for each entry; a layer may claim to be larger than it is by so many bytes.
    fn start(tags: &[(&str, Option<u64>)]) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("image.tar");
        docker(&["save", "-o", tar.to_str().unwrap(), &own_image()]);
        assert!(Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(&tar).status().unwrap().success());
        let index: Value = serde_json::from_slice(&fs::read(dir.path().join("manifest.json")).unwrap()).unwrap();
        let read = |name: &Value| fs::read(dir.path().join(name.as_str().unwrap())).unwrap();
        let mut state = State::default();
        let layers: Vec<(String, usize)> =
            index[0]["Layers"].as_array().unwrap().iter().map(|l| state.add(dir.path(), read(l))).collect();
        let config: Value = serde_json::from_slice(&read(&index[0]["Config"])).unwrap();
        for (tag, claim) in tags {
            let mut config = config.clone();
            config["config"]["Labels"]["llmatrix.test.tag"] = json!(tag);
            let (config, size) = state.add(dir.path(), config.to_string().into_bytes());
            let layer = |(digest, size): &(String, usize)| {
                let size = *size as u64 + claim.unwrap_or(0);
                json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": size, "digest": digest})
            };
            let layers: Vec<Value> = layers.iter().map(layer).collect();
            let kind = "application/vnd.docker.container.image.v1+json";
            let config = json!({"mediaType": kind, "size": size, "digest": config});
            let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
            let (digest, _) = state.add(dir.path(), manifest.to_string().into_bytes());
            state.tags.insert((*tag).to_string(), digest);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || answer(&stream, &state));
            }
        });
        Registry { address, state }
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/team/sim:{tag}", self.address)
    }

    fn digest(&self, tag: &str) -> String {
        self.state.lock().unwrap().tags[tag].clone()
    }

    fn pinned(&self, tag: &str) -> String {
        format!("{}/team/sim@{}", self.address, self.digest(tag))
    }

    /// Has a tag mean what another one means.
    fn retag(&self, tag: &str, other: &str) {
        let digest = self.digest(other);
        self.state.lock().unwrap().tags.insert(tag.to_string(), digest);
    }

    fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let head = read_head(&mut reader)?;
        let mut words = head[0].split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        let (status, kind, digest, body) = {
            let mut state = state.lock().ok()?;
            state.asked.push(path.to_string());
            match path.strip_prefix("/v2/team/sim/").and_then(|rest| rest.split_once('/')) {
                Some(("manifests", tag)) => {
                    let digest = state.tags.get(tag).cloned().unwrap_or_else(|| tag.to_string());
                    match state.blobs.get(&digest) {
                        Some(body) => ("200 OK", MANIFEST, digest, body.clone()),
                        None => ("404 Not Found", "application/json", String::new(), b"{}".to_vec()),
                    }
                }
                Some(("blobs", digest)) => match state.blobs.get(digest) {
                    Some(body) => ("200 OK", "application/octet-stream", digest.to_string(), body.clone()),
                    None => ("404 Not Found", "application/json", String::new(), b"{}".to_vec()),
                },
                _ => ("200 OK", "application/json", String::new(), b"{}".to_vec()),
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {kind}\r\n\
             Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        if method != "HEAD" {
            stream.write_all(&body).ok()?;
        }
    }
}
