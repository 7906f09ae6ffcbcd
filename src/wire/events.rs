//! What one event of an answer means: text, its end, token counts, an error. Payload bytes in, a [`Delta`] out.
//!
//! Nearly all events of a stream differ in nothing but the text they carry. So the first text event is read with a JSON
//! parser, and what stands before and after its text is remembered; an event with the same beginning and end and a
//! plain, non-empty string in between is known to mean the same without being parsed. Anything else is parsed.

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;
use serde_json::Value;

use super::Dialect;
use super::rejection::{message_of, shorten};

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// It carries visible generated text (an answer, a tool call).
    pub visible: bool,
    /// It carries generated reasoning text.
    pub reasoning: bool,
    /// The server says why generation ended.
    pub finish: bool,
    /// The message of an error object.
    pub error: Option<String>,
    /// `[DONE]`.
    pub done: bool,
}

impl Delta {
    /// Generated text of any kind: a token event.
    pub fn has_tokens(&self) -> bool {
        self.visible || self.reasoning
    }
}

/// Token counts as far as the server has told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// Input tokens that the server took from its prefix cache.
    pub cached: Option<u64>,
}

/// Reads the events of one stream at a time.
#[derive(Debug)]
pub struct Interpreter {
    dialect: Dialect,
    usage: Usage,
    /// Length of the cumulative text so far (dialects that repeat it).
    text_len: usize,
    shape: Shape,
}

/// The constant surroundings of a text event.
#[derive(Debug, Default)]
struct Shape {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    visible: bool,
    /// Output tokens that each such event adds to the usage.
    adds: Option<u64>,
}

impl Shape {
    /// `payload` is a text event like the learned one. The text must be free of quotes, so that it is one string, and
    /// of backslashes, so that the quote after it ends that string.
    fn matches(&self, payload: &[u8]) -> bool {
        let text = |payload: &[u8]| {
            let text = &payload[self.prefix.len()..payload.len() - self.suffix.len()];
            memchr2(b'"', b'\\', text).is_none() && is_json_text(text)
        };
        payload.len() > self.prefix.len() + self.suffix.len()
            && !self.prefix.is_empty()
            && payload.starts_with(&self.prefix)
            && payload.ends_with(&self.suffix)
            && text(payload)
    }

    fn learn(&mut self, payload: &[u8], text: &str, visible: bool, adds: Option<u64>) {
        let Some(start) = (text.as_ptr() as usize).checked_sub(payload.as_ptr() as usize) else { return };
        let end = start + text.len();
        if start == 0 || end >= payload.len() || payload[start - 1] != b'"' || payload[end] != b'"' {
            return;
        }
        // It came in several lines: what surrounds the text is not what stands in the stream.
        if memchr2(b'\n', b'\r', payload).is_some() {
            return;
        }
        self.prefix.clear();
        self.prefix.extend_from_slice(&payload[..start]);
        self.suffix.clear();
        self.suffix.extend_from_slice(&payload[end..]);
        self.visible = visible;
        self.adds = adds;
    }
}

/// Bytes that may stand in a JSON string as they are, quotes and backslashes aside. Texts of tokens are a few bytes.
fn is_json_text(text: &[u8]) -> bool {
    text.iter().all(|b| *b >= 0x20) && std::str::from_utf8(text).is_ok()
}

/// A token event that was recognized by its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skimmed {
    /// Bytes of the event, the blank line that ends it included.
    pub len: usize,
    /// The text is visible, not reasoning.
    pub visible: bool,
}

impl Interpreter {
    pub fn new(dialect: Dialect) -> Interpreter {
        Interpreter { dialect, usage: Usage::default(), text_len: 0, shape: Shape::default() }
    }

    /// Forgets the stream; keeps the buffers.
    pub fn reset(&mut self) {
        self.usage = Usage::default();
        self.text_len = 0;
        self.shape.prefix.clear();
        self.shape.suffix.clear();
    }

    /// Token counts told so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Reads the event that the bytes of a stream begin with, where it is whole and a text event like the learned one:
    /// the same as the parser of the stream and [`read`](Interpreter::read) would find, at a fraction of the cost. The
    /// bytes must begin with an event.
    pub fn skim(&mut self, bytes: &[u8]) -> Option<Skimmed> {
        let rest = bytes.strip_prefix(b"data: ")?;
        let Shape { prefix, suffix, visible, adds } = &self.shape;
        if prefix.is_empty() {
            return None;
        }
        let text = rest.strip_prefix(prefix.as_slice())?;
        let len = memchr2(b'"', b'\\', text).filter(|len| *len > 0)?;
        let after = text[len..].strip_prefix(suffix.as_slice())?.strip_prefix(b"\n\n")?;
        // Nobody has checked yet that this is JSON. A raw line end would have ended the event.
        if !is_json_text(&text[..len]) {
            return None;
        }
        if let Some(n) = adds {
            self.usage.output = Some(self.usage.output.unwrap_or(0) + n);
        }
        Some(Skimmed { len: bytes.len() - after.len(), visible: *visible })
    }

