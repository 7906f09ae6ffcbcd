//! Requests of OpenAI's API: read, checked as the engine checks them, or refused in its words.

use serde_json::{Map, Value};

use super::error;
use super::frames::Frames;
use crate::clock::{Clock, SystemClock};
use crate::sim::answer::{Ask, Delivery, Prompt};
use crate::sim::body::{Fields, Wrong};
use crate::sim::flavor::Openai;
use crate::sim::http::Response;
use crate::sim::tokens::{encode, with_bos};

/// Answer length of `/v1/completions` without `max_tokens`.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// What a chat template adds to each message, and for the answer's start.
const TOKENS_PER_MESSAGE: u32 = 4;
const TOKENS_OF_ANSWER_START: u32 = 3;

/// What the server serves.
pub struct Served<'a> {
    pub engine: Openai,
    pub model: &'a str,
    pub max_model_len: u32,
    pub cache_report: bool,
    /// Reasoning tokens at the start of a chat answer.
    pub reasoning: u32,
    pub early_role: bool,
}

/// Reads a request to `/v1/completions` or, with `chat`, to `/v1/chat/completions`.
pub fn parse(served: &Served<'_>, chat: bool, body: &[u8]) -> Result<(Ask, Frames), Response> {
    let body = object(served.engine, body)?;
    let fields = Fields(&body);
    let wrong = |w: Wrong| invalid(served.engine, &w.field, "value_error", &w.message);
    if served.engine == Openai::Trtllm {
        refuse_unknown(&body, chat)?;
    }
    let model = fields.text("model").map_err(wrong)?;
    check_model(served, model)?;
    for name in ["temperature", "top_p", "frequency_penalty", "presence_penalty"] {
        fields.float(name).map_err(wrong)?;
    }
    if fields.count("n").map_err(wrong)?.unwrap_or(1) != 1 {
        return Err(bad_request(served.engine, "the simulated engine gives one answer per request: n must be 1", "n"));
    }
    let tokens = if chat { chat_tokens(served, fields)? } else { prompt_tokens(served, fields)? };
    let stream = fields.boolean("stream").map_err(wrong)?.unwrap_or(false);
    let (include_usage, continuous_usage) = stream_options(served, fields, stream)?;
    let max_tokens = max_tokens(served, fields, chat)?;
    let ask = Ask {
        prompt: Prompt::of(&tokens),
        max_tokens,
        min_tokens: fields.count("min_tokens").map_err(wrong)?.unwrap_or(0),
        ignore_eos: fields.boolean("ignore_eos").map_err(wrong)?.unwrap_or(false),
        seed: fields.integer("seed").map_err(wrong)?.map(|s| s as u64),
        delivery: if stream { Delivery::Events } else { Delivery::Whole },
    };
    check_length(served, &ask)?;
    let frames = Frames {
        engine: served.engine,
        chat,
        id: String::new(),
        prefix: Vec::new(),
        created: SystemClock.now().as_second(),
        model: model.unwrap_or(served.model).to_string(),
        include_usage,
        continuous_usage: continuous_usage && include_usage,
        cache_report: served.cache_report,
        logprobs: asks_logprobs(fields, chat),
        reasoning_left: if chat { served.reasoning } else { 0 },
        reasoning: 0,
        role_sent: false,
        early_role: served.early_role,
        no_usage: false,
        no_done: false,
    };
    Ok((ask, frames))
}

/// `logprobs` is a number for completions, where 0 asks too, and a switch for chats.
fn asks_logprobs(fields: Fields<'_>, chat: bool) -> bool {
    match fields.get("logprobs") {
        Some(Value::Bool(on)) => *on && chat,
        Some(Value::Number(_)) => !chat,
        _ => false,
    }
}

fn object(engine: Openai, body: &[u8]) -> Result<Map<String, Value>, Response> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid_body(engine, "('body',)", "model_attributes_type", "Input should be a valid dictionary")),
        Err(e) => {
            let at = format!("('body', {})", e.column());
            Err(invalid_body(engine, &at, "json_invalid", "JSON decode error"))
        }
    }
}

