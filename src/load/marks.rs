//! What one answer has shown so far: its clock points, its token events, its end. Written as bytes arrive.

use crate::stats::Gaps;
use crate::wire::Dialect;
use crate::wire::events::{Delta, Interpreter, Usage};
use crate::wire::sse::{MAX_EVENT, SseError, SseParser};

/// Reads one stream at a time and keeps its marks.
pub struct Marks {
    parser: SseParser,
    interpreter: Interpreter,
    pub seen: Seen,
    /// The stream as it arrived, where it is asked for: the next turn of a conversation repeats it.
    pub kept: Option<Vec<u8>>,
}

/// The marks. Times are nanoseconds after the sample's start.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    pub first_token: Option<u64>,
    pub first_visible: Option<u64>,
    pub last_token: Option<u64>,
    pub token_events: u32,
    pub events: u32,
    pub finish: bool,
    pub done: bool,
    pub error: Option<String>,
    pub gaps: Gaps,
}

impl Seen {
    fn note(&mut self, now: u64, delta: Delta) {
        if delta.has_tokens() {
            self.note_token(now, delta.visible);
        } else {
            self.events += 1;
        }
        self.finish |= delta.finish;
        self.done |= delta.done;
        if delta.error.is_some() && self.error.is_none() {
            self.error = delta.error;
        }
    }

    /// An event with generated text.
    fn note_token(&mut self, now: u64, visible: bool) {
        self.events += 1;
        match self.last_token {
            Some(last) => self.gaps.push(now - last),
            None => self.first_token = Some(now),
        }
        self.last_token = Some(now);
        self.token_events += 1;
        if visible && self.first_visible.is_none() {
            self.first_visible = Some(now);
        }
    }

    fn reset(&mut self) {
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.clear();
        *self = Seen { gaps, ..Seen::default() };
    }
}

impl Marks {
    pub fn new(dialect: Dialect) -> Marks {
        Marks {
            parser: SseParser::default(),
            interpreter: Interpreter::new(dialect),
            seen: Seen::default(),
            kept: None,
        }
    }

    /// Ready for the next answer; keeps the buffers.
    pub fn reset(&mut self) {
        self.parser.reset();
        self.interpreter.reset();
        self.seen.reset();
        self.kept.iter_mut().for_each(Vec::clear);
    }

    /// Bytes of the stream that arrived at `now`.
    pub fn feed(&mut self, now: u64, bytes: &[u8]) -> Result<(), SseError> {
        let Marks { parser, interpreter, seen, kept } = self;
        if let Some(kept) = kept {
            if kept.len() + bytes.len() > MAX_EVENT {
                return Err(SseError::TooLarge);
            }
            kept.extend_from_slice(bytes);
        }
        let mut rest = bytes;
        if parser.is_between_events() {
            while let Some(token) = interpreter.skim(rest) {
                seen.note_token(now, token.visible);
                rest = &rest[token.len..];
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        parser.feed(rest, |payload| seen.note(now, interpreter.read(payload)))
    }

    /// The stream ended at `now`.
    pub fn end(&mut self, now: u64) {
        let Marks { parser, interpreter, seen, .. } = self;
        parser.finish(|payload| seen.note(now, interpreter.read(payload)));
    }

    pub fn usage(&self) -> Usage {
        self.interpreter.usage()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the marks would be if every event were read by a parser that has learned nothing.
    fn slowly(bytes: &[u8]) -> Seen {
        let (mut parser, mut seen) = (SseParser::default(), Seen::default());
        parser.feed(bytes, |payload| seen.note(7, Interpreter::new(Dialect::Openai).read(payload))).unwrap();
        seen
    }

    fn event((kind, text, ending): (u8, String, &str)) -> String {
        let chat = |delta: serde_json::Value| json!({"choices":[{"index":0,"delta":delta,"finish_reason":null}]});
        let payload = match kind {
            0..4 => chat(json!({ "content": text })).to_string(),
            4 => chat(json!({ "reasoning_content": text })).to_string(),
            5 => json!({"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}).to_string(),
            6 => return format!(": {text}{ending}{ending}"),
            7 => return format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}{ending}"),
            8 => serde_json::to_string_pretty(&chat(json!({ "content": text }))).unwrap().replace('\n', "\ndata: "),
            _ => "[DONE]".into(),
        };
        format!("data: {payload}{ending}{ending}")
    }

    proptest! {
        #[test]
        fn what_is_skimmed_is_what_would_have_been_read(
            events in prop::collection::vec((0..10u8, "[a-z\"\\\\\u{e9}\n\r ]{0,5}", prop::sample::select(vec!["\n", "\n", "\r\n"])), 1..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let text: String = events.into_iter().map(event).collect();
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let mut marks = Marks::new(Dialect::Openai);
            for w in at.windows(2) {
                marks.feed(7, &bytes[w[0]..w[1]]).unwrap();
            }
            prop_assert_eq!(&marks.seen, &slowly(bytes), "{}", text);
        }
    }
}
