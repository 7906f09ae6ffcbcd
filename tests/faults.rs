//! Servers and networks that misbehave, one fault each: a sweep against them ends by itself, says what it met, counts
//! nothing that was not measured, and the next run, when the server is good again, measures what is missing.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value as Json, json};
use support::Sandbox;

/// What a server does with a request for a generation, after it has read it.
type Act = fn(&mut TcpStream) -> std::io::Result<()>;

/// An OpenAI-compatible server whose generations can be replaced by a fault. Its control paths are always good.
struct Server {
    address: String,
    /// Generations from this one on suffer; 0 is none.
    faulty_from: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    fn start(model: &'static str, act: Act) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        // The first is the probe that readiness asks for.
        let (faulty_from, stopped) = (Arc::new(AtomicU64::new(2)), Arc::new(AtomicBool::new(false)));
        let server = Server { address, faulty_from: faulty_from.clone(), stopped: stopped.clone() };
        std::thread::spawn(move || {
            let count = Arc::new(AtomicU64::new(0));
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (count, faulty) = (count.clone(), faulty_from.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || {
                    // A client that goes away is no error.
                    let _ = serve(stream, model, act, &count, &faulty);
                });
            }
        });
        server
    }

    fn recover(&self) {
        self.faulty_from.store(0, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(mut stream: TcpStream, model: &str, act: Act, count: &AtomicU64, faulty: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_string();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        match path.as_str() {
            "/health" => answer(&mut stream, "200 OK", "")?,
            "/v1/models" => {
                answer(&mut stream, "200 OK", &json!({ "data": [{ "id": model, "object": "model" }] }).to_string())?;
            }
            "/v1/completions" => {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let from = faulty.load(Ordering::SeqCst);
                if from > 0 && number >= from {
                    act(&mut stream)?;
                } else {
                    let asked: Json = serde_json::from_slice(&body).unwrap_or_default();
                    good(&mut stream, &asked)?;
                }
            }
            _ => answer(&mut stream, "404 Not Found", "")?,
        }
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())
}

fn token(text: &str, end: bool) -> String {
    let finish = if end { json!("length") } else { Json::Null };
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "text": text, "finish_reason": finish }] }))
}

/// The end of a stream of so many tokens.
fn usage(input: u64, output: u64, cached: u64) -> String {
    let usage = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": { "cached_tokens": cached },
    });
    format!("data: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage }))
}

fn stream_of(stream: &mut TcpStream, tokens: u64, input: u64, cached: u64) -> std::io::Result<()> {
    stream.write_all(HEAD.as_bytes())?;
    for i in 0..tokens {
        chunk(stream, &token(" tok", i + 1 == tokens))?;
    }
    chunk(stream, &usage(input, tokens, cached))?;
    stream.write_all(b"0\r\n\r\n")
}

fn good(stream: &mut TcpStream, asked: &Json) -> std::io::Result<()> {
    let input = asked["prompt"].as_array().map_or(1, Vec::len) as u64;
    stream_of(stream, asked["max_tokens"].as_u64().unwrap_or(1), input, 0)
}

/// Waits until the client has hung up.
fn until_client_leaves(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

const EXPERIMENT: &str = r#"name = "hostile"
[defaults]
method = "external"
engine = "vllm"
model = "org/m"
hardware = "cpu"
[[matrix]]
tokens = { input = 8, output = 4 }
concurrency = 2
requests = 4
warmup = 0
[run]
request_timeout = "1s"
attempts = 2
sanity = "off"
"#;

fn sandbox(server: &Server) -> Sandbox {
    let s = Sandbox::new();
    let endpoint = format!("[defaults]\nendpoint = \"http://{}\"\n", server.address);
    s.write("e.toml", EXPERIMENT.replace("[defaults]\n", &endpoint));
    s
}

fn reasons(s: &Sandbox) -> Vec<String> {
    let results = s.results("artifacts").into_values().map(|b| serde_json::from_slice::<Json>(&b).expect("JSON"));
    let texts = |r: &Json, list: &str, key: &str| {
        let entries = r[list].as_array().expect("a list").iter();
        entries.filter_map(|e| e[key].as_str().map(str::to_string)).collect::<Vec<_>>()
    };
    results.flat_map(|r| [texts(&r, "samples", "invalid_reason"), texts(&r, "attempts", "cause")].concat()).collect()
}

/// A sweep against the fault: exit code 5, a kept sample that does not count and says why. Then the server recovers, and the
/// next run is good.
fn meets(act: Act, why: &str) {
    let server = Server::start("org/m", act);
    let s = sandbox(&server);
    s.run("run e.toml").exit(5);
    let found = reasons(&s);
    assert!(!found.is_empty() && found.iter().all(|r| r.contains(why)), "`{why}` is not in {found:#?}");
    assert!(s.samples("artifacts").values().all(Vec::is_empty), "nothing counts");
    server.recover();
    s.run("run e.toml").success();
    assert_eq!(s.samples("artifacts").into_values().map(|n| n.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_network_that_is_cut_in_the_middle_of_a_stream() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        chunk(stream, &token(" a", false))?;
        stream.shutdown(Shutdown::Both)
    };
    meets(act, "the connection closed before the answer was complete");
}

#[test]
fn a_server_that_stalls_in_the_middle_of_a_stream() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        chunk(stream, &token(" a", false))?;
        until_client_leaves(stream)
    };
    meets(act, "no complete answer within 1 s");
}

