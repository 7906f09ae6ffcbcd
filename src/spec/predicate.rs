//! The one predicate language of `exclude`, `when` and `--only`: a value, a list (any of), or `ne ge gt le lt`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::expr::Term;
use super::params::{Kind, Lookup, Param, lookup};
use super::read::Reader;
use super::tree::{Data, Entry, Node};
use super::types;
use crate::diag::Diagnostic;
use crate::units;
use crate::value::Value;

/// All clauses must hold.
#[derive(Clone, Debug)]
pub struct Predicate {
    pub span: Range<usize>,
    pub clauses: Vec<Clause>,
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Clause {
    pub subject: Subject,
    pub op: Op,
    /// Any of these (for `ne`: none of these); exactly one for the ordering operators.
    pub values: Vec<(Term, Range<usize>)>,
}

/// What a clause looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Param(Arc<str>),
    /// A labelled axis.
    Label(Arc<str>),
}

impl Subject {
    pub fn name(&self) -> &str {
        match self {
            Subject::Param(n) | Subject::Label(n) => n,
        }
    }
}

/// A comparison. Equality and `Ne` take any value; the others numbers and durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Op {
    pub fn parse(word: &str) -> Option<Op> {
        Some(match word {
            "ne" => Op::Ne,
            "ge" => Op::Ge,
            "gt" => Op::Gt,
            "le" => Op::Le,
            "lt" => Op::Lt,
            _ => return None,
        })
    }

    /// Whether `value` stands in this relation to `other`. An unset value matches only `ne`.
    pub fn holds(self, value: Option<&Value>, other: &Value) -> bool {
        let Some(value) = value else { return self == Op::Ne };
        match self {
            Op::Eq => value == other,
            Op::Ne => value != other,
            Op::Ge => compare(value, other).is_some_and(|o| o != Ordering::Less),
            Op::Gt => compare(value, other) == Some(Ordering::Greater),
            Op::Le => compare(value, other).is_some_and(|o| o != Ordering::Greater),
            Op::Lt => compare(value, other) == Some(Ordering::Less),
        }
    }
}

/// Numbers by size, durations by length; nothing else has an order.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) {
        return a.partial_cmp(&b);
    }
    let length = |v: &Value| v.as_str().and_then(|s| units::parse_duration(s).ok());
    Some(length(a)?.cmp(&length(b)?))
}

/// What clauses may name beside parameters.
pub type Labels = BTreeSet<Arc<str>>;

