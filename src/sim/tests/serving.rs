use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::{Flavor, SimOptions, instant, ready};

const MS: Duration = Duration::from_millis(1);

fn six_tokens() -> String {
    json!({"prompt": [1, 2, 3], "max_tokens": 6, "ignore_eos": true, "stream": true}).to_string()
}

#[test]
fn connections_are_kept_and_idle_ones_are_closed() {
    let server = instant(Flavor::HfVllm, |o| o.keep_alive = Some(30 * MS));
    let mut client = Client::connect(server.addr()).unwrap();
    // A connection that has not been used yet is waited for.
    assert!(client.is_silent_for(60 * MS));
    client.send("POST", "/v1/completions", &six_tokens());
    assert!(client.reply().unwrap().complete);
    assert!(!client.fill(), "closed while idle");
    let mut client = Client::connect(server.addr()).unwrap();
    client.raw("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(client.reply().is_some() && !client.fill());
    for (flavor, kept) in [(Flavor::HfSglang, Some(5000 * MS)), (Flavor::TritonVllm, None)] {
        assert_eq!(SimOptions::new(flavor, "m").keep_alive, kept);
    }
}

#[test]
fn requests_may_come_in_pieces_in_chunks_or_several_at_once() {
    let server = instant(Flavor::HfVllm, |_| {});
    let mut client = Client::connect(server.addr()).unwrap();
    let body = six_tokens();
    client.raw("POST /v1/completions HT");
    client.raw("TP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (a, b) = body.split_at(10);
    client.raw(&format!("{:x}\r\n{a}\r\n", a.len()));
    client.raw(&format!("{:X};ext=1\r\n{b}\r\n0\r\n\r\n", b.len()));
    assert!(client.reply().unwrap().is_done());
    client.raw("GET /health HTTP/1.1\r\n\r\nGET /version HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 200);
    let last = client.reply().unwrap();
    assert!(last.head.contains("connection: close"));
    assert!(!client.fill());
    let mut client = Client::connect(server.addr()).unwrap();
    client.raw("what is this\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 400);
}

#[test]
fn tokens_are_written_one_by_one_and_never_before_their_time() {
    let (ttft, itl) = (8 * MS, 3 * MS);
    let server = ready(SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(ttft, itl), |o| o.trace = true);
    let before = Instant::now();
    let r = Client::post(server.addr(), "/v1/completions", six_tokens());
    assert_eq!(r.chunks.len(), 7);
    let trace = server.take_trace();
    assert_eq!((trace.len(), trace[0].number), (1, 1));
    assert!(trace[0].received >= before);
    assert_eq!(trace[0].events.len(), 6);
    for (i, (at, tokens)) in trace[0].events.iter().enumerate() {
        assert!(*at >= trace[0].received + ttft + itl * i as u32, "event {i} is early");
        assert_eq!(*tokens, 1);
    }
    assert!(server.take_trace().is_empty());
}

#[test]
fn speed_divides_the_time_and_is_seen_by_the_client() {
    let options = SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(Duration::from_secs(200), Duration::from_secs(10));
    let server = ready(options, |o| o.speed = 10_000.0);
    let start = Instant::now();
    assert!(Client::post(server.addr(), "/v1/completions", six_tokens()).is_done());
    assert!(start.elapsed() >= 25 * MS);
}

#[test]
fn metrics_tell_the_engines_true_state() {
    let server = ready(SimOptions::new(Flavor::HfVllm, "m-8B"), |o| o.speed = 100.0);
    for _ in 0..3 {
        Client::post(server.addr(), "/v1/completions", six_tokens());
    }
    let text = Client::get(server.addr(), "/metrics").body();
    let value = |name: &str| {
        let line =
            text.lines().find(|l| l.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert_eq!(value("vllm:prompt_tokens_total"), 9.0);
    assert_eq!(value("vllm:generation_tokens_total"), 18.0);
    assert_eq!(value("vllm:time_to_first_token_seconds_count"), 3.0);
    assert_eq!(value("vllm:inter_token_latency_seconds_count"), 15.0);
    assert_eq!((value("vllm:num_requests_running"), value("vllm:kv_cache_usage_perc")), (0.0, 0.0));
    assert!(text.contains("finished_reason=\"length\"} 3"));
    // One token of an 8B model at a hundredth of its time takes more than 50 µs.
    assert!(value("vllm:inter_token_latency_seconds_sum") / 15.0 > 50e-6);
}

#[test]
fn trtllm_iterations_are_told_once() {
    let server = ready(SimOptions::new(Flavor::HfTrtllm, "m-8B"), |o| o.speed = 100.0);
    let body = json!({"model": "m", "prompt": "x", "max_tokens": 6, "ignore_eos": true});
    Client::post(server.addr(), "/v1/completions", body);
    let first = Client::get(server.addr(), "/metrics").json();
    assert_eq!(first.as_array().unwrap().len(), 6);
    assert!(first[0]["kvCacheStats"]["maxNumBlocks"].as_u64().unwrap() > 0);
    assert_eq!(Client::get(server.addr(), "/metrics").json(), json!([]));
}

#[test]
fn a_client_that_leaves_stops_its_generation() {
    let server = ready(SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(Duration::ZERO, MS), |_| {});
    let mut client = Client::connect(server.addr()).unwrap();
    let body = json!({"prompt": [1], "max_tokens": 30_000, "ignore_eos": true, "stream": true});
    client.send("POST", "/v1/completions", &body.to_string());
    assert!(client.head().is_some() && client.chunk().unwrap().is_some());
    drop(client);
    let aborted = "finished_reason=\"abort\"} 1";
    while !Client::get(server.addr(), "/metrics").body().contains(aborted) {}
}

#[test]
fn a_slow_reader_loses_nothing_and_holds_up_nobody() {
    let server = instant(Flavor::HfVllm, |o| o.max_model_len = 1 << 20);
    let mut slow = Client::connect(server.addr()).unwrap();
    let body = json!({"prompt": [1], "max_tokens": 60_000, "ignore_eos": true, "stream": true});
    slow.send("POST", "/v1/completions", &body.to_string());
    assert_eq!(slow.head().unwrap().status, 200);
    // Far more than socket buffers hold is now on its way.
    assert!(Client::post(server.addr(), "/v1/completions", six_tokens()).is_done());
    let mut events = 0;
    while slow.chunk().unwrap().is_some() {
        events += 1;
    }
    assert_eq!(events, 60_001);
}

#[test]
fn many_streams_at_once_all_get_their_tokens() {
    // As many as a common limit of 1024 open files per process allows for both ends.
    const STREAMS: usize = 400;
    let server = ready(SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(20 * MS, 2 * MS), |o| o.trace = true);
    let body = six_tokens();
    let request = format!("POST /v1/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut clients: Vec<TcpStream> = (0..STREAMS).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
    }
    for mut client in clients {
        let mut got = Vec::new();
        let mut part = [0; 4096];
        while !got.ends_with(b"0\r\n\r\n") {
            let n = client.read(&mut part).unwrap();
            assert!(n > 0);
            got.extend_from_slice(&part[..n]);
        }
        let text = String::from_utf8(got).unwrap();
        assert_eq!(text.matches("\"text\":").count(), 6);
        assert!(text.contains("[DONE]"));
    }
    let trace = server.take_trace();
    assert_eq!(trace.len(), STREAMS);
    assert!(trace.iter().all(|t| t.events.len() == 6));
}

#[test]
fn sglangs_health_takes_as_long_as_its_poll() {
    let server = instant(Flavor::HfSglang, |o| o.speed = 50.0);
    let start = Instant::now();
    assert_eq!(Client::get(server.addr(), "/health").status, 200);
    assert!(start.elapsed() >= 20 * MS);
}

#[test]
fn an_early_role_comes_before_the_first_token_is_ready() {
    let options = SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(Duration::from_secs(3600), MS);
    let server = ready(options, |o| o.early_role = true);
    let mut client = Client::connect(server.addr()).unwrap();
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    client.send("POST", "/v1/chat/completions", &body.to_string());
    assert!(client.head().is_some());
    assert!(client.chunk().unwrap().unwrap().contains("\"role\":\"assistant\""));
}

#[test]
fn the_log_tells_the_milestones() {
    let mut server = instant(Flavor::HfVllm, |_| {});
    let mut log = server.take_log().unwrap();
    assert!(server.take_log().is_none());
    server.stop();
    let lines: Vec<String> = std::iter::from_fn(|| log.blocking_recv()).collect();
    assert!(lines[0].contains("no model is loaded"));
    assert!(lines.iter().any(|l| l.contains("Application startup complete")));
}
