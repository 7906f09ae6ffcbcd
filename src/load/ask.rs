//! A question that is asked for its answer: over the API that is measured, apart from the measured path.

use std::time::Duration;

use super::probe::{control_client, with_causes};
use super::{LoadError, Target};
use crate::wire::answer::{self, Answer};
use crate::wire::rejection::message_of;

/// An answer of the few tokens asked for is a few kilobytes; anything longer is none.
const MAX_ANSWER: usize = 4 << 20;

/// Asks greedily over the target's default API. Log probabilities are asked for where the API has them, and done without
/// where the server refuses that.
pub async fn ask(target: &Target, prompt: &str, max_tokens: u32, timeout: Duration) -> Result<Answer, LoadError> {
    let failed = |message: String| LoadError::Question { url: target.base_url.clone(), message };
    let client = control_client(target, timeout).await?;
    let mut refused = String::new();
    let offered: &[bool] = if answer::offers_logprobs(&target.api) { &[true, false] } else { &[false] };
    for logprobs in offered {
        let api = target.api.default;
        let wire = answer::question(&target.api, api, &target.model, prompt, max_tokens, *logprobs)?;
        let url = format!("{}{}", target.base_url.trim_end_matches('/'), wire.path);
        let request = client.post(&url).header("content-type", "application/json").body(wire.body);
        let response = request.send().await.map_err(|e| failed(with_causes(&e.without_url())))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| failed(with_causes(&e.without_url())))?;
        if body.len() > MAX_ANSWER {
            return Err(failed(format!("the answer has {} bytes", body.len())));
        }
        if status.is_success() {
            return answer::read(target.api.dialect, &body).map_err(failed);
        }
        let said = serde_json::from_slice(&body).ok().and_then(|v| message_of(&v)).unwrap_or_default();
        refused = format!("HTTP {}: {said}", status.as_u16());
        if !status.is_client_error() {
            break;
        }
    }
    Err(failed(refused))
}
