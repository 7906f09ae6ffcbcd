//! Which path answers what, for each flavor, before and after the engine is ready.

use std::time::Duration;

use serde_json::json;

use super::engine::Ledger;
use super::fault::Verdict;
use super::flavor::{Family, Openai, Triton, WhileLoading};
use super::http::{Request, Response};
use super::hub::{Hub, Order};
use super::options::MetricsAt;
use super::tokens::with_bos;
use super::{batch, metrics, old_metrics, openai, triton};

/// How often SGLang looks whether its health request was answered: no call is faster.
const SGLANG_HEALTH_POLL: Duration = Duration::from_secs(1);

/// What a request leads to.
pub enum Action {
    Respond(Response),
    RespondAfter(Duration, Response),
    /// With the request's number.
    Generate(u64, Order),
    /// Something about a batch, or a file of one.
    Batch,
    Crash,
}

/// Which port a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Server,
    /// The port of the metrics alone.
    Metrics,
}

pub fn route(hub: &Hub, request: &Request, door: Door) -> Action {
    if !hub.ready.get() {
        return Action::Respond(while_loading(hub, request));
    }
    let metrics = matches!(request.path.as_str(), "/metrics" | "/v1/metrics" | "/prometheus/metrics");
    match (door, hub.options.metrics) {
        (Door::Metrics, _) if request.path == "/metrics" => return Action::Respond(prometheus(hub)),
        (Door::Metrics, _) => return not_found(),
        (Door::Server, MetricsAt::Port(_) | MetricsAt::Nowhere) if metrics => return not_found(),
        (Door::Server, _) => {}
    }
    match hub.options.flavor.family() {
        Family::Openai(engine) => openai_route(hub, engine, request),
        Family::Triton(model) => triton_route(hub, model, request),
    }
}

