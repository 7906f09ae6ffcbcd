//! One answer read for what it says, not for when: the question that every engine is asked once, and the words, tokens and
//! log probabilities that come back. Not for the measured path.

use serde_json::{Value, json};

use super::request::{Prompt, RequestError, RequestSpec, WireRequest, build};
use super::sse::SseParser;
use super::{Api, ApiSpec, Dialect};

/// What an engine said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// All generated text, reasoning included, in the order of its coming.
    pub text: String,
    /// The tokens as text, where the engine tells them apart.
    pub tokens: Vec<String>,
    /// Natural logarithm of each token's probability, where the engine tells it.
    pub logprobs: Vec<f64>,
    /// Tokens as the engine counts them.
    pub output_tokens: Option<u64>,
    /// Why it ended, in the engine's word.
    pub finish: Option<String>,
}

/// A greedy request for at most `max_tokens` tokens. With `logprobs`, an OpenAI server is asked for the log probability of
/// each token; the other dialects have no field for it.
pub fn question(
    spec: &ApiSpec,
    api: Api,
    model: &str,
    prompt: &str,
    max_tokens: u32,
    logprobs: bool,
) -> Result<WireRequest, RequestError> {
    let prompt = Prompt::Text(prompt.to_string());
    let request = RequestSpec {
        model,
        prompt: &prompt,
        max_tokens,
        temperature: 0.0,
        seed: Some(0),
        ignore_eos: false,
        stream: true,
    };
    let mut wire = build(spec, api, &request)?;
    if logprobs && offers_logprobs(spec) {
        let mut body: Value = serde_json::from_slice(&wire.body).expect("a request body is JSON");
        body["logprobs"] = if api == Api::Chat { json!(true) } else { json!(1) };
        wire.body = body.to_string().into_bytes();
    }
    Ok(wire)
}

/// Whether the dialect has a field that asks for log probabilities.
pub fn offers_logprobs(spec: &ApiSpec) -> bool {
    spec.dialect == Dialect::Openai
}

/// Reads a whole event stream. The error is the server's own, or says what cannot be read.
pub fn read(dialect: Dialect, body: &[u8]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    let mut problem = None;
    let mut event = |payload: &[u8]| {
        let payload = payload.trim_ascii();
        if problem.is_some() || payload.is_empty() || payload == b"[DONE]" {
            return;
        }
        match serde_json::from_slice::<Value>(payload) {
            Ok(value) => problem = answer.take(dialect, &value).err(),
            Err(e) => problem = Some(format!("an event of the answer is not readable: {e}")),
        }
    };
    let mut parser = SseParser::default();
    parser.feed(body, &mut event).map_err(|e| e.to_string())?;
    parser.finish(&mut event);
    problem.map_or(Ok(answer), Err)
}

impl Answer {
    fn take(&mut self, dialect: Dialect, event: &Value) -> Result<(), String> {
        if let Some(error) = event.get("error").filter(|e| !e.is_null()) {
            return Err(super::rejection::message_of(error).unwrap_or_else(|| error.to_string()));
        }
        if event["object"] == "error" {
            return Err(event["message"].as_str().unwrap_or("an error without a message").to_string());
        }
        match dialect {
            Dialect::Openai => self.openai(event),
            Dialect::TritonVllm | Dialect::TritonPython | Dialect::TritonTrtllm => self.triton(dialect, event),
        }
        Ok(())
    }

    fn openai(&mut self, event: &Value) {
        if let Some(n) = event["usage"]["completion_tokens"].as_u64() {
            self.output_tokens = Some(n);
        }
        let Some(choice) = event["choices"].get(0) else { return };
        let delta = &choice["delta"];
        // A server may fill both names of the reasoning with the same text.
        let reasoning = delta["reasoning_content"].as_str().or(delta["reasoning"].as_str());
        for text in [choice["text"].as_str(), reasoning, delta["content"].as_str()].into_iter().flatten() {
            self.text.push_str(text);
        }
        self.finish = choice["finish_reason"].as_str().map(str::to_string).or(self.finish.take());
        let logprobs = &choice["logprobs"];
        for token in logprobs["content"].as_array().into_iter().flatten() {
            self.tokens.extend(token["token"].as_str().map(str::to_string));
            self.logprobs.extend(token["logprob"].as_f64());
        }
        let list = |name: &str| logprobs[name].as_array().into_iter().flatten();
        self.tokens.extend(list("tokens").filter_map(|t| t.as_str().map(str::to_string)));
        self.logprobs.extend(list("token_logprobs").filter_map(Value::as_f64));
    }

