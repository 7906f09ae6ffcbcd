//! OpenAI's batch API: a job is a file of requests, one a line; a server that takes it answers with a file of answers when
//! it is done. Pure: lines and objects in, lines and objects out. The fields are those of OpenAI's API reference, "Batch"
//! and "Files".

use serde_json::{Value, json};

use super::request::{RequestError, RequestSpec, build};
use super::{Api, ApiSpec, rejection};

/// How long a server may take for a job, in the only value that the API defines.
const COMPLETION_WINDOW: &str = "24h";
/// What names a line: its number follows.
const PREFIX: &str = "request-";

/// A request as a line of the job, with its line break. The body is the one of the online API, not streamed.
pub fn line(spec: &ApiSpec, api: Api, index: u64, request: &RequestSpec) -> Result<Vec<u8>, RequestError> {
    let wire = build(spec, api, &RequestSpec { stream: false, ..request.clone() })?;
    let head = json!({ "custom_id": format!("{PREFIX}{index}"), "method": "POST", "url": wire.path }).to_string();
    let mut out = Vec::with_capacity(wire.body.len() + head.len() + 16);
    // The body is JSON already, and nearly all of the line: it is not parsed again.
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(b",\"body\":");
    out.extend_from_slice(&wire.body);
    out.extend_from_slice(b"}\n");
    Ok(out)
}

/// The body that creates a job for requests to `url`.
pub fn creation(input_file: &str, url: &str) -> Value {
    json!({ "input_file_id": input_file, "endpoint": url, "completion_window": COMPLETION_WINDOW })
}

/// A file as a form: its content type and its bytes. `boundary` must not stand in the content.
pub fn upload(content: &[u8], boundary: &str) -> (String, Vec<u8>) {
    let mut out = Vec::with_capacity(content.len() + 512);
    out.extend_from_slice(
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"requests.jsonl\"\r\n\
             Content-Type: application/jsonl\r\n\r\n"
        )
        .as_bytes(),
    );
    out.extend_from_slice(content);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), out)
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: String,
    pub state: State,
    pub completed: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Running,
    Over(End),
}

/// How a job ended. A job that was cut short has answers too, to what was done by then.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why requests without an answer have none.
    pub unanswered: String,
    /// Ids of the files that hold answers: of requests that succeeded, and of those that did not.
    pub files: Vec<String>,
}

/// Reads a job's object. The error says what is wrong with it.
pub fn job(body: &[u8]) -> Result<Job, String> {
    let object: Value = serde_json::from_slice(body).map_err(|e| format!("its batch object is no JSON: {e}"))?;
    let text = |key: &str| object[key].as_str().filter(|t| !t.is_empty()).map(str::to_string);
    let id = text("id").ok_or("its batch object has no `id`")?;
    let status = text("status").ok_or("its batch object has no `status`")?;
    let count = |key: &str| object["request_counts"][key].as_u64().unwrap_or(0);
    let state = match status.as_str() {
        "validating" | "in_progress" | "finalizing" | "cancelling" => State::Running,
        "completed" | "failed" | "expired" | "cancelled" => State::Over(End {
            unanswered: unanswered(&status, &object),
            files: ["output_file_id", "error_file_id"].into_iter().filter_map(text).collect(),
        }),
        other => return Err(format!("its batch has the unknown status `{}`", rejection::shorten(other))),
    };
    Ok(Job { id, state, completed: count("completed"), failed: count("failed") })
}

fn unanswered(status: &str, object: &Value) -> String {
    let said = object["errors"]["data"][0]["message"].as_str().map(rejection::shorten);
    let what = match status {
        "completed" => "the batch was completed without an answer to this request",
        "expired" => "the batch expired before this request was answered",
        "cancelled" => "the batch was cancelled",
        _ => "the batch failed",
    };
    said.map_or_else(|| what.to_string(), |said| format!("{what}: {said}"))
}

/// The id of a file that was taken.
pub fn file(body: &[u8]) -> Result<String, String> {
    let object: Value = serde_json::from_slice(body).map_err(|e| format!("its file object is no JSON: {e}"))?;
    object["id"].as_str().map(str::to_string).ok_or_else(|| "its file object has no `id`".into())
}

