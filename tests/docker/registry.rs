//! Pulling: a registry of our own on the loopback, which wants a login, serves the image.

use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::image;
use super::stand_in::read_head;
use super::workspace::{Workspace, docker, finish, wait_until};

/// `user:pass word` in base64.
const LOGIN: &str = "dXNlcjpwYXNzIHdvcmQ=";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const NAME: &str = "team/sim";

/// Content by digest, and the digest of the manifest.
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    manifest: String,
    gate: Gate,
}

/// Holds blobs back until it is opened. Open unless it is shut.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    /// Blobs that were asked for and wait.
    waiting: usize,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.opened.notify_all();
    }

    fn is_waited_at(&self) -> bool {
        self.state.lock().unwrap().waiting > 0
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        let mut state = self.opened.wait_while(state, |s| s.shut).unwrap();
        state.waiting -= 1;
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    format!("sha256:{}", String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap())
}

/// The image as a registry has it. A labelled one is none that the engine has already.
fn content(label: Option<&str>) -> Content {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    docker(&["save", "-o", at("image.tar").to_str().unwrap(), &image::of("hf", "vllm")]);
    let tar = Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(at("image.tar")).status().unwrap();
    assert!(tar.success());
    let index: Value = serde_json::from_slice(&fs::read(at("manifest.json")).unwrap()).unwrap();
    let mut blobs = HashMap::new();
    let mut add = |path: &Path| {
        let (digest, bytes) = (sha256(path), fs::read(path).unwrap());
        let size = bytes.len();
        blobs.insert(digest.clone(), bytes);
        (digest, size)
    };
    let file = |value: &Value| dir.path().join(value.as_str().unwrap());
    let config = file(&index[0]["Config"]);
    if let Some(label) = label {
        let mut text: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        text["config"]["Labels"]["llmatrix.test"] = label.into();
        fs::write(&config, text.to_string()).unwrap();
    }
    let (config, config_size) = add(&config);
    let layers: Vec<Value> = index[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| {
            let (digest, size) = add(&file(layer));
            json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": size, "digest": digest})
        })
        .collect();
    let config =
        json!({"mediaType": "application/vnd.docker.container.image.v1+json", "size": config_size, "digest": config});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    fs::write(at("own-manifest"), manifest.to_string()).unwrap();
    let (manifest, _) = add(&at("own-manifest"));
    Content { blobs, manifest, gate: Gate::default() }
}

/// Serves until the test process ends. Gives the registry's address.
fn serve(content: Arc<Content>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let content = content.clone();
            std::thread::spawn(move || answer(&stream, &content));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, content: &Content) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let lines = read_head(&mut reader)?;
        let mut words = lines[0].split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        let authorized = lines.iter().any(|l| l.to_lowercase().starts_with("authorization:") && l.ends_with(LOGIN));
        let (status, kind, digest, body) = match path.strip_prefix(&format!("/v2/{NAME}/")) {
            _ if !authorized => {
                ("401 Unauthorized\r\nWww-Authenticate: Basic realm=\"test\"", "text/plain", "", &b""[..])
            }
            Some(rest) => match rest.split_once('/') {
                Some(("manifests", tag)) if tag == "1" || tag == content.manifest => {
                    ("200 OK", MANIFEST, content.manifest.as_str(), &content.blobs[&content.manifest][..])
                }
                Some(("blobs", digest)) if content.blobs.contains_key(digest) => {
                    content.gate.pass();
                    ("200 OK", "application/octet-stream", digest, &content.blobs[digest][..])
                }
                _ => (
                    "404 Not Found",
                    "application/json",
                    "",
                    &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#[..],
                ),
            },
            None => ("200 OK", "application/json", "", &b"{}"[..]),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {kind}\r\n\
             Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        if method != "HEAD" {
            stream.write_all(body).ok()?;
        }
    }
}

/// Removes an image of the engine at the end of the test.
struct Pulled(String);

impl Drop for Pulled {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", &self.0]).output();
    }
}

