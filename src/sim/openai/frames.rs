//! The frames of OpenAI answers, each engine's with the fields that it really sends.

use serde_json::{Value, json};

use super::{error_body, internal_error};
use crate::sim::answer::{Event, Events, Shape, Totals};
use crate::sim::body::push_json_str;
use crate::sim::engine::Finish;
use crate::sim::flavor::Openai;
use crate::sim::http::Response;

/// One answer of OpenAI's API.
pub struct Frames {
    pub engine: Openai,
    pub chat: bool,
    pub id: String,
    /// Set with the number: what every frame starts with.
    pub prefix: Vec<u8>,
    /// Unix seconds.
    pub created: i64,
    pub model: String,
    pub include_usage: bool,
    /// Every frame tells the counts so far.
    pub continuous_usage: bool,
    pub cache_report: bool,
    /// Every text comes with its log probability.
    pub logprobs: bool,
    /// Tokens that are still reasoning.
    pub reasoning_left: u32,
    /// Reasoning tokens sent.
    pub reasoning: u32,
    pub role_sent: bool,
    pub early_role: bool,
    pub no_usage: bool,
    pub no_done: bool,
}

/// Which part of a chat answer a text belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Role,
    Content,
    Reasoning,
    /// Nothing but the reason why it ends.
    End,
}

impl Frames {
    /// Names the answer after its request.
    pub fn number(&mut self, number: u64) {
        self.id = format!("{}-sim{number:016x}", if self.chat { "chatcmpl" } else { "cmpl" });
        self.prefix = self.prefix();
    }

    /// The name under which this engine sends reasoning.
    fn reasoning_key(&self) -> &'static str {
        match self.engine {
            Openai::Vllm | Openai::Nim => "reasoning",
            Openai::Sglang | Openai::Trtllm => "reasoning_content",
        }
    }

    fn usage(&self, totals: Totals) -> Value {
        let mut usage = json!({
            "prompt_tokens": totals.prompt,
            "total_tokens": totals.prompt + totals.output,
            "completion_tokens": totals.output,
        });
        let details = json!({"cached_tokens": totals.cached});
        match self.engine {
            Openai::Trtllm => usage["prompt_tokens_details"] = details,
            _ if self.cache_report => usage["prompt_tokens_details"] = details,
            _ => usage["prompt_tokens_details"] = Value::Null,
        }
        if self.engine == Openai::Sglang {
            usage["reasoning_tokens"] = self.reasoning.into();
        }
        usage
    }

    /// What all frames of the answer start with.
    fn prefix(&self) -> Vec<u8> {
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let mut out =
            format!(r#"{{"id":"{}","object":"{object}","created":{},"model":"#, self.id, self.created).into_bytes();
        push_json_str(&mut out, &self.model);
        out.extend_from_slice(b",\"choices\":");
        out
    }

    fn frame(&self, part: Part, text: &str, finish: Option<Finish>, totals: Totals, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"[{\"index\":0,");
        if self.chat {
            out.extend_from_slice(b"\"delta\":");
            self.delta(part, text, out);
        } else {
            out.extend_from_slice(b"\"text\":");
            push_json_str(out, text);
        }
        if self.logprobs && !text.is_empty() {
            out.extend_from_slice(b",\"logprobs\":");
            out.extend_from_slice(self.probability(text).to_string().as_bytes());
        } else if self.engine != Openai::Trtllm {
            out.extend_from_slice(b",\"logprobs\":null");
        }
        match (finish, self.engine) {
            (Some(finish), _) => {
                out.extend_from_slice(b",\"finish_reason\":\"");
                out.extend_from_slice(finish.as_str().as_bytes());
                out.push(b'"');
            }
            (None, Openai::Trtllm) => {}
            (None, _) => out.extend_from_slice(b",\"finish_reason\":null"),
        }
        match self.engine {
            Openai::Vllm | Openai::Nim if !self.chat || finish.is_some() => {
                out.extend_from_slice(b",\"stop_reason\":null")
            }
            Openai::Sglang => out.extend_from_slice(b",\"matched_stop\":null"),
            _ => {}
        }
        out.extend_from_slice(b"}]");
        if self.continuous_usage && !self.no_usage {
            out.extend_from_slice(b",\"usage\":");
            out.extend_from_slice(self.usage(totals).to_string().as_bytes());
        } else if self.engine == Openai::Sglang || !self.chat && self.engine != Openai::Trtllm {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.push(b'}');
    }

    /// A text's log probability: always the same for the same text.
    fn probability(&self, text: &str) -> Value {
        let sum = text.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let logprob = -f64::from(sum % 997 + 1) / 1000.0;
        match self.chat {
            true => json!({"content": [{"token": text, "logprob": logprob, "bytes": null, "top_logprobs": []}]}),
            false => json!({"tokens": [text], "token_logprobs": [logprob], "top_logprobs": null, "text_offset": [0]}),
        }
    }

    fn delta(&self, part: Part, text: &str, out: &mut Vec<u8>) {
        let sglang = self.engine == Openai::Sglang;
        match part {
            Part::Role => out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"\""),
            Part::Content => {
                out.extend_from_slice(if sglang { b"{\"role\":null,\"content\":" } else { b"{\"content\":" });
                push_json_str(out, text);
            }
            Part::Reasoning => {
                out.extend_from_slice(if sglang { b"{\"role\":null,\"content\":null,\"" } else { b"{\"" });
                out.extend_from_slice(self.reasoning_key().as_bytes());
                out.extend_from_slice(b"\":");
                push_json_str(out, text);
            }
            Part::End => out.extend_from_slice(b"{\"role\":null,\"content\":null"),
        }
        if sglang {
            let reasoning: &[u8] = if part == Part::Reasoning { b"" } else { b",\"reasoning_content\":null" };
            out.extend_from_slice(reasoning);
            out.extend_from_slice(b",\"tool_calls\":null");
        }
        out.push(b'}');
    }

    fn send_role(&mut self, totals: Totals, out: &mut Events) {
        if self.chat && !std::mem::replace(&mut self.role_sent, true) {
            let totals = Totals { output: 0, ..totals };
            out.push(|o| self.frame(Part::Role, "", None, totals, o));
        }
    }
}

