//! What one answer has shown so far: its clock points, its token events, its end. Written as bytes arrive.

use crate::stats::Gaps;
use crate::wire::Dialect;
use crate::wire::events::{Delta, Interpreter, Usage};
use crate::wire::sse::{SseError, SseParser};

/// Reads one stream at a time and keeps its marks.
pub struct Marks {
    parser: SseParser,
    interpreter: Interpreter,
    pub seen: Seen,
}

/// The marks. Times are nanoseconds after the sample's start.
#[derive(Debug, Default)]
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
        self.events += 1;
        if delta.has_tokens() {
            match self.last_token {
                Some(last) => self.gaps.push(now - last),
                None => self.first_token = Some(now),
            }
            self.last_token = Some(now);
            self.token_events += 1;
            if delta.visible && self.first_visible.is_none() {
                self.first_visible = Some(now);
            }
        }
        self.finish |= delta.finish;
        self.done |= delta.done;
        if delta.error.is_some() && self.error.is_none() {
            self.error = delta.error;
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
        Marks { parser: SseParser::default(), interpreter: Interpreter::new(dialect), seen: Seen::default() }
    }

    /// Ready for the next answer; keeps the buffers.
    pub fn reset(&mut self) {
        self.parser.reset();
        self.interpreter.reset();
        self.seen.reset();
    }

    /// Bytes of the stream that arrived at `now`.
    pub fn feed(&mut self, now: u64, bytes: &[u8]) -> Result<(), SseError> {
        let Marks { parser, interpreter, seen } = self;
        parser.feed(bytes, |payload| seen.note(now, interpreter.read(payload)))
    }

    /// The stream ended at `now`.
    pub fn end(&mut self, now: u64) {
        let Marks { parser, interpreter, seen } = self;
        parser.finish(|payload| seen.note(now, interpreter.read(payload)));
    }

    pub fn usage(&self) -> Usage {
        self.interpreter.usage()
    }
}
