//! Conversations: the turns after the first are made when the answer before them is there, with all that was said so far.
//! Answers are kept as they arrived, and read only between two turns.

use serde_json::{Value, json};

use super::LoadError;
use super::link::Loaded;
use super::reactor::Reactor;
use super::worker::Shared;
use crate::stats::{RequestRecord, Status};
use crate::wire::request::Prompt;
use crate::wire::sse::SseParser;
use crate::workload::prompts::{Phase, PlannedRequest, Prompts};

/// What was answered so far, by slot: a slot is in one conversation at a time. Turn `t` of conversation `c` is request
/// `c × turns + t`.
#[derive(Default)]
pub struct Conversations {
    answers: Vec<Vec<String>>,
}

impl Conversations {
    /// The next turn after a request that has ended; `None` where there is none, and where the answer that it would
    /// follow failed or was given up: that ends the conversation.
    pub fn next_turn(
        &mut self,
        shared: &Shared,
        reactor: &mut Reactor,
        slot: usize,
        ended: &RequestRecord,
    ) -> Result<Option<Loaded>, LoadError> {
        let turns = shared.turns;
        let next = ended.index + 1;
        if turns == 1 {
            return Ok(None);
        }
        if self.answers.len() <= slot {
            self.answers.resize_with(slot + 1, Vec::new);
        }
        if next.is_multiple_of(turns) || next >= shared.limit || ended.status != Status::Ok {
            self.answers[slot].clear();
            return Ok(None);
        }
        self.answers[slot].push(answer(reactor.kept_answer(slot)));
        let planned = with_history(&shared.prompts, next, &self.answers[slot]);
        Ok(Some(shared.link.load(next, &planned, reactor.used_buffer(slot))?))
    }
}

/// Turn `index` with the messages before it.
fn with_history(prompts: &Prompts, index: u64, answers: &[String]) -> PlannedRequest {
    let first = index - answers.len() as u64;
    let mut messages = Vec::with_capacity(2 * answers.len() + 1);
    for (turn, answer) in (first..).zip(answers) {
        messages.push(json!({ "role": "user", "content": said(prompts.get(Phase::Measured, turn).prompt) }));
        messages.push(json!({ "role": "assistant", "content": answer }));
    }
    let PlannedRequest { prompt, output_tokens, seed, cancel, .. } = prompts.get(Phase::Measured, index);
    messages.push(json!({ "role": "user", "content": said(prompt) }));
    // How many tokens all of it is, the server tells.
    PlannedRequest { prompt: Prompt::Messages(Value::Array(messages)), input_tokens: None, output_tokens, seed, cancel }
}

fn said(prompt: Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text,
        // Conversations go over the chat API, whose synthetic prompts are text.
        Prompt::Ids(_) | Prompt::Messages(_) => String::new(),
    }
}

/// The visible text of a chat answer, from the bytes of its stream.
fn answer(stream: &[u8]) -> String {
    let mut text = String::new();
    let mut take = |payload: &[u8]| {
        let value: Option<Value> = serde_json::from_slice(payload).ok();
        let content = value.as_ref().and_then(|v| v.pointer("/choices/0/delta/content")).and_then(Value::as_str);
        text.push_str(content.unwrap_or_default());
    };
    let mut parser = SseParser::default();
    // A stream that cannot be read was no completed request.
    let _ = parser.feed(stream, &mut take);
    parser.finish(&mut take);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_visible_text_is_what_was_said() {
        let stream = b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"na\\u00efve \"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"day\"}}]}\n\n\
            data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";
        assert_eq!(answer(stream), "naïve day");
    }
}
