//! Expressions: a string that is wholly `{{ … }}` is a minijinja expression over the cell's parameters; inside longer text
//! its value is interpolated.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::value::ValueKind;
use minijinja::{Environment, UndefinedBehavior};

use crate::template::limits;
use crate::value::{Table, Value};

/// Steps one evaluation may take.
const FUEL: u64 = 100_000;
/// Longest text, bytes, and most values that one may come to.
const MAX_TEXT: usize = 16 << 10;
const MAX_VALUES: usize = 10_000;

static ENV: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env
});

/// A value that may have to be computed for each cell.
#[derive(Clone, Debug)]
pub enum Term {
    Fixed(Value),
    Computed(Arc<Expr>),
}

/// A computed value: where it stands and what it reads.
#[derive(Debug)]
pub struct Expr {
    pub span: Range<usize>,
    /// Dotted paths that it reads.
    pub reads: Vec<String>,
    tree: Tree,
}

#[derive(Debug)]
enum Tree {
    Fixed(Value),
    Whole(minijinja::Expression<'static, 'static>),
    Text(Vec<Tree>),
    List(Vec<Tree>),
    Map(Vec<(Arc<str>, Tree)>),
}

/// Why a text is not an expression, or an expression has no value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExprError(pub String);

impl Term {
    /// Reads a value: text with `{{` becomes computed.
    pub fn new(value: Value, span: Range<usize>) -> Result<Term, ExprError> {
        if !has_expression(&value) {
            return Ok(Term::Fixed(value));
        }
        let mut reads = BTreeSet::new();
        let tree = compile(&value, &mut reads)?;
        Ok(Term::Computed(Arc::new(Expr { span, reads: reads.into_iter().collect(), tree })))
    }

    pub fn fixed(&self) -> Option<&Value> {
        match self {
            Term::Fixed(v) => Some(v),
            Term::Computed(_) => None,
        }
    }
}

impl Expr {
    /// Evaluates over nested tables that hold every path in `reads` that is set.
    pub fn eval(&self, context: &Table) -> Result<Value, ExprError> {
        let context = crate::template::jinja_value(&Value::map(context.clone()));
        self.tree.eval(&context)
    }
}

impl Tree {
    fn eval(&self, context: &minijinja::Value) -> Result<Value, ExprError> {
        match self {
            Tree::Fixed(v) => Ok(v.clone()),
            Tree::Whole(e) => {
                let value = e.eval(context.clone()).map_err(|e| ExprError(message(&e)))?;
                from_jinja(&value, &mut 0)
            }
            Tree::Text(parts) => {
                let mut out = String::new();
                for part in parts {
                    out.push_str(&part.eval(context)?.to_string());
                    short(&out)?;
                }
                Ok(out.into())
            }
            Tree::List(items) => Ok(Value::list(items.iter().map(|t| t.eval(context)).collect::<Result<_, _>>()?)),
            Tree::Map(entries) => {
                let pairs: Result<Table, ExprError> =
                    entries.iter().map(|(k, t)| Ok((k.clone(), t.eval(context)?))).collect();
                Ok(Value::map(pairs?))
            }
        }
    }
}

fn has_expression(value: &Value) -> bool {
    match value {
        Value::Str(s) => s.contains("{{"),
        Value::List(items) => items.iter().any(has_expression),
        Value::Map(table) => table.values().any(has_expression),
        _ => false,
    }
}

fn compile(value: &Value, reads: &mut BTreeSet<String>) -> Result<Tree, ExprError> {
    Ok(match value {
        Value::Str(s) if s.contains("{{") => compile_text(s, reads)?,
        Value::List(items) => Tree::List(items.iter().map(|v| compile(v, reads)).collect::<Result<_, _>>()?),
        Value::Map(table) => {
            Tree::Map(table.iter().map(|(k, v)| Ok((k.clone(), compile(v, reads)?))).collect::<Result<_, ExprError>>()?)
        }
        other => Tree::Fixed(other.clone()),
    })
}

fn compile_text(text: &str, reads: &mut BTreeSet<String>) -> Result<Tree, ExprError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let after = &rest[start + 2..];
        let end = after.find("}}").ok_or_else(|| ExprError("`{{` has no `}}`".into()))?;
        if start > 0 {
            parts.push(Tree::Fixed(Value::str(&rest[..start])));
        }
        let source = after[..end].trim();
        if source.is_empty() {
            return Err(ExprError("the expression is empty".into()));
        }
        limits::check(&text[text.len() - rest.len() + start..]).map_err(|(_, message)| ExprError(message))?;
        let expression = ENV.compile_expression_owned(source.to_string()).map_err(|e| ExprError(message(&e)))?;
        let globals: BTreeSet<&str> = ENV.globals().map(|(name, _)| name).collect();
        reads.extend(expression.undeclared_variables(true).into_iter().filter(|n| !globals.contains(n.as_str())));
        parts.push(Tree::Whole(expression));
        rest = &after[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Tree::Fixed(Value::str(rest)));
    }
    let whole = text.trim();
    let single = parts.iter().filter(|p| matches!(p, Tree::Whole(_))).count() == 1;
    if single && whole.starts_with("{{") && whole.ends_with("}}") {
        let only = parts.into_iter().find(|p| matches!(p, Tree::Whole(_)));
        return Ok(only.expect("there is one"));
    }
    Ok(Tree::Text(parts))
}

