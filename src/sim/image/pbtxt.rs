//! A model's configuration as Triton reads it: protobuf's text format, held against the fields that the message has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use super::flags::{self, Flags};

/// A message: its fields in order, repeated ones repeatedly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message(Vec<(String, Field)>);

#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A number, a word or a quoted text, without its quotes.
    Scalar(String),
    Message(Message),
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error parsing text-format inference.ModelConfig: {}:{}: {}", self.line, self.column, self.what)
    }
}

impl Message {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(n, f)| match f {
            Field::Scalar(text) if n == name => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(n, f)| match f {
            Field::Scalar(text) if n == name => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn messages<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Message> {
        self.0.iter().filter_map(move |(n, f)| match f {
            Field::Message(message) if n == name => Some(message),
            _ => None,
        })
    }
}

/// The fields of a message; none of those that are not looked into.
fn fields_of(message: &str) -> Option<&'static Flags> {
    static ALL: LazyLock<BTreeMap<&'static str, Flags>> = LazyLock::new(|| flags::sections(MESSAGES));
    ALL.get(message)
}

const MESSAGES: &str = include_str!("tables/model_config.txt");

/// The message of a field.
fn message_of(within: &str, field: &str) -> &'static str {
    match (within, field) {
        ("ModelConfig", "input") => "ModelInput",
        ("ModelConfig", "output") => "ModelOutput",
        ("ModelConfig", "instance_group") => "ModelInstanceGroup",
        ("ModelConfig", "dynamic_batching") => "ModelDynamicBatching",
        ("ModelConfig", "model_transaction_policy") => "ModelTransactionPolicy",
        ("ModelConfig", "parameters") => "ParametersEntry",
        ("ParametersEntry", "value") => "ModelParameter",
        _ => "",
    }
}