/// A complaint as pydantic words it.
fn invalid(engine: Openai, field: &str, kind: &str, message: &str) -> Response {
    invalid_body(engine, &format!("('body', '{field}')"), kind, message)
}

fn invalid_body(engine: Openai, location: &str, kind: &str, message: &str) -> Response {
    let message = format!("[{{'type': '{kind}', 'loc': {location}, 'msg': '{message}'}}]");
    let error_type = match engine {
        Openai::Trtllm => "BadRequestError",
        _ => "Bad Request",
    };
    error(engine, 400, error_type, &message, None)
}

fn bad_request(engine: Openai, message: &str, param: &str) -> Response {
    error(engine, 400, "BadRequestError", message, Some(param))
}

/// vLLM knows its models by name; SGLang and trtllm-serve answer to any.
fn check_model(served: &Served<'_>, model: Option<&str>) -> Result<(), Response> {
    match (served.engine, model) {
        (Openai::Vllm | Openai::Nim, Some(model)) if model != served.model => {
            let message = format!("The model `{model}` does not exist.");
            Err(error(served.engine, 404, "NotFoundError", &message, Some("model")))
        }
        (Openai::Trtllm, None) => Err(invalid(served.engine, "model", "missing", "Field required")),
        _ => Ok(()),
    }
}

/// Fields that trtllm-serve declares for both APIs; it forbids all others.
const TRTLLM_FIELDS: &[&str] = &[
    "model",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "user",
    "best_of",
    "use_beam_search",
    "top_k",
    "top_p_min",
    "min_p",
    "repetition_penalty",
    "length_penalty",
    "early_stopping",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "lora_request",
    "add_special_tokens",
    "response_format",
    "disaggregated_params",
];
const TRTLLM_COMPLETION_FIELDS: &[&str] =
    &["prompt", "echo", "suffix", "return_context_logits", "detokenize", "prompt_ignore_length"];
const TRTLLM_CHAT_FIELDS: &[&str] = &[
    "messages",
    "max_completion_tokens",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "echo",
    "add_generation_prompt",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
];

fn refuse_unknown(body: &Map<String, Value>, chat: bool) -> Result<(), Response> {
    let more = if chat { TRTLLM_CHAT_FIELDS } else { TRTLLM_COMPLETION_FIELDS };
    let known = |name: &str| TRTLLM_FIELDS.contains(&name) || more.contains(&name);
    match body.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(invalid(Openai::Trtllm, name, "extra_forbidden", "Extra inputs are not permitted")),
    }
}

/// A prompt: text, or token ids, or a list of one of either.
fn prompt_tokens(served: &Served<'_>, fields: Fields<'_>) -> Result<Vec<u32>, Response> {
    let missing = || invalid(served.engine, "prompt", "missing", "Field required");
    let one_only =
        || bad_request(served.engine, "the simulated engine takes one prompt per request, not several", "prompt");
    let prompt = fields.get("prompt").ok_or_else(missing)?;
    let prompt = match prompt.as_array().map(Vec::as_slice) {
        Some([inner @ (Value::String(_) | Value::Array(_))]) => inner,
        Some([Value::String(_) | Value::Array(_), ..]) => return Err(one_only()),
        _ => prompt,
    };
    match prompt {
        Value::String(text) => Ok(with_bos(text).collect()),
        Value::Array(ids) if ids.is_empty() => {
            Err(bad_request(served.engine, "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"))
        }
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| invalid(served.engine, "prompt", "int_type", "Input should be a valid integer")),
        _ => Err(invalid(served.engine, "prompt", "string_type", "Input should be a valid string")),
    }
}

