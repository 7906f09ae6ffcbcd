//! `measure --endpoint` against servers that are not ours: counts, exit codes, what it says.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};
use support::server::{Answer, Request, Server, models};
use support::{Done, Sandbox, columns, rows};

const SMALL: &str = "--requests 6 --concurrency 2 --input-tokens-mean 12 --output-tokens-mean 5";

fn measure(s: &Sandbox, server: &Server, rest: &str) -> Done {
    s.run(&format!("measure --endpoint {} {SMALL} {rest}", server.url()))
}

fn is_generation(request: &Request) -> bool {
    request.method == "POST"
}

#[test]
fn chat_and_completions_are_counted_exactly_and_the_row_has_the_columns() {
    let s = Sandbox::new();
    for (engine, api, path) in [
        ("openai", "chat", "/v1/chat/completions"),
        ("vllm", "completions", "/v1/completions"),
        ("vllm", "chat", "/v1/chat/completions"),
    ] {
        let server = Server::openai("org/Served-8B");
        let row = measure(&s, &server, &format!("--engine {engine} --api {api} --json")).success().json();
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut sorted = columns();
        sorted.sort_unstable();
        let mut found = keys.clone();
        found.sort_unstable();
        assert_eq!(found, sorted);
        assert_eq!(row["model"], "org/Served-8B", "discovered from /v1/models");
        assert_eq!((&row["method"], &row["engine"], &row["api"]), (&json!("external"), &json!(engine), &json!(api)));
        assert_eq!((&row["n_sent"], &row["n_ok"], &row["n_error"]), (&json!(6), &json!(6), &json!(0)));
        assert_eq!((&row["output_tokens"], &row["osl"], &row["isl"]), (&json!(30), &json!(5), &json!(12)));
        assert_eq!((&row["output_tokens_source"], &row["valid"]), (&json!("usage"), &json!(true)));
        assert_eq!((&row["unit_id"], &row["deploy_id"]), (&Json::Null, &Json::Null));
        assert_eq!(row["isl_actual_mean"].as_f64(), Some(12.0), "{engine} {api}");
        let sent: Vec<Request> = server.generations().into_iter().filter(|r| r.max_tokens() == 5).collect();
        assert_eq!(sent.len(), 6, "no request is sent twice, none is lost");
        assert!(sent.iter().all(|r| r.path == path && r.body["model"] == "org/Served-8B" && r.body["stream"] == true));
        let prompts: std::collections::BTreeSet<String> =
            sent.iter().map(|r| r.body.get("prompt").unwrap_or(&r.body["messages"]).to_string()).collect();
        assert_eq!(prompts.len(), 6, "every request has a prompt of its own");
    }
    assert!(!s.exists("artifacts"), "nothing is stored");
}

#[test]
fn a_person_gets_a_table_and_a_file_of_requests() {
    let s = Sandbox::new();
    let server = Server::openai("m");
    let done = measure(&s, &server, "--warmup 2 --requests-csv out/requests.csv --slo ttft=1h");
    // The directory is not there: said, not created behind the user's back.
    done.exit(7).says(&["out/requests.csv"]);
    assert!(server.seen().is_empty(), "said before anything is measured");
    let done = measure(&s, &server, "--warmup 2 --requests-csv requests.csv --slo ttft=1h").success();
    for word in ["6 ok, 0 failed", "ISL 12.0 · OSL 5.0", "TTFT", "TPOT", "E2EL", "goodput"] {
        assert!(done.stdout.contains(word), "{word} is not in\n{}", done.stdout);
    }
    let requests = rows(&s.path("requests.csv"));
    assert_eq!(requests.len(), 6, "warm-up is not in it");
    assert!(requests.iter().all(|r| r["status"] == "ok" && r["output_tokens"] == "5" && r["input_tokens"] == "12"));
}

#[test]
fn the_model_has_to_come_from_somewhere() {
    let s = Sandbox::new();
    let without = |request: &Request| match is_generation(request) {
        true => Answer::stream(request),
        false => Answer::error(404, "nothing here"),
    };
    let server = Server::start(without);
    measure(&s, &server, "").exit(7).says(&["/v1/models", "404", "--model"]);
    assert!(server.generations().is_empty(), "nothing is sent for a model that is not known");
    let row = measure(&s, &server, "--model mine --json").success().json();
    assert_eq!(row["model"], "mine");
    assert!(server.generations().iter().all(|r| r.body["model"] == "mine"));
    let empty = Server::start(|request| match is_generation(request) {
        true => Answer::stream(request),
        false => Answer::json(200, &json!({ "object": "list", "data": [] })),
    });
    measure(&s, &empty, "").exit(7).says(&["lists none", "--model"]);
}

