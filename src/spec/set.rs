//! `--set` and `--only`: the same names and values as in the file, given on a command line.

use std::sync::Arc;

use super::block::Assignment;
use super::params::{Kind, Lookup, Param, lookup};
use super::predicate::{Clause, Labels, Op, Predicate, Subject};
use super::read::{normal_path, suggest};
use super::types::{self, Vocabulary};
use super::{expr::Term, tree};
use crate::diag::SourceText;
use crate::value::Value;

/// What is wrong with a flag, in one sentence or two.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{0}")]
pub struct FlagError(pub String);

/// Reads `key=value`. Scalars only.
pub fn parse_set(text: &str, words: &Vocabulary) -> Result<Assignment, FlagError> {
    let (path, raw) = text.split_once('=').ok_or_else(|| FlagError(format!("--set {text}: write key=value")))?;
    let path = normal_path(path.trim());
    let param = param(&path, "--set")?;
    let value = value(raw.trim(), Some(param));
    if matches!(value, Value::List(_) | Value::Map(_))
        && !param.is_open()
        && !matches!(param.kind, Kind::Pair | Kind::Stages)
    {
        return Err(FlagError(format!(
            "--set {path}: a single value is expected; several values are an axis of the file"
        )));
    }
    if value.as_str().is_some_and(|s| s.contains("{{")) {
        return Err(FlagError(format!("--set {path}: expressions belong into the file; give the value")));
    }
    let value =
        types::check(param, &path, value, words).map_err(|e| FlagError(with_help("--set", e.message, e.help)))?;
    Ok(Assignment { path: path.into(), term: Term::Fixed(value), span: 0..0 })
}

/// Reads `engine=vllm,tokens.input>=1024`; all parts must hold.
pub fn parse_only(text: &str, labels: &Labels, words: &Vocabulary) -> Result<Predicate, FlagError> {
    let mut clauses = Vec::new();
    for part in split_commas(text) {
        clauses.push(clause(part.trim(), labels, words)?);
    }
    if clauses.is_empty() {
        return Err(FlagError("--only is empty; write for example --only 'engine=vllm,tokens.input>=1024'".into()));
    }
    Ok(Predicate { span: 0..0, clauses })
}

fn clause(text: &str, labels: &Labels, words: &Vocabulary) -> Result<Clause, FlagError> {
    const OPS: [(&str, Op); 7] =
        [(">=", Op::Ge), ("<=", Op::Le), ("!=", Op::Ne), ("==", Op::Eq), (">", Op::Gt), ("<", Op::Lt), ("=", Op::Eq)];
    let at = text
        .find(['=', '<', '>', '!'])
        .ok_or_else(|| FlagError(format!("--only {text}: write name=value, or !=, >=, >, <=, <")))?;
    let (sign, op) = OPS
        .iter()
        .find(|(sign, _)| text[at..].starts_with(sign))
        .ok_or_else(|| FlagError(format!("--only {text}: the comparisons are = != >= > <= <")))?;
    let name = text[..at].trim();
    let raw = text[at + sign.len()..].trim();
    if labels.contains(name) {
        let values = any_of(value(raw, None)).into_iter().map(|v| (Term::Fixed(v.to_string().into()), 0..0)).collect();
        return Ok(Clause { subject: Subject::Label(Arc::from(name)), op: *op, values });
    }
    let path = normal_path(name);
    let param = match lookup(&path) {
        Lookup::Param(p) => p,
        _ => {
            let help = suggest(&path, labels);
            return Err(FlagError(with_help("--only", format!("`{path}` is not a parameter"), help)));
        }
    };
    let mut values = Vec::new();
    for v in any_of(value(raw, Some(param))) {
        let checked = match types::check(param, &path, v.clone(), words) {
            Err(e) if e.code == "out_of_range" => v,
            other => other.map_err(|e| FlagError(with_help("--only", e.message, e.help)))?,
        };
        values.push((Term::Fixed(checked), 0..0));
    }
    Ok(Clause { subject: Subject::Param(path.into()), op: *op, values })
}

fn any_of(value: Value) -> Vec<Value> {
    match value {
        Value::List(items) => items.to_vec(),
        other => vec![other],
    }
}

fn param(path: &str, flag: &str) -> Result<&'static Param, FlagError> {
    match lookup(path) {
        Lookup::Param(p) => Ok(p),
        _ => Err(FlagError(with_help(flag, format!("`{path}` is not a parameter"), suggest(path, &Labels::new())))),
    }
}

fn with_help(flag: &str, message: String, help: Option<String>) -> String {
    match help {
        Some(help) => format!("{flag}: {message}; {help}"),
        None => format!("{flag}: {message}"),
    }
}

/// A TOML value, or a bare word where text is meant.
fn value(raw: &str, param: Option<&Param>) -> Value {
    let wants_text = param.is_none_or(|p| {
        matches!(p.kind, Kind::Str | Kind::Word(_) | Kind::Duration | Kind::Method | Kind::Engine | Kind::Strings)
    });
    if wants_text && !raw.starts_with(['"', '\'', '[']) {
        return Value::str(raw);
    }
    let source = Arc::new(SourceText { name: "flag".into(), text: format!("v = {raw}") });
    let mut problems = Vec::new();
    let node = tree::parse(&source, &mut problems);
    match node.get("v") {
        Some(v) if problems.is_empty() => v.to_value(),
        _ if raw.starts_with('[') && raw.ends_with(']') => {
            Value::list(split_commas(&raw[1..raw.len() - 1]).map(|v| value(v.trim(), param)).collect())
        }
        _ => Value::str(raw),
    }
}

/// Splits at commas outside brackets and quotes.
fn split_commas(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut quote, mut start) = (0i32, None, 0);
    let mut parts = Vec::new();
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().filter(|p| !p.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vocabulary {
        Vocabulary { methods: vec!["hf".into()], engines: vec!["vllm".into(), "sglang".into()] }
    }

    #[test]
    fn set_takes_the_files_names_and_values() {
        let a = parse_set("engine_args.max-num-seqs=64", &words()).unwrap();
        assert_eq!((&*a.path, a.term.fixed()), ("engine_args.max_num_seqs", Some(&Value::Int(64))));
        assert_eq!(parse_set("model=org/m", &words()).unwrap().term.fixed(), Some(&"org/m".into()));
        assert!(parse_set("concurency=4", &words()).unwrap_err().0.contains("did you mean `concurrency`?"));
        assert!(parse_set("concurrency=four", &words()).unwrap_err().0.contains("whole number"));
        assert!(parse_set("concurrency", &words()).is_err());
    }

    #[test]
    fn only_reads_comparisons_lists_and_labels() {
        let labels = Labels::from(["precision".into()]);
        let p = parse_only("engine=[vllm, sglang],tokens.input>=1024,precision!=fp8", &labels, &words()).unwrap();
        let shape: Vec<_> = p.clauses.iter().map(|c| (c.subject.name(), c.op, c.values.len())).collect();
        assert_eq!(shape, [("engine", Op::Eq, 2), ("tokens.input", Op::Ge, 1), ("precision", Op::Ne, 1)]);
        assert!(parse_only("engine=vlm", &labels, &words()).unwrap_err().0.contains("did you mean `vllm`?"));
        assert!(parse_only("inputs>4", &labels, &words()).is_err());
        assert!(parse_only("", &labels, &words()).is_err());
    }
}
