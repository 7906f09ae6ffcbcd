//! Events of every dialect: an interpreter that has learned the shape of earlier events says of each event what one that
//! has learned nothing says, and skimming a stream says what parsing it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llmatrix::wire::Dialect;
use llmatrix::wire::events::Interpreter;
use llmatrix::wire::sse::SseParser;

const DIALECTS: [Dialect; 2] = [Dialect::Openai, Dialect::TritonVllm];

/// Token events of a stream, and whether each is visible.
fn parsed(dialect: Dialect, stream: &[u8], learns: bool) -> Vec<bool> {
    let mut tokens = Vec::new();
    let mut interpreter = Interpreter::new(dialect);
    let read = |payload: &[u8]| {
        if !learns {
            interpreter = Interpreter::new(dialect);
        }
        let delta = interpreter.read(payload);
        tokens.extend(delta.has_tokens().then_some(delta.visible));
    };
    SseParser::default().feed(stream, read).expect("no event is too large");
    tokens
}

/// The same, taking each line end as the end of what has arrived so far.
fn skimmed(dialect: Dialect, stream: &[u8]) -> Vec<bool> {
    let (mut parser, mut interpreter, mut tokens) = (SseParser::default(), Interpreter::new(dialect), Vec::new());
    let mut rest = stream;
    while !rest.is_empty() {
        if parser.is_between_events()
            && let Some(token) = interpreter.skim(rest)
        {
            tokens.push(token.visible);
            rest = &rest[token.len..];
            continue;
        }
        let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |end| end + 1);
        let read = |payload: &[u8]| {
            let delta = interpreter.read(payload);
            tokens.extend(delta.has_tokens().then_some(delta.visible));
        };
        parser.feed(&rest[..line], read).expect("no event is too large");
        rest = &rest[line..];
    }
    tokens
}

fuzz_target!(|stream: &[u8]| {
    for dialect in DIALECTS {
        let plain = parsed(dialect, stream, false);
        assert_eq!(parsed(dialect, stream, true), plain);
        assert_eq!(skimmed(dialect, stream), plain);
    }
});
