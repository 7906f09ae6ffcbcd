use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::{Flavor, instant};

const OPENAI: [Flavor; 5] = [Flavor::HfVllm, Flavor::HfSglang, Flavor::HfTrtllm, Flavor::NimVllm, Flavor::UnimVllm];

fn completion(extra: Value) -> Value {
    let mut body = json!({"model": "m-8B", "prompt": [5, 6, 7], "max_tokens": 6, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn chat(extra: Value) -> Value {
    let messages = json!([{"role": "user", "content": "say it"}]);
    let mut body = json!({"model": "m-8B", "messages": messages, "max_tokens": 6, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn streamed() -> Value {
    json!({"stream": true, "stream_options": {"include_usage": true}})
}

#[test]
fn a_streamed_completion_is_tokens_then_usage_then_done() {
    for flavor in OPENAI {
        let server = instant(flavor, |_| {});
        let r = Client::post(server.addr(), "/v1/completions", completion(streamed()));
        assert_eq!(r.status, 200);
        assert!(r.head.contains("content-type: text/event-stream"), "{}", r.head);
        assert!(r.complete && r.is_done(), "{flavor}: {r:?}");
        assert_eq!(r.chunks.len(), 8, "each event is a chunk of its own");
        let events = r.events();
        let texts: Vec<&str> = events[..6].iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect();
        assert!(texts.iter().all(|t| t.starts_with(' ')), "{texts:?}");
        assert!(events[..5].iter().all(|e| e["choices"][0]["finish_reason"].is_null()));
        assert_eq!(events[5]["choices"][0]["finish_reason"], "length");
        assert_eq!(events[6]["choices"], json!([]));
        let usage = &events[6]["usage"];
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(3), &json!(6)));
        assert_eq!(usage["total_tokens"], 9);
        assert_eq!(usage["prompt_tokens_details"].is_object(), flavor == Flavor::HfTrtllm);
        assert!(events.iter().all(|e| e["object"] == "text_completion" && e["id"] == events[0]["id"]));
    }
}

#[test]
fn a_streamed_chat_starts_with_its_role_and_ends_as_the_engine_does() {
    for flavor in OPENAI {
        let server = instant(flavor, |_| {});
        let r = Client::post(server.addr(), "/v1/chat/completions", chat(streamed()));
        let events = r.events();
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(events[0]["choices"][0]["delta"]["content"], "");
        let apart = flavor == Flavor::HfSglang;
        assert_eq!(events.len(), if apart { 9 } else { 8 }, "{flavor}: role, six tokens, usage");
        assert!(events[1..7].iter().all(|e| e["choices"][0]["delta"]["content"].as_str().unwrap().len() > 1));
        let last = &events[if apart { 7 } else { 6 }]["choices"][0];
        assert_eq!(last["finish_reason"], "length");
        assert_eq!(last["delta"]["content"].is_null(), apart);
        // A start, the role and three more of the template, two words, three that start the answer.
        assert_eq!(events.last().unwrap()["usage"]["prompt_tokens"], 10);
        assert!(r.is_done());
    }
}

#[test]
fn whole_answers_hold_the_same_text_as_streamed_ones() {
    for flavor in OPENAI {
        let server = instant(flavor, |o| o.empty_text = 0.3);
        let text = |r: Reply| -> String {
            r.events().iter().filter_map(|e| e["choices"][0]["text"].as_str().map(String::from)).collect()
        };
        let streamed =
            Client::post(server.addr(), "/v1/completions", completion(json!({"stream": true, "max_tokens": 60})));
        assert!(streamed.events().iter().all(|e| e.get("usage").is_none_or(Value::is_null)));
        let whole = Client::post(server.addr(), "/v1/completions", completion(json!({"max_tokens": 60}))).json();
        assert_eq!(whole["choices"][0]["text"], text(streamed));
        assert_eq!(whole["usage"]["completion_tokens"], 60);
        let whole = Client::post(server.addr(), "/v1/chat/completions", chat(json!({}))).json();
        assert_eq!(whole["object"], "chat.completion");
        assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
    }
}

#[test]
fn prompts_are_text_or_token_ids_alone_or_in_a_list_of_one() {
    let server = instant(Flavor::HfVllm, |_| {});
    for (prompt, tokens) in [
        (json!("three short words"), 4),
        (json!(["three short words"]), 4),
        (json!([9, 9, 9]), 3),
        (json!([[9, 9, 9]]), 3),
    ] {
        let r = Client::post(server.addr(), "/v1/completions", completion(json!({"prompt": prompt}))).json();
        assert_eq!(r["usage"]["prompt_tokens"], tokens);
    }
    let r = Client::post(server.addr(), "/tokenize", json!({"prompt": "three short words"})).json();
    assert_eq!(r["count"], 4);
}

#[test]
fn without_ignore_eos_answers_end_earlier_by_themselves() {
    let server = instant(Flavor::HfVllm, |_| {});
    let ask = |body: Value| Client::post(server.addr(), "/v1/completions", body).json();
    let plain = ask(json!({"prompt": [1, 2], "max_tokens": 400, "seed": 4}));
    assert_eq!(plain["choices"][0]["finish_reason"], "stop");
    let n = plain["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((100..400).contains(&n));
    assert_eq!(ask(json!({"prompt": [1, 2], "max_tokens": 400, "seed": 4}))["choices"], plain["choices"]);
    let held = ask(json!({"prompt": [1, 2], "max_tokens": 400, "min_tokens": 400, "seed": 4}));
    assert_eq!(held["usage"]["completion_tokens"], 400);
    assert!(ask(json!({"prompt": [1, 2]}))["usage"]["completion_tokens"].as_u64().unwrap() <= 16);
}

#[test]
fn refusals_have_the_status_and_shape_of_the_engine() {
    let c = "/v1/completions";
    let h = "/v1/chat/completions";
    use Flavor::{HfSglang, HfTrtllm, HfVllm, NimVllm};
    for (flavor, path, body, status, pointer, expected) in [
        (
            HfVllm,
            c,
            json!({"model": "other", "prompt": "x"}).to_string(),
            404,
            "/error/message",
            "The model `other` does not exist.",
        ),
        (NimVllm, h, json!({"model": "other", "messages": []}).to_string(), 404, "/error/type", "NotFoundError"),
        (HfVllm, c, "{".into(), 400, "/error/message", "json_invalid"),
        (HfSglang, c, "{".into(), 400, "/message", "json_invalid"),
        (HfTrtllm, c, "[]".into(), 400, "/message", "valid dictionary"),
        (
            HfVllm,
            c,
            json!({"prompt": "x", "max_tokens": 0}).to_string(),
            400,
            "/error/message",
            "max_tokens must be at least 1",
        ),
        (
            HfVllm,
            c,
            json!({"prompt": "x", "max_tokens": 999}).to_string(),
            400,
            "/error/message",
            "maximum context length is 100",
        ),
        (HfSglang, c, json!({"prompt": vec![1; 100]}).to_string(), 400, "/message", "maximum context length is 100"),
        (HfVllm, c, json!({"max_tokens": 1}).to_string(), 400, "/error/message", "Field required"),
        (HfVllm, c, json!({"prompt": 7}).to_string(), 400, "/error/message", "valid string"),
        (HfVllm, c, json!({"prompt": "x", "temperature": "hot"}).to_string(), 400, "/error/message", "temperature"),
        (
            HfVllm,
            c,
            json!({"prompt": "x", "min_tokens": 9, "max_tokens": 3}).to_string(),
            400,
            "/error/message",
            "min_tokens",
        ),
        (HfVllm, c, json!({"prompt": "x", "stream_options": {}}).to_string(), 400, "/error/message", "stream=True"),
        (HfVllm, h, json!({"messages": []}).to_string(), 400, "/error/message", "at least 1 item"),
        (HfTrtllm, c, json!({"model": "m", "prompt": "x", "foo": 1}).to_string(), 400, "/message", "extra_forbidden"),
        (HfTrtllm, c, json!({"prompt": "x"}).to_string(), 400, "/message", "'model'"),
        (HfTrtllm, c, json!({"model": "m", "prompt": "x", "messages": []}).to_string(), 400, "/message", "'messages'"),
    ] {
        let server = instant(flavor, |o| o.max_model_len = 100);
        let r = Client::post(server.addr(), path, &body);
        assert_eq!(r.status, status, "{flavor} {body}: {r:?}");
        let json = r.json();
        let said = json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{flavor} {body}: {json}"));
        assert!(said.contains(expected), "{flavor} {body}: {said}");
        let code = json.pointer("/error/code").or_else(|| json.get("code")).unwrap();
        assert_eq!(code, status);
    }
}

#[test]
fn what_one_engine_refuses_another_ignores() {
    for (flavor, body, status) in [
        (Flavor::HfVllm, json!({"prompt": "x", "foo": [1]}), 200),
        (Flavor::HfSglang, json!({"prompt": "x", "foo": {}}), 200),
        (Flavor::HfSglang, json!({"model": "other", "prompt": "x"}), 200),
        (Flavor::HfSglang, json!({"prompt": "x", "stream_options": {"include_usage": true}}), 200),
        (Flavor::HfTrtllm, json!({"model": "other", "prompt": "x", "ignore_eos": true, "min_tokens": 3}), 200),
        (Flavor::HfTrtllm, json!({"model": "m", "prompt": "x", "min_tokens": null, "bar": null}), 400),
    ] {
        let server = instant(flavor, |_| {});
        assert_eq!(Client::post(server.addr(), "/v1/completions", &body).status, status, "{flavor} {body}");
    }
}

#[test]
fn several_tokens_share_an_event_only_when_asked() {
    let texts = |server: &super::SimServer| -> Vec<usize> {
        let body = completion(json!({"stream": true, "max_tokens": 8}));
        let r = Client::post(server.addr(), "/v1/completions", body);
        r.events()
            .iter()
            .map(|e| super::super::tokens::encode(e["choices"][0]["text"].as_str().unwrap()).count())
            .collect()
    };
    assert_eq!(texts(&instant(Flavor::HfVllm, |_| {})), [1; 8]);
    assert_eq!(texts(&instant(Flavor::HfVllm, |o| o.stream_interval = 3)), [1, 3, 3, 1]);
    assert_eq!(texts(&instant(Flavor::HfVllm, |o| o.tokens_per_event = 4)), [1, 4, 3]);
}

#[test]
fn continuous_usage_counts_along() {
    let server = instant(Flavor::HfVllm, |_| {});
    let options = json!({"stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let r = Client::post(server.addr(), "/v1/completions", completion(options));
    let counts: Vec<_> = r.events().iter().map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 6]);
}

#[test]
fn reasoning_comes_under_a_name_of_its_own() {
    for (flavor, key) in [(Flavor::HfVllm, "reasoning"), (Flavor::HfSglang, "reasoning_content")] {
        let server = instant(flavor, |o| o.reasoning = 2);
        let events = Client::post(server.addr(), "/v1/chat/completions", chat(streamed())).events();
        let has = |i: usize, key: &str| events[i]["choices"][0]["delta"][key].is_string();
        assert!(has(1, key) && has(2, key) && !has(3, key));
        assert!(!has(1, "content") && has(3, "content"));
        let whole = Client::post(server.addr(), "/v1/chat/completions", chat(json!({}))).json();
        let message = &whole["choices"][0]["message"];
        let words = |key: &str| message[key].as_str().unwrap().split_whitespace().count();
        assert_eq!((words(key), words("content")), (2, 4), "{message}");
    }
}

#[test]
fn cached_prompt_tokens_are_told_where_the_engine_tells_them() {
    let body = completion(json!({"prompt": (0..100).collect::<Vec<_>>()}));
    for (flavor, report, expected) in [
        (Flavor::HfVllm, false, Value::Null),
        (Flavor::HfVllm, true, json!({"cached_tokens": 96})),
        (Flavor::HfSglang, true, json!({"cached_tokens": 96})),
        (Flavor::HfTrtllm, false, json!({"cached_tokens": 96})),
    ] {
        let server = instant(flavor, |o| o.cache_report = report);
        Client::post(server.addr(), "/v1/completions", &body);
        let again = Client::post(server.addr(), "/v1/completions", &body).json();
        assert_eq!(again["usage"]["prompt_tokens_details"], expected, "{flavor}");
    }
    let server = instant(Flavor::HfVllm, |o| o.cache_report = true);
    Client::post(server.addr(), "/v1/completions", &body);
    assert_eq!(Client::post(server.addr(), "/reset_prefix_cache", "").status, 200);
    let again = Client::post(server.addr(), "/v1/completions", &body).json();
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn side_endpoints_are_those_of_the_engine() {
    for (flavor, path, status, expected) in [
        (Flavor::HfVllm, "/health", 200, ""),
        (Flavor::HfVllm, "/version", 200, "\"version\":\"0.33.0+sim"),
        (Flavor::HfVllm, "/v1/models", 200, "\"id\":\"m-8B\""),
        (Flavor::HfVllm, "/metrics", 200, "vllm:num_requests_running"),
        (Flavor::HfVllm, "/ready", 404, "Not Found"),
        (Flavor::HfVllm, "/v1/completions", 405, "Method Not Allowed"),
        (Flavor::HfSglang, "/ready", 200, ""),
        (Flavor::HfSglang, "/server_info", 200, "\"version\":\"0.5.23+sim"),
        (Flavor::HfSglang, "/version", 404, ""),
        (Flavor::HfSglang, "/metrics", 200, "sglang:token_usage"),
        (Flavor::HfTrtllm, "/health", 200, ""),
        (Flavor::HfTrtllm, "/version", 200, "1.2.1+sim"),
        (Flavor::HfTrtllm, "/metrics", 200, "[]"),
        (Flavor::HfTrtllm, "/prometheus/metrics", 200, "trtllm_num_requests_running"),
        (Flavor::NimVllm, "/v1/health/ready", 200, "ready"),
        (Flavor::NimVllm, "/v1/health/live", 200, "live"),
        (Flavor::NimVllm, "/v1/version", 200, "\"release\":\"2.1.5+sim"),
        (Flavor::UnimVllm, "/v1/metrics?x=1", 200, "vllm:kv_cache_usage_perc"),
    ] {
        let server = instant(flavor, |_| {});
        let r = Client::get(server.addr(), path);
        assert_eq!(r.status, status, "{flavor} {path}");
        assert!(r.body().contains(expected), "{flavor} {path}: {}", r.body());
    }
}
