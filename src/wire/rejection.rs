//! What a server's error body says: the message inside it, and, where a strict server refuses a field it does not know,
//! which field and what to set instead. Pure text.

use serde_json::Value;

use super::Dialect;

/// Longest message that is kept.
const MAX_MESSAGE: usize = 400;

/// The human-readable message in an error body (OpenAI, FastAPI and Triton shapes, plain or as an event), else the start
/// of the body.
pub fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let json = text.strip_prefix("data:").map_or(text, str::trim);
    let found = serde_json::from_str::<Value>(json).ok().and_then(|v| message_of(&v));
    shorten(found.as_deref().unwrap_or(text))
}

/// The message in a decoded error object.
pub fn message_of(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Object(map) => {
            ["error", "message", "detail", "msg"].iter().find_map(|k| map.get(*k)).and_then(message_of)
        }
        // FastAPI: a list of {loc, msg, type}.
        Value::Array(items) => {
            let lines: Vec<String> = items.iter().filter_map(validation_line).collect();
            (!lines.is_empty()).then(|| lines.join("; "))
        }
        _ => None,
    }
}

fn validation_line(item: &Value) -> Option<String> {
    let msg = message_of(item)?;
    let loc: Vec<String> = item
        .get("loc")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_string))
        .collect();
    Some(if loc.is_empty() { msg } else { format!("{}: {msg}", loc.join(".")) })
}

/// One line, cut at about 400 bytes.
pub fn shorten(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_MESSAGE));
    for word in text.split_whitespace() {
        if line.len() + word.len() > MAX_MESSAGE {
            let room = MAX_MESSAGE.saturating_sub(line.len() + 1);
            let cut = word.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= room).last();
            line.push(' ');
            line.push_str(&word[..cut.unwrap_or(0)]);
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line.trim().to_string()
}

/// Fields that are only sent because the `[api]` table says that the engine knows them, and the setting that stops it.
const OPTIONAL_FIELDS: &[(&str, &str)] = &[
    ("sampling_param_min_tokens", "min_tokens = false"),
    ("sampling_param_ignore_eos", "ignore_eos = false"),
    ("sampling_param_seed", "seed = false"),
    ("return_num_output_tokens", "usage = false"),
    ("return_num_input_tokens", "usage = false"),
    ("stream_options", "usage = false"),
    ("include_usage", "usage = false"),
    ("min_tokens", "min_tokens = false"),
    ("ignore_eos", "ignore_eos = false"),
    ("seed", "seed = false"),
];

/// Phrases by which servers say that a field is not theirs.
const UNKNOWN_FIELD: &[&str] = &[
    "extra_forbidden",
    "extra inputs are not permitted",
    "extra fields not permitted",
    "unknown field",
    "unrecognized",
    "unexpected keyword",
    "unknown name",
    "unsupported parameter",
    "unexpected input",
    "unknown parameter",
    "not supported",
];

/// What to do about a refused request, when the body names a field that need not be sent.
pub fn advice(dialect: Dialect, status: u16, body: &[u8]) -> Option<String> {
    if !(400..500).contains(&status) {
        return None;
    }
    let text = String::from_utf8_lossy(body).to_lowercase();
    if !UNKNOWN_FIELD.iter().any(|p| text.contains(p)) {
        return None;
    }
    let (field, setting) = OPTIONAL_FIELDS.iter().find(|(field, _)| has_word(&text, field))?;
    Some(format!(
        "the server does not know the field `{field}`: set `{setting}` in the `[api]` table of its template (dialect {})",
        dialect.as_str()
    ))
}

/// `word` stands in `text` and is not a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_name) && !text[at + word.len()..].starts_with(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_known_shapes() {
        assert_eq!(message(br#"{"error":{"message":"no such model","code":404}}"#), "no such model");
        assert_eq!(message(br#"{"object":"error","message":"too long","code":400}"#), "too long");
        assert_eq!(message(b"data: {\"error\":\"in ensemble\"}\n\n"), "in ensemble");
        assert_eq!(
            message(br#"{"detail":[{"loc":["body","ignore_eos"],"msg":"Extra inputs are not permitted","type":"extra_forbidden"}]}"#),
            "body.ignore_eos: Extra inputs are not permitted"
        );
        assert_eq!(message(b"<html>\n  Bad   Gateway"), "<html> Bad Gateway");
        assert!(message("é".repeat(4000).as_bytes()).len() < 420);
    }

    #[test]
    fn a_refused_field_is_named_with_its_setting() {
        let body = br#"{"message":"[{'type': 'extra_forbidden', 'loc': ('body', 'min_tokens'), 'msg': 'Extra inputs are not permitted'}]"}"#;
        let advice_text = advice(Dialect::Openai, 400, body).unwrap();
        assert!(advice_text.contains("`min_tokens`") && advice_text.contains("`min_tokens = false`"), "{advice_text}");
        assert_eq!(advice(Dialect::Openai, 500, body), None);
        assert_eq!(advice(Dialect::Openai, 400, br#"{"message":"seedling unknown field x"}"#), None);
    }
}
