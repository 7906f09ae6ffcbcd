//! What the null server sends: the completion chunks of an OpenAI server, as vLLM writes them, each event in a transfer
//! chunk of its own.

/// Words that the tokens of an answer go through.
const WORDS: [&str; 8] = [" the", " quick", " fox", " jumps", " over", " a", " lazy", " dog"];
const MODEL: &str = "null";
const ID: &str = "cmpl-5b1c8a5d3f0e4a6f9d2c7e8b4a1f6d3e";

/// Ready-made parts of answers.
pub struct Bytes {
    /// The events of one write, by the word it begins with.
    segments: Vec<Vec<u8>>,
    per_segment: u32,
}

pub const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

impl Bytes {
    pub fn new(per_segment: u32) -> Bytes {
        let segment = |from: usize| {
            let events = (0..per_segment as usize).flat_map(|i| token(WORDS[(from + i) % WORDS.len()], false));
            events.collect()
        };
        Bytes { segments: (0..WORDS.len()).map(segment).collect(), per_segment }
    }

    /// Appends the next events of an answer of which `sent` of `all` tokens are out; the end of the answer too, where they
    /// are its last. Gives how many events.
    pub fn push(&self, out: &mut Vec<u8>, sent: u32, all: u32, sequence: u32) -> u32 {
        if all - sent > self.per_segment {
            out.extend_from_slice(&self.segments[sent as usize % WORDS.len()]);
            return self.per_segment;
        }
        for i in sent..all {
            out.extend(token(WORDS[i as usize % WORDS.len()], i + 1 == all));
        }
        out.extend(chunk(&format!(
            "data: {{\"id\":\"{ID}\",\"object\":\"text_completion\",\"created\":1795000000,\"model\":\"{MODEL}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{sequence},\"total_tokens\":{},\"completion_tokens\":{all}}}}}\n\n",
            sequence + all
        )));
        out.extend(chunk("data: [DONE]\n\n"));
        out.extend_from_slice(b"0\r\n\r\n");
        all - sent
    }
}

fn token(word: &str, last: bool) -> Vec<u8> {
    let finish = if last { "\"length\"" } else { "null" };
    chunk(&format!(
        "data: {{\"id\":\"{ID}\",\"object\":\"text_completion\",\"created\":1795000000,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"text\":\"{word}\",\"logprobs\":null,\"finish_reason\":{finish},\"stop_reason\":null,\"token_ids\":null,\"prompt_logprobs\":null,\"prompt_token_ids\":null}}],\"usage\":null}}\n\n"
    ))
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// A whole answer of JSON.
pub fn json(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The list of models.
pub fn models() -> Vec<u8> {
    json(&format!("{{\"object\":\"list\",\"data\":[{{\"id\":\"{MODEL}\",\"object\":\"model\"}}]}}"))
}