    /// Reads one event.
    pub fn read(&mut self, payload: &[u8]) -> Delta {
        if self.shape.matches(payload) {
            if let Some(n) = self.shape.adds {
                self.usage.output = Some(self.usage.output.unwrap_or(0) + n);
            }
            return Delta { visible: self.shape.visible, reasoning: !self.shape.visible, ..Delta::default() };
        }
        let trimmed = payload.trim_ascii();
        if trimmed.is_empty() {
            return Delta::default();
        }
        if trimmed == b"[DONE]" {
            return Delta { done: true, ..Delta::default() };
        }
        match self.dialect {
            Dialect::Openai => self.openai(payload),
            Dialect::TritonVllm | Dialect::TritonPython | Dialect::TritonTrtllm => self.triton(payload),
        }
    }

    fn openai(&mut self, payload: &[u8]) -> Delta {
        let event: OpenaiEvent = match serde_json::from_slice(payload) {
            Ok(event) => event,
            Err(e) => return unreadable(payload, &e),
        };
        if let Some(error) = event.error_message() {
            return Delta { error: Some(error), ..Delta::default() };
        }
        if let Some(usage) = event.usage {
            self.usage.input = usage.prompt_tokens.or(self.usage.input);
            self.usage.output = usage.completion_tokens.or(self.usage.output);
            self.usage.cached = usage.prompt_tokens_details.and_then(|d| d.cached_tokens).or(self.usage.cached);
        }
        let mut delta = Delta::default();
        for choice in &event.choices {
            delta.visible |= choice.visible();
            delta.reasoning |= choice.reasoning().is_some();
            delta.finish |= choice.finish_reason.as_ref().is_some_and(|f| !f.is_null() && f != "");
        }
        if let ([choice], false, None) = (event.choices.as_slice(), delta.finish, event.usage)
            && let Some((text, visible)) = choice.only_text()
        {
            self.shape.learn(payload, text, visible, None);
        }
        delta
    }

    fn triton(&mut self, payload: &[u8]) -> Delta {
        let event: TritonEvent = match serde_json::from_slice(payload) {
            Ok(event) => event,
            Err(e) => return unreadable(payload, &e),
        };
        if let Some(error) = event.error.as_ref().filter(|e| !e.is_null()) {
            let message = message_of(error).unwrap_or_else(|| error.to_string());
            return Delta { error: Some(shorten(&message)), ..Delta::default() };
        }
        self.usage.input = scalar(&event.num_input_tokens).or(self.usage.input);
        let count = scalar(&event.num_output_tokens);
        let adds = self.dialect == Dialect::TritonVllm;
        self.usage.output = match (count, adds) {
            (None, _) => self.usage.output,
            (Some(n), true) => Some(self.usage.output.unwrap_or(0) + n),
            (Some(n), false) => Some(n),
        };
        let text = event.text_output.as_ref().map_or("", |t| &*t.0);
        let cumulative = self.dialect == Dialect::TritonTrtllm;
        let grew = text.len() > if cumulative { self.text_len } else { 0 };
        if cumulative {
            self.text_len = self.text_len.max(text.len());
        }
        let finish = event.finish_reason.as_ref().is_some_and(|f| !matches!(&*f.0, "" | "None" | "null"));
        if grew
            && !finish
            && !cumulative
            && let Some(Text(Cow::Borrowed(text))) = event.text_output
            && (adds || count.is_none())
        {
            self.shape.learn(payload, text, true, count);
        }
        Delta { visible: grew, finish, ..Delta::default() }
    }
}

fn unreadable(payload: &[u8], e: &serde_json::Error) -> Delta {
    let start = String::from_utf8_lossy(&payload[..payload.len().min(120)]);
    Delta { error: Some(shorten(&format!("an event is not readable ({e}): {start}"))), ..Delta::default() }
}

/// Text that borrows from the payload where it holds no escapes.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Deserialize)]
struct OpenaiEvent<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<UsageObject>,
    #[serde(default)]
    error: Option<Value>,
    /// vLLM's older error shape: `{"object":"error","message":…}`.
    #[serde(borrow, default)]
    object: Option<Text<'a>>,
    #[serde(default)]
    message: Option<Value>,
}

