//! The pitfalls of measuring streams, each seen in a real tool, each with its test. Timing is tested on marks that are
//! handed their stamps, so that figures are exact.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{
    LAST_CHUNK, Seen, Server, Step, chunk, completion, counted, event, good, good_stream, stream_head,
};
use super::*;
use crate::load::marks::{Marks, Seen as Marked};
use crate::load::tls;
use crate::stats::record::tests::{request, sample as hand_made};
use crate::stats::{LoadShape, RequestRecord};
use crate::wire::events::Usage;
use crate::workload::prompts::TextCalibration;

const MS: u64 = 1_000_000;

/// Feeds (milliseconds, payload) pairs as one event each.
fn marked(dialect: Dialect, events: &[(u64, Value)]) -> (Marked, Usage) {
    let mut marks = Marks::new(dialect);
    for (ms, payload) in events {
        marks.feed(ms * MS, &event(payload)).unwrap();
    }
    let usage = marks.usage();
    (marks.seen, usage)
}

fn chat(delta: Value) -> Value {
    json!({"object":"chat.completion.chunk","choices":[{"index":0,"delta":delta,"finish_reason":null}]})
}

fn gaps_ms(seen: &Marked) -> Vec<u64> {
    seen.gaps.iter().map(|ns| ns / MS).collect()
}

#[test]
fn pitfall_01_role_only_chunk() {
    let (seen, _) = marked(
        Dialect::Openai,
        &[
            (1, chat(json!({"role":"assistant","content":""}))),
            (50, chat(json!({"content":"a"}))),
            (60, chat(json!({"content":"b"}))),
        ],
    );
    assert_eq!(seen.first_token, Some(50 * MS));
    assert_eq!(gaps_ms(&seen), [10]);
}

