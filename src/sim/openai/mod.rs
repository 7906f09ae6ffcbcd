//! OpenAI's API as vLLM, SGLang, trtllm-serve and NIM speak it: what a request may say, how it is refused, and what the
//! frames of an answer look like.

mod frames;
mod request;

pub use request::{Served, parse};

use super::flavor::Openai;
use super::http::Response;

/// An error body in the engine's own shape. `kind` is the error's type, `param` the field it is about.
pub fn error(engine: Openai, status: u16, kind: &str, message: &str, param: Option<&str>) -> Response {
    Response::json(status, error_body(engine, status, kind, message, param))
}

pub fn error_body(engine: Openai, status: u16, kind: &str, message: &str, param: Option<&str>) -> String {
    match engine {
        Openai::Vllm | Openai::Nim => serde_json::json!({
            "error": {"message": message, "type": kind, "param": param, "code": status}
        }),
        Openai::Sglang | Openai::Trtllm => serde_json::json!({
            "object": "error", "message": message, "type": kind, "param": param, "code": status
        }),
    }
    .to_string()
}

/// The engine failed.
pub fn internal_error(engine: Openai) -> Response {
    let kind = match engine {
        Openai::Vllm | Openai::Nim => "InternalServerError",
        Openai::Sglang | Openai::Trtllm => "internal_error",
    };
    error(engine, 500, kind, "Internal server error (simulated fault)", None)
}
