//! What the program asks of the world outside, and what it tells it: model hubs, webhooks. All on the loopback.

mod support;

#[path = "../src/hub/model/stand_in.rs"]
mod stand_in;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use serde_json::Value as Json;
use stand_in::{StandIn, TOKEN};
use support::{Done, FAST, Sandbox, finish};

/// An experiment that refers to a model and an asset of the hub.
const REFERS: &str = r#"name = "refers"
[[matrix]]
model = "org/tiny"
method = "hf"
engine = "vllm"
hardware = "h100-sxm-80gb"
image = "image/that:floats"
tokens = { input = 8, output = 4 }
assets = { lora = "hf://org/lora@v1" }
engine_args = { lora_modules = "{{ 'x=' ~ assets.lora }}" }
"#;

fn asking(s: &Sandbox, hub: &str, token: Option<&str>, line: &str) -> Done {
    let mut command = s.command(line.split_whitespace());
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", hub);
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    finish(&mut command, line)
}

fn hub() -> StandIn {
    let hub = StandIn::start();
    let config = br#"{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "torch_dtype": "bfloat16"}"#;
    hub.put(
        "org/tiny",
        '1',
        &[("config.json", config), ("model.safetensors", &[1; 1000]), ("pytorch_model.bin", &[2; 9])],
    );
    hub
}

#[test]
fn models_and_assets_are_locked_at_their_commits() {
    let (s, hub) = (Sandbox::new(), hub());
    s.write("refers.toml", REFERS.replace("@v1", ""));
    hub.put("org/lora", '2', &[("adapter_config.json", b"{}")]);
    // The image is in no engine's reach, so the lock is not complete.
    let done = asking(&s, &hub.url, None, "lock --json refers.toml").exit(7);
    let told = done.json();
    assert_eq!(told["locked"]["model org/tiny"], "1".repeat(40), "{told}");
    assert_eq!(told["locked"]["asset hf://org/lora"], "2".repeat(40), "{told}");
    let lock = s.read("refers.lock");
    // 2 vectors × 2 layers × 2 heads × 16 × 2 bytes.
    assert!(lock.contains("weight_bytes = 1000\n") && lock.contains("kv_bytes_per_token = 256\n"), "{lock}");

    let ids = s.plan("refers.toml").deploy_ids();
    // What is locked stays until it is moved; a moved branch is another deployment.
    hub.put("org/tiny", '3', &[("config.json", b"{}")]);
    asking(&s, &hub.url, None, "lock refers.toml").exit(7);
    assert_eq!(s.plan("refers.toml").deploy_ids(), ids);
    let moved = asking(&s, &hub.url, None, "lock --update refers.toml").exit(7);
    assert!(moved.stdout.contains(&format!("~ model org/tiny {} → {}", "1".repeat(40), "3".repeat(40))), "{moved:?}");
    assert_ne!(s.plan("refers.toml").deploy_ids(), ids);
}

#[test]
fn what_cannot_be_locked_says_why_and_shows_no_token() {
    let (s, hub) = (Sandbox::new(), hub());
    s.write("refers.toml", REFERS);
    hub.put("org/lora", '2', &[("adapter_config.json", b"{}")]);
    let done = asking(&s, &hub.url, Some("hf_very_secret"), "lock refers.toml").exit(7);
    assert!(done.stderr.contains("asset hf://org/lora@v1: the repository org/lora has no revision `v1`"), "{done:?}");
    assert!(!format!("{done:?}").contains("hf_very_secret"));
    let offline = s.run("lock --offline refers.toml").exit(7);
    assert!(offline.stderr.contains("the hub may not be asked for org/lora@v1: this run is offline"), "{offline:?}");
    // Its metadata is open also where its files are not.
    hub.gate("org/tiny");
    let gated = asking(&s, &hub.url, Some(TOKEN), "lock --update refers.toml").exit(7);
    assert!(!gated.stderr.contains("model org/tiny"), "{gated:?}");
    s.write("bad.toml", REFERS.replace("hf://org/lora@v1", "s3://bucket/lora"));
    let bad = asking(&s, &hub.url, None, "lock bad.toml").exit(7);
    assert!(bad.stderr.contains("`s3://bucket/lora` is not a repository of the hub"), "{bad:?}");
}

/// One unit on the simulated engine, told of at `webhook`.
fn told(s: &Sandbox, webhook: &str, extra: &str) {
    s.write(
        "x.toml",
        format!(
            "name = \"told\"\n[defaults]\nmodel = \"org/m-1B\"\nmethod = \"sim\"\nengine = \"vllm\"\n{FAST}\nrequests = 4\n\
             [[matrix]]\ntokens = {{ input = 8, output = 4 }}\n{extra}[run]\nattempts = 1\nwebhook = \"{webhook}\"\n"
        ),
    );
}

/// A receiver of one message: its address, and where the message comes out.
fn receiver(status: &'static str) -> (String, mpsc::Receiver<(String, Json)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        tell.send((head, serde_json::from_slice(&body).unwrap())).unwrap();
    });
    (address, told)
}

#[test]
fn the_end_of_a_run_is_told_to_its_webhook() {
    let s = Sandbox::new();
    let (address, message) = receiver("200 OK");
    told(&s, &format!("http://{address}/hooks/${{HOOK}}"), "");
    let mut command = s.command(["run", "--json", "x.toml"]);
    let done = finish(command.env("HOOK", "very-secret-path"), "run").success();
    let (head, body) = message.recv().unwrap();
    assert!(head.starts_with("POST /hooks/very-secret-path HTTP/1.1"), "{head}");
    let text = body["text"].as_str().unwrap();
    assert!(text.contains("-told: 1 measured; exit code 0"), "{text}");
    assert_eq!(body["attachments"][0]["color"], "good");
    assert_eq!(
        body["attachments"][0]["fields"][2],
        serde_json::json!({"title": "measured", "value": "1", "short": true})
    );
    assert!(!format!("{done:?}").contains("very-secret-path"));
    for file in s.tree("artifacts") {
        let bytes = std::fs::read(s.path("artifacts").join(&file)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("very-secret-path"), "{file}");
    }
}

#[test]
fn a_webhook_changes_no_exit_code_and_is_checked_before_the_run() {
    let s = Sandbox::new();
    let (address, message) = receiver("500 Internal Server Error");
    told(&s, &format!("http://{address}/secret-path"), "engine_args = { nonsense = \"repeat\" }\n");
    let done = s.run("run x.toml").exit(5).says(&["the webhook could not be told: HTTP 500"]);
    assert!(!done.stderr.contains("secret-path"), "{}", done.stderr);
    let (_, body) = message.recv().unwrap();
    assert!(body["text"].as_str().unwrap().contains("1 invalid; exit code 5\ninvalid "), "{body}");
    assert_eq!(body["attachments"][0]["color"], "danger");

    told(&s, "https://example.org/${NOT_SET_ANYWHERE}", "");
    s.run("run x.toml").exit(2).says(&["`webhook` takes `${NOT_SET_ANYWHERE}`"]);
    told(&s, "not a url", "");
    s.run("run x.toml").exit(2).says(&["`webhook` is not a URL"]);
    told(&s, "http://127.0.0.1:9/x", "");
    s.run("run --offline x.toml").success().says(&["the webhook is not told: this run is offline"]);
}
