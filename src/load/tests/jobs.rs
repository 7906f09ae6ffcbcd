//! Jobs of fixed size: over a server's batch API, and over its online one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Request, Server, Step, counted, good};
use super::*;
use crate::load::is_handed_over;
use crate::stats::{LoadShape, SampleContext, Status, validity};

fn job(requests: u64) -> Workload {
    Workload { api: Api::Batch, concurrency: None, ..workload(1, requests) }
}

fn with_jobs(url: &str) -> Target {
    let mut target = target(url, Dialect::Openai);
    target.api.batch = Some("/v1/batches".into());
    target
}

fn ok(object: &Value) -> Vec<Step> {
    counted("200 OK", "application/json", &object.to_string())
}

fn line_of(request: &Request) -> &str {
    request.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
}

fn answer(index: u64, output: u64) -> Value {
    json!({"custom_id": format!("request-{index}"), "error": null, "response": {"status_code": 200, "body": {
        "usage": {"prompt_tokens": 32, "completion_tokens": output}}}})
}

/// Takes a job, says that it runs for `looks` looks, and then shows `over` and the lines of its files `out` and `err`.
async fn batches(looks: usize, over: Value, out: Vec<Value>, err: Vec<Value>) -> Server {
    let looked = AtomicUsize::new(0);
    let text = |lines: Vec<Value>| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    let (out, err) = (text(out), text(err));
    Server::start(move |request| match line_of(request) {
        "POST /v1/files" => ok(&json!({"id": "in"})),
        "POST /v1/batches" => ok(&json!({"id": "b1", "status": "validating"})),
        "GET /v1/batches/b1" if looked.fetch_add(1, Ordering::SeqCst) < looks => {
            ok(&json!({"id": "b1", "status": "in_progress"}))
        }
        "GET /v1/batches/b1" => ok(&over),
        "GET /v1/files/out/content" => counted("200 OK", "application/octet-stream", &out),
        "GET /v1/files/err/content" => counted("200 OK", "application/octet-stream", &err),
        _ => counted("404 Not Found", "application/json", "{}"),
    })
    .await
}

fn completed() -> Value {
    json!({"id": "b1", "status": "completed", "output_file_id": "out", "error_file_id": "err"})
}

#[tokio::test]
async fn a_job_is_uploaded_waited_for_and_its_answers_are_counted() {
    let refused =
        json!({"custom_id": "request-2", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}});
    // Not in order, and one answer is missing.
    let server = batches(3, completed(), vec![answer(3, 4), answer(0, 4)], vec![refused]).await;
    let progress = Arc::new(Progress::default());
    let target = with_jobs(&server.url);
    let data = run_sample(&target, &job(4), &options(), progress.clone(), CancellationToken::new()).await.unwrap();
    let asked: Vec<String> = server.requests().iter().map(|r| line_of(r).to_string()).collect();
    let looks = vec!["GET /v1/batches/b1".to_string(); 4];
    assert_eq!(
        asked,
        [
            vec!["POST /v1/files".to_string(), "POST /v1/batches".into()],
            looks,
            vec!["GET /v1/files/out/content".into(), "GET /v1/files/err/content".into()]
        ]
        .concat()
    );
    let form = &server.requests()[0];
    assert!(form.head.to_ascii_lowercase().contains("content-type: multipart/form-data; boundary="), "{}", form.head);
    let lines: Vec<Value> =
        form.text.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!((&line["custom_id"], &line["url"]), (&json!(format!("request-{i}")), &json!("/v1/completions")));
        let body = &line["body"];
        assert_eq!(
            (&body["stream"], &body["max_tokens"], &body["ignore_eos"]),
            (&json!(false), &json!(4), &json!(true))
        );
        assert_eq!(body["prompt"].as_array().unwrap().len(), 32);
    }
    assert_ne!(lines[0]["body"]["prompt"], lines[1]["body"]["prompt"], "each has content of its own");
    let created = &server.requests()[1].body;
    assert_eq!(*created, json!({"input_file_id": "in", "endpoint": "/v1/completions", "completion_window": "24h"}));

    let shown: Vec<(Status, u16)> = data.requests.iter().map(|r| (r.status, r.http_status)).collect();
    assert_eq!(shown, [(Status::Ok, 200), (Status::Error, 0), (Status::Error, 400), (Status::Ok, 200)]);
    assert_eq!(data.requests[2].error.as_deref(), Some("HTTP 400: no"));
    assert!(data.requests[1].error.as_deref().unwrap().contains("without an answer"));
    let s = summary(&data);
    assert_eq!((s.n_ok, s.n_error, s.input_tokens, s.output_tokens), (2, 2, 64, 8));
    assert_eq!(data.shape, LoadShape::Job);
    // Four looks, and a pause of at least 20 ms after each but the last.
    let makespan = s.makespan_s.unwrap();
    assert!(makespan >= 0.06, "{makespan}");
    assert_eq!((s.duration_s, s.output_throughput), (makespan, Some(8.0 / makespan)));
    assert_eq!((s.ttft.n, s.e2el.n, s.queue_delay.n, s.steady_reached), (0, 0, 0, false), "nobody saw when");
}

#[tokio::test]
async fn lengths_and_emptiness_are_judged_without_times() {
    let judged = async |output: Vec<u64>| {
        let lines = output.iter().enumerate().map(|(i, n)| answer(i as u64, *n)).collect();
        let server = batches(0, completed(), lines, Vec::new()).await;
        let data = sample(&with_jobs(&server.url), &job(output.len() as u64)).await.unwrap();
        let context =
            SampleContext { max_error_rate: 0.01, exact_output: true, handed_over: true, ..SampleContext::default() };
        validity(&summary(&data), &context).map(|i| i.reason)
    };
    assert_eq!(judged(vec![4, 4]).await, None);
    assert!(judged(vec![4, 3]).await.unwrap().contains("1 of 2 answers"));
    assert!(judged(vec![0, 0]).await.unwrap().contains("held any text"));
}