#[test]
fn pitfall_02_reasoning_counts() {
    let (seen, _) = marked(
        Dialect::Openai,
        &[
            (10, chat(json!({"reasoning_content":"hm"}))),
            (20, chat(json!({"reasoning":"hm"}))),
            (35, chat(json!({"content":"yes"}))),
            (40, chat(json!({"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}))),
        ],
    );
    assert_eq!((seen.first_token, seen.first_visible), (Some(10 * MS), Some(35 * MS)));
    assert_eq!(gaps_ms(&seen), [10, 15, 5]);
}

#[test]
fn pitfall_03_usage_chunk_extends_nothing() {
    let (seen, usage) = marked(
        Dialect::Openai,
        &[(10, completion("a", None)), (20, completion("b", Some("length"))), (500, super::server::usage(3, 2))],
    );
    assert_eq!((seen.last_token, seen.token_events), (Some(20 * MS), 2));
    assert_eq!((usage.input, usage.output), (Some(3), Some(2)));
}

#[test]
fn pitfall_04_several_tokens_per_event() {
    // 16 tokens in 4 events, 40 ms apart: the gap is 40 ms, the time per token is not.
    let record = RequestRecord { token_events: 4, ..request(0, 0, 100 * MS, 220 * MS, 16) };
    let mut data = hand_made(LoadShape::Closed { concurrency: 1 }, vec![record]);
    (0..3).for_each(|_| data.gaps.record(40 * MS));
    let s = summary(&data);
    assert_eq!((s.itl.p50, s.tpot.p50, s.tokens_per_event), (Some(40.0), Some(8.0), Some(4.0)));
}

#[tokio::test]
async fn pitfall_05_segmentation() {
    // The same stream cut into single bytes, with CRLF, comments, data over several lines, text of several bytes a
    // character, and an event of a megabyte.
    let server = Server::start(|r| {
        let big = "é".repeat(500_000);
        let pretty = serde_json::to_string_pretty(&completion(" 日本", None)).unwrap().replace('\n', "\r\ndata: ");
        let text = format!(
            ": hello\r\n\r\ndata: {}\n\ndata: {pretty}\r\n\r\ndata: {}\n\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
            completion("naïve", None),
            completion("🙂", None),
            completion(&big, Some("length")),
            super::server::usage(32, 4),
        );
        let mut steps = vec![Step::Send(stream_head())];
        let (start, rest) = text.as_bytes().split_at(700);
        if r.number == 0 {
            steps.extend(start.iter().map(|b| Step::Send(chunk(&[*b]))));
        } else {
            steps.push(Step::Send(chunk(start)));
        }
        steps.extend(rest.chunks(1 << 17).map(|part| Step::Send(chunk(part))));
        steps.push(Step::Send(LAST_CHUNK.to_vec()));
        steps
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 2)).await.unwrap();
    for r in &data.requests {
        assert_eq!((r.error.as_deref(), r.token_events, r.output_tokens), (None, 4, Some(4)));
    }
}

#[test]
fn pitfall_06_the_clock_is_read_before_parsing() {
    // Two thousand events arrive in one read: whatever reading them takes, it is in none of the gaps.
    let payload = event(&chat(json!({"content":"a \"quoted\" word"})));
    let mut marks = Marks::new(Dialect::Openai);
    marks.feed(7 * MS, &payload.repeat(2000)).unwrap();
    marks.feed(9 * MS, &payload).unwrap();
    assert_eq!(marks.seen.gaps.iter().sum::<u64>(), 2 * MS);
    assert_eq!(marks.seen.gaps.iter().filter(|g| *g == 0).count(), 1999);
}

#[tokio::test]
async fn pitfall_07_token_ids_are_sent_as_they_are() {
    let server = Server::start(good).await;
    let mut w = workload(2, 6);
    w.tokens.input = Some(777);
    let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
    for r in server.requests() {
        let ids = r.body["prompt"].as_array().unwrap();
        assert!(ids.len() == 777 && ids.iter().all(|id| (1000..4000).contains(&id.as_u64().unwrap())));
    }
    assert!(data.requests.iter().all(|r| r.input_tokens == Some(777)));
}

#[tokio::test]
async fn pitfall_08_template_tokens_are_calibrated_away() {
    // The server puts 17 tokens around each prompt and makes two tokens of each word.
    let server = Server::start(|r| {
        let words = r.body["messages"][0]["content"].as_str().unwrap().split(' ').count();
        let n = r.body["max_tokens"].as_u64().unwrap();
        let mut bytes = stream_head();
        for i in 0..n {
            let finish = (i + 1 == n).then_some("length");
            let payload = json!({"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":finish}]});
            bytes.extend(chunk(&event(&payload)));
        }
        bytes.extend(chunk(&event(&super::server::usage(17 + 2 * words, n))));
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await;
    let mut w = workload(2, 6);
    (w.api, w.tokens.input) = (Api::Chat, Some(217));
    let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
    assert!(data.requests.iter().all(|r| r.input_tokens == Some(217)));
    assert_eq!(server.requests().len(), 6 + 2);
    let known = LoadOptions {
        calibration: Some(TextCalibration { overhead_tokens: 17.0, tokens_per_word: 2.0, measured: true }),
        ..options()
    };
    let t = target(&server.url, Dialect::Openai);
    run_sample(&t, &w, &known, Arc::default(), CancellationToken::new()).await.unwrap();
    assert_eq!(server.requests().len(), 6 + 2 + 6);
}

#[tokio::test]
async fn pitfall_09_no_two_prompts_begin_alike() {
    let server = Server::start(good).await;
    let mut w = workload(4, 20);
    w.warmup = 5;
    for sample in 0..3 {
        let options = LoadOptions { sample, ..options() };
        let t = target(&server.url, Dialect::Openai);
        run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
    }
    let starts: BTreeSet<String> = server
        .requests()
        .iter()
        .map(|r| serde_json::to_string(&r.body["prompt"].as_array().unwrap()[..8]).unwrap())
        .collect();
    assert_eq!(starts.len(), 3 * 25);
}

#[tokio::test]
async fn pitfall_10_a_cap_keeps_the_intended_start() {
    // Ten requests are due within 9 ms, one at a time is let through, each takes 5 ms at least.
    let server = Server::start(|r| {
        let mut steps = vec![Step::Wait(Duration::from_millis(5))];
        steps.extend(good(r));
        steps
    })
    .await;
    let mut w = workload(1, 10);
    w.rate = Some(1000.0);
    let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
    let last = &data.requests[9];
    assert_eq!(last.intended_ns, 9 * MS);
    assert!(last.queue_delay_ns() >= (9 * 5 - 9) * MS, "{last:?}");
    let s = summary(&data);
    assert!(s.e2el_intended.max.unwrap() >= s.e2el.max.unwrap() + 30.0);
}

#[tokio::test]
async fn pitfall_11_failures_stay_visible() {
    let server = Server::start(|r| {
        if r.number % 2 == 1 {
            return counted("500 Internal Server Error", "application/json", r#"{"error":{"message":"out of luck"}}"#);
        }
        good(r)
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 20)).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_sent, s.n_ok, s.n_error, s.error_rate), (20, 10, 10, 0.5));
    assert_eq!((s.output_tokens, s.ttft.n, s.ttft_adj.n), (40, 10, 20));
    assert!(s.ttft.p90.is_some() && s.ttft_adj.p90.is_none());
    assert_eq!(s.errors, [("HTTP 500: out of luck".to_string(), 10)]);
    assert_eq!(s.request_throughput, Some(10.0 / s.duration_s));
}

#[tokio::test]
async fn pitfall_12_warm_up_is_in_neither_tokens_nor_time() {
    let server = Server::start(good).await;
    let mut w = workload(2, 10);
    w.warmup = 7;
    let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
    assert_eq!(server.requests().len(), 17);
    let s = summary(&data);
    assert_eq!((s.n_sent, s.output_tokens, data.gaps.len()), (10, 40, 30));
    let first = data.requests.iter().map(|r| r.start_ns).min().unwrap();
    let last = data.requests.iter().filter_map(|r| r.last_token_ns).max().unwrap();
    assert_eq!(s.duration_s, (last - first) as f64 / 1e9);
}

#[tokio::test]
async fn pitfall_13_one_clock() {
    let server = Server::start(good).await;
    for rate in [None, Some(500.0)] {
        let mut w = workload(8, 60);
        w.rate = rate;
        let options = LoadOptions { workers: Some(2), ..options() };
        let t = target(&server.url, Dialect::Openai);
        let data = run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
        assert_eq!(data.requests.len(), 60);
        for r in &data.requests {
            let points = [Some(r.intended_ns), Some(r.start_ns), r.first_token_ns, r.first_visible_ns, r.last_token_ns];
            let points: Vec<u64> = points.into_iter().map(Option::unwrap).chain([r.end_ns]).collect();
            assert!(points.is_sorted(), "{r:?}");
        }
    }
}

#[tokio::test]
async fn pitfall_14_connections_are_open_before_the_clock_starts() {
    let server = Server::start(good).await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(40, 80)).await.unwrap();
    let seen = server.seen();
    let first_request = seen.iter().position(|s| matches!(s, Seen::Request(_))).unwrap();
    assert_eq!((first_request, server.connections()), (40, 40));
    assert_eq!(summary(&data).connect.n, 40);
}

#[tokio::test]
async fn pitfall_15_a_dead_kept_connection_is_no_error() {
    // Every connection carries one request and says keep-alive. Then one half close at once, the other half when the
    // next request arrives.
    let last = AtomicUsize::new(usize::MAX);
    let server = Server::start(move |r| {
        if last.swap(r.connection, Ordering::SeqCst) == r.connection {
            return vec![Step::Close];
        }
        let mut steps = good(r);
        if r.connection.is_multiple_of(2) {
            steps.push(Step::Close);
        }
        steps
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 30)).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_ok, s.n_error), (30, 0), "{:?}", s.errors);
    assert_eq!(server.connections(), 30);
}

