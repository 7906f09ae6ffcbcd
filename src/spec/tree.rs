//! TOML text as a tree in which every key and value knows its place. Keys with dots, quoted or not, are split, so the same
//! path is the same tree however it is written.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::MAX_PROBLEMS;
use crate::diag::{Diagnostic, SourceText};
use crate::value::Value;

/// Deepest nesting that is accepted.
const MAX_DEPTH: usize = 32;
/// Most keys of one table, and most values of one list.
const MAX_KEYS: usize = 10_000;
const MAX_ITEMS: usize = 1_000_000;
/// Longest text that is a value, bytes.
const MAX_TEXT: usize = 1 << 20;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub span: Range<usize>,
    pub data: Data,
}

/// What a node holds; keys of tables keep their order.
#[derive(Clone, Debug)]
pub enum Data {
    Scalar(Value),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, its place and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    pub key_span: Range<usize>,
    pub node: Node,
}

impl Node {
    pub fn as_table(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Table(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn as_scalar(&self) -> Option<&Value> {
        match &self.data {
            Data::Scalar(v) => Some(v),
            _ => None,
        }
    }

    /// The value of a key, where the node is a table.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_table()?.iter().find(|e| &*e.key == key).map(|e| &e.node)
    }

    /// What the type is called in messages.
    pub fn type_name(&self) -> &'static str {
        match &self.data {
            Data::Scalar(v) => v.type_name(),
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    /// The value without places.
    pub fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(v) => v.clone(),
            Data::List(items) => Value::list(items.iter().map(Node::to_value).collect()),
            Data::Table(entries) => Value::map(entries.iter().map(|e| (e.key.clone(), e.node.to_value())).collect()),
        }
    }
}

/// Parses a text; what can be read is read, and every problem is reported.
pub fn parse(source: &Arc<SourceText>, problems: &mut Vec<Diagnostic>) -> Node {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors.into_iter().take(MAX_PROBLEMS) {
        let span = error.span().unwrap_or(0..0);
        let span = widen(&source.text, span);
        let code = if error.message().contains("duplicate key") { "duplicate_key" } else { "invalid_toml" };
        problems.push(Diagnostic::new(code, error.message().to_string()).at(source, span).maybe_help(toml_help(code)));
    }
    let mut builder = Builder { source, problems };
    let span = table.span();
    Node { span, data: Data::Table(builder.table(table.get_ref(), 0, Keys::Paths)) }
}

fn toml_help(code: &str) -> Option<String> {
    (code == "duplicate_key")
        .then(|| "remove one of them; a second table of the same name must be `[[…]]` to be a list".into())
}

/// An empty range points between two bytes; carets want something to stand under.
fn widen(text: &str, span: Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    let end = span.end.clamp(start, text.len());
    if start == end && text[start..].chars().next().is_some_and(|c| c != '\n') {
        let step = text[start..].chars().next().map_or(0, char::len_utf8);
        return start..start + step;
    }
    start..end
}

/// What the keys of a table are.
#[derive(Clone, Copy)]
enum Keys {
    /// Dotted paths, quoted or not.
    Paths,
    /// Names of labelled axes.
    Axes,
    /// Labels, for people: `"v0.27.1"` is one.
    Labels,
}

struct Builder<'a> {
    source: &'a Arc<SourceText>,
    problems: &'a mut Vec<Diagnostic>,
}

