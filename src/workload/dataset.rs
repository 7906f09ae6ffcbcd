//! Data sets of prompts: bytes in, rows out. Reading the file is the caller's business.
//!
//! | format | row |
//! |---|---|
//! | `jsonl` | one JSON object a line: `prompt` (text or a list of token ids) or `messages`, and `output_tokens` |
//! | `sharegpt` | a JSON list of `{"conversations": [{"from": "human", "value": …}, …]}`; the first human turn is the prompt |

use serde_json::Value;

use crate::wire::request::Prompt;

/// One prompt of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub prompt: Prompt,
    /// Tokens to generate, where the data set tells it.
    pub output_tokens: Option<u32>,
}

/// How a data set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jsonl,
    Sharegpt,
    /// Arrivals and lengths, no prompts: see [`super::trace`].
    Trace,
    Azure,
}

/// Why a data set cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DatasetError {
    #[error("data set format `{0}` is not known: `jsonl`, `sharegpt`, `trace` and `azure` are")]
    Format(String),
    #[error(
        "the format of data set {0} cannot be told from its name: set `format` to `jsonl`, `sharegpt`, `trace` or `azure`"
    )]
    Unnamed(String),
    #[error("data set {path}, {place}: {message}")]
    Row { path: String, place: String, message: String },
    #[error("data set {0} is a trace, which has arrivals and no prompts")]
    Arrivals(String),
    #[error("data set {0} has no prompts")]
    Empty(String),
}

impl Format {
    /// From the `format` parameter, else from the file's extension.
    pub fn of(format: Option<&str>, path: &str) -> Result<Format, DatasetError> {
        match format {
            Some("jsonl") => Ok(Format::Jsonl),
            Some("sharegpt") => Ok(Format::Sharegpt),
            Some("trace") => Ok(Format::Trace),
            Some("azure") => Ok(Format::Azure),
            Some(other) => Err(DatasetError::Format(other.to_string())),
            None if path.ends_with(".jsonl") || path.ends_with(".ndjson") => Ok(Format::Jsonl),
            None if path.ends_with(".json") => Ok(Format::Sharegpt),
            None if path.ends_with(".csv") => Ok(Format::Azure),
            None => Err(DatasetError::Unnamed(path.to_string())),
        }
    }

    /// It has arrivals and lengths instead of prompts.
    pub fn is_trace(self) -> bool {
        matches!(self, Format::Trace | Format::Azure)
    }
}

/// Reads all rows of a data set with prompts.
pub fn read(path: &str, format: Format, bytes: &[u8]) -> Result<Vec<Row>, DatasetError> {
    let rows = match format {
        Format::Jsonl => jsonl(path, bytes)?,
        Format::Sharegpt => sharegpt(path, bytes)?,
        Format::Trace | Format::Azure => return Err(DatasetError::Arrivals(path.to_string())),
    };
    if rows.is_empty() { Err(DatasetError::Empty(path.to_string())) } else { Ok(rows) }
}

fn jsonl(path: &str, bytes: &[u8]) -> Result<Vec<Row>, DatasetError> {
    let mut rows = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let fail =
            |message: String| DatasetError::Row { path: path.to_string(), place: format!("line {}", i + 1), message };
        let value: Value = serde_json::from_slice(line).map_err(|e| fail(format!("not JSON: {e}")))?;
        rows.push(row(&value).map_err(fail)?);
    }
    Ok(rows)
}

fn row(value: &Value) -> Result<Row, String> {
    let prompt = match (value.get("prompt"), value.get("messages")) {
        (Some(_), Some(_)) => return Err("has both `prompt` and `messages`: keep one".into()),
        (Some(Value::String(text)), None) => Prompt::Text(text.clone()),
        (Some(Value::Array(ids)), None) => Prompt::Ids(token_ids(ids).ok_or("`prompt` is not a list of token ids")?),
        (None, Some(messages @ Value::Array(items))) if !items.is_empty() => Prompt::Messages(messages.clone()),
        (None, None) => return Err("has neither `prompt` nor `messages`".into()),
        _ => return Err("`prompt` must be text or a list of token ids, `messages` a list that is not empty".into()),
    };
    let output_tokens = match value.get("output_tokens") {
        None | Some(Value::Null) => None,
        Some(n) => Some(
            n.as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0)
                .ok_or("`output_tokens` is not a count")?,
        ),
    };
    Ok(Row { prompt, output_tokens })
}

