//! Request bodies: what is asked of a server, in the words of its dialect. Pure: values in, a path and a body out.
//!
//! Only fields that the [`ApiSpec`] says the engine knows are sent: some engines refuse a body with an unknown field.

use serde_json::{Map, Value, json};

use super::{Api, ApiSpec, Dialect};

/// A prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Token ids, sent as they are: the exact prompt length.
    Ids(Vec<u32>),
    Text(String),
    /// A chat history, as the JSON list that the API takes.
    Messages(Value),
}

/// One request, apart from the dialect it is sent in.
#[derive(Clone, Debug)]
pub struct RequestSpec<'a> {
    /// Name of the model as served; for Triton, of the model in the repository.
    pub model: &'a str,
    pub prompt: &'a Prompt,
    /// Tokens to generate at most; exactly, with `ignore_eos`.
    pub max_tokens: u32,
    pub temperature: f64,
    pub seed: Option<u64>,
    /// Generate `max_tokens` tokens whatever the model says.
    pub ignore_eos: bool,
    pub stream: bool,
}

/// A request as HTTP sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct WireRequest {
    /// Path below the base URL, starting with `/`.
    pub path: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// Why a request has no form in a dialect.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    #[error("api = \"{}\" is not spoken by this server (dialect {dialect}): use {instead}", api.as_str())]
    Api { api: Api, dialect: &'static str, instead: &'static str },
    #[error(
        "prompts of {what} cannot be sent over api = \"{}\" (dialect {dialect}): use {instead}",
        api.as_str()
    )]
    Prompt { what: &'static str, api: Api, dialect: &'static str, instead: &'static str },
    #[error("this server's API (dialect {dialect}) has no field for `{field}`: leave it at its default")]
    Field { field: &'static str, dialect: &'static str },
    #[error("{0} is not a number that JSON can hold, so it cannot be the temperature")]
    Temperature(String),
}

impl Dialect {
    /// The name in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Openai => "openai",
            Dialect::TritonVllm => "triton-vllm",
            Dialect::TritonPython => "triton-python",
            Dialect::TritonTrtllm => "triton-trtllm",
        }
    }
}

/// Builds a request.
pub fn build(spec: &ApiSpec, api: Api, request: &RequestSpec) -> Result<WireRequest, RequestError> {
    check_prompt(spec, api, request.prompt)?;
    if !request.temperature.is_finite() {
        return Err(RequestError::Temperature(request.temperature.to_string()));
    }
    let (field, rest) = match spec.dialect {
        Dialect::Openai => openai(spec, api, request),
        Dialect::TritonVllm => ("text_input", triton_vllm(spec, request)),
        Dialect::TritonPython => ("text_input", triton_python(spec, request)?),
        Dialect::TritonTrtllm => ("text_input", triton_trtllm(spec, request)),
    };
    let body = assemble(field, request.prompt, &rest);
    Ok(WireRequest { path: path(spec, api, request.model, request.stream), body })
}

/// Writes the prompt by hand in front of the other fields: it is nearly all of the body, and a long one would otherwise
/// be copied into a tree of JSON values first.
fn assemble(field: &str, prompt: &Prompt, rest: &Body) -> Vec<u8> {
    let size = match prompt {
        Prompt::Ids(ids) => 8 * ids.len(),
        Prompt::Text(text) => text.len() + text.len() / 16,
        Prompt::Messages(_) => 1024,
    };
    let mut body = Vec::with_capacity(size + 512);
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(field.as_bytes());
    body.extend_from_slice(b"\":");
    match prompt {
        Prompt::Ids(ids) => write_ids(&mut body, ids),
        Prompt::Text(text) if field == "messages" => {
            body.extend_from_slice(b"[{\"role\":\"user\",\"content\":");
            json_text(&mut body, text);
            body.extend_from_slice(b"}]");
        }
        Prompt::Text(text) => json_text(&mut body, text),
        Prompt::Messages(messages) => serde_json::to_writer(&mut body, messages).expect("writing to memory succeeds"),
    }
    body.push(b',');
    let rest = serde_json::to_vec(rest).expect("a JSON value serializes");
    body.extend_from_slice(&rest[1..]);
    body
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory succeeds");
}

fn write_ids(out: &mut Vec<u8>, ids: &[u32]) {
    out.push(b'[');
    for (i, id) in ids.iter().enumerate() {
        // What all our own ids are: written in one piece, instead of a call for a few bytes.
        if i > 0
            && let 1000..=9999 = *id
        {
            let digit = |by: u32| b'0' + (*id / by % 10) as u8;
            out.extend_from_slice(&[b',', digit(1000), digit(100), digit(10), digit(1)]);
            continue;
        }
        if i > 0 {
            out.push(b',');
        }
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        let mut left = *id;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }
    out.push(b']');
}

