//! Triton's generate extension as three models speak it: the vLLM backend, a Python model around `transformers`, and
//! TensorRT-LLM's LLM API model. They share paths and errors, and differ in the names and meaning of inputs and outputs.

mod frames;
mod request;

pub use request::parse;

use super::http::Response;

/// An error as Triton's HTTP front end words it.
pub fn error(status: u16, message: &str) -> Response {
    Response::json(status, serde_json::json!({ "error": message }).to_string())
}

pub fn unknown_model(name: &str) -> Response {
    error(404, &format!("Request for unknown model: '{name}' is not found"))
}

/// The engine failed.
pub fn internal_error() -> Response {
    error(500, "Internal server error (simulated fault)")
}
