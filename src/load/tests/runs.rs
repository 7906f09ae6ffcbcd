//! How a sample begins, paces itself and ends.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::server::{LAST_CHUNK, Server, Step, chunk, completion, counted, event, good, stream_head};
use super::*;
use crate::stats::Status;
use crate::workload::{Dataset, WorkloadError};

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
    w.api = Api::Batch;
    assert!(matches!(sample(&t, &w).await, Err(LoadError::Request(_))));
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