fn chat_tokens(served: &Served<'_>, fields: Fields<'_>) -> Result<Vec<u32>, Response> {
    let invalid = |kind, message| invalid(served.engine, "messages", kind, message);
    let messages = fields.get("messages").ok_or_else(|| invalid("missing", "Field required"))?;
    let messages = messages.as_array().ok_or_else(|| invalid("list_type", "Input should be a valid list"))?;
    if messages.is_empty() {
        return Err(invalid("too_short", "List should have at least 1 item"));
    }
    let mut tokens = vec![1];
    for message in messages {
        let role = message.get("role").and_then(Value::as_str);
        let role = role.ok_or_else(|| invalid("missing", "each message needs a role"))?;
        tokens.extend(encode(role).take(1));
        tokens.resize(tokens.len() + TOKENS_PER_MESSAGE as usize - 1, 2);
        match message.get("content") {
            Some(Value::String(text)) => tokens.extend(encode(text)),
            Some(Value::Array(parts)) => {
                for part in parts {
                    tokens.extend(part.get("text").and_then(Value::as_str).into_iter().flat_map(encode));
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(invalid("string_type", "Input should be a valid string")),
        }
    }
    tokens.resize(tokens.len() + TOKENS_OF_ANSWER_START as usize, 3);
    Ok(tokens)
}

fn stream_options(served: &Served<'_>, fields: Fields<'_>, stream: bool) -> Result<(bool, bool), Response> {
    let Some(options) = fields.get("stream_options") else { return Ok((false, false)) };
    if !stream && served.engine != Openai::Sglang {
        return Err(bad_request(
            served.engine,
            "Stream options can only be defined when `stream=True`.",
            "stream_options",
        ));
    }
    let invalid = |message: &str| invalid(served.engine, "stream_options", "value_error", message);
    let options = options.as_object().ok_or_else(|| invalid("Input should be a valid dictionary"))?;
    let known = |name: &String| ["include_usage", "continuous_usage_stats"].contains(&name.as_str());
    if served.engine == Openai::Trtllm && !options.keys().all(known) {
        return Err(invalid("Extra inputs are not permitted"));
    }
    let read = |name| Fields(options).boolean(name).map_err(|w| invalid(&w.message)).map(|b| b.unwrap_or(false));
    Ok((read("include_usage")?, read("continuous_usage_stats")?))
}

fn max_tokens(served: &Served<'_>, fields: Fields<'_>, chat: bool) -> Result<Option<u32>, Response> {
    let read = |name: &'static str| match fields.integer(name) {
        Err(w) => Err(invalid(served.engine, &w.field, "int_parsing", &w.message)),
        Ok(Some(n)) if n < 1 => {
            let message = format!("{name} must be at least 1, got {n}.");
            Err(bad_request(served.engine, &message, name))
        }
        Ok(n) => Ok(n.map(|n| u32::try_from(n).unwrap_or(u32::MAX))),
    };
    if !chat {
        return Ok(Some(read("max_tokens")?.unwrap_or(DEFAULT_MAX_TOKENS)));
    }
    Ok(match read("max_completion_tokens")? {
        Some(n) => Some(n),
        None => read("max_tokens")?,
    })
}

fn check_length(served: &Served<'_>, ask: &Ask) -> Result<(), Response> {
    let limit = served.max_model_len;
    let prompt = ask.prompt.tokens;
    let room = limit.saturating_sub(prompt);
    if room == 0 {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, your request has {prompt} input tokens. \
             Please reduce the length of the input messages."
        );
        return Err(bad_request(served.engine, &message, "input_tokens"));
    }
    if let Some(asked) = ask.max_tokens.filter(|n| *n > room) {
        let message = format!(
            "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is \
             {limit} tokens and your request has {prompt} input tokens ({asked} > {limit} - {prompt})."
        );
        return Err(bad_request(served.engine, &message, "max_tokens"));
    }
    if ask.max_tokens.is_some_and(|n| ask.min_tokens > n) {
        let message = format!(
            "min_tokens must be less than or equal to max_tokens={}, got {}.",
            ask.max_tokens.unwrap_or(0),
            ask.min_tokens
        );
        return Err(bad_request(served.engine, &message, "min_tokens"));
    }
    Ok(())
}