#[tokio::test]
async fn a_job_that_ends_badly_is_one_of_failed_requests() {
    for (over, said) in [
        (json!({"id": "b1", "status": "failed", "errors": {"data": [{"message": "bad line"}]}}), "bad line"),
        (json!({"id": "b1", "status": "expired", "output_file_id": "out"}), "expired"),
        (json!({"id": "b1", "status": "cancelled"}), "cancelled"),
    ] {
        let server = batches(0, over, vec![answer(0, 4)], Vec::new()).await;
        let data = sample(&with_jobs(&server.url), &job(2)).await.unwrap();
        assert!(data.requests[1].error.as_deref().unwrap().contains(said), "{:?}", data.requests[1]);
        assert_eq!(data.requests[0].status == Status::Ok, said == "expired", "what was answered counts");
    }
}

#[tokio::test]
async fn a_server_without_jobs_says_so_and_is_not_asked_twice() {
    let server = Server::start(|_| counted("404 Not Found", "application/json", r#"{"detail":"Not Found"}"#)).await;
    let e = sample(&with_jobs(&server.url), &job(1)).await.unwrap_err();
    assert!(e.is_deterministic() && e.to_string().contains("HTTP 404: Not Found"), "{e}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_look_that_fails_is_not_the_end_and_many_are() {
    let flaky = |failures: usize| {
        let looked = AtomicUsize::new(0);
        Server::start(move |request| match line_of(request) {
            "GET /v1/batches/b1" if looked.fetch_add(1, Ordering::SeqCst) < failures => {
                counted("503 Service Unavailable", "text/plain", "busy")
            }
            "GET /v1/batches/b1" => ok(&json!({"id": "b1", "status": "completed", "output_file_id": "out"})),
            "GET /v1/files/out/content" => counted("200 OK", "text/plain", &answer(0, 4).to_string()),
            _ => ok(&json!({"id": "b1", "status": "validating"})),
        })
    };
    let server = flaky(3).await;
    assert_eq!(sample(&with_jobs(&server.url), &job(1)).await.unwrap().requests[0].status, Status::Ok);
    let server = flaky(1000).await;
    let e = sample(&with_jobs(&server.url), &job(1)).await.unwrap_err();
    assert!(!e.is_deterministic() && e.to_string().contains("HTTP 503: busy"), "{e}");
}

#[tokio::test]
async fn a_job_that_is_given_up_is_cancelled_on_the_server() {
    let endless = || Server::start(|_| ok(&json!({"id": "b1", "status": "in_progress"})));
    let cancelled = |server: &Server| server.requests().iter().any(|r| line_of(r) == "POST /v1/batches/b1/cancel");
    let runs = async |server: &Server| {
        while !server.requests().iter().any(|r| line_of(r) == "GET /v1/batches/b1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Told to end.
    let server = endless().await;
    let token = CancellationToken::new();
    let (target, w, o) = (with_jobs(&server.url), job(1), options());
    let measured = run_sample(&target, &w, &o, Arc::default(), token.clone());
    let (ended, ()) = tokio::join!(measured, async {
        runs(&server).await;
        token.cancel();
    });
    assert!(matches!(ended, Err(LoadError::Cancelled)));
    assert!(cancelled(&server));
    // Dropped.
    let server = endless().await;
    let target = with_jobs(&server.url);
    tokio::select! {
        _ = run_sample(&target, &w, &o, Arc::default(), CancellationToken::new()) => unreachable!("it has no end"),
        () = runs(&server) => {}
    }
    while !cancelled(&server) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn without_a_batch_api_all_requests_are_in_flight_at_once() {
    // Nobody is answered before all are there.
    let server = Server::start(|r| [vec![Step::Gather(20)], good(r)].into_iter().flatten().collect()).await;
    let target = target(&server.url, Dialect::Openai);
    let data = sample(&target, &job(20)).await.unwrap();
    assert_eq!((data.shape, server.connections()), (LoadShape::Closed { concurrency: 20 }, 20));
    let s = summary(&data);
    assert_eq!((s.n_ok, s.output_tokens), (20, 80));
    let last = data.requests.iter().map(|r| r.end_ns).max().unwrap();
    let first = data.requests.iter().map(|r| r.start_ns).min().unwrap();
    assert_eq!(data.makespan_ns, Some(last - first));
    assert!(s.makespan_s.unwrap() >= s.duration_s && s.ttft.n == 20);
    // A cap holds.
    let server = Server::start(good).await;
    let capped = Workload { concurrency: Some(3), ..job(20) };
    let data = sample(&super::target(&server.url, Dialect::Openai), &capped).await.unwrap();
    assert_eq!((server.connections(), data.requests.len()), (3, 20));
}

#[tokio::test]
async fn a_job_has_a_size_and_no_schedule() {
    let target = with_jobs("http://127.0.0.1:1");
    for (change, said) in [
        (Workload { rate: Some(2.0), ..job(4) }, "rate"),
        (Workload { duration: Some(Duration::from_secs(1)), ..job(4) }, "duration"),
    ] {
        let e = sample(&target, &change).await.unwrap_err();
        assert!(e.is_deterministic() && e.to_string().contains(said), "{e}");
    }
    assert!(is_handed_over(&target.api, &job(1)) && !is_handed_over(&target.api, &workload(1, 1)));
    assert_eq!(crate::workload::job_streams(5000), 1024);
}