#[tokio::test]
async fn pitfall_16_no_limit_of_a_hundred_streams() {
    // No answer before all 160 requests are there.
    let server = Server::start(|r| {
        let mut steps = vec![Step::Gather(160)];
        steps.extend(good(r));
        steps
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(160, 160)).await.unwrap();
    assert_eq!(summary(&data).n_ok, 160);
    assert!(server.requests().iter().all(|r| r.head.starts_with("POST /v1/completions HTTP/1.1\r\n")));
    let insecure = TlsConfig { insecure: true, ..TlsConfig::default() };
    assert_eq!(tls::client_config(&insecure).unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
}

#[tokio::test]
async fn pitfall_17_triton_streams() {
    let (seen, usage) = marked(
        Dialect::TritonTrtllm,
        &[
            (10, json!({"text_output":"He"})),
            (20, json!({"text_output":"He"})),
            (30, json!({"text_output":"Hello","finish_reason":"length","num_output_tokens":3})),
        ],
    );
    assert_eq!((seen.token_events, gaps_ms(&seen), usage.output), (2, vec![20], Some(3)));
    // No [DONE]; counts are deltas; an error inside a 200.
    let server = Server::start(|r| {
        let mut bytes = stream_head();
        for i in 0..4 {
            let payload = json!({"text_output":"x","num_output_tokens":1,"num_input_tokens":30,"finish_reason":"None"});
            let payload = if r.number == 3 && i == 2 { json!({"error":"stub died"}) } else { payload };
            bytes.extend(chunk(&event(&payload)));
        }
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await;
    let mut w = workload(1, 4);
    w.api = Api::Generate;
    let data = sample(&target(&server.url, Dialect::TritonVllm), &w).await.unwrap();
    assert!(server.requests()[0].head.starts_with("POST /v2/models/m/generate_stream "));
    let s = summary(&data);
    // The two calibration requests are numbers 0 and 1.
    assert_eq!((s.n_ok, s.n_error, s.output_tokens, s.wrong_output_length), (3, 1, 12, 0));
    assert!(s.errors[0].0.contains("stub died"));
}

#[tokio::test]
async fn pitfall_18_a_200_is_not_yet_a_success() {
    let server = Server::start(|r| {
        let stream = good_stream(r);
        let mut bytes = stream_head();
        match r.number {
            0 => bytes.extend(chunk(&event(&completion("x", None)))),
            1 => {
                bytes.extend(chunk(&event(&completion("x", None))));
                bytes.extend(chunk(&event(&json!({"error":{"message":"engine died","code":500}}))));
                bytes.extend(chunk(b"data: [DONE]\n\n"));
            }
            2 => {
                bytes.extend(chunk(&stream));
                return vec![Step::Send(bytes[..bytes.len() - 30].to_vec()), Step::Close];
            }
            3 => return counted("200 OK", "application/json", r#"{"error":{"message":"busy"}}"#),
            4 => {}
            // A finish reason without [DONE] is an end all the same.
            _ => bytes.extend(chunk(&event(&completion("x", Some("length"))))),
        }
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 6)).await.unwrap();
    let errors: Vec<&str> = data.requests.iter().map(|r| r.error.as_deref().unwrap_or("ok")).collect();
    for (error, expected) in errors.iter().zip([
        "without a finish reason or [DONE]",
        "in its stream: engine died",
        "closed before the answer was complete",
        "under HTTP 200: busy",
        "without any event",
        "ok",
    ]) {
        assert!(error.contains(expected), "{error} / {expected}");
    }
}