#[test]
fn an_image_is_pulled_with_a_login_and_locked_by_its_digest() {
    let Some(w) = Workspace::new("pull") else { return };
    let content = Arc::new(content(None));
    let registry = serve(content.clone());
    let reference = format!("{registry}/{NAME}:1");
    let _pulled = Pulled(reference.clone());
    let file = w.one_cell(&[], "");
    w.with_image(&file, &reference);
    let file = file.to_str().unwrap();

    // Without a login the registry refuses; nothing of it is for good.
    let refused = w.run(&["run", "--json", file]).expect(5);
    let failed = refused.event("deployment_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&"pull".into(), &"infrastructure".into()), "{failed}");
    assert!(failed["cause"].as_str().unwrap().contains("docker login"), "{failed}");

    // The registry's word goes into the lock, with the login that `docker login` left behind.
    let login = json!({"auths": {registry.clone(): {"auth": LOGIN}}});
    fs::write(w.path().join("config.json"), login.to_string()).unwrap();
    let locked = w.run(&["lock", file]).expect(7);
    let entry = format!("+ image {reference} {}", content.manifest);
    assert!(locked.stdout.contains(&entry), "{}{}", locked.stdout, locked.stderr);
    let done = w.run(&["run", "--json", file]).expect(0);
    let pulled = done.json();
    let message = |e: &&Value| e["message"].as_str().is_some_and(|m| m.starts_with("pulling "));
    let told = pulled.iter().find(message).expect("the pull is told of");
    assert_eq!((&told["event"], &told["stage"]), (&"deployment_progress".into(), &"pull".into()), "{told}");
    assert!(!format!("{}{}{}", done.stdout, done.stderr, locked.stdout).contains("pass word"));

    // A tag that the registry does not have will not be there the next time either.
    let text = fs::read_to_string(file).unwrap().replace(&reference, &format!("{registry}/{NAME}:2"));
    fs::write(file, text).unwrap();
    let missing = w.run(&["run", "--json", file]).expect(5);
    let failed = missing.event("deployment_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&"pull".into(), &"deterministic".into()), "{failed}");
    docker(&["image", "rm", &format!("{registry}/{NAME}@{}", content.manifest)]);
    w.assert_clean();
}

#[test]
fn a_run_that_is_killed_while_it_pulls_leaves_nothing() {
    let Some(w) = Workspace::new("pullkill") else { return };
    let content = Arc::new(content(Some(&w.name)));
    let registry = serve(content.clone());
    let reference = format!("{registry}/{NAME}:1");
    let _pulled = Pulled(reference.clone());
    let file = w.one_cell(&[], "");
    w.with_image(&file, &reference);
    let file = file.to_str().unwrap();
    let login = json!({"auths": {registry.clone(): {"auth": LOGIN}}});
    fs::write(w.path().join("config.json"), login.to_string()).unwrap();

    content.gate.shut();
    let mut child = w.command(&["run", "--json", file]).spawn().unwrap();
    wait_until("the image is being pulled", || content.gate.is_waited_at());
    child.kill().unwrap();
    child.wait().unwrap();
    w.assert_clean();
    assert_eq!(docker(&["image", "ls", "--quiet", &reference]), "");
    w.run(&["clean"]).expect(0);
    content.gate.open();
    let done = w.run(&["run", "--json", file]).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 1);
    w.assert_clean();
}

#[test]
fn a_login_may_come_from_a_helper() {
    let Some(w) = Workspace::new("helper") else { return };
    let content = Arc::new(content(None));
    let registry = serve(content.clone());
    let reference = format!("{registry}/{NAME}:1");
    let file = w.one_cell(&[], "");
    w.with_image(&file, &reference);
    let helper = w.path().join("docker-credential-trial");
    fs::write(&helper, "#!/bin/sh\nread server\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"user\",\"Secret\":\"pass word\"}' \"$server\"\n")
        .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = json!({"credHelpers": {registry: "trial"}});
    fs::write(w.path().join("config.json"), config.to_string()).unwrap();
    let mut command = w.command(&["lock", file.to_str().unwrap()]);
    command.env("PATH", format!("{}:{}", w.path().display(), std::env::var("PATH").unwrap()));
    let locked = finish(command.spawn().unwrap()).expect(7);
    assert!(locked.stdout.contains(&content.manifest), "{}{}", locked.stdout, locked.stderr);
}
