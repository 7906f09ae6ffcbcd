//! How a sample begins, paces itself and ends.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::server::{LAST_CHUNK, Server, Step, chunk, completion, counted, event, good, stream_head};
use super::*;
use crate::stats::{LoadShape, Status};
use crate::workload::profile::{Level, Profile, Stage};
use crate::workload::prompts::TextCalibration;
use crate::workload::{CancelAfter, Cancellation, Dataset, WorkloadError};

#[tokio::test]
async fn progress_counts_what_is_measured() {
    let server = Server::start(good).await;
    let mut w = workload(4, 30);
    w.warmup = 3;
    let progress = Arc::new(Progress::default());
    let t = target(&server.url, Dialect::Openai);
    let data = run_sample(&t, &w, &options(), progress.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!(data.requests.len(), 30);
    assert_eq!(data.requests.iter().map(|r| r.index).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    assert_eq!((progress.sent.load(Relaxed), progress.done.load(Relaxed)), (30, 30));
    assert_eq!((progress.output_tokens.load(Relaxed), progress.planned.load(Relaxed)), (120, 30));
    assert!(progress.mean_ttft_ms().is_some());
    assert!(data.client_cpu_fraction.is_some());
}

#[tokio::test]
async fn a_duration_ends_the_sending_and_cancels_what_does_not_drain() {
    // Every third request hangs after its first token.
    let server = Server::start(|r| {
        if r.number % 3 != 2 {
            return good(r);
        }
        let start = [stream_head(), chunk(&event(&completion("x", None)))].concat();
        vec![Step::Send(start), Step::Wait(Duration::from_secs(3600))]
    })
    .await;
    let mut w = workload(2, 1);
    (w.requests, w.duration) = (None, Some(Duration::from_millis(300)));
    let options = LoadOptions { drain_timeout: Duration::from_millis(50), ..options() };
    let t = target(&server.url, Dialect::Openai);
    let data = run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_ok, s.n_error, s.n_cancelled, s.error_rate), (4, 0, 2, 0.0));
    let cut = data.requests.iter().find(|r| r.status == Status::Cancelled).unwrap();
    assert!(cut.end_ns >= 350_000_000 && cut.token_events == 1);
}

#[tokio::test]
async fn requests_that_the_cap_never_let_start_are_cancelled_ones() {
    let server = Server::start(|_| vec![Step::Wait(Duration::from_secs(3600))]).await;
    let mut w = workload(1, 1);
    (w.requests, w.duration, w.rate) = (None, Some(Duration::from_millis(200)), Some(25.0));
    let options = LoadOptions { drain_timeout: Duration::from_millis(10), ..options() };
    let t = target(&server.url, Dialect::Openai);
    let data = run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
    assert_eq!((server.requests().len(), data.requests.len()), (1, 5));
    assert!(data.requests.iter().all(|r| r.status == Status::Cancelled));
    assert!(data.requests[4].queue_delay_ns() >= 40_000_000);
}