/// Words that some fields take, and no others.
const WORDS: &[(&str, &[&str])] = &[
    ("kind", &["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]),
    (
        "data_type",
        &[
            "TYPE_INVALID",
            "TYPE_BOOL",
            "TYPE_UINT8",
            "TYPE_UINT16",
            "TYPE_UINT32",
            "TYPE_UINT64",
            "TYPE_INT8",
            "TYPE_INT16",
            "TYPE_INT32",
            "TYPE_INT64",
            "TYPE_FP16",
            "TYPE_FP32",
            "TYPE_FP64",
            "TYPE_STRING",
            "TYPE_BF16",
        ],
    ),
    ("decoupled", &["true", "false"]),
    ("optional", &["true", "false"]),
];

const NUMBERS: &[&str] = &["count", "gpus", "dims", "max_batch_size", "max_queue_delay_microseconds"];

/// Reads a model's configuration.
pub fn read(text: &str) -> Result<Message, Wrong> {
    let mut reader = Reader { text, at: 0 };
    let message = reader.message("ModelConfig", None)?;
    Ok(message)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Sign(char),
    End,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: impl Into<String>) -> Wrong {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        Wrong { line, column: before.len() - before.rfind('\n').map_or(0, |n| n + 1) + 1, what: what.into() }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            match trimmed.strip_prefix('#') {
                Some(comment) => self.at += 1 + comment.find('\n').unwrap_or(comment.len()),
                None => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, Wrong> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if first == '"' || first == '\'' {
            let Some(end) = rest[1..].find(first) else {
                return Err(self.wrong("String literals cannot cross lines."));
            };
            self.at += end + 2;
            return Ok(Token::Quoted(&rest[1..=end]));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
        if word(first) {
            let len = rest.find(|c| !word(c)).unwrap_or(rest.len());
            self.at += len;
            return Ok(Token::Word(&rest[..len]));
        }
        self.at += first.len_utf8();
        Ok(Token::Sign(first))
    }

    fn peek(&mut self) -> Result<Token<'a>, Wrong> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// Fields up to `end`, or to the end of the text.
    fn message(&mut self, kind: &str, end: Option<char>) -> Result<Message, Wrong> {
        let mut out = Message::default();
        loop {
            self.skip_space();
            let at = self.at;
            match self.next()? {
                Token::End if end.is_none() => return Ok(out),
                Token::Sign(c) if Some(c) == end => return Ok(out),
                Token::Sign(',' | ';') => {}
                Token::Word(name) => {
                    if fields_of(kind).is_some_and(|fields| !fields.contains_key(name)) {
                        self.at = at;
                        let what = format!("Message type \"inference.{kind}\" has no field named \"{name}\".");
                        return Err(self.wrong(what));
                    }
                    self.field(kind, name, &mut out)?;
                }
                other => return Err(self.wrong(format!("Expected identifier, got: {other:?}"))),
            }
        }
    }

    fn field(&mut self, within: &str, name: &str, out: &mut Message) -> Result<(), Wrong> {
        let colon = self.peek()? == Token::Sign(':');
        if colon {
            self.next()?;
        }
        match self.peek()? {
            Token::Sign('[') => {
                self.next()?;
                loop {
                    match self.peek()? {
                        Token::Sign(']') => break self.next().map(drop),
                        Token::Sign(',') => self.next().map(drop)?,
                        Token::End => break Err(self.wrong("Expected \"]\".")),
                        _ => self.value(within, name, true, out)?,
                    }
                }
            }
            _ => self.value(within, name, colon, out),
        }
    }

    fn value(&mut self, within: &str, name: &str, colon: bool, out: &mut Message) -> Result<(), Wrong> {
        self.skip_space();
        let at = self.at;
        let field = match self.next()? {
            Token::Sign('{') => Field::Message(self.message(message_of(within, name), Some('}'))?),
            Token::Word(text) | Token::Quoted(text) if colon => {
                if let Some(what) = unfit(name, text) {
                    self.at = at;
                    return Err(self.wrong(what));
                }
                Field::Scalar(text.to_string())
            }
            _ => {
                self.at = at;
                return Err(self.wrong("Expected \":\", found otherwise."));
            }
        };
        out.0.push((name.to_string(), field));
        Ok(())
    }
}

fn unfit(name: &str, text: &str) -> Option<String> {
    if NUMBERS.contains(&name) && text.parse::<i64>().is_err() {
        return Some(format!("Expected integer, got: {text}"));
    }
    let (_, words) = WORDS.iter().find(|(field, _)| *field == name)?;
    (!words.contains(&text)).then(|| format!("Unknown enumeration value of \"{text}\" for field \"{name}\"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read() {
        let text = "# ours\nbackend: \"python\"\nmax_batch_size: 8\nmodel_transaction_policy { decoupled: true }\n\
                    instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0, 1 ] } ]\n\
                    input [\n  { name: \"a\" data_type: TYPE_STRING dims: [ 1 ] },\n  { name: 'b' data_type: TYPE_BOOL \
                    dims: [ 1 ] optional: true }\n]\nparameters { key: \"K\" value { string_value: \"true\" } }\n";
        let m = read(text).unwrap();
        assert_eq!((m.text("backend"), m.text("max_batch_size")), (Some("python"), Some("8")));
        let names: Vec<_> = m.messages("input").filter_map(|i| i.text("name")).collect();
        assert_eq!(names, ["a", "b"]);
        let group = m.messages("instance_group").next().unwrap();
        assert_eq!(group.texts("gpus").collect::<Vec<_>>(), ["0", "1"]);
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, said) in [
            ("backend: \"x\"\nbakend: 1", "2:1: Message type \"inference.ModelConfig\" has no field named \"bakend\"."),
            ("input [ { nam: \"a\" } ]", "1:11: Message type \"inference.ModelInput\" has no field named \"nam\"."),
            ("instance_group [ { kind: KIND_TPU } ]", "Unknown enumeration value of \"KIND_TPU\" for field \"kind\"."),
            ("max_batch_size: many", "Expected integer, got: many"),
            ("backend \"x\"", "Expected \":\""),
            ("input [ { name: \"a\" }", "Expected \"]\""),
            ("backend: \"x", "String literals"),
            ("input {", "Expected identifier"),
        ] {
            let wrong = read(text).unwrap_err().to_string();
            assert!(wrong.contains(said), "{text}: {wrong}");
        }
    }
}