impl Builder<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize, keys: Keys) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(table.len().min(MAX_KEYS));
        if let Some((key, _)) = table.iter().nth(MAX_KEYS) {
            let message = format!("a table has {} keys; the limit is {MAX_KEYS}", table.len());
            self.problems.push(Diagnostic::new("too_many_keys", message).at(self.source, key.span()));
            return entries;
        }
        for (key, value) in table {
            if self.problems.len() >= MAX_PROBLEMS {
                break;
            }
            let below = match keys {
                Keys::Axes => Keys::Labels,
                Keys::Paths if key.get_ref() == "vary" => Keys::Axes,
                Keys::Paths | Keys::Labels => Keys::Paths,
            };
            let Some(node) = self.node(value, depth + 1, below) else { continue };
            let parts: Vec<&str> = match keys {
                Keys::Labels => vec![key.get_ref()],
                // A file's name has dots of its own.
                _ if key.get_ref().contains('/') => vec![key.get_ref()],
                Keys::Paths | Keys::Axes => key.get_ref().split('.').collect(),
            };
            if depth + parts.len() > MAX_DEPTH {
                let message = format!("values nest deeper than {MAX_DEPTH} levels");
                self.problems.push(Diagnostic::new("too_deep", message).at(self.source, key.span()));
                continue;
            }
            if parts.iter().any(|p| p.is_empty()) {
                let message = format!("`{}` is not a path: a part of it is empty", key.get_ref());
                self.problems.push(Diagnostic::new("empty_key", message).at(self.source, key.span()));
                continue;
            }
            self.insert(&mut entries, &parts, &key.span(), node);
        }
        entries
    }

    fn insert(&mut self, entries: &mut Vec<Entry>, parts: &[&str], key_span: &Range<usize>, node: Node) {
        let (first, rest) = parts.split_first().expect("a path has a part");
        let node = if rest.is_empty() {
            node
        } else {
            let mut inner = Vec::new();
            self.insert(&mut inner, rest, key_span, node);
            Node { span: key_span.clone(), data: Data::Table(inner) }
        };
        match entries.iter_mut().find(|e| &*e.key == *first) {
            None => entries.push(Entry { key: Arc::from(*first), key_span: key_span.clone(), node }),
            Some(old) => self.merge(old, node, key_span),
        }
    }

    /// Two spellings of one table are one table; two values for one path are a mistake.
    fn merge(&mut self, old: &mut Entry, new: Node, key_span: &Range<usize>) {
        match (&mut old.node.data, new.data) {
            (Data::Table(into), Data::Table(from)) => {
                for entry in from {
                    match into.iter_mut().find(|e| e.key == entry.key) {
                        None => into.push(entry),
                        Some(same) => self.merge(same, entry.node, &entry.key_span),
                    }
                }
            }
            _ => {
                let message = format!("`{}` is set twice in this table", old.key);
                self.problems.push(Diagnostic::new("duplicate_key", message).at(self.source, key_span.clone()));
            }
        }
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, depth: usize, keys: Keys) -> Option<Node> {
        let span = value.span();
        let fail = |this: &mut Self, code, message: String| {
            this.problems.push(Diagnostic::new(code, message).at(this.source, span.clone()));
            None
        };
        if depth > MAX_DEPTH {
            return fail(self, "too_deep", format!("values nest deeper than {MAX_DEPTH} levels"));
        }
        let data = match value.get_ref() {
            DeValue::String(s) if s.len() > MAX_TEXT => {
                return fail(self, "too_long", format!("a text has {} bytes; the limit is {MAX_TEXT}", s.len()));
            }
            DeValue::String(s) => Data::Scalar(Value::str(s)),
            DeValue::Boolean(b) => Data::Scalar(Value::Bool(*b)),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(i) => Data::Scalar(Value::Int(i)),
                Err(_) => return fail(self, "invalid_value", format!("{i} does not fit in 64 bits")),
            },
            DeValue::Float(f) => match f.as_str().parse().ok().and_then(Value::number) {
                Some(v) => Data::Scalar(v),
                None => {
                    return fail(
                        self,
                        "invalid_value",
                        format!("{f} is not a value here: NaN and infinity have no meaning"),
                    );
                }
            },
            DeValue::Datetime(d) => {
                return fail(
                    self,
                    "invalid_value",
                    format!("a date ({d}) is not a value here; quote it if text is meant"),
                );
            }
            DeValue::Array(items) if items.len() > MAX_ITEMS => {
                return fail(
                    self,
                    "too_many_values",
                    format!("a list has {} values; the limit is {MAX_ITEMS}", items.len()),
                );
            }
            DeValue::Array(items) => {
                Data::List(items.iter().filter_map(|item| self.node(item, depth + 1, Keys::Paths)).collect())
            }
            DeValue::Table(table) => Data::Table(self.table(table, depth, keys)),
        };
        Some(Node { span, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Node, Vec<Diagnostic>) {
        let source = Arc::new(SourceText { name: "x.toml".into(), text: text.into() });
        let mut problems = Vec::new();
        let node = parse(&source, &mut problems);
        (node, problems)
    }

    #[test]
    fn quoted_and_bare_paths_are_the_same() {
        let (a, pa) = read("\"tokens.input\" = 0x10\ntokens.output = 2.0\n");
        let (b, pb) = read("[tokens]\noutput = 2\ninput = 16\n");
        assert!(pa.is_empty() && pb.is_empty(), "{pa:?} {pb:?}");
        assert_eq!(a.to_value(), b.to_value());
    }

    #[test]
    fn a_label_is_one_word_whatever_is_in_it() {
        let (node, problems) = read("[vary.version]\n\"v0.27.1\" = { \"tokens.input\" = 1 }\n");
        assert!(problems.is_empty(), "{problems:?}");
        let point = node.get("vary").and_then(|n| n.get("version")).and_then(|n| n.get("v0.27.1")).expect("the label");
        assert!(point.get("tokens").is_some(), "paths below it are paths");
    }

    #[test]
    fn what_a_file_may_ask_for_is_limited() {
        let code = |text: &str| read(text).1.first().map(|p| p.code);
        let keys: String = (0..=MAX_KEYS).map(|i| format!("a{i}=1\n")).collect();
        assert_eq!(code(&keys), Some("too_many_keys"));
        assert_eq!(code(&format!("\"{}\" = 1\n", ["a"; 40].join("."))), Some("too_deep"));
        assert_eq!(code(&format!("a = \"{}\"\n", "x".repeat(MAX_TEXT + 1))), Some("too_long"));
        let nested = format!("a = {}1{}\n", "[".repeat(40), "]".repeat(40));
        assert_eq!(code(&nested), Some("too_deep"));
        // Deeper than any stack, and still an answer.
        for depth in [1_000, 100_000] {
            assert!(code(&format!("a = {}\n", "[".repeat(depth))).is_some());
            assert!(code(&format!("{} = 1\n", vec!["a"; depth].join("."))).is_some());
            assert!(code(&format!("a = {}\n", "{a=".repeat(depth))).is_some());
        }
        let bad = (0..5000).map(|i| format!("k{i} = nan\n")).collect::<String>();
        assert_eq!(read(&bad).1.len(), MAX_PROBLEMS);
    }

    #[test]
    fn every_problem_is_reported_with_its_place() {
        let (_, problems) = read("a = 1\na = 2\nb = nan\n\"c.d\" = 1\nc.d = 2\ne = 1979-05-27\n");
        let codes: Vec<_> = problems.iter().map(|p| (p.code, p.position().unwrap().0)).collect();
        assert_eq!(codes, [("duplicate_key", 2), ("invalid_value", 3), ("duplicate_key", 5), ("invalid_value", 6)]);
    }
}