    fn triton(&mut self, dialect: Dialect, event: &Value) {
        let one = |name: &str| match &event[name] {
            Value::Array(items) => items.first().cloned().unwrap_or(Value::Null),
            other => other.clone(),
        };
        if let Some(text) = one("text_output").as_str() {
            if dialect == Dialect::TritonTrtllm {
                self.text.clear();
            }
            self.text.push_str(text);
        }
        if let Some(n) = one("num_output_tokens").as_u64() {
            let before = self.output_tokens.filter(|_| dialect == Dialect::TritonVllm).unwrap_or(0);
            self.output_tokens = Some(before + n);
        }
        let finish = one("finish_reason").as_str().filter(|f| !matches!(*f, "" | "None" | "null")).map(str::to_string);
        self.finish = finish.or(self.finish.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dialect: Dialect) -> ApiSpec {
        let default = if dialect == Dialect::Openai { Api::Completions } else { Api::Generate };
        serde_json::from_value(json!({ "dialect": dialect, "default": default })).unwrap()
    }

    #[test]
    fn the_question_is_greedy_and_may_end_by_itself() {
        let ask = |api, logprobs| {
            let wire = question(&spec(Dialect::Openai), api, "m", "Hi", 8, logprobs).unwrap();
            serde_json::from_slice::<Value>(&wire.body).unwrap()
        };
        let body = ask(Api::Completions, true);
        assert_eq!((&body["temperature"], &body["logprobs"], &body["max_tokens"]), (&json!(0), &json!(1), &json!(8)));
        assert!(body.get("ignore_eos").is_none() && body.get("min_tokens").is_none());
        assert_eq!(ask(Api::Chat, true)["logprobs"], true);
        assert!(ask(Api::Chat, false).get("logprobs").is_none());
        let triton = question(&spec(Dialect::TritonPython), Api::Generate, "m", "Hi", 8, true).unwrap();
        assert!(!String::from_utf8(triton.body).unwrap().contains("logprobs"));
    }

    #[test]
    fn answers_of_every_dialect_are_put_together() {
        let completions = "data: {\"choices\":[{\"text\":\" a\",\"logprobs\":{\"tokens\":[\" a\"],\"token_logprobs\":[-0.5]}}]}\n\n\
                           data: {\"choices\":[{\"text\":\" b\",\"finish_reason\":\"length\",\"logprobs\":{\"tokens\":[\" b\"],\"token_logprobs\":[-1]}}]}\n\n\
                           data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
        let answer = read(Dialect::Openai, completions.as_bytes()).unwrap();
        assert_eq!(
            answer,
            Answer {
                text: " a b".into(),
                tokens: vec![" a".into(), " b".into()],
                logprobs: vec![-0.5, -1.0],
                output_tokens: Some(2),
                finish: Some("length".into()),
            }
        );
        let chat = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\",\"reasoning\":\"hm\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\" so\"},\"logprobs\":{\"content\":[{\"token\":\" so\",\"logprob\":-2}]}}]}\n\n";
        let answer = read(Dialect::Openai, chat.as_bytes()).unwrap();
        assert_eq!((answer.text.as_str(), answer.logprobs), ("hm so", vec![-2.0]));
        let triton = |dialect, events: &[Value]| {
            let body: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
            read(dialect, body.as_bytes()).unwrap()
        };
        let events = [
            json!({"text_output": "x", "num_output_tokens": 1, "finish_reason": "None"}),
            json!({"text_output": "y", "num_output_tokens": 1, "finish_reason": "stop"}),
        ];
        let answer = triton(Dialect::TritonVllm, &events);
        assert_eq!(
            (answer.text.as_str(), answer.output_tokens, answer.finish.as_deref()),
            ("xy", Some(2), Some("stop"))
        );
        let cumulative = [json!({"text_output": "x"}), json!({"text_output": "xy"})];
        assert_eq!(triton(Dialect::TritonTrtllm, &cumulative).text, "xy");
        let python = [
            json!({"text_output": ["x"], "num_output_tokens": [1]}),
            json!({"text_output": ["y"], "num_output_tokens": [2]}),
        ];
        assert_eq!(triton(Dialect::TritonPython, &python).output_tokens, Some(2));
    }

    #[test]
    fn errors_in_the_stream_are_the_servers_own() {
        for (body, expected) in [
            ("data: {\"error\":{\"message\":\"oom\"}}\n\n", "oom"),
            ("data: {\"object\":\"error\",\"message\":\"bad\"}\n\n", "bad"),
            ("data: <html>\n\n", "not readable"),
        ] {
            let e = read(Dialect::Openai, body.as_bytes()).unwrap_err();
            assert!(e.contains(expected), "{e}");
        }
        assert_eq!(read(Dialect::Openai, b"").unwrap(), Answer::default());
    }
}