#[test]
fn a_connection_whose_other_end_is_not_there_any_more() {
    meets(until_client_leaves, "no complete answer within 1 s");
}

#[test]
fn a_server_that_answers_garbage() {
    let act: Act = |stream| {
        stream.write_all(b"\x00\xff\x13\x37 what is this\r\n\r\n")?;
        stream.shutdown(Shutdown::Both)
    };
    meets(act, "the answer is not HTTP/1.1");
}

#[test]
fn events_that_are_garbage() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        chunk(stream, "data: {\"choices\": [{\"te\n\ndata: \u{0}\u{1}\n\n:\n\nevent\n\n")?;
        stream.write_all(b"0\r\n\r\n")
    };
    meets(act, "an event is not readable");
}

#[test]
fn headers_without_end() {
    let act: Act = |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        for i in 0..1_000_000 {
            write!(stream, "x-{i}: {}\r\n", "a".repeat(100))?;
        }
        Ok(())
    };
    meets(act, "the answer is not HTTP/1.1: too many headers");
}

#[test]
fn a_header_without_end() {
    let act: Act = |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ")?;
        for _ in 0..1000 {
            stream.write_all("a".repeat(1 << 16).as_bytes())?;
        }
        Ok(())
    };
    meets(act, "the head of the answer is larger than");
}

#[test]
fn a_line_without_end() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        let part = "a".repeat(1 << 20);
        chunk(stream, "data: ")?;
        for _ in 0..100 {
            chunk(stream, &part)?;
        }
        Ok(())
    };
    meets(act, "an event of the stream is larger than");
}

#[test]
fn a_line_of_ten_megabytes_is_an_event_like_any_other() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        for i in 0..4 {
            chunk(stream, &token(&"x".repeat(if i == 1 { 10 << 20 } else { 1 }), i == 3))?;
        }
        chunk(stream, &usage(8, 4, 0))?;
        stream.write_all(b"0\r\n\r\n")
    };
    let server = Server::start("org/m", act);
    let s = sandbox(&server);
    s.write("e.toml", s.read("e.toml").replace("1s", "30s"));
    s.run("run e.toml");
    for result in s.results("artifacts").into_values() {
        let result: Json = serde_json::from_slice(&result).expect("JSON");
        let samples = result["samples"].as_array().expect("samples");
        assert!(samples.iter().all(|s| s["summary"]["n_ok"] == 4 && s["summary"]["n_error"] == 0), "{samples:#?}");
        // Reading it may take longer than a client may take: that is said too.
        assert!(reasons(&s).iter().all(|r| r.starts_with("the client was the bottleneck")), "{:?}", reasons(&s));
    }
}

#[test]
fn a_storm_of_server_errors() {
    meets(
        |stream| answer(stream, "503 Service Unavailable", "{\"error\": {\"message\": \"overloaded\"}}"),
        "HTTP 503: overloaded",
    );
}

#[test]
fn a_stream_that_does_not_end() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        loop {
            chunk(stream, &token(" a", false))?;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    meets(act, "no complete answer within 1 s");
}

#[test]
fn answers_of_another_length() {
    meets(|stream| stream_of(stream, 2, 8, 0), "4 of 4 answers had another length than was asked for");
}

#[test]
fn answers_without_text() {
    let act: Act = |stream| {
        stream.write_all(HEAD.as_bytes())?;
        chunk(stream, &usage(8, 4, 0))?;
        stream.write_all(b"0\r\n\r\n")
    };
    meets(act, "none of 4 answers held any text");
}

#[test]
fn prompts_that_all_come_from_a_cache() {
    meets(|stream| stream_of(stream, 4, 8, 8), "100 % of the input came from the server's prefix cache");
}

#[test]
fn a_server_of_another_model() {
    let server = Server::start("org/another", |stream| stream_of(stream, 4, 8, 0));
    let s = sandbox(&server);
    let done = s.run("run e.toml").exit(5);
    assert!(done.stderr.contains("identity mismatch"), "{}", done.stderr);
    assert!(reasons(&s).iter().all(|r| r.contains("`org/another`")), "{:?}", reasons(&s));
    // It stands until it is asked for: the same inputs fail the same way.
    s.run("run e.toml").exit(5);
    assert_eq!(reasons(&s).len(), 1);
}