fn token_ids(values: &[Value]) -> Option<Vec<u32>> {
    let ids: Option<Vec<u32>> = values.iter().map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok())).collect();
    ids.filter(|ids| !ids.is_empty())
}

fn sharegpt(path: &str, bytes: &[u8]) -> Result<Vec<Row>, DatasetError> {
    let fail = |place: String, message: String| DatasetError::Row { path: path.to_string(), place, message };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| fail(format!("line {}", e.line()), format!("not a ShareGPT file: {e}")))?;
    let items = value.as_array().ok_or_else(|| fail("top level".into(), "a list is expected".into()))?;
    let mut rows = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let turns = ["conversations", "conversation"].iter().find_map(|k| item.get(*k)).and_then(Value::as_array);
        let turns = turns.ok_or_else(|| fail(format!("entry {i}"), "has no list `conversations`".into()))?;
        let first = turns.first().filter(|t| speaker(t).is_some_and(|s| s == "human" || s == "user"));
        let text = first.and_then(|t| ["value", "content"].iter().find_map(|k| t.get(*k))).and_then(Value::as_str);
        // Conversations that open with the model's turn are part of the published file; they hold no prompt.
        if let Some(text) = text.filter(|t| !t.trim().is_empty()) {
            rows.push(Row { prompt: Prompt::Text(text.to_string()), output_tokens: None });
        }
    }
    Ok(rows)
}

fn speaker(turn: &Value) -> Option<&str> {
    ["from", "role"].iter().find_map(|k| turn.get(*k)).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsonl_rows() {
        let text = b"{\"prompt\":\"a\",\"output_tokens\":5}\n\n{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\r\n{\"prompt\":[1,2]}";
        let rows = read("d.jsonl", Format::Jsonl, text).unwrap();
        assert_eq!(rows[0], Row { prompt: Prompt::Text("a".into()), output_tokens: Some(5) });
        assert!(matches!(&rows[1].prompt, Prompt::Messages(_)));
        assert_eq!(rows[2].prompt, Prompt::Ids(vec![1, 2]));
    }

    #[test]
    fn a_bad_row_is_named() {
        for (text, expected) in [
            ("{\"prompt\":\"a\"}\n{", "line 2"),
            ("{\"text\":\"a\"}", "neither"),
            ("{\"prompt\":\"a\",\"output_tokens\":0}", "output_tokens"),
            ("{\"prompt\":[]}", "token ids"),
            ("\n", "no prompts"),
        ] {
            let e = read("d.jsonl", Format::Jsonl, text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(expected) && e.contains("d.jsonl"), "{e}");
        }
    }

    #[test]
    fn sharegpt_takes_the_first_human_turn() {
        let text = br#"[{"id":"x","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]},
            {"id":"y","conversations":[{"from":"gpt","value":"a"}]}]"#;
        let rows = read("s.json", Format::Sharegpt, text).unwrap();
        assert_eq!(rows, [Row { prompt: Prompt::Text("q".into()), output_tokens: None }]);
        assert!(read("s.json", Format::Sharegpt, b"{}").is_err());
    }

    #[test]
    fn the_format_is_named_or_told_by_the_extension() {
        assert_eq!(Format::of(None, "a/b.jsonl"), Ok(Format::Jsonl));
        assert_eq!(Format::of(Some("sharegpt"), "x"), Ok(Format::Sharegpt));
        assert!(Format::of(Some("mooncake"), "x").unwrap_err().to_string().contains("mooncake"));
        assert!(Format::of(None, "x.txt").is_err());
    }
}
