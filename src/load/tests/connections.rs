//! Framing, refusals and the readiness probe.

use std::time::Duration;

use serde_json::json;

use super::server::{Server, Step, counted, good, good_stream};
use super::*;
use crate::load::{ProbeOutcome, discover_model, one_token};

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_body_framing_is_read() {
    let server = Server::start(|r| {
        let body = good_stream(r);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";
        match r.number % 3 {
            0 => {
                vec![Step::Send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes()), Step::Send(body)]
            }
            1 => {
                vec![Step::Send(format!("{head}Connection: close\r\n\r\n").into_bytes()), Step::Send(body), Step::Close]
            }
            _ => good(r),
        }
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 9)).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_ok, s.output_tokens), (9, 36), "{:?}", s.errors);
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_new_connection_is_touched_through_a_path_that_costs_the_engine_nothing() {
    let server =
        Server::start(
            |r| {
                if r.head.starts_with("GET /version ") { counted("200 OK", "text/plain", "") } else { good(r) }
            },
        )
        .await;
    let mut t = target(&server.url, Dialect::Openai);
    t.api.health = Some("/health".into());
    t.api.version = Some("/version".into());
    let data = sample(&t, &workload(3, 6)).await.unwrap();
    let gets = server.requests().iter().take_while(|r| r.head.starts_with("GET ")).count();
    assert_eq!((gets, server.requests().len(), server.connections()), (3, 9, 3));
    assert_eq!(data.requests.len(), 6);
}

#[tokio::test]
async fn a_refused_field_is_named_with_what_to_set() {
    let server = Server::start(|_| {
        let body = json!({"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'ignore_eos'), 'msg': 'Extra inputs are not permitted'}]"});
        counted("400 Bad Request", "application/json", &body.to_string())
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 2)).await.unwrap();
    let error = data.requests[0].error.as_deref().unwrap();
    assert!(error.starts_with("HTTP 400") && error.contains("set `ignore_eos = false`"), "{error}");
}

#[tokio::test]
async fn headers_and_a_base_path_go_with_every_request() {
    let server = Server::start(good).await;
    let mut t = target(&format!("{}/gateway/", server.url), Dialect::Openai);
    t.headers = vec![("authorization".into(), "Bearer s3cret".into())];
    sample(&t, &workload(1, 1)).await.unwrap();
    let head = &server.requests()[0].head;
    assert!(head.starts_with("POST /gateway/v1/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nauthorization: Bearer s3cret\r\n"), "{head}");
    assert!(!format!("{t:?}").contains("s3cret"));
}

#[tokio::test]
async fn the_probe_tells_ready_from_not_yet_from_refused() {
    let server = Server::start(|r| match r.number {
        0 => good(r),
        1 => counted("503 Service Unavailable", "text/plain", "loading"),
        2 => counted("404 Not Found", "application/json", r#"{"error":{"message":"no such model"}}"#),
        _ => vec![Step::Close],
    })
    .await;
    let t = target(&server.url, Dialect::Openai);
    let outcome = one_token(&t, TIMEOUT).await.unwrap();
    assert!(matches!(outcome, ProbeOutcome::Ready { output_tokens: Some(1), ttft: Some(_), .. }), "{outcome:?}");
    let outcome = one_token(&t, TIMEOUT).await.unwrap();
    assert!(matches!(&outcome, ProbeOutcome::NotReady { message } if message.contains("loading")), "{outcome:?}");
    let outcome = one_token(&t, TIMEOUT).await.unwrap();
    assert!(matches!(&outcome, ProbeOutcome::Refused { status: 404, message } if message.contains("no such model")));
    let outcome = one_token(&t, TIMEOUT).await.unwrap();
    assert!(matches!(outcome, ProbeOutcome::NotReady { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_closed_port_is_not_ready_and_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let t = target(&format!("http://{}", listener.local_addr().unwrap()), Dialect::Openai);
    drop(listener);
    assert!(matches!(one_token(&t, TIMEOUT).await, Ok(ProbeOutcome::NotReady { .. })));
    let e = sample(&t, &workload(2, 2)).await.unwrap_err();
    assert!(matches!(e, LoadError::Unreachable { .. }), "{e}");
}

#[tokio::test]
async fn the_model_is_discovered() {
    let server = Server::start(|r| {
        assert!(r.head.starts_with("GET /v1/models "));
        if r.number == 0 {
            counted("200 OK", "application/json", r#"{"object":"list","data":[{"id":"org/m"},{"id":"lora"}]}"#)
        } else {
            counted("200 OK", "application/json", r#"{"data":[]}"#)
        }
    })
    .await;
    let t = target(&server.url, Dialect::Openai);
    assert_eq!(discover_model(&t, TIMEOUT).await.unwrap(), "org/m");
    let e = discover_model(&t, TIMEOUT).await.unwrap_err().to_string();
    assert!(e.contains("name the model"), "{e}");
}