impl Shape for Frames {
    fn accepted(&mut self, out: &mut Events) {
        if self.early_role {
            self.send_role(Totals::default(), out);
        }
    }

    fn event(&mut self, event: &Event<'_>, out: &mut Events) {
        self.send_role(event.totals, out);
        let part = if self.reasoning_left > 0 { Part::Reasoning } else { Part::Content };
        if part == Part::Reasoning {
            self.reasoning_left = self.reasoning_left.saturating_sub(event.tokens);
            self.reasoning += event.tokens;
        }
        // SGLang ends a chat with a frame of its own; the others put the reason into the last token's.
        let apart = self.chat && self.engine == Openai::Sglang;
        let finish = event.finish.filter(|_| !apart);
        out.push(|o| self.frame(part, event.text, finish, event.totals, o));
        if apart && event.finish.is_some() {
            out.push(|o| self.frame(Part::End, "", event.finish, event.totals, o));
        }
    }

    fn finished(&mut self, totals: Totals, out: &mut Events) {
        if self.include_usage && !self.no_usage {
            let usage = self.usage(totals).to_string();
            out.push(|o| {
                o.extend_from_slice(&self.prefix);
                o.extend_from_slice(b"[],\"usage\":");
                o.extend_from_slice(usage.as_bytes());
                o.push(b'}');
            });
        }
        if !self.no_done {
            out.push(|o| o.extend_from_slice(b"[DONE]"));
        }
    }

    fn whole(&mut self, text: &str, totals: Totals, finish: Finish) -> Response {
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": finish.as_str()});
        if self.chat {
            choice["message"] = self.message(text, totals);
        } else {
            choice["text"] = text.into();
        }
        let stop = if self.engine == Openai::Sglang { "matched_stop" } else { "stop_reason" };
        choice[stop] = Value::Null;
        let mut body = json!({
            "id": self.id,
            "object": if self.chat { "chat.completion" } else { "text_completion" },
            "created": self.created,
            "model": self.model,
            "choices": [choice],
        });
        if !self.no_usage {
            body["usage"] = self.usage(totals);
        }
        Response::json(200, body.to_string())
    }

    fn error_event(&mut self, out: &mut Events) {
        let message = "Internal server error (simulated fault in the stream)";
        let body = match self.engine {
            // The stream's errors are wrapped, whatever the shape of a refusal.
            Openai::Sglang | Openai::Trtllm => {
                let inner = error_body(self.engine, 500, "InternalServerError", message, None);
                format!("{{\"error\":{inner}}}")
            }
            Openai::Vllm | Openai::Nim => error_body(self.engine, 500, "InternalServerError", message, None),
        };
        out.push(|o| o.extend_from_slice(body.as_bytes()));
        if !self.no_done {
            out.push(|o| o.extend_from_slice(b"[DONE]"));
        }
    }

    fn error_response(&self) -> Response {
        internal_error(self.engine)
    }

    fn head_at_once(&self) -> bool {
        true
    }
}

impl Frames {
    /// The message of a chat answer, its reasoning apart.
    fn message(&mut self, text: &str, totals: Totals) -> Value {
        let mut message = json!({"role": "assistant", "content": text});
        if self.reasoning_left > 0 {
            self.reasoning = self.reasoning_left.min(totals.output);
            // Every token with text starts with a space.
            let cut = text.match_indices(' ').nth(self.reasoning as usize).map_or(text.len(), |(at, _)| at);
            let (reasoning, content) = text.split_at(cut);
            message["content"] = content.into();
            message[self.reasoning_key()] = reasoning.into();
        }
        message
    }
}