impl OpenaiEvent<'_> {
    fn error_message(&self) -> Option<String> {
        let told = match &self.error {
            Some(e) if !e.is_null() => Some(e),
            _ if self.object.as_ref().is_some_and(|o| o.0 == "error") => self.message.as_ref(),
            _ => return None,
        };
        let text = told.map(|e| message_of(e).unwrap_or_else(|| e.to_string()));
        Some(shorten(&text.unwrap_or_else(|| "an error without a message".into())))
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct UsageObject {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<ChatDelta<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(default)]
    finish_reason: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ChatDelta<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    function_call: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    /// Text by the specification; some servers send the object itself.
    #[serde(default)]
    arguments: Option<Value>,
}

impl Function {
    fn has_text(&self) -> bool {
        self.name.as_ref().is_some_and(|n| !n.is_empty())
            || self.arguments.as_ref().is_some_and(|a| !a.is_null() && a != "")
    }
}

fn filled<'t>(text: &'t Option<Text>) -> Option<&'t str> {
    text.as_ref().map(|t| &*t.0).filter(|t| !t.is_empty())
}

fn borrowed<'t, 'a>(text: &'t Option<Text<'a>>) -> Option<&'a str>
where
    'a: 't,
{
    match text {
        Some(Text(Cow::Borrowed(t))) if !t.is_empty() => Some(t),
        _ => None,
    }
}

impl<'a> Choice<'a> {
    fn tool_text(&self) -> bool {
        let Some(delta) = &self.delta else { return false };
        let calls = delta.tool_calls.iter().flatten().filter_map(|c| c.function.as_ref());
        calls.chain(&delta.function_call).any(Function::has_text)
    }

    fn visible(&self) -> bool {
        let chat = self.delta.as_ref().and_then(|d| filled(&d.content).or_else(|| filled(&d.refusal)));
        chat.or_else(|| filled(&self.text)).is_some() || self.tool_text()
    }

    fn reasoning(&self) -> Option<&str> {
        self.delta.as_ref().and_then(|d| filled(&d.reasoning_content).or_else(|| filled(&d.reasoning)))
    }

    /// The text of an event that carries exactly one, and whether it is visible.
    fn only_text(&self) -> Option<(&'a str, bool)> {
        if self.tool_text() {
            return None;
        }
        let delta = self.delta.as_ref();
        let visible = [delta.and_then(|d| borrowed(&d.content)), borrowed(&self.text)];
        // A server may fill both names of the reasoning with the same text: then there are two strings that change.
        let reasoning =
            [delta.and_then(|d| borrowed(&d.reasoning_content)), delta.and_then(|d| borrowed(&d.reasoning))];
        let visible = visible.into_iter().flatten().map(|t| (t, true));
        let mut all = visible.chain(reasoning.into_iter().flatten().map(|t| (t, false)));
        let first = all.next()?;
        all.next().is_none().then_some(first)
    }
}

#[derive(Debug, Deserialize)]
struct TritonEvent<'a> {
    #[serde(borrow, default)]
    text_output: Option<Text<'a>>,
    #[serde(default)]
    num_input_tokens: Option<Value>,
    #[serde(default)]
    num_output_tokens: Option<Value>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    #[serde(default)]
    error: Option<Value>,
}