fn short(text: &str) -> Result<(), ExprError> {
    match text.len() {
        n if n > MAX_TEXT => Err(ExprError(format!("its text has {n} bytes; the limit is {MAX_TEXT}"))),
        _ => Ok(()),
    }
}

/// `count` is the number of values so far.
fn from_jinja(value: &minijinja::Value, count: &mut usize) -> Result<Value, ExprError> {
    *count += 1;
    if *count > MAX_VALUES {
        return Err(ExprError(format!("it comes to more than {MAX_VALUES} values")));
    }
    let number = |f: f64| Value::number(f).ok_or_else(|| ExprError("its value is not a finite number".into()));
    match value.kind() {
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => match value.as_i64() {
            Some(i) => Ok(Value::Int(i)),
            None => number(f64::try_from(value.clone()).map_err(|e| ExprError(message(&e)))?),
        },
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            short(text).map(|()| Value::str(text))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|e| ExprError(message(&e)))?;
            Ok(Value::list(items.map(|v| from_jinja(&v, count)).collect::<Result<_, _>>()?))
        }
        ValueKind::Map => {
            let mut table = Table::new();
            for key in value.try_iter().map_err(|e| ExprError(message(&e)))? {
                let item = value.get_item(&key).map_err(|e| ExprError(message(&e)))?;
                table.insert(key.to_string().into(), from_jinja(&item, count)?);
            }
            Ok(Value::map(table))
        }
        ValueKind::None | ValueKind::Undefined => {
            Err(ExprError("its value is none: a parameter that it reads is not set".into()))
        }
        other => Err(ExprError(format!("its value is {other}, which is not a parameter value"))),
    }
}

fn message(e: &minijinja::Error) -> String {
    match e.detail() {
        Some(detail) => detail.to_string(),
        None => e.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str, context: &str) -> Result<Value, String> {
        let context: Value = serde_json::from_str(context).unwrap();
        match Term::new(text.into(), 0..0).map_err(|e| e.to_string())? {
            Term::Fixed(v) => Ok(v),
            Term::Computed(e) => e.eval(context.as_map().unwrap()).map_err(|e| e.to_string()),
        }
    }

    #[test]
    fn a_whole_string_keeps_its_type_and_longer_text_is_interpolated() {
        let context = r#"{"concurrency":4,"tokens":{"input":1024},"model":"m"}"#;
        assert_eq!(eval("{{ 10 * concurrency }}", context).unwrap(), Value::Int(40));
        assert_eq!(eval("{{ tokens.input / 2 }}", context).unwrap(), Value::Int(512));
        assert_eq!(eval("x-{{ model }}-{{ concurrency }}", context).unwrap(), Value::str("x-m-4"));
        assert_eq!(eval("{{ concurrency }}{{ concurrency }}", context).unwrap(), Value::str("44"));
        assert_eq!(eval("plain", context).unwrap(), Value::str("plain"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(eval("{{ a", "{}").unwrap_err().contains("no `}}`"));
        assert!(eval("{{ 1 + }}", "{}").is_err());
        assert!(eval("{{ nothing + 1 }}", "{}").unwrap_err().contains("undefined"));
        assert!(eval("{{ nothing }}", "{}").unwrap_err().contains("not set"));
        assert!(eval("{{ none }}", "{}").unwrap_err().contains("none"));
    }

    #[test]
    fn what_it_may_come_to_is_limited() {
        let text = |n: usize| format!("{{{{ 'a' * {n} }}}}");
        assert!(eval(&text(1000), "{}").is_ok());
        assert!(eval(&text(20_000), "{}").unwrap_err().contains("the limit is 16384"));
        assert!(eval(&format!("{0}{0}", text(10_000)), "{}").unwrap_err().contains("the limit is"));
        for endless in
            ["{{ [0] * 100000000 }}", "{{ range(100000) }}", "{{ 'a' * 99999999 }}", "{{ [[[0]*999]*999]*999 }}"]
        {
            assert!(eval(endless, "{}").is_err(), "{endless}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(eval(&deep, "{}").is_err());
        assert!(eval(&format!("{{{{ {}1 }}}}", "-".repeat(100_000)), "{}").is_err());
        assert!(eval(&format!("{{{{ {}true }}}}", "not ".repeat(100_000)), "{}").is_err());
    }

    #[test]
    fn it_knows_what_it_reads() {
        let Ok(Term::Computed(e)) = Term::new("{{ tokens.input + max(concurrency, 1) }}".into(), 0..0) else {
            panic!()
        };
        assert!(
            e.reads.contains(&"tokens.input".to_string()) && e.reads.contains(&"concurrency".to_string()),
            "{:?}",
            e.reads
        );
    }
}
