//! Values that come from the environment: resolved at start, sent where they belong, and shown nowhere.

use std::fmt;
use std::sync::Arc;

use super::{Failure, Stage, Variables};

/// What is shown instead of a secret.
const HIDDEN: &str = "[redacted]";
/// A shorter value is no secret, and hiding it would only make logs unreadable.
const SHORTEST: usize = 4;

/// A text that is not to be seen. Neither `Debug` nor `Display` shows it, and it is not serializable.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: impl AsRef<str>) -> Secret {
        Secret(Arc::from(text.as_ref()))
    }

    /// The text itself: for the socket, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Takes known secrets out of texts: logs, error messages, answers of a server.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Vec<Secret>);

impl Redactor {
    pub fn redact(&self, text: &str) -> String {
        let mut out = text.to_string();
        for secret in &self.0 {
            if out.contains(secret.expose()) {
                out = out.replace(secret.expose(), HIDDEN);
            }
        }
        out
    }

    /// Has a value hidden from now on.
    pub fn learn(&mut self, value: &str) {
        if value.len() >= SHORTEST && self.0.iter().all(|s| s.expose() != value) {
            self.0.push(Secret::new(value));
            // A value that contains another one is replaced first, so that nothing of it stays.
            self.0.sort_by_key(|s| std::cmp::Reverse(s.expose().len()));
        }
    }
}

/// Replaces every `${NAME}` in `text` by the variable's value and lets `redactor` know it. `place` is the parameter the
/// text stands in. A variable that is not set is a failure that names it; `$` without braces is an ordinary character.
pub fn resolve(text: &str, place: &str, variables: &Variables, redactor: &mut Redactor) -> Result<Secret, Failure> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        let value = variables(name).ok_or_else(|| {
            Failure::deterministic(
                Stage::Create,
                format!(
                    "`{place}` takes `${{{name}}}` from the environment, and it is not set there. Set {name} and run \
                     again with `--retry-failed`"
                ),
            )
        })?;
        redactor.learn(&value);
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(Secret::new(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Arc::new(|name| match name {
            "KEY" => Some("hunter22".into()),
            "LONG" => Some("hunter2222".into()),
            "TINY" => Some("a".into()),
            _ => None,
        })
    }

    #[test]
    fn references_are_resolved_and_redacted() {
        let mut redactor = Redactor::default();
        let secret = resolve("Bearer ${KEY}/${LONG}${TINY}$x${", "headers.a", &variables(), &mut redactor).unwrap();
        assert_eq!(secret.expose(), "Bearer hunter22/hunter2222a$x${");
        assert_eq!(
            format!("{secret} {secret:?} {redactor:?}"),
            "[redacted] [redacted] Redactor([[redacted], [redacted]])"
        );
        assert_eq!(redactor.redact("a hunter22 b hunter2222 c"), "a [redacted] b [redacted] c");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let failure = resolve("${NOPE}", "endpoint", &variables(), &mut Redactor::default()).unwrap_err();
        assert_eq!(failure.class, super::super::FailureClass::Deterministic);
        assert!(failure.cause.contains("`endpoint` takes `${NOPE}`"), "{}", failure.cause);
    }
}
