//! Whether an exchange is a completed request, and why not.

use std::time::Duration;

use super::http::{Head, HttpError, ResponseReader};
use super::marks::Seen;
use crate::wire::{Dialect, rejection};

/// Why an exchange ended before its answer was complete.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("no complete answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("still running when the duration and its drain time were over")]
    Cutoff,
    #[error("given up by the client")]
    GivenUp,
}

/// All that is known of an exchange that has ended.
pub struct Exchange<'a> {
    pub dialect: Dialect,
    pub reader: &'a ResponseReader,
    pub seen: &'a Seen,
    /// Body of an answer that is not a stream.
    pub body: &'a [u8],
}

impl Exchange<'_> {
    /// The error says why it is a failed request.
    pub fn verdict(&self, result: Result<(), Failure>) -> Result<(), String> {
        if let Some(head) = self.reader.head() {
            if !head.is_success() {
                return Err(self.refusal(head));
            }
            if !head.is_stream() && result.is_ok() {
                return Err(self.not_a_stream());
            }
        }
        if let Some(error) = &self.seen.error {
            return Err(format!("the server reported an error in its stream: {error}"));
        }
        match result {
            // All of the answer was there, only the end of the body was not.
            Err(Failure::Http(HttpError::Closed) | Failure::Timeout(_) | Failure::Io(_)) if self.seen.done => Ok(()),
            Err(e) => Err(e.to_string()),
            Ok(()) if self.ended_properly() => Ok(()),
            Ok(()) if self.seen.events == 0 => Err("the stream ended without any event".into()),
            Ok(()) => Err("the stream ended without a finish reason or [DONE]".into()),
        }
    }

    /// The OpenAI dialect says how a stream ends. Triton's has no such word: its stream ends with the body.
    fn ended_properly(&self) -> bool {
        match self.dialect {
            Dialect::Openai => self.seen.done || self.seen.finish,
            Dialect::TritonVllm | Dialect::TritonPython | Dialect::TritonTrtllm => self.seen.events > 0,
        }
    }

    fn refusal(&self, head: &Head) -> String {
        let mut message = format!("HTTP {}", head.status);
        if let Some(location) = &head.location {
            return format!("{message}: redirected to {location}; use that as the endpoint");
        }
        let told = rejection::message(self.body);
        if !told.is_empty() {
            message = format!("{message}: {told}");
        }
        match rejection::advice(self.dialect, head.status, self.body) {
            Some(advice) => format!("{message} ({advice})"),
            None => message,
        }
    }

    fn not_a_stream(&self) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(self.body).ok();
        match value.as_ref().and_then(|v| v.get("error")).filter(|e| !e.is_null()) {
            Some(error) => format!(
                "the server reported an error under HTTP 200: {}",
                rejection::message_of(error).unwrap_or_else(|| error.to_string())
            ),
            None => format!("the answer is JSON, not an event stream: {}", rejection::message(self.body)),
        }
    }
}