impl Reader<'_> {
    pub(super) fn predicate(&mut self, node: &Node, labels: &Labels) -> Option<Predicate> {
        let Some(entries) = node.as_table() else {
            let help = "for example { method = \"triton\", tokens.input.ge = 16000 }";
            let message = format!("a rule takes a table of parameters, not {}", node.type_name());
            self.push(Diagnostic::new("wrong_type", message).help(help), &node.span);
            return None;
        };
        if entries.is_empty() {
            let help = "name at least one parameter, or remove the rule";
            self.push(
                Diagnostic::new("empty_rule", "the rule is empty, so it says nothing about any cell").help(help),
                &node.span,
            );
            return None;
        }
        let mut clauses = Vec::new();
        for entry in entries {
            self.clause(&entry.key.clone(), entry, labels, &mut clauses);
        }
        Some(Predicate { span: node.span.clone(), clauses })
    }

    fn clause(&mut self, path: &str, entry: &Entry, labels: &Labels, out: &mut Vec<Clause>) {
        if labels.contains(path) {
            let subject = Subject::Label(path.into());
            return self.comparisons(subject, None, &entry.node, out);
        }
        let Some(path) = self.known_path_or(path, &entry.key_span, labels) else { return };
        let is_ops = |entries: &[Entry]| !entries.is_empty() && entries.iter().all(|e| Op::parse(&e.key).is_some());
        match (&entry.node.data, lookup(&path)) {
            (Data::Table(inner), Lookup::Table) => self.clauses_below(&path, inner, labels, out),
            (Data::Table(inner), Lookup::Param(p)) if p.is_open() && !is_ops(inner) => {
                self.clauses_below(&path, inner, labels, out)
            }
            (_, Lookup::Param(p)) => self.comparisons(Subject::Param(path.clone()), Some(p), &entry.node, out),
            (_, _) => {
                let message = format!("`{path}` is a table of parameters, not {}", entry.node.type_name());
                self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
            }
        }
    }

    fn clauses_below(&mut self, path: &str, inner: &[Entry], labels: &Labels, out: &mut Vec<Clause>) {
        for entry in inner {
            self.clause(&format!("{path}.{}", entry.key), entry, labels, out);
        }
    }

    fn comparisons(&mut self, subject: Subject, param: Option<&'static Param>, node: &Node, out: &mut Vec<Clause>) {
        match &node.data {
            Data::Table(entries) => {
                for entry in entries {
                    match Op::parse(&entry.key) {
                        Some(op) => out.extend(self.comparison(subject.clone(), param, op, &entry.node)),
                        None => {
                            let message = format!("`{}` is not a comparison of `{}`", entry.key, subject.name());
                            let help = "the comparisons are `ne`, `ge`, `gt`, `le`, `lt`; a bare value means equal";
                            self.push(Diagnostic::new("unknown_comparison", message).help(help), &entry.key_span);
                        }
                    }
                }
            }
            _ => out.extend(self.comparison(subject, param, Op::Eq, node)),
        }
    }

    fn comparison(&mut self, subject: Subject, param: Option<&'static Param>, op: Op, node: &Node) -> Option<Clause> {
        // A list is "any of", but for a parameter whose values are lists a flat list is one value.
        let pair = param.is_some_and(|p| p.kind == Kind::Pair);
        let nodes: Vec<&Node> = match &node.data {
            Data::List(items) if !(pair && items.iter().all(|i| matches!(i.data, Data::Scalar(_)))) => {
                items.iter().collect()
            }
            _ => vec![node],
        };
        if nodes.is_empty() || (nodes.len() > 1 && !matches!(op, Op::Eq | Op::Ne)) {
            let message = format!("this comparison of `{}` takes one value", subject.name());
            self.push(Diagnostic::new("wrong_type", message), &node.span);
            return None;
        }
        let mut values = Vec::new();
        for node in nodes {
            values.push((self.compared(&subject, param, op, node)?, node.span.clone()));
        }
        Some(Clause { subject, op, values })
    }

    fn compared(&mut self, subject: &Subject, param: Option<&'static Param>, op: Op, node: &Node) -> Option<Term> {
        let value = node.to_value();
        let name = subject.name().to_string();
        let Some(param) = param else {
            if value.as_str().is_none() || !matches!(op, Op::Eq | Op::Ne) {
                let message = format!("`{name}` is a labelled axis: it is compared with a label, for equality");
                self.push(Diagnostic::new("wrong_type", message), &node.span);
                return None;
            }
            return Some(Term::Fixed(value));
        };
        let term = self.term(value, &node.span)?;
        let Term::Fixed(value) = term else { return Some(term) };
        let ordered =
            matches!(param.kind, Kind::Int { .. } | Kind::Float { .. } | Kind::Duration | Kind::Open | Kind::Strings);
        if !matches!(op, Op::Eq | Op::Ne) && !ordered {
            let help = "only numbers and durations have an order; use a value, a list or `ne`";
            self.push(Diagnostic::new("wrong_type", format!("`{name}` has no order")).help(help), &node.span);
            return None;
        }
        // A bound may lie outside the range of values, so only the type matters there.
        match types::check(param, &name, value.clone(), self.words) {
            Ok(v) => Some(Term::Fixed(v)),
            Err(e) if e.code == "out_of_range" => Some(Term::Fixed(value)),
            Err(e) => {
                self.push(Diagnostic::new(e.code, e.message).maybe_help(e.help), &node.span);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_value_matches_only_ne() {
        let one = Value::Int(1);
        for (op, want) in [(Op::Eq, false), (Op::Ne, true), (Op::Ge, false), (Op::Lt, false)] {
            assert_eq!(op.holds(None, &one), want, "{op:?}");
        }
        assert!(Op::Ge.holds(Some(&Value::Int(1)), &one) && !Op::Gt.holds(Some(&Value::Int(1)), &one));
        assert!(Op::Lt.holds(Some(&"500ms".into()), &"1s".into()));
        assert!(!Op::Lt.holds(Some(&"a".into()), &"b".into()));
    }
}
