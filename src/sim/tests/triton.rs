use serde_json::{Value, json};

use super::client::Client;
use super::{Flavor, instant};

use Flavor::{TritonPython, TritonTrtllm, TritonVllm};

const STREAM: &str = "/v2/models/m-8B/generate_stream";
const WHOLE: &str = "/v2/models/m-8B/generate";

fn strings(events: &[Value], key: &str) -> Vec<String> {
    events.iter().map(|e| e[key].as_str().unwrap().to_string()).collect()
}

fn numbers(events: &[Value], key: &str) -> Vec<u64> {
    events.iter().map(|e| e[key].as_u64().unwrap()).collect()
}

#[test]
fn the_vllm_backend_streams_deltas_of_text_and_counts() {
    let server = instant(TritonVllm, |_| {});
    let body = json!({"text_input": "two words", "stream": true, "exclude_input_in_output": true,
        "return_num_input_tokens": true, "return_num_output_tokens": true, "return_finish_reason": true,
        "parameters": {"max_tokens": 4, "ignore_eos": true, "temperature": 0}});
    let r = Client::post(server.addr(), STREAM, body);
    assert!(r.complete && !r.body().contains("[DONE]"));
    assert!(!r.head.contains("server:"));
    let events = r.events();
    assert_eq!(r.chunks.len(), 4);
    assert_eq!(numbers(&events, "num_output_tokens"), [1; 4]);
    assert_eq!(numbers(&events, "num_input_tokens"), [3; 4]);
    assert_eq!(strings(&events, "finish_reason"), ["None", "None", "None", "length"]);
    assert!(strings(&events, "text_output").iter().all(|t| t.split_whitespace().count() == 1));
    assert_eq!((&events[0]["model_name"], &events[0]["model_version"]), (&json!("m-8B"), &json!("1")));
    assert!(events[0].get("usage").is_none());
}

#[test]
fn counts_come_only_when_asked() {
    let server = instant(TritonVllm, |_| {});
    let body = json!({"text_input": "x", "stream": true, "max_tokens": 2, "ignore_eos": true});
    for event in Client::post(server.addr(), STREAM, body).events() {
        let keys: Vec<_> = event.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["model_name", "model_version", "text_output"]);
    }
}