/// One line of a file of answers.
#[derive(Clone, Debug, PartialEq)]
pub struct LineAnswer {
    /// Number of the request.
    pub index: u64,
    /// HTTP status; 0 where the request did not get as far.
    pub status: u16,
    pub input_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub cached_tokens: Option<u32>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Reads a line; `None` where it is none of ours.
pub fn answer(line: &str) -> Option<LineAnswer> {
    let object: Value = serde_json::from_str(line).ok()?;
    let index = object["custom_id"].as_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    let response = &object["response"];
    let status = response["status_code"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(0);
    let usage = &response["body"]["usage"];
    let count = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let good = (200..300).contains(&status) && object["error"].is_null();
    Some(LineAnswer {
        index,
        status,
        input_tokens: count(&usage["prompt_tokens"]),
        output_tokens: count(&usage["completion_tokens"]),
        cached_tokens: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        error: (!good).then(|| {
            let said = [&object["error"], &response["body"]];
            let message = said.into_iter().find_map(rejection::message_of).map(|m| rejection::shorten(&m));
            match (status, message) {
                (0, message) => message.unwrap_or_else(|| "the batch has no answer to this request".into()),
                (status, Some(message)) => format!("HTTP {status}: {message}"),
                (status, None) => format!("HTTP {status}"),
            }
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::Prompt;
    use super::*;

    fn spec() -> ApiSpec {
        serde_json::from_value(json!({ "dialect": "openai", "default": "completions" })).unwrap()
    }

    #[test]
    fn a_line_is_the_online_request_that_is_not_streamed() {
        let prompt = Prompt::Ids(vec![1000, 1001]);
        let request = RequestSpec {
            model: "m",
            prompt: &prompt,
            max_tokens: 8,
            temperature: 0.0,
            seed: Some(1),
            ignore_eos: true,
            stream: true,
        };
        let line = line(&spec(), Api::Completions, 7, &request).unwrap();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(
            serde_json::from_slice::<Value>(&line).unwrap(),
            json!({"custom_id": "request-7", "method": "POST", "url": "/v1/completions", "body": {
                "model": "m", "prompt": [1000, 1001], "max_tokens": 8, "temperature": 0, "seed": 1,
                "ignore_eos": true, "min_tokens": 8, "stream": false}})
        );
    }

    #[test]
    fn a_form_holds_the_file_to_the_byte() {
        let (kind, form) = upload(b"a\r\n-b\n", "XX");
        assert_eq!(kind, "multipart/form-data; boundary=XX");
        let form = String::from_utf8(form).unwrap();
        assert!(form.starts_with("--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX\r\n"));
        assert!(form.ends_with("\r\n\r\na\r\n-b\n\r\n--XX--\r\n"), "{form}");
    }

    #[test]
    fn a_job_runs_or_is_over() {
        let of = |object: Value| job(object.to_string().as_bytes());
        let counts = json!({"total": 3, "completed": 2, "failed": 1});
        for status in ["validating", "in_progress", "finalizing", "cancelling"] {
            let running = of(json!({"id": "b", "status": status, "request_counts": counts})).unwrap();
            assert_eq!((running.state, running.completed, running.failed), (State::Running, 2, 1));
        }
        let State::Over(end) =
            of(json!({"id": "b", "status": "expired", "output_file_id": "o", "error_file_id": null})).unwrap().state
        else {
            panic!()
        };
        assert_eq!(end.files, ["o"]);
        assert!(end.unanswered.contains("expired"), "{}", end.unanswered);
        let failed = json!({"id": "b", "status": "failed", "errors": {"data": [{"message": "line 1 is\nbad"}]}});
        let State::Over(end) = of(failed).unwrap().state else { panic!() };
        assert_eq!((end.unanswered.as_str(), end.files.len()), ("the batch failed: line 1 is bad", 0));
        for (bad, said) in [(json!({"id": "b", "status": "lost"}), "`lost`"), (json!({"status": "failed"}), "`id`")] {
            assert!(of(bad).unwrap_err().contains(said));
        }
        assert!(job(b"<html>").unwrap_err().contains("no JSON"));
    }

    #[test]
    fn answers_are_counted_and_failures_tell_why() {
        let good = json!({"id": "x", "custom_id": "request-3", "error": null, "response": {"status_code": 200, "body": {
            "usage": {"prompt_tokens": 5, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 2}}}}});
        let good = answer(&good.to_string()).unwrap();
        assert_eq!((good.index, good.status, good.error), (3, 200, None));
        assert_eq!((good.input_tokens, good.output_tokens, good.cached_tokens), (Some(5), Some(8), Some(2)));
        let error = |line: Value| answer(&line.to_string()).unwrap().error.unwrap();
        let refused =
            json!({"custom_id": "request-0", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}});
        assert_eq!(error(refused), "HTTP 400: no");
        let lost = json!({"custom_id": "request-0", "response": null, "error": {"code": "x", "message": "gone"}});
        assert_eq!(error(lost), "gone");
        for other in [json!({"custom_id": "mine"}), json!({"custom_id": "request-x"}), json!(3)] {
            assert_eq!(answer(&other.to_string()), None);
        }
    }
}
