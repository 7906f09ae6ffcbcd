use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::options::StartCrash;
use super::super::{SimOptions, Status, start};
use super::client::{Client, Reply};
use super::{Flavor, SimServer, instant, ready};

fn stream(server: &SimServer) -> Reply {
    let (path, body) = ask(server);
    Client::post(server.addr(), path, body)
}

/// A request for six tokens in the server's own protocol, told by whether it knows Triton's paths.
fn ask(server: &SimServer) -> (&'static str, Value) {
    if Client::get(server.addr(), "/v2").status == 200 {
        let parameters = json!({"max_tokens": 6, "ignore_eos": true});
        let body =
            json!({"text_input": "x", "stream": true, "parameters": parameters, "return_num_output_tokens": true});
        ("/v2/models/m-8B/generate_stream", body)
    } else {
        let options = json!({"include_usage": true});
        let body =
            json!({"prompt": "x", "max_tokens": 6, "ignore_eos": true, "stream": true, "stream_options": options});
        ("/v1/completions", body)
    }
}

async fn end(server: &SimServer) -> Status {
    tokio::time::timeout(Duration::from_secs(20), server.wait()).await.expect("it ends")
}

#[test]
fn failed_requests_get_500_in_the_engines_shape() {
    for (flavor, pointer) in
        [(Flavor::HfVllm, "/error/code"), (Flavor::HfSglang, "/code"), (Flavor::TritonVllm, "/error")]
    {
        let server = instant(flavor, |o| o.faults.fail_every = Some(2));
        assert_eq!(stream(&server).status, 200);
        let failed = stream(&server);
        assert_eq!(failed.status, 500);
        assert!(failed.json().pointer(pointer).is_some(), "{failed:?}");
        assert_eq!(stream(&server).status, 200);
    }
}

#[test]
fn a_dropped_stream_ends_without_the_end_of_its_body() {
    for flavor in [Flavor::HfVllm, Flavor::TritonVllm] {
        let server = instant(flavor, |o| o.faults.drop_after = Some(3));
        let r = stream(&server);
        assert!(r.status == 200 && !r.complete);
        assert_eq!(r.events().len(), 3);
        assert!(!r.body().contains("[DONE]"));
    }
}

#[test]
fn a_connection_can_be_dropped_before_the_first_token() {
    let server = instant(Flavor::HfVllm, |o| o.faults.drop_after = Some(0));
    let r = stream(&server);
    assert!(r.status == 200 && !r.complete && r.chunks.is_empty(), "{r:?}");
}

#[test]
fn a_stalled_stream_keeps_its_connection_and_frees_the_engine() {
    let server = instant(Flavor::HfVllm, |o| (o.faults.stall_after, o.faults.every) = (Some(2), 1));
    let (path, body) = ask(&server);
    let mut client = Client::connect(server.addr()).unwrap();
    client.send("POST", path, &body.to_string());
    assert_eq!(client.head().unwrap().status, 200);
    for _ in 0..2 {
        assert!(client.chunk().unwrap().is_some());
    }
    assert!(client.is_silent_for(Duration::from_millis(50)));
    let metrics = Client::get(server.addr(), "/metrics").body();
    assert!(metrics.contains("vllm:num_requests_running{model_name=\"m-8B\",engine=\"0\"} 0"), "{metrics}");
}

#[test]
fn an_error_in_the_stream_comes_inside_a_200() {
    for (flavor, last) in [
        (Flavor::HfVllm, "[DONE]"),
        (Flavor::TritonVllm, "{\"error\":\"Internal server error (simulated fault in the stream)\"}"),
    ] {
        let server = instant(flavor, |o| o.faults.error_in_stream = Some(2));
        let r = stream(&server);
        assert!(r.status == 200 && r.complete);
        assert_eq!(r.data().last().unwrap(), last);
        let events = r.events();
        assert_eq!(events.len(), 3);
        assert!(events[2].get("error").is_some());
    }
    let server = instant(Flavor::TritonVllm, |o| o.faults.error_in_stream = Some(0));
    let r = stream(&server);
    assert_eq!((r.status, r.events().len()), (400, 1), "Triton's status is that of the first response");
}

#[test]
fn short_answers_and_missing_ends() {
    let server = instant(Flavor::HfVllm, |o| o.faults.wrong_length = 2);
    let r = stream(&server);
    let events = r.events();
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 4);
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");

    let server = instant(Flavor::HfVllm, |o| (o.faults.no_usage, o.faults.no_done) = (true, true));
    let r = stream(&server);
    assert_eq!((r.events().len(), r.is_done(), r.complete), (6, false, true));

    let server = instant(Flavor::TritonVllm, |o| o.faults.no_usage = true);
    assert!(stream(&server).events().iter().all(|e| e.get("num_output_tokens").is_none()));
}