#[test]
fn the_vllm_backend_repeats_the_prompt_unless_told_not_to() {
    let server = instant(TritonVllm, |_| {});
    let ask = |extra: Value| {
        let mut body = json!({"text_input": "two words", "parameters": {"max_tokens": 2, "ignore_eos": true}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Client::post(server.addr(), WHOLE, body).json()["text_output"].as_str().unwrap().to_string()
    };
    assert!(ask(json!({})).starts_with("two words "));
    assert!(!ask(json!({"exclude_input_in_output": true})).contains("two words"));
    let sampling =
        json!({"exclude_input_in_output": true, "sampling_parameters": "{\"max_tokens\": 5, \"ignore_eos\": true}"});
    assert_eq!(ask(sampling).split_whitespace().count(), 5);
}

#[test]
fn the_python_model_streams_deltas_of_text_and_counts_along() {
    let server = instant(TritonPython, |_| {});
    let body = json!({"text_input": "two words", "max_tokens": 4, "ignore_eos": true, "stream": true});
    let events = Client::post(server.addr(), STREAM, body).events();
    assert_eq!(numbers(&events, "num_output_tokens"), [1, 2, 3, 4]);
    assert_eq!(numbers(&events, "num_input_tokens"), [3; 4]);
    assert_eq!(strings(&events, "finish_reason"), ["", "", "", "length"]);
    assert!(strings(&events, "text_output").iter().all(|t| t.split_whitespace().count() == 1));
    let body = json!({"text_input": "two words", "max_tokens": 4, "ignore_eos": true, "stream": false});
    let whole = Client::post(server.addr(), WHOLE, &body).json();
    assert_eq!((&whole["num_output_tokens"], &whole["finish_reason"]), (&json!(4), &json!("length")));
    assert_eq!(whole["text_output"].as_str().unwrap().split_whitespace().count(), 4);
    let events = Client::post(server.addr(), STREAM, &body).events();
    assert_eq!((events.len(), &events[0]), (1, &whole), "a stream of one event");
}

#[test]
fn the_trtllm_model_streams_all_text_so_far() {
    let server = instant(TritonTrtllm, |_| {});
    let mut body = json!({"text_input": "two words", "streaming": true, "sampling_param_max_tokens": 4,
        "sampling_param_ignore_eos": true, "sampling_param_exclude_input_from_output": true});
    let events = Client::post(server.addr(), STREAM, &body).events();
    let texts = strings(&events, "text_output");
    assert_eq!(texts.iter().map(|t| t.split_whitespace().count()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(texts.windows(2).all(|w| w[1].starts_with(&w[0])));
    assert_eq!(numbers(&events, "num_output_tokens"), [1, 2, 3, 4]);
    assert_eq!(numbers(&events, "num_input_tokens"), [3; 4]);
    assert_eq!(strings(&events, "finish_reason"), ["", "", "", "length"]);
    body["sampling_param_exclude_input_from_output"] = false.into();
    let echoed = Client::post(server.addr(), STREAM, &body).events();
    assert!(strings(&echoed, "text_output").iter().all(|t| t.starts_with("two words ")));
    body["streaming"] = false.into();
    assert_eq!(Client::post(server.addr(), STREAM, &body).events().len(), 1);
}

#[test]
fn refusals_are_tritons() {
    for (flavor, path, body, status, expected) in [
        (
            TritonVllm,
            "/v2/models/other/generate",
            json!({"text_input": "x"}).to_string(),
            404,
            "unknown model: 'other'",
        ),
        (TritonVllm, WHOLE, "{".into(), 500, "failed to parse the request JSON buffer"),
        (TritonVllm, WHOLE, json!({"text_input": 5}).to_string(), 500, "text_input"),
        (TritonVllm, WHOLE, json!({"foo": "x"}).to_string(), 200, "expected 1 inputs but got 0"),
        (TritonVllm, STREAM, json!({}).to_string(), 200, "data: {\"error\""),
        (TritonVllm, WHOLE, json!({"text_input": "x", "stream": true}).to_string(), 400, "exactly 1 response"),
        (
            TritonVllm,
            STREAM,
            json!({"text_input": "x", "stream": true, "exclude_input_in_output": false}).to_string(),
            400,
            "data: {\"error\":\"When streaming",
        ),
        (TritonVllm, WHOLE, json!({"text_input": "x", "stop_token_ids": [1]}).to_string(), 400, "invalid type"),
        (TritonPython, WHOLE, json!({"text_input": "x", "max_tokens": 0}).to_string(), 400, "max_tokens"),
        (
            TritonTrtllm,
            WHOLE,
            json!({"text_input": "x", "sampling_param_max_tokens": 999}).to_string(),
            400,
            "maximum length 100",
        ),
        (TritonTrtllm, WHOLE, json!({"text_input": "x", "max_tokens": 999}).to_string(), 200, "text_output"),
        (TritonTrtllm, "/v2/models/m-8B/infer", "{}".into(), 400, "decoupled"),
    ] {
        let server = instant(flavor, |o| o.max_model_len = 100);
        let r = Client::post(server.addr(), path, &body);
        assert_eq!(r.status, status, "{flavor} {path} {body}: {r:?}");
        assert!(r.body().contains(expected), "{flavor} {path} {body}: {}", r.body());
    }
}

#[test]
fn side_endpoints_are_tritons() {
    let server = instant(TritonPython, |_| {});
    for (path, status, expected) in [
        ("/v2/health/live", 200, ""),
        ("/v2/health/ready", 200, ""),
        ("/v2/models/m-8B/ready", 200, ""),
        ("/v2/models/m-8B/versions/1/ready", 200, ""),
        ("/v2/models/other/ready", 400, "unknown model"),
        ("/v2", 200, "\"name\":\"triton\""),
        ("/v2/models/m-8B", 200, "\"versions\":[\"1\"]"),
        ("/v2/models/m-8B/config", 200, "\"max_batch_size\":8"),
        ("/metrics", 200, "nv_inference_request_success{model=\"m-8B\",version=\"1\"} 0"),
        ("/health", 404, "error"),
    ] {
        let r = Client::get(server.addr(), path);
        assert_eq!(r.status, status, "{path}");
        assert!(r.body().contains(expected), "{path}: {}", r.body());
    }
    let index = Client::post(server.addr(), "/v2/repository/index", "{}").json();
    assert_eq!(index[0]["state"], "READY");
}