#[test]
fn a_tokenizer_is_a_path_wherever_it_points() {
    let s = Sandbox::new();
    let server = Server::openai("m");
    // Without the dot it would be the name of one on a hub.
    measure(&s, &server, "--tokenizer models/m").exit(3).says(&["the tokenizer `./models/m` cannot be read"]);
    s.write("models/m/tokenizer.json", "{}");
    measure(&s, &server, "--tokenizer models/m").exit(7).says(&["models/m", "cannot be used", "Leave `tokenizer` out"]);
    assert!(server.generations().iter().all(|r| r.max_tokens() < 5), "nothing was measured");
}

#[test]
fn servers_that_end_their_streams_in_other_ways_are_counted_the_same() {
    let s = Sandbox::new();
    type Ending = fn(Answer) -> Answer;
    let endings: [(&str, Ending); 4] = [
        ("no [DONE]", |a| a.without_done()),
        ("the connection closes after each stream", |a| a.closing()),
        ("both", |a| a.without_done().closing()),
        ("everything in one segment", |mut a| {
            a.parts = vec![a.parts.concat()];
            a
        }),
    ];
    for (what, ending) in endings {
        let server = Server::start(move |request| match is_generation(request) {
            true => ending(Answer::stream(request)),
            false => models("m"),
        });
        let row = measure(&s, &server, "--json").success().json();
        assert_eq!((&row["n_ok"], &row["n_error"]), (&json!(6), &json!(0)), "{what}");
        assert_eq!((&row["output_tokens"], &row["valid"]), (&json!(30), &json!(true)), "{what}");
    }
}

#[test]
fn a_field_that_the_server_does_not_know_is_named() {
    let s = Sandbox::new();
    let server = Server::start(|request| match request.body.get("ignore_eos") {
        Some(_) => Answer::json(
            400,
            &json!({ "object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'ignore_eos'), 'msg': 'Extra inputs are not permitted'}]", "code": 400 }),
        ),
        None if is_generation(request) => Answer::stream(request),
        None => models("m"),
    });
    measure(&s, &server, "--engine vllm").exit(7).says(&["HTTP 400", "ignore_eos"]);
    // The plain dialect sends only what the original API defines.
    measure(&s, &server, "--engine openai").success();
}

#[test]
fn a_server_that_takes_any_name_is_measured_and_doubted() {
    let s = Sandbox::new();
    let server = Server::openai("org/Served-8B");
    let done = measure(&s, &server, "--model org/Meant-70B --json").success();
    let done = done.says(&["org/Served-8B", "org/Meant-70B", "--model"]);
    let row = done.json();
    assert_eq!((&row["model"], &row["n_ok"], &row["valid"]), (&json!("org/Meant-70B"), &json!(6), &json!(true)));
    assert!(server.generations().iter().all(|r| r.body["model"] == "org/Meant-70B"));
    let done = measure(&s, &server, "--model org/Served-8B --json").success();
    assert!(!done.stderr.contains("answers all the same"), "{}", done.stderr);
    // One that knows its name says so itself.
    let strict = Server::start(|request| match request.body["model"].as_str() {
        Some("org/Served-8B") => Answer::stream(request),
        Some(_) => Answer::error(404, "The model `org/Meant-70B` does not exist."),
        None => models("org/Served-8B"),
    });
    measure(&s, &strict, "--model org/Meant-70B").exit(7).says(&["does not exist", "`--model` names the model"]);
}

#[test]
fn refusals_end_at_once_with_what_the_server_said() {
    let s = Sandbox::new();
    type Refusal = fn() -> Answer;
    let refusals: [(&str, Refusal, &[&str]); 4] = [
        ("401", || Answer::error(401, "Incorrect API key provided"), &["401", "Incorrect API key provided"]),
        ("500", || Answer::error(500, "CUDA error: out of memory"), &["500", "CUDA error: out of memory"]),
        ("503", || Answer::json(503, &json!({ "detail": "loading" })), &["503", "loading"]),
        ("html", || Answer::html(200, "<html><body>Welcome to nginx</body></html>"), &["ended without any event"]),
    ];
    for (what, refusal, says) in refusals {
        let server = Server::start(move |request| if is_generation(request) { refusal() } else { models("m") });
        let done = measure(&s, &server, "--json").exit(7).says(says);
        assert_eq!(done.stdout, "", "{what}");
        assert!(server.generations().len() <= 2, "{what}: the load is not sent");
    }
    // The list of models itself.
    let server = Server::start(|_| Answer::html(200, "<html></html>"));
    measure(&s, &server, "").exit(7).says(&["/v1/models", "--model"]);
    let server = Server::start(|_| Answer::error(401, "no key"));
    measure(&s, &server, "").exit(7).says(&["401"]);
}

#[test]
fn nobody_listens() {
    let s = Sandbox::new();
    let gone = Server::openai("m");
    let url = gone.url();
    drop(gone);
    for rest in ["", "--model m"] {
        let done = s.run(&format!("measure --endpoint {url} {SMALL} {rest}")).exit(7);
        assert!(done.stderr.contains("onnection refused") && done.stderr.contains("127.0.0.1"), "{}", done.stderr);
    }
    s.run("measure --endpoint not-a-url --model m").exit(2).says(&["not-a-url"]);
    s.run("measure --endpoint ftp://127.0.0.1/ --model m").exit(2).says(&["http"]);
    s.run("measure").exit(2).says(&["--endpoint"]);
    s.run(&format!("measure --endpoint {url} --model m --engine vlm")).exit(2).says(&["did you mean `vllm`?"]);
}

