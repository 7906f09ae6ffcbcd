//! Prompts made with the model's tokenizer, against a server that counts with the same one, or with another.

use serde_json::json;

use super::server::{LAST_CHUNK, Request, Server, Step, chunk, event, stream_head};
use super::*;
use crate::load::Tokenizer;
use crate::workload::tokenizer::TokenText;
use crate::workload::tokenizer::tests::{byte_level, json as tokenizer_json};

/// A chat server that puts 11 tokens around each prompt and counts the rest with `count`; with no count when that says so.
async fn chat_server(count: impl Fn(&str) -> Option<usize> + Send + Sync + 'static) -> Server {
    Server::start(move |r: &Request| {
        let n = r.body["max_tokens"].as_u64().unwrap();
        let mut bytes = stream_head();
        for i in 0..n {
            let finish = (i + 1 == n).then_some("length");
            let payload = json!({"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":finish}]});
            bytes.extend(chunk(&event(&payload)));
        }
        if let Some(tokens) = count(r.body["messages"][0]["content"].as_str().unwrap()) {
            bytes.extend(chunk(&event(&super::server::usage(11 + tokens, n))));
        }
        bytes.extend(LAST_CHUNK);
        vec![Step::Send(bytes)]
    })
    .await
}

fn tokenized(url: &str, required: bool) -> Target {
    let text = TokenText::from_json(&tokenizer_json(&byte_level())).unwrap();
    Target { tokenizer: Some(Tokenizer { text, required }), ..target(url, Dialect::Openai) }
}

fn chat(input: u32) -> Workload {
    let mut w = workload(2, 12);
    (w.api, w.tokens.input) = (Api::Chat, Some(input));
    w
}

#[tokio::test]
async fn text_prompts_have_the_exact_length_that_the_server_counts() {
    let tokenizer = byte_level();
    let server = chat_server(move |text| Some(tokenizer.encode(text, false).unwrap().len())).await;
    let mut w = chat(100);
    w.tokens.input_stddev = 20.0;
    let data = sample(&tokenized(&server.url, true), &w).await.unwrap();
    assert_eq!(data.requests.len(), 12);
    for r in &data.requests {
        assert_eq!(r.input_tokens, r.requested_input);
    }
    assert!(data.requests.iter().any(|r| r.requested_input != Some(100)));
    assert_eq!(server.requests().len(), 2 + 12, "two requests calibrate");
}

#[tokio::test]
async fn a_tokenizer_that_is_not_the_servers_is_refused_where_it_was_asked_for() {
    let count = |text: &str| Some(3 * text.split(' ').count());
    let server = chat_server(count).await;
    let e = sample(&tokenized(&server.url, true), &chat(101)).await.unwrap_err();
    assert!(matches!(&e, LoadError::Tokenizer { made: 363, counted: 875, .. }), "{e}");
    assert!(e.is_deterministic() && e.to_string().contains("Set `tokenizer`"), "{e}");

    // One that only lies beside the model gives way to the server's own counts.
    let data = sample(&tokenized(&server.url, false), &chat(101)).await.unwrap();
    assert!(data.requests.iter().all(|r| r.input_tokens == Some(101)), "{:?}", data.requests[0]);
}

#[tokio::test]
async fn a_server_that_does_not_count_is_taken_to_add_the_tokenizers_own_tokens() {
    let server = chat_server(|_| None).await;
    let data = sample(&tokenized(&server.url, true), &chat(64)).await.unwrap();
    assert!(data.requests.iter().all(|r| r.input_tokens.is_none()));
    let tokenizer = byte_level();
    let sent = server.requests();
    assert_eq!(sent.len(), 1 + 12);
    for r in &sent[1..] {
        let text = r.body["messages"][0]["content"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap().len(), 64);
    }
}