/// Whether the dialect has the API at all.
pub fn check_api(spec: &ApiSpec, api: Api) -> Result<(), RequestError> {
    let dialect = spec.dialect.as_str();
    match (spec.dialect, api) {
        (Dialect::Openai, Api::Chat | Api::Completions) => Ok(()),
        (Dialect::Openai, _) => Err(RequestError::Api { api, dialect, instead: "\"completions\" or \"chat\"" }),
        (_, Api::Generate) => Ok(()),
        _ => Err(RequestError::Api { api, dialect, instead: "\"generate\"" }),
    }
}

/// Whether a prompt can be sent over the API.
pub fn check_prompt(spec: &ApiSpec, api: Api, prompt: &Prompt) -> Result<(), RequestError> {
    check_api(spec, api)?;
    let refused = |what, instead| Err(RequestError::Prompt { what, api, dialect: spec.dialect.as_str(), instead });
    match (spec.dialect, api, prompt) {
        (Dialect::Openai, Api::Chat, Prompt::Ids(_)) => refused("token ids", "api = \"completions\""),
        (Dialect::Openai, Api::Completions, Prompt::Messages(_)) => refused("chat messages", "api = \"chat\""),
        (Dialect::Openai, _, _) | (_, _, Prompt::Text(_)) => Ok(()),
        (_, _, Prompt::Ids(_)) => refused("token ids", "text"),
        (_, _, Prompt::Messages(_)) => refused("chat messages", "a data set of text prompts"),
    }
}

/// The path of a request.
pub fn path(spec: &ApiSpec, api: Api, model: &str, stream: bool) -> String {
    match (spec.dialect, api) {
        (Dialect::Openai, Api::Chat) => "/v1/chat/completions".into(),
        (Dialect::Openai, _) => "/v1/completions".into(),
        (_, _) if stream => format!("/v2/models/{}/generate_stream", path_segment(model)),
        _ => format!("/v2/models/{}/generate", path_segment(model)),
    }
}

/// Percent-encodes what cannot stand in a path segment.
pub fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

type Body = Map<String, Value>;

fn put(body: &mut Body, key: &str, value: impl Into<Value>) {
    body.insert(key.to_string(), value.into());
}

/// `0` rather than `0.0`: some servers tell an integer from a float.
fn number(f: f64) -> Value {
    if f.fract() == 0.0 && f.abs() < 1e15 { json!(f as i64) } else { json!(f) }
}

fn openai(spec: &ApiSpec, api: Api, r: &RequestSpec) -> (&'static str, Body) {
    let field = if api == Api::Chat { "messages" } else { "prompt" };
    let mut body = Body::new();
    put(&mut body, "model", r.model);
    put(&mut body, "max_tokens", r.max_tokens);
    put(&mut body, "temperature", number(r.temperature));
    exact_length(&mut body, spec, r);
    if let Some(seed) = r.seed.filter(|_| spec.seed) {
        put(&mut body, "seed", seed);
    }
    put(&mut body, "stream", r.stream);
    if r.stream && spec.usage {
        put(&mut body, "stream_options", json!({ "include_usage": true }));
    }
    (field, body)
}

fn exact_length(body: &mut Body, spec: &ApiSpec, r: &RequestSpec) {
    if r.ignore_eos && spec.ignore_eos {
        put(body, "ignore_eos", true);
    }
    if r.ignore_eos && spec.min_tokens {
        put(body, "min_tokens", r.max_tokens);
    }
}

/// `sampling parameters` are nested under `parameters`; counts and the finish reason are asked for as extra outputs.
fn triton_vllm(spec: &ApiSpec, r: &RequestSpec) -> Body {
    let mut parameters = Body::new();
    put(&mut parameters, "max_tokens", r.max_tokens);
    put(&mut parameters, "temperature", number(r.temperature));
    exact_length(&mut parameters, spec, r);
    if let Some(seed) = r.seed.filter(|_| spec.seed) {
        put(&mut parameters, "seed", seed);
    }
    let mut body = Body::new();
    put(&mut body, "stream", r.stream);
    put(&mut body, "exclude_input_in_output", true);
    if spec.usage {
        put(&mut body, "return_num_input_tokens", true);
        put(&mut body, "return_num_output_tokens", true);
    }
    put(&mut body, "return_finish_reason", true);
    put(&mut body, "parameters", parameters);
    body
}

/// All optional inputs are always sent: dynamic batching only groups requests with the same set of inputs.
fn triton_python(spec: &ApiSpec, r: &RequestSpec) -> Result<Body, RequestError> {
    if r.temperature != 0.0 {
        return Err(RequestError::Field { field: "temperature", dialect: spec.dialect.as_str() });
    }
    let mut body = Body::new();
    put(&mut body, "max_tokens", r.max_tokens);
    if spec.ignore_eos {
        put(&mut body, "ignore_eos", r.ignore_eos);
    }
    put(&mut body, "stream", r.stream);
    Ok(body)
}

