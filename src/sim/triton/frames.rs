//! The events and responses of the generate extension: the model's outputs beside its name and version.

use serde_json::{Value, json};

use super::internal_error;
use crate::sim::answer::{Event, Events, Shape, Totals};
use crate::sim::body::push_json_str;
use crate::sim::engine::Finish;
use crate::sim::flavor::Triton;
use crate::sim::http::Response;

/// Which token counts are outputs, and what they count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counts {
    /// `num_output_tokens` is that of the event.
    Delta { input: bool, output: bool },
    /// `num_output_tokens` is that of the answer so far.
    Cumulative { input: bool, output: bool },
}

/// One answer of the generate extension.
pub struct Frames {
    /// The model's name.
    pub model: String,
    pub backend: Triton,
    /// The prompt, when the answer repeats it.
    pub echo: Option<String>,
    /// Each event holds all text so far.
    pub cumulative_text: bool,
    pub counts: Counts,
    pub finish_reason: bool,
    /// Counts are left out, whatever was asked.
    pub no_usage: bool,
}

impl Frames {
    fn outputs(&self, text: &str, tokens: u32, totals: Totals, finish: Option<Finish>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"model_name\":");
        push_json_str(out, &self.model);
        out.extend_from_slice(b",\"model_version\":\"1\"");
        if self.finish_reason {
            out.extend_from_slice(b",\"finish_reason\":");
            push_json_str(out, finish.map_or(self.unfinished(), Finish::as_str));
        }
        let (input, output) = match self.counts {
            _ if self.no_usage => (false, None),
            Counts::Delta { input, output } => (input, output.then_some(tokens)),
            Counts::Cumulative { input, output } => (input, output.then_some(totals.output)),
        };
        if input {
            out.extend_from_slice(format!(",\"num_input_tokens\":{}", totals.prompt).as_bytes());
        }
        if let Some(output) = output {
            out.extend_from_slice(format!(",\"num_output_tokens\":{output}").as_bytes());
        }
        out.extend_from_slice(b",\"text_output\":");
        match &self.echo {
            Some(prompt) => push_json_str(out, &format!("{prompt}{text}")),
            None => push_json_str(out, text),
        }
        out.push(b'}');
    }

    /// The reason of an answer that goes on: the vLLM backend prints Python's `None`.
    fn unfinished(&self) -> &'static str {
        match self.backend {
            Triton::Vllm => "None",
            Triton::Python | Triton::Trtllm => "",
        }
    }
}

impl Shape for Frames {
    fn event(&mut self, event: &Event<'_>, out: &mut Events) {
        let text = if self.cumulative_text { event.so_far } else { event.text };
        out.push(|o| self.outputs(text, event.tokens, event.totals, event.finish, o));
    }

    fn finished(&mut self, _totals: Totals, _out: &mut Events) {}

    fn whole(&mut self, text: &str, totals: Totals, finish: Finish) -> Response {
        let mut out = Vec::new();
        self.outputs(text, totals.output, totals, Some(finish), &mut out);
        Response::json(200, String::from_utf8(out).expect("JSON of text is text"))
    }

    fn error_event(&mut self, out: &mut Events) {
        let body: Value = json!({"error": "Internal server error (simulated fault in the stream)"});
        out.push(|o| o.extend_from_slice(body.to_string().as_bytes()));
    }

    fn error_response(&self) -> Response {
        internal_error()
    }

    /// The status is that of the first response.
    fn head_at_once(&self) -> bool {
        false
    }
}