#[tokio::test]
async fn waiting_takes_no_cpu() {
    // A closed and an open loop that wait for answers, for their next start, for the cap, and for the drain.
    let server = Server::start(|_| vec![Step::Wait(Duration::from_secs(3600))]).await;
    for (rate, concurrency) in [(None, Some(2)), (Some(8.0), None), (Some(20.0), Some(1))] {
        let mut w = workload(1, 1);
        (w.requests, w.duration, w.rate, w.concurrency) = (None, Some(Duration::from_millis(250)), rate, concurrency);
        let options = LoadOptions { drain_timeout: Duration::from_millis(250), ..options() };
        let t = target(&server.url, Dialect::Openai);
        let data = run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
        let cpu = data.client_cpu_fraction.unwrap();
        assert!(cpu < 0.3, "{cpu} of a core with {rate:?} and {concurrency:?}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_an_error() {
    let server =
        Server::start(|r| if r.number == 0 { vec![Step::Wait(Duration::from_secs(3600))] } else { good(r) }).await;
    let options = LoadOptions { request_timeout: Duration::from_millis(500), ..options() };
    let t = target(&server.url, Dialect::Openai);
    let data = run_sample(&t, &workload(1, 2), &options, Arc::default(), CancellationToken::new()).await.unwrap();
    assert_eq!(data.requests[0].error.as_deref(), Some("no complete answer within 0.5 s"));
    assert_eq!(data.requests[1].status, Status::Ok);
}

#[tokio::test]
async fn a_server_that_only_fails_is_not_hammered() {
    let server = Server::start(|_| counted("500 Oops", "text/plain", "no")).await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(2, 100_000)).await.unwrap();
    assert!(data.requests.len() < 110);
    assert!(data.stopped_early.unwrap().contains("HTTP 500: no"));
    let mut w = workload(2, 10);
    w.warmup = 4;
    let e = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap_err().to_string();
    assert!(e.contains("all 4 warm-up requests") && e.contains("HTTP 500"), "{e}");
}

#[tokio::test]
async fn a_wrong_output_length_is_marked() {
    let server = Server::start(|r| {
        let mut bytes = stream_head();
        bytes.extend(chunk(&event(&completion("x", Some("stop")))));
        bytes.extend(chunk(&event(&super::server::usage(32, if r.number == 0 { 1 } else { 4 }))));
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await;
    let data = sample(&target(&server.url, Dialect::Openai), &workload(1, 5)).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_ok, s.wrong_output_length), (5, 1));
    assert!(data.exact_output);
}

#[tokio::test]
async fn cancelling_ends_a_sample_at_once() {
    let server = Server::start(|_| vec![Step::Wait(Duration::from_secs(3600))]).await;
    let cancel = CancellationToken::new();
    let t = target(&server.url, Dialect::Openai);
    let progress = Arc::new(Progress::default());
    let (w, o) = (workload(4, 100), options());
    let running = run_sample(&t, &w, &o, progress.clone(), cancel.clone());
    let stopper = async {
        while progress.sent.load(Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(running, stopper);
    assert!(matches!(result, Err(LoadError::Cancelled)));
}

#[tokio::test]
async fn a_data_set_is_sent_row_by_row() {
    let server = Server::start(good).await;
    let mut t = target(&server.url, Dialect::Openai);
    let rows: String = (1..=6).map(|i| format!("{{\"prompt\":\"p{i}\",\"output_tokens\":{i}}}\n")).collect();
    t.dataset = Some(rows.into_bytes().into());
    let mut w = workload(2, 6);
    (w.tokens.input, w.tokens.output) = (None, None);
    w.dataset = Some(Dataset { path: "d.jsonl".into(), format: None });
    let data = sample(&t, &w).await.unwrap();
    let mut sent: Vec<(String, u64)> = server
        .requests()
        .iter()
        .map(|r| (r.body["prompt"].as_str().unwrap().to_string(), r.body["max_tokens"].as_u64().unwrap()))
        .collect();
    sent.sort();
    assert_eq!(sent, (1..=6).map(|i| (format!("p{i}"), i)).collect::<Vec<_>>());
    assert_eq!(summary(&data).wrong_output_length, 0);
    t.dataset = Some(br#"{"messages":[{"role":"user","content":"x"}],"output_tokens":3}"#.to_vec().into());
    let e = sample(&t, &w).await.unwrap_err().to_string();
    assert!(e.contains("chat messages") && e.contains("api = \"chat\""), "{e}");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_before_anything_is_sent() {
    let server = Server::start(good).await;
    let t = target(&server.url, Dialect::Openai);
    let mut w = workload(1, 1);
    w.tokens.turns = 4;
    assert!(matches!(sample(&t, &w).await, Err(LoadError::Workload(WorkloadError::Turns(4)))));
    let mut w = workload(1, 1);
    (w.api, w.temperature) = (Api::Generate, 0.5);
    let e = sample(&target(&server.url, Dialect::TritonPython), &w).await.unwrap_err();
    assert!(e.to_string().contains("temperature"), "{e}");
    w.api = Api::Chat;
    assert!(sample(&target("http://u:p@127.0.0.1:1", Dialect::Openai), &w).await.is_err());
}

#[tokio::test]
async fn what_is_to_happen_before_the_start_happens_once_between_warm_up_and_measurement() {
    let server = Server::start(good).await;
    let mut w = workload(4, 10);
    w.warmup = 6;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (noted, requests) = (seen.clone(), server.requests_seen());
    let call = move || noted.lock().unwrap().push(requests());
    let options = LoadOptions {
        workers: Some(3),
        before_start: Some(crate::load::BeforeStart(std::sync::Arc::new(call))),
        ..options()
    };
    let t = target(&server.url, Dialect::Openai);
    run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [6]);
    assert_eq!(server.requests().len(), 16);
}

#[tokio::test]
async fn clients_that_give_up_are_cancelled_and_not_failed() {
    // Eight tokens, then nothing: only who gives up gets away.
    let server = Server::start(|_| {
        let mut steps = vec![Step::Send(stream_head())];
        for _ in 0..8 {
            steps.push(Step::Send(chunk(&event(&completion("x", None)))));
        }
        steps.push(Step::Wait(Duration::from_secs(3600)));
        steps
    })
    .await;
    for after in [CancelAfter::Tokens(3), CancelAfter::Time(Duration::from_millis(50))] {
        let mut w = workload(2, 6);
        w.tokens.output = Some(100);
        w.cancel = Some(Cancellation { share: 1.0, after });
        let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
        assert_eq!(data.requests.len(), 6);
        for r in &data.requests {
            assert_eq!((r.status, r.error.as_deref()), (Status::Cancelled, None), "{after:?}");
            assert!(r.token_events >= 3 && r.first_token_ns.is_some());
        }
        let s = summary(&data);
        assert_eq!((s.n_cancelled, s.n_error, s.error_rate), (6, 0, 0.0));
    }
}

#[tokio::test]
async fn an_answer_that_is_complete_before_it_would_be_given_up_counts() {
    let server = Server::start(good).await;
    let mut w = workload(1, 3);
    w.cancel = Some(Cancellation { share: 1.0, after: CancelAfter::Tokens(5) });
    let data = sample(&target(&server.url, Dialect::Openai), &w).await.unwrap();
    assert!(data.requests.iter().all(|r| r.status == Status::Ok && r.output_tokens == Some(4)));
}

#[tokio::test]
async fn concurrency_follows_its_stages() {
    // Each request takes 20 ms. One slot for 200 ms, three for 200 ms, one again.
    let server = Server::start(|r| {
        let mut steps = vec![Step::Wait(Duration::from_millis(20))];
        steps.extend(good(r));
        steps
    })
    .await;
    let stage = |n: f64| Stage { from: n, to: n, duration: Duration::from_millis(200) };
    for workers in [1, 2] {
        let mut w = workload(3, 1);
        (w.requests, w.duration) = (None, Some(Duration::from_millis(600)));
        w.profile =
            Some(Profile { level: Level::Concurrency, stages: vec![stage(1.0), stage(3.0), stage(1.0)], then: None });
        let options = LoadOptions { workers: Some(workers), ..options() };
        let t = target(&server.url, Dialect::Openai);
        let data = run_sample(&t, &w, &options, Arc::default(), CancellationToken::new()).await.unwrap();
        let ms = |ns: u64| ns / 1_000_000;
        let flying = |at: u64| data.requests.iter().filter(|r| r.start_ns <= at && at < r.end_ns).count();
        assert!(data.requests.iter().all(|r| r.status == Status::Ok && ms(r.start_ns) < 600));
        let most = |from: u64, to: u64| {
            let starts = data.requests.iter().map(|r| r.start_ns).filter(|s| (from..to).contains(&ms(*s)));
            starts.map(flying).max().unwrap_or(0)
        };
        // A request in flight is not cut off when its slot closes.
        assert_eq!((most(0, 200), most(200, 400)), (1, 3), "{workers} workers");
        assert_eq!(data.requests.iter().filter(|r| r.intended_ns == 200_000_000).count(), 2, "two slots open then");
        let last: Vec<usize> =
            data.requests.iter().filter(|r| ms(r.start_ns) >= 430).map(|r| flying(r.start_ns)).collect();
        assert!(last.iter().all(|n| *n == 1), "{last:?}");
    }
}

#[tokio::test]
async fn a_trace_is_replayed_at_its_times_with_its_lengths() {
    let server = Server::start(good).await;
    let mut w = workload(1, 1);
    (w.tokens.input, w.tokens.output, w.concurrency, w.requests) = (None, None, None, None);
    w.dataset = Some(Dataset { path: "t.jsonl".into(), format: Some("trace".into()) });
    w.replay_speed = 10.0;
    let rows = [(0, 30, 2), (100, 40, 3), (100, 50, 4), (1500, 7, 1)];
    let lines: Vec<String> = rows
        .iter()
        .map(|(at, i, o)| format!("{{\"timestamp\":{},\"input_length\":{i},\"output_length\":{o}}}", 5000 + at))
        .collect();
    let mut t = target(&server.url, Dialect::Openai);
    t.dataset = Some(Arc::from(lines.join("\n").into_bytes()));
    let data = sample(&t, &w).await.unwrap();
    let seen: Vec<_> =
        data.requests.iter().map(|r| (r.intended_ns / 1_000_000, r.input_tokens, r.output_tokens)).collect();
    let expected = rows.map(|(at, i, o)| (at / 10, Some(i), Some(o)));
    assert_eq!(seen, expected);
    assert!(matches!(data.shape, LoadShape::Open { rate, cap: None } if (rate - 4.0 / 0.15).abs() < 1e-6));
    assert_eq!(server.requests().len(), 4);

    // A number of requests cuts it short; a rate goes before its times.
    w.requests = Some(2);
    assert_eq!(sample(&t, &w).await.unwrap().requests.len(), 2);
    (w.rate, w.requests) = (Some(1000.0), Some(6));
    let data = sample(&t, &w).await.unwrap();
    assert_eq!(data.requests.len(), 6, "the rows are used again");
    assert!(data.requests.iter().all(|r| r.intended_ns < 10_000_000));
}

/// A chat server that answers with a word of its own for each request.
async fn talker() -> Server {
    Server::start(|r| {
        let text = json!({"choices":[{"index":0,"delta":{"content":format!("a{}", r.number)},"finish_reason":null}]});
        let end = json!({"choices":[{"index":0,"delta":{"content":" \"ok\""},"finish_reason":"length"}]});
        let mut bytes = stream_head();
        for payload in [text, end, super::server::usage(9, 2)] {
            bytes.extend(chunk(&event(&payload)));
        }
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await
}

#[tokio::test]
async fn each_turn_of_a_conversation_repeats_what_was_said() {
    for rate in [None, Some(500.0)] {
        let server = talker().await;
        let mut w = workload(2, 11);
        (w.api, w.tokens.turns, w.rate, w.tokens.output) = (Api::Chat, 3, rate, Some(2));
        let known = LoadOptions { calibration: Some(TextCalibration::default()), workers: Some(2), ..options() };
        let t = target(&server.url, Dialect::Openai);
        let data = run_sample(&t, &w, &known, Arc::default(), CancellationToken::new()).await.unwrap();
        assert_eq!(data.requests.iter().map(|r| r.index).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
        assert!(data.requests.iter().all(|r| r.status == Status::Ok && r.output_tokens == Some(2)));
        let sent = server.requests();
        let mut firsts = std::collections::BTreeSet::new();
        for r in &data.requests {
            let turn = (r.index % 3) as usize;
            let before = &data.requests[r.index as usize - turn..r.index as usize];
            assert!(before.iter().all(|b| b.end_ns <= r.start_ns), "turns follow one another");
            assert_eq!(r.requested_input, (turn == 0).then_some(32));
            if let Some(last) = before.last() {
                assert_eq!(r.intended_ns, last.end_ns);
            }
        }
        for r in &sent {
            let messages = r.body["messages"].as_array().unwrap();
            let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
            assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"][..messages.len()]);
            firsts.insert(messages[0]["content"].to_string());
            // What came before is the last request of this conversation, with its answer.
            if let Some(history) = messages.len().checked_sub(2).filter(|n| *n > 0) {
                let before =
                    sent.iter().find(|b| b.body["messages"].as_array().unwrap()[..] == messages[..history]).unwrap();
                assert_eq!(messages[history]["content"], format!("a{} \"ok\"", before.number));
            }
        }
        assert_eq!(firsts.len(), 4, "four conversations, the last one cut short");
        assert_eq!(sent.len(), 11);
    }
}

#[tokio::test]
async fn a_turn_that_fails_ends_its_conversation() {
    let server = Server::start(|_| counted("500 Oops", "text/plain", "no")).await;
    let mut w = workload(1, 9);
    (w.api, w.tokens.turns) = (Api::Chat, 3);
    let known = LoadOptions { calibration: Some(TextCalibration::default()), ..options() };
    let t = target(&server.url, Dialect::Openai);
    let data = run_sample(&t, &w, &known, Arc::default(), CancellationToken::new()).await.unwrap();
    assert_eq!(data.requests.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 3, 6]);
}