/// A count, alone or as the one element of a list (Triton gives either, by the shape of the output).
fn scalar(value: &Option<Value>) -> Option<u64> {
    match value.as_ref()? {
        Value::Array(items) => items.first()?.as_u64(),
        other => other.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn chat() -> Interpreter {
        Interpreter::new(Dialect::Openai)
    }

    fn chunk(delta: &str) -> String {
        format!(
            r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]}}"#
        )
    }

    #[test]
    fn role_and_empty_deltas_are_not_tokens() {
        let mut i = chat();
        for delta in [r#"{"role":"assistant","content":""}"#, r#"{"content":null}"#, "{}", r#"{"tool_calls":[]}"#] {
            assert_eq!(i.read(chunk(delta).as_bytes()), Delta::default(), "{delta}");
        }
    }

    #[test]
    fn content_reasoning_and_tool_calls_are_tokens() {
        let mut i = chat();
        assert!(i.read(chunk(r#"{"content":" a"}"#).as_bytes()).visible);
        for delta in [r#"{"reasoning_content":"h"}"#, r#"{"reasoning":"h"}"#] {
            let d = i.read(chunk(delta).as_bytes());
            assert!(d.reasoning && !d.visible, "{delta}");
        }
        for delta in [
            r#"{"tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":{"a":1}}}]}"#,
        ] {
            assert!(i.read(chunk(delta).as_bytes()).visible, "{delta}");
        }
        let mut i = Interpreter::new(Dialect::Openai);
        assert!(i.read(br#"{"choices":[{"index":0,"text":"x","finish_reason":null}]}"#).visible);
        assert!(!i.read(br#"{"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#).visible);
    }

    #[test]
    fn usage_chunks_end_nothing() {
        let mut i = chat();
        let d = i.read(br#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#);
        assert_eq!(d, Delta::default());
        assert_eq!(i.usage(), Usage { input: Some(7), output: Some(3), cached: Some(4) });
        assert!(i.read(b" [DONE] ").done);
    }

    #[test]
    fn errors_of_every_shape() {
        for (dialect, payload, expected) in [
            (Dialect::Openai, r#"{"error":{"message":"oom","code":500}}"#, "oom"),
            (Dialect::Openai, r#"{"object":"error","message":"bad","code":400}"#, "bad"),
            (Dialect::TritonVllm, r#"{"error":"in model"}"#, "in model"),
        ] {
            let mut i = Interpreter::new(dialect);
            assert_eq!(i.read(payload.as_bytes()).error.as_deref(), Some(expected));
        }
        let e = chat().read(b"<html>").error.unwrap();
        assert!(e.contains("not readable") && e.contains("<html>"), "{e}");
    }

    #[test]
    fn triton_delta_counts_are_summed() {
        let mut i = Interpreter::new(Dialect::TritonVllm);
        for (text, finish) in [("a", "None"), ("b", "None"), ("c", "None"), ("", "length")] {
            let n = u32::from(!text.is_empty());
            let payload = format!(
                r#"{{"finish_reason":"{finish}","model_name":"m","model_version":"1","num_input_tokens":9,"num_output_tokens":{n},"text_output":"{text}"}}"#
            );
            let d = i.read(payload.as_bytes());
            assert_eq!((d.visible, d.finish), (!text.is_empty(), finish == "length"));
        }
        assert_eq!(i.usage(), Usage { input: Some(9), output: Some(3), cached: None });
    }

    #[test]
    fn triton_cumulative_counts_and_cumulative_text() {
        let mut i = Interpreter::new(Dialect::TritonPython);
        for n in 1..=3 {
            let payload = format!(r#"{{"text_output":"x","num_input_tokens":[2],"num_output_tokens":[{n}]}}"#);
            assert!(i.read(payload.as_bytes()).visible);
        }
        assert_eq!(i.usage().output, Some(3));
        let mut i = Interpreter::new(Dialect::TritonTrtllm);
        let grew = ["", "He", "Hel", "Hel", "Hell\u{fffd}"].map(|t| {
            let payload = json!({ "text_output": t }).to_string();
            i.read(payload.as_bytes()).visible
        });
        assert_eq!(grew, [false, true, true, false, true]);
    }

    #[test]
    fn the_learned_shape_is_used_and_left_when_it_does_not_fit() {
        let mut i = chat();
        i.read(chunk(r#"{"content":" a"}"#).as_bytes());
        assert!(i.shape.matches(chunk(r#"{"content":" b, c"}"#).as_bytes()));
        for other in [r#"{"content":""}"#, r#"{"content":"\\"}"#, r#"{"content":"a","x":"b"}"#, r#"{"reasoning":"b"}"#]
        {
            assert!(!i.shape.matches(chunk(other).as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_known_event_is_skimmed_and_no_other() {
        let mut i = chat();
        let frame = |delta: &str| format!("data: {}\n\n", chunk(delta)).into_bytes();
        assert_eq!(i.skim(&frame(r#"{"content":"a"}"#)), None);
        i.read(chunk(r#"{"content":" a"}"#).as_bytes());
        let two = [frame(r#"{"content":" b, c"}"#), frame(r#"{"content":""}"#)].concat();
        let len = frame(r#"{"content":" b, c"}"#).len();
        assert_eq!(i.skim(&two), Some(Skimmed { len, visible: true }));
        for other in [&two[len..], &two[..len - 1], &two[1..], b"data: [DONE]\n\n", b""] {
            assert_eq!(i.skim(other), None);
        }
    }

    proptest! {
        /// A stream read with a learned shape says the same as each of its events read by a fresh parser.
        #[test]
        fn shapes_never_change_the_meaning(texts in prop::collection::vec(("[a-z\"\\\\\u{e9}{}:,\n]{0,6}", 0..4u8), 1..30)) {
            let mut i = chat();
            for (text, kind) in texts {
                let payload = match kind {
                    0 => chunk(&json!({ "content": text }).to_string()),
                    1 => chunk(&json!({ "reasoning_content": text }).to_string()),
                    2 => chunk(&json!({ "content": text, "reasoning_content": text }).to_string()),
                    _ => chunk(&json!({ "content": text }).to_string()).replace("\"finish_reason\":null", "\"finish_reason\":\"stop\""),
                };
                prop_assert_eq!(i.read(payload.as_bytes()), chat().read(payload.as_bytes()));
            }
        }
    }
}