#[test]
fn failures_in_the_middle_are_counted_and_the_measurement_does_not_count() {
    let s = Sandbox::new();
    let n = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if !is_generation(request) {
            return models("m");
        }
        // Requests of the measurement are those with its length; every third fails.
        if request.max_tokens() == 5 && n.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            return Answer::error(500, "engine is dead");
        }
        Answer::stream(request)
    });
    let done = measure(&s, &server, "--json").exit(5).says(&["does not count"]);
    let row = done.json();
    assert_eq!((&row["n_sent"], &row["n_ok"], &row["n_error"]), (&json!(6), &json!(4), &json!(2)));
    assert_eq!((&row["valid"], row["error_rate"].as_f64().map(|r| (r * 6.0).round())), (&json!(false), Some(2.0)));
    assert_eq!(row["output_tokens"], 20, "a failed request has no throughput");
    assert!(
        row["invalid_reason"].as_str().unwrap().contains("engine is dead")
            || row["invalid_reason"].as_str().unwrap().contains("error")
    );
    let table = measure(&s, &server, "").exit(5);
    assert!(table.stdout.contains("engine is dead"), "{}", table.stdout);
}

#[test]
fn an_error_inside_a_stream_and_a_stream_cut_short_are_failures() {
    let s = Sandbox::new();
    type Damage = fn(Answer) -> Answer;
    let damages: [(&str, Damage); 3] = [
        ("error event", |mut a| {
            a.parts.truncate(2);
            a.parts.push("data: {\"error\": {\"message\": \"worker died\"}}\n\n".into());
            a.parts.push("data: [DONE]\n\n".into());
            a
        }),
        ("cut", |mut a| {
            a.parts.truncate(2);
            a.closing()
        }),
        ("garbage", |mut a| {
            a.parts = vec!["data: {\"choices\": [ nonsense\n\n".into(), "data: [DONE]\n\n".into()];
            a
        }),
    ];
    for (what, damage) in damages {
        let server = Server::start(move |request| match is_generation(request) {
            true if request.max_tokens() == 5 => damage(Answer::stream(request)),
            true => Answer::stream(request),
            false => models("m"),
        });
        let row = measure(&s, &server, "--json").exit(5).json();
        assert_eq!((&row["n_ok"], &row["n_error"], &row["valid"]), (&json!(0), &json!(6), &json!(false)), "{what}");
        assert_eq!(row["output_throughput"].as_f64().unwrap_or(0.0), 0.0, "{what}");
    }
}

#[test]
fn wrong_output_lengths_are_not_short_requests_but_invalid_ones() {
    let s = Sandbox::new();
    let server = Server::start(|request| {
        let mut short = request.clone();
        if request.max_tokens() == 5 {
            short.body["max_tokens"] = json!(3);
            short.body.as_object_mut().unwrap().remove("max_completion_tokens");
        }
        if is_generation(request) { Answer::stream(&short) } else { models("m") }
    });
    let row = measure(&s, &server, "--engine vllm --json").exit(5).json();
    assert_eq!(row["valid"], false);
    assert!(
        row["invalid_reason"].as_str().unwrap().contains("length")
            || row["invalid_reason"].as_str().unwrap().contains("tokens"),
        "{row}"
    );
}

#[test]
fn secrets_go_to_the_server_and_nowhere_else() {
    let s = Sandbox::new();
    let server = Server::openai("m");
    let line = format!("measure --endpoint {} {SMALL} --json", server.url());
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(["--header", "Authorization: Bearer ${TEST_TOKEN}"]);
    let mut command = s.command(&args);
    let done = support::finish(command.env("TEST_TOKEN", "hunter2-secret"), "measure").success();
    assert!(!format!("{}{}", done.stdout, done.stderr).contains("hunter2"), "{done:?}");
    assert!(server.seen().iter().all(|r| r.header("authorization") == Some("Bearer hunter2-secret")));
    // A server that repeats the secret in its message does not get it printed.
    let echo = Server::start(|request| match is_generation(request) {
        true => Answer::error(401, &format!("bad key {}", request.header("authorization").unwrap_or("none"))),
        false => models("m"),
    });
    let line = format!("measure --endpoint {} {SMALL}", echo.url());
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(["--header", "Authorization: Bearer ${TEST_TOKEN}"]);
    let done = support::finish(s.command(&args).env("TEST_TOKEN", "hunter2-secret"), "measure").exit(7);
    assert!(done.stderr.contains("bad key") && !done.stderr.contains("hunter2"), "{}", done.stderr);
    let done = s.run_args(&args);
    assert!(done.code != Some(0) && done.stderr.contains("TEST_TOKEN"), "an unset variable is named: {done:?}");
}