fn triton_trtllm(spec: &ApiSpec, r: &RequestSpec) -> Body {
    let mut body = Body::new();
    put(&mut body, "streaming", r.stream);
    put(&mut body, "sampling_param_max_tokens", r.max_tokens);
    put(&mut body, "sampling_param_temperature", number(r.temperature));
    put(&mut body, "sampling_param_exclude_input_from_output", true);
    put(&mut body, "return_finish_reason", true);
    if r.ignore_eos && spec.ignore_eos {
        put(&mut body, "sampling_param_ignore_eos", true);
    }
    if r.ignore_eos && spec.min_tokens {
        put(&mut body, "sampling_param_min_tokens", r.max_tokens);
    }
    if let Some(seed) = r.seed.filter(|_| spec.seed) {
        put(&mut body, "sampling_param_seed", seed);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn spec(dialect: Dialect) -> ApiSpec {
        let default = if dialect == Dialect::Openai { Api::Completions } else { Api::Generate };
        serde_json::from_value(json!({ "dialect": dialect, "default": default })).unwrap()
    }

    fn request<'a>(prompt: &'a Prompt) -> RequestSpec<'a> {
        RequestSpec {
            model: "org/m",
            prompt,
            max_tokens: 128,
            temperature: 0.0,
            seed: Some(1),
            ignore_eos: true,
            stream: true,
        }
    }

    fn body(spec: &ApiSpec, api: Api, prompt: Prompt) -> (String, Value) {
        let built = build(spec, api, &request(&prompt)).unwrap();
        (built.path, serde_json::from_slice(&built.body).unwrap())
    }

    #[test]
    fn openai_bodies() {
        let s = spec(Dialect::Openai);
        let many = vec![1000, 0, 9, 10, 999, 1000, 4567, 9999, 10_000, u32::MAX];
        let (_, b) = body(&s, Api::Completions, Prompt::Ids(many.clone()));
        assert_eq!(b["prompt"], json!(many));
        let (path, b) = body(&s, Api::Completions, Prompt::Ids(vec![5, 6]));
        assert_eq!(path, "/v1/completions");
        assert_eq!(
            b,
            json!({"model":"org/m","prompt":[5,6],"max_tokens":128,"temperature":0,"ignore_eos":true,"min_tokens":128,
                "seed":1,"stream":true,"stream_options":{"include_usage":true}})
        );
        let (path, b) = body(&s, Api::Chat, Prompt::Text("hi".into()));
        assert_eq!(path, "/v1/chat/completions");
        assert_eq!(b["messages"], json!([{"role":"user","content":"hi"}]));
    }

    #[test]
    fn only_fields_the_engine_knows_are_sent() {
        let s = ApiSpec { usage: false, min_tokens: false, ignore_eos: false, seed: false, ..spec(Dialect::Openai) };
        let (_, b) = body(&s, Api::Completions, Prompt::Text("x".into()));
        let keys: Vec<&str> = b.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys.iter().copied().collect::<std::collections::BTreeSet<_>>(),
            ["model", "prompt", "max_tokens", "temperature", "stream"].into_iter().collect()
        );
    }

    #[test]
    fn triton_bodies() {
        let (path, b) = body(&spec(Dialect::TritonVllm), Api::Generate, Prompt::Text("x".into()));
        assert_eq!(path, "/v2/models/org%2Fm/generate_stream");
        assert_eq!(
            b,
            json!({"text_input":"x","stream":true,"exclude_input_in_output":true,"return_num_input_tokens":true,
                "return_num_output_tokens":true,"return_finish_reason":true,
                "parameters":{"max_tokens":128,"min_tokens":128,"ignore_eos":true,"temperature":0,"seed":1}})
        );
        let (_, b) = body(&spec(Dialect::TritonPython), Api::Generate, Prompt::Text("x".into()));
        assert_eq!(b, json!({"text_input":"x","max_tokens":128,"ignore_eos":true,"stream":true}));
        let (_, b) = body(&spec(Dialect::TritonTrtllm), Api::Generate, Prompt::Text("x".into()));
        assert_eq!(
            b,
            json!({"text_input":"x","streaming":true,"sampling_param_max_tokens":128,"sampling_param_temperature":0,
                "sampling_param_exclude_input_from_output":true,"return_finish_reason":true,
                "sampling_param_ignore_eos":true,"sampling_param_min_tokens":128,"sampling_param_seed":1})
        );
    }

    #[test]
    fn what_a_dialect_cannot_say_is_refused() {
        let triton = spec(Dialect::TritonVllm);
        let text = Prompt::Text("x".into());
        let e = build(&triton, Api::Chat, &request(&text)).unwrap_err().to_string();
        assert!(e.contains("api = \"chat\"") && e.contains("use \"generate\""), "{e}");
        let ids = Prompt::Ids(vec![1]);
        assert!(build(&triton, Api::Generate, &request(&ids)).is_err());
        assert!(build(&spec(Dialect::Openai), Api::Chat, &request(&ids)).is_err());
        assert!(build(&spec(Dialect::Openai), Api::Batch, &request(&text)).is_err());
        let warm = RequestSpec { temperature: 0.7, ..request(&text) };
        assert!(build(&spec(Dialect::TritonPython), Api::Generate, &warm).is_err());
    }
}