#[test]
fn skipped_requests_are_served_well() {
    let server = instant(Flavor::HfVllm, |o| (o.faults.skip, o.faults.drop_after) = (1, Some(1)));
    assert!(stream(&server).complete);
    assert!(!stream(&server).complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_closes_everything_and_is_reported() {
    let mut options = SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(Duration::ZERO, Duration::from_secs(100));
    options.faults.crash_after = Some(1);
    let mut server = start(options).unwrap();
    assert_eq!(server.wait_loaded().await, Status::Ready);
    let addr = server.addr();
    let mut first = Client::connect(addr).unwrap();
    let mut idle = Client::connect(addr).unwrap();
    let (path, body) = ask(&server);
    first.send("POST", path, &body.to_string());
    assert!(first.head().is_some() && first.chunk().unwrap().is_some());
    let mut fatal = Client::connect(addr).unwrap();
    fatal.send("POST", path, &body.to_string());
    assert!(fatal.reply().is_none());
    assert!(first.chunk().is_err(), "the other stream dies with it");
    assert!(!idle.fill());
    assert!(matches!(end(&server).await, Status::Crashed { reason } if reason.contains("CUDA error")));
    assert!(Client::connect(addr).is_err(), "nothing listens any more");
    let mut log = server.take_log().unwrap();
    let mut lines = vec![];
    while let Some(line) = log.recv().await {
        lines.push(line);
    }
    assert!(lines.last().unwrap().contains("EngineCore encountered a fatal error"), "{lines:?}");
}

#[tokio::test]
async fn a_start_can_fail_with_the_engines_words() {
    for (flavor, crash, expected) in [
        (Flavor::HfVllm, StartCrash::Oom, "CUDA out of memory"),
        (Flavor::HfSglang, StartCrash::Kv, "Not enough memory. Please try to increase --mem-fraction-static"),
        (Flavor::NimVllm, StartCrash::Gated, "Cannot access gated repo"),
        (Flavor::TritonTrtllm, StartCrash::Arch, "are not supported for now"),
    ] {
        let mut options = SimOptions::new(flavor, "m-8B");
        options.faults.crash_at_start = Some(crash);
        let server = start(options).unwrap();
        let Status::Crashed { reason } = end(&server).await else { panic!("{flavor} lives") };
        assert!(reason.contains(expected), "{flavor}: {reason}");
        assert_eq!(server.crashed(), Some(reason));
    }
}

#[tokio::test]
async fn a_kv_cache_smaller_than_one_request_fails_the_start() {
    let mut options = SimOptions::new(Flavor::HfVllm, "m-8B");
    options.kv_tokens = Some(1000);
    let server = start(options).unwrap();
    let Status::Crashed { reason } = end(&server).await else { panic!("it lives") };
    assert!(reason.contains("estimated maximum model length is 1000"), "{reason}");
}

#[test]
fn while_loading_each_stack_is_silent_in_its_own_way() {
    for (flavor, expected) in [
        (Flavor::HfVllm, None),
        (Flavor::HfTrtllm, None),
        (Flavor::TritonPython, None),
        (Flavor::HfSglang, Some(&[("/health", 503), ("/ready", 503), ("/v1/models", 503)])),
        (Flavor::NimVllm, Some(&[("/v1/health/live", 200), ("/v1/health/ready", 503), ("/v1/models", 502)])),
    ] {
        let mut options = SimOptions::new(flavor, "m-8B");
        options.faults.never_ready = true;
        let server = start(options).unwrap();
        match expected {
            None => {
                let refused = Client::connect(server.addr()).err().map(|e| e.kind());
                assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused), "{flavor}");
            }
            Some(paths) => {
                // The listener opens with the thread, a moment after the port is taken.
                let client = std::iter::repeat_with(|| Client::connect(server.addr())).find_map(Result::ok);
                drop(client);
                for (path, status) in paths {
                    assert_eq!(Client::get(server.addr(), path).status, *status, "{flavor} {path}");
                }
            }
        }
        assert_eq!(server.status(), Status::Loading);
    }
}

#[test]
fn a_taken_port_is_an_error_that_says_so() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = SimOptions::new(Flavor::HfVllm, "m-8B");
    options.port = other.local_addr().unwrap().port();
    let e = start(options).unwrap_err().to_string();
    assert!(e.contains("cannot listen on 127.0.0.1:") && e.contains("Is the port taken?"), "{e}");
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let mut server = instant(Flavor::HfVllm, |_| {});
    let port = server.addr().port();
    assert_eq!(stream(&server).status, 200);
    server.stop();
    assert_eq!(server.status(), Status::Stopped);
    let zero = Duration::ZERO;
    let again = ready(SimOptions::new(Flavor::HfVllm, "m-8B").with_fixed(zero, zero), |o| o.port = port);
    assert_eq!(stream(&again).status, 200);
}
