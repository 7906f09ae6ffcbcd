//! Requests of the generate extension: keys that name an input of the model become tensors, at the top level or inside
//! `parameters`; every other scalar becomes a request parameter, which the models ignore.

use serde_json::{Map, Value};

use super::error;
use super::frames::{Counts, Frames};
use crate::sim::answer::{Ask, Delivery, Prompt};
use crate::sim::body::{Fields, Wrong};
use crate::sim::flavor::Triton;
use crate::sim::http::Response;
use crate::sim::tokens::with_bos;

/// Answer lengths when the request gives none: vLLM's, our Python model's, TensorRT-LLM's.
const DEFAULT_MAX_TOKENS: [(Triton, u32); 3] = [(Triton::Vllm, 16), (Triton::Python, 16), (Triton::Trtllm, 32)];

/// Inputs that each model declares.
fn inputs(model: Triton) -> &'static [&'static str] {
    match model {
        Triton::Vllm => &[
            "text_input",
            "stream",
            "sampling_parameters",
            "exclude_input_in_output",
            "return_finish_reason",
            "return_cumulative_logprob",
            "return_logprobs",
            "return_num_input_tokens",
            "return_num_output_tokens",
            "image",
        ],
        Triton::Python => &["text_input", "max_tokens", "min_tokens", "ignore_eos", "temperature", "seed", "stream"],
        Triton::Trtllm => &[
            "text_input",
            "streaming",
            "sampling_param_best_of",
            "sampling_param_temperature",
            "sampling_param_top_k",
            "sampling_param_top_p",
            "sampling_param_frequency_penalty",
            "sampling_param_presence_penalty",
            "sampling_param_max_tokens",
            "sampling_param_min_tokens",
            "sampling_param_ignore_eos",
            "sampling_param_stop",
            "sampling_param_seed",
            "sampling_param_exclude_input_from_output",
            "sampling_param_return_perf_metrics",
            "return_finish_reason",
            "return_stop_reason",
            "return_cumulative_logprob",
            "stop",
        ],
    }
}

/// Tensors and parameters of a request.
struct Parts {
    tensors: Map<String, Value>,
    parameters: Map<String, Value>,
}

/// Reads a request to `generate` or, with `streaming`, to `generate_stream`; or refuses it.
pub fn parse(
    model: Triton,
    name: &str,
    streaming: bool,
    max_model_len: u32,
    body: &[u8],
) -> Result<(Ask, Frames), Response> {
    let parts = split(model, body)?;
    let text_input = match parts.tensors.get("text_input") {
        Some(Value::String(text)) => text,
        Some(_) => return Err(error(500, "failed to parse 'text_input': attempt to access JSON non-string as string")),
        None => return Err(missing_input(name, streaming)),
    };
    let reading = Reading { model, name, streaming, parts: &parts, text_input };
    let refused = |message: String| refusal(streaming, &message);
    let (ask, frames) = match model {
        Triton::Vllm => reading.vllm(),
        Triton::Python => reading.python(),
        Triton::Trtllm => reading.trtllm(),
    }
    .map_err(refused)?;
    let room = max_model_len.saturating_sub(ask.prompt.tokens);
    if room == 0 || ask.max_tokens.is_some_and(|n| n > room) {
        return Err(refused(format!(
            "the prompt has {} tokens and at most {} more are asked for: more than the maximum length {max_model_len}",
            ask.prompt.tokens,
            ask.max_tokens.unwrap_or(1)
        )));
    }
    Ok((ask, frames))
}

/// An error as the model's first response: the status is 400; a stream carries it as an event.
pub fn refusal(streaming: bool, message: &str) -> Response {
    let mut response = error(400, message);
    if streaming {
        response.body = format!("data: {}\n\n", response.body);
        response.content_type = "text/event-stream; charset=utf-8";
    }
    response
}

/// Triton answers 200 to a request that lacks a required input.
fn missing_input(name: &str, streaming: bool) -> Response {
    let message = format!("expected 1 inputs but got 0 inputs for model '{name}'");
    let response = if streaming { refusal(true, &message) } else { error(200, &message) };
    Response { status: 200, ..response }
}

fn split(model: Triton, body: &[u8]) -> Result<Parts, Response> {
    let object = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(error(500, "attempt to access JSON non-object as object")),
        Err(e) => {
            return Err(error(500, &format!("failed to parse the request JSON buffer: {e} at {}", e.column())));
        }
    };
    let mut parts = Parts { tensors: Map::new(), parameters: Map::new() };
    for (key, value) in object {
        match value {
            Value::Object(inner) if key == "parameters" => {
                for (key, value) in inner {
                    place(&mut parts, model, key, value)?;
                }
            }
            value => place(&mut parts, model, key, value)?,
        }
    }
    Ok(parts)
}