fn while_loading(hub: &Hub, request: &Request) -> Response {
    match (hub.options.flavor.while_loading(), request.path.as_str()) {
        (WhileLoading::Proxy, "/v1/health/live") => {
            Response::json(200, r#"{"object":"health.response","message":"live"}"#)
        }
        (WhileLoading::Proxy, "/v1/health/ready") => {
            Response::json(503, r#"{"object":"health.response","message":"Service is not ready."}"#)
        }
        (WhileLoading::Proxy, _) => Response {
            status: 502,
            content_type: "text/html",
            body: "<html><head><title>502 Bad Gateway</title></head></html>".into(),
        },
        _ => Response::text(503, ""),
    }
}

fn not_found() -> Action {
    Action::Respond(Response::json(404, r#"{"detail":"Not Found"}"#))
}

fn wrong_method() -> Action {
    Action::Respond(Response::json(405, r#"{"detail":"Method Not Allowed"}"#))
}

fn empty() -> Response {
    Response::text(200, "")
}

/// Side endpoints of an OpenAI flavor: the response, or none where the engine has no such path.
fn openai_get(hub: &Hub, engine: Openai, path: &str) -> Option<Action> {
    let version = hub.options.flavor.version();
    let response = match (path, engine) {
        ("/health" | "/health_generate", Openai::Sglang) => {
            return Some(Action::RespondAfter(SGLANG_HEALTH_POLL.div_f64(hub.options.speed), empty()));
        }
        ("/health", _) | ("/ping", Openai::Vllm | Openai::Nim) | ("/ready", Openai::Sglang) => empty(),
        ("/v1/models", _) => Response::json(200, models(hub, engine)),
        ("/version", Openai::Vllm | Openai::Trtllm) => Response::json(200, json!({"version": version}).to_string()),
        ("/server_info" | "/get_server_info", Openai::Sglang) | ("/server_info", Openai::Trtllm) => {
            Response::json(200, server_info(hub).to_string())
        }
        ("/model_info" | "/get_model_info", Openai::Sglang) => {
            Response::json(200, json!({"model_path": hub.options.model, "is_generation": true}).to_string())
        }
        ("/flush_cache", Openai::Sglang) => {
            hub.engine().reset_prefix_cache();
            Response::text(200, "Cache flushed.\n")
        }
        ("/load", Openai::Vllm) => {
            let running = hub.engine().ledger().running;
            Response::json(200, json!({"server_load": running}).to_string())
        }
        ("/metrics", Openai::Trtllm) => Response::json(200, metrics::drain_iterations(hub.engine().ledger())),
        ("/prometheus/metrics", Openai::Trtllm) | ("/metrics", _) | ("/v1/metrics", Openai::Nim) => prometheus(hub),
        ("/v1/health/live", Openai::Nim) => Response::json(200, r#"{"object":"health.response","message":"live"}"#),
        ("/v1/health/ready", Openai::Nim) => {
            Response::json(200, r#"{"object":"health.response","message":"Service is ready."}"#)
        }
        ("/v1/version", Openai::Nim) => Response::json(200, json!({"release": version, "api": version}).to_string()),
        ("/v1/metadata", Openai::Nim) => {
            let body = json!({"version": version, "modelInfo": [{"shortName": hub.options.model}]});
            Response::json(200, body.to_string())
        }
        _ => return None,
    };
    Some(Action::Respond(response))
}

fn openai_route(hub: &Hub, engine: Openai, request: &Request) -> Action {
    let path = request.path.as_str();
    match (request.method.as_str(), path) {
        ("POST", "/v1/completions") => openai_generate(hub, engine, request, false),
        ("POST", "/v1/chat/completions") => openai_generate(hub, engine, request, true),
        (_, "/v1/completions" | "/v1/chat/completions") => wrong_method(),
        _ if hub.options.batch_api && batch::is_path(path) => Action::Batch,
        ("POST", "/tokenize") if engine == Openai::Vllm => Action::Respond(tokenize(hub, &request.body)),
        ("POST", "/reset_prefix_cache") if engine == Openai::Vllm => {
            hub.engine().reset_prefix_cache();
            Action::Respond(empty())
        }
        ("GET" | "HEAD", _) | ("POST", "/flush_cache") => openai_get(hub, engine, path).unwrap_or_else(not_found),
        _ => not_found(),
    }
}

fn openai_generate(hub: &Hub, engine: Openai, request: &Request, chat: bool) -> Action {
    let o = &hub.options;
    let served = openai::Served {
        engine,
        model: &o.model,
        max_model_len: o.max_model_len,
        cache_report: o.cache_report,
        reasoning: o.reasoning,
        early_role: o.early_role,
    };
    let (ask, mut frames) = match openai::parse(&served, chat, &request.body) {
        Ok(parsed) => parsed,
        Err(refusal) => return Action::Respond(refusal),
    };
    match hub.judge() {
        (_, Verdict::Crash) => Action::Crash,
        (_, Verdict::Fail) => Action::Respond(openai::internal_error(engine)),
        (number, Verdict::Serve(faults)) => {
            frames.number(number);
            frames.no_usage = faults.no_usage;
            frames.no_done = faults.no_done;
            let order = Order { ask, shape: Box::new(frames), faults, keep_alive: request.keep_alive };
            Action::Generate(number, order)
        }
    }
}

fn models(hub: &Hub, engine: Openai) -> String {
    let owner = match engine {
        Openai::Vllm | Openai::Nim => "vllm",
        Openai::Sglang => "sglang",
        Openai::Trtllm => "tensorrt_llm",
    };
    let mut model = json!({"id": hub.options.model, "object": "model", "created": 0, "owned_by": owner});
    if engine != Openai::Trtllm {
        model["root"] = hub.options.model.clone().into();
        model["max_model_len"] = hub.options.max_model_len.into();
    }
    json!({"object": "list", "data": [model]}).to_string()
}

fn server_info(hub: &Hub) -> serde_json::Value {
    let o = &hub.options;
    json!({
        "version": o.flavor.version(),
        "model_path": o.model,
        "context_length": o.max_model_len,
        "max_running_requests": o.max_num_seqs,
        "max_total_num_tokens": hub.engine().ledger().kv_capacity,
        "disable_radix_cache": !o.prefix_caching,
        "random_seed": o.seed,
        "simulated": true,
    })
}

fn tokenize(hub: &Hub, body: &[u8]) -> Response {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(prompt) = body.get("prompt").and_then(serde_json::Value::as_str) else {
        return openai::error(Openai::Vllm, 400, "BadRequestError", "prompt: Field required", Some("prompt"));
    };
    let tokens: Vec<u32> = with_bos(prompt).collect();
    let answer = json!({"count": tokens.len(), "max_model_len": hub.options.max_model_len, "tokens": tokens});
    Response::json(200, answer.to_string())
}

fn prometheus(hub: &Hub) -> Response {
    let mut engine = hub.engine();
    let ledger: &Ledger = engine.ledger();
    let text = metrics::prometheus(hub.options.flavor, &hub.options.model, ledger);
    let body = if hub.options.old_metrics { old_metrics::rename(hub.options.flavor, &text) } else { text };
    Response { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
}

fn triton_route(hub: &Hub, model: Triton, request: &Request) -> Action {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let get = matches!(request.method.as_str(), "GET" | "HEAD");
    match path.as_slice() {
        ["metrics"] if get => Action::Respond(prometheus(hub)),
        ["v2", "health", "live" | "ready"] if get => Action::Respond(empty()),
        ["v2"] if get => {
            let body = json!({"name": "triton", "version": hub.options.flavor.version(), "extensions": ["generate"]});
            Action::Respond(Response::json(200, body.to_string()))
        }
        ["v2", "repository", "index"] if !get => {
            let body = json!([{"name": hub.options.model, "version": "1", "state": "READY"}]);
            Action::Respond(Response::json(200, body.to_string()))
        }
        ["v2", "models", rest @ ..] => triton_model(hub, model, request, get, rest),
        _ => Action::Respond(triton::error(404, "Not Found")),
    }
}

/// `NAME[/versions/1][/VERB]`; a name with slashes in it is understood too.
fn triton_model(hub: &Hub, model: Triton, request: &Request, get: bool, rest: &[&str]) -> Action {
    let served = &hub.options.model;
    let verbs = ["generate", "generate_stream", "ready", "config", "stats", "infer"];
    let (name, verb) = match rest {
        [name @ .., last] if verbs.contains(last) => (name, *last),
        name => (name, ""),
    };
    let name = match name {
        [name @ .., "versions", "1"] => name,
        name => name,
    }
    .join("/");
    if name != *served {
        let status = if verb == "ready" { 400 } else { 404 };
        return Action::Respond(Response { status, ..triton::unknown_model(&name) });
    }
    match (verb, get) {
        ("generate", false) => triton_generate(hub, model, request, false),
        ("generate_stream", false) => triton_generate(hub, model, request, true),
        ("ready", true) => Action::Respond(empty()),
        ("config", true) => {
            let body = json!({"name": name, "backend": backend(model), "max_batch_size": static_batch(hub, model),
                              "model_transaction_policy": {"decoupled": true}});
            Action::Respond(Response::json(200, body.to_string()))
        }
        ("stats", true) => {
            let count = hub.engine().ledger().finished();
            let body = json!({"model_stats": [{"name": name, "version": "1", "inference_count": count}]});
            Action::Respond(Response::json(200, body.to_string()))
        }
        ("", true) => {
            let body = json!({"name": name, "versions": ["1"], "platform": backend(model)});
            Action::Respond(Response::json(200, body.to_string()))
        }
        ("infer", false) => {
            Action::Respond(triton::error(400, "doesn't support models with decoupled transaction policy"))
        }
        _ => Action::Respond(triton::error(405, "Method Not Allowed")),
    }
}

fn backend(model: Triton) -> &'static str {
    match model {
        Triton::Vllm => "vllm",
        Triton::Python | Triton::Trtllm => "python",
    }
}

fn static_batch(hub: &Hub, model: Triton) -> u32 {
    if model == Triton::Python { hub.options.max_num_seqs } else { 0 }
}

fn triton_generate(hub: &Hub, model: Triton, request: &Request, streaming: bool) -> Action {
    let o = &hub.options;
    let (ask, mut frames) = match triton::parse(model, &o.model, streaming, o.max_model_len, &request.body) {
        Ok(parsed) => parsed,
        Err(refusal) => return Action::Respond(refusal),
    };
    match hub.judge() {
        (_, Verdict::Crash) => Action::Crash,
        (_, Verdict::Fail) => Action::Respond(triton::internal_error()),
        (number, Verdict::Serve(faults)) => {
            frames.no_usage = faults.no_usage;
            let order = Order { ask, shape: Box::new(frames), faults, keep_alive: request.keep_alive };
            Action::Generate(number, order)
        }
    }
}