fn place(parts: &mut Parts, model: Triton, key: String, value: Value) -> Result<(), Response> {
    if inputs(model).contains(&key.as_str()) {
        parts.tensors.insert(key, value);
    } else if matches!(value, Value::Array(_) | Value::Object(_) | Value::Null) {
        return Err(error(
            400,
            &format!("parameter '{key}' has invalid type. It should be either 'int', 'bool', 'string' or 'double'."),
        ));
    } else {
        parts.parameters.insert(key, value);
    }
    Ok(())
}

/// A request whose text is known, on its way to a model.
struct Reading<'a> {
    model: Triton,
    name: &'a str,
    streaming: bool,
    parts: &'a Parts,
    text_input: &'a str,
}

fn told(w: Wrong) -> String {
    format!("{}: {}", w.field, w.message)
}

impl Reading<'_> {
    fn vllm(&self) -> Result<(Ask, Frames), String> {
        let inputs = Fields(&self.parts.tensors);
        let stream = inputs.boolean("stream").map_err(told)?.unwrap_or(false);
        let exclude = inputs.boolean("exclude_input_in_output").map_err(told)?.unwrap_or(stream);
        if stream && !exclude {
            return Err("When streaming, `exclude_input_in_output` = False is not allowed.".into());
        }
        // `sampling_parameters` is the same as `parameters`, as text, and goes before them.
        let sampling = match inputs.text("sampling_parameters").map_err(told)? {
            Some(text) => serde_json::from_str(text).map_err(|e| format!("sampling_parameters: {e}"))?,
            None => self.parts.parameters.clone(),
        };
        let asked = |name| Ok::<_, String>(inputs.boolean(name).map_err(told)?.unwrap_or(false));
        let frames = Frames {
            echo: (!exclude).then(|| self.text_input.to_string()),
            counts: Counts::Delta {
                input: asked("return_num_input_tokens")?,
                output: asked("return_num_output_tokens")?,
            },
            finish_reason: asked("return_finish_reason")?,
            ..self.frames()
        };
        self.finish(Fields(&sampling), "", stream, frames)
    }

    fn python(&self) -> Result<(Ask, Frames), String> {
        let inputs = Fields(&self.parts.tensors);
        let stream = inputs.boolean("stream").map_err(told)?.unwrap_or(false);
        let frames = Frames { counts: Counts::Cumulative { input: true, output: true }, ..self.frames() };
        self.finish(inputs, "", stream, Frames { finish_reason: true, ..frames })
    }

    fn trtllm(&self) -> Result<(Ask, Frames), String> {
        let inputs = Fields(&self.parts.tensors);
        let stream = inputs.boolean("streaming").map_err(told)?.unwrap_or(false);
        let exclude = inputs.boolean("sampling_param_exclude_input_from_output").map_err(told)?.unwrap_or(true);
        let frames = Frames {
            echo: (!exclude).then(|| self.text_input.to_string()),
            cumulative_text: true,
            counts: Counts::Cumulative { input: true, output: true },
            finish_reason: true,
            ..self.frames()
        };
        self.finish(inputs, "sampling_param_", stream, frames)
    }

    fn frames(&self) -> Frames {
        Frames {
            model: self.name.to_string(),
            backend: self.model,
            echo: None,
            cumulative_text: false,
            counts: Counts::Cumulative { input: false, output: false },
            finish_reason: false,
            no_usage: false,
        }
    }

    /// Reads lengths and seed, whose names start with `prefix`.
    fn finish(&self, f: Fields<'_>, prefix: &str, stream: bool, frames: Frames) -> Result<(Ask, Frames), String> {
        if stream && !self.streaming {
            return Err("generate expects model to produce exactly 1 response, use generate stream for model types \
                        that may produce more than 1 response"
                .into());
        }
        let name = |n: &str| format!("{prefix}{n}");
        let default = DEFAULT_MAX_TOKENS.iter().find(|(m, _)| *m == self.model).map(|(_, n)| *n);
        let max_tokens = f.count(&name("max_tokens")).map_err(told)?.or(default);
        if max_tokens == Some(0) {
            return Err("max_tokens must be at least 1, got 0.".into());
        }
        let min_tokens = f.count(&name("min_tokens")).map_err(told)?.unwrap_or(0);
        let tokens: Vec<u32> = with_bos(self.text_input).collect();
        let ask = Ask {
            prompt: Prompt::of(&tokens),
            max_tokens,
            min_tokens: min_tokens.min(max_tokens.unwrap_or(u32::MAX)),
            ignore_eos: f.boolean(&name("ignore_eos")).map_err(told)?.unwrap_or(false),
            seed: f.integer(&name("seed")).map_err(told)?.map(|s| s as u64),
            delivery: match (self.streaming, stream) {
                (false, _) => Delivery::Whole,
                (true, false) => Delivery::OneEvent,
                (true, true) => Delivery::Events,
            },
        };
        Ok((ask, frames))
    }
}
