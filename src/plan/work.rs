//! A cell under construction: values by path, expressions not yet evaluated.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;

use super::paths::{PathId, Paths};
use crate::diag::Diagnostic;
use crate::spec::expr::{Expr, Term};
use crate::spec::params::{DefaultValue, Lookup, lookup};
use crate::spec::predicate::{Clause, Op, Predicate, Subject};
use crate::spec::types::{self, Vocabulary, insert_nested};
use crate::value::{Table, Value};

/// Where an asset is mounted in a container: what `{{ assets.NAME }}` is.
pub const ASSET_ROOT: &str = "/llmatrix/assets";

/// Labels of a cell: (axis, label).
pub type Labels = Vec<(Arc<str>, Arc<str>)>;

#[derive(Clone, Debug)]
pub struct Work {
    terms: Vec<Option<Term>>,
    pub labels: Labels,
}

/// A problem with a computed value, and the expression's place.
pub struct EvalError {
    pub diagnostic: Diagnostic,
    pub span: Range<usize>,
}

/// What evaluation needs beside the cell.
pub struct Scope<'a> {
    pub paths: &'a Paths,
    pub words: &'a Vocabulary,
    /// Paths whose expressions are being evaluated: meeting one again is a cycle.
    pub open: RefCell<Vec<PathId>>,
    /// Expressions evaluated for the cell so far.
    pub steps: Cell<u32>,
}

/// Most expressions that one may lead to, one reading another.
const MAX_CHAIN: usize = 64;
/// Most evaluations for one cell: expressions that read each other many times over would multiply.
const MAX_STEPS: u32 = 20_000;

impl Work {
    pub fn new(paths: &Paths) -> Work {
        Work { terms: vec![None; paths.len()], labels: Labels::new() }
    }

    pub fn set(&mut self, paths: &Paths, id: PathId, term: Term) {
        for other in paths.replaces(id) {
            self.terms[usize::from(other.0)] = None;
        }
        self.terms[usize::from(id.0)] = Some(term);
    }

    /// Removes a path and everything below it.
    pub fn unset(&mut self, paths: &Paths, name: &str) {
        for id in paths.below(name) {
            self.terms[usize::from(id.0)] = None;
        }
    }

    pub fn is_set(&self, id: PathId) -> bool {
        self.terms[usize::from(id.0)].is_some()
    }

    fn term(&self, id: PathId) -> Option<&Term> {
        self.terms[usize::from(id.0)].as_ref()
    }

    /// Evaluates every expression in place.
    pub fn evaluate(&mut self, scope: &Scope) -> Result<(), EvalError> {
        for i in 0..self.terms.len() {
            if let Some(Term::Computed(_)) = self.terms[i] {
                let value = self.value(scope, PathId(i as u16))?;
                self.terms[i] = value.map(Term::Fixed);
            }
        }
        Ok(())
    }

    /// The set values, sorted by path. Expressions must have been evaluated.
    pub fn values(&self, paths: &Paths) -> Vec<(Arc<str>, Value)> {
        let set = self.terms.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?.fixed()?)));
        set.map(|(i, v)| (paths.name(PathId(i as u16)).clone(), v.clone())).collect()
    }

    /// The value of a path, its default where it has a fixed one.
    pub fn value(&self, scope: &Scope, id: PathId) -> Result<Option<Value>, EvalError> {
        match self.term(id) {
            Some(Term::Fixed(v)) => Ok(Some(v.clone())),
            Some(Term::Computed(e)) => self.computed(scope, id, e).map(Some),
            None => Ok(self.default(scope.paths, id)),
        }
    }

    fn default(&self, paths: &Paths, id: PathId) -> Option<Value> {
        let name = paths.name(id);
        let Lookup::Param(param) = lookup(name) else { return None };
        match param.default {
            DefaultValue::Derived(_) if param.name == "concurrency" => {
                (!self.is_set(paths.id("rate"))).then_some(Value::Int(1))
            }
            default => default.value(),
        }
    }

    fn computed(&self, scope: &Scope, id: PathId, expr: &Expr) -> Result<Value, EvalError> {
        let name = scope.paths.name(id).clone();
        let fail = |code, message: String, help: Option<String>| EvalError {
            diagnostic: Diagnostic::new(code, message).maybe_help(help),
            span: expr.span.clone(),
        };
        if scope.open.borrow().contains(&id) {
            let mut chain: Vec<String> =
                scope.open.borrow().iter().map(|p| format!("`{}`", scope.paths.name(*p))).collect();
            chain.push(format!("`{name}`"));
            let message = format!("the expression of `{name}` reads itself: {}", chain.join(" → "));
            return Err(fail("cyclic_expression", message, Some("give one of them a value".into())));
        }
        scope.steps.set(scope.steps.get() + 1);
        if scope.open.borrow().len() >= MAX_CHAIN || scope.steps.get() > MAX_STEPS {
            let message = format!(
                "the expression of `{name}` leads to too many others: at most {MAX_CHAIN} may read one another in a row, and \
                 {MAX_STEPS} evaluations make a cell"
            );
            return Err(fail("too_complex", message, Some("write values where they are known".into())));
        }
        scope.open.borrow_mut().push(id);
        let value = self.eval(scope, expr);
        scope.open.borrow_mut().pop();
        let value = value?;
        let Lookup::Param(param) = lookup(&name) else { return Ok(value) };
        types::check(param, &name, value.clone(), scope.words)
            .map_err(|e| fail(e.code, format!("the expression gives {value}: {}", e.message), e.help))
    }

    fn eval(&self, scope: &Scope, expr: &Expr) -> Result<Value, EvalError> {
        let mut context = Table::new();
        for read in &expr.reads {
            for id in scope.paths.below(read) {
                let name = scope.paths.name(id).clone();
                if let Some(asset) = name.strip_prefix("assets.") {
                    if self.is_set(id) {
                        insert_nested(&mut context, &name, format!("{ASSET_ROOT}/{asset}").into());
                    }
                } else if let Some(value) = self.value(scope, id)? {
                    insert_nested(&mut context, &name, value);
                }
            }
        }
        expr.eval(&context).map_err(|e| {
            let unset: Vec<String> =
                expr.reads.iter().filter(|r| !has_path(&context, r)).map(|r| format!("`{r}`")).collect();
            let help = (!unset.is_empty()).then(|| format!("{} has no value in this cell", unset.join(", ")));
            EvalError {
                diagnostic: Diagnostic::new("bad_expression", format!("the expression has no value: {e}"))
                    .maybe_help(help),
                span: expr.span.clone(),
            }
        })
    }

    /// Whether a clause holds; `seen` is told the index of each listed value that equals the cell's.
    fn clause(&self, scope: &Scope, clause: &Clause, seen: &mut dyn FnMut(usize)) -> Result<bool, EvalError> {
        let value = match &clause.subject {
            Subject::Param(path) => self.value(scope, scope.paths.id(path))?,
            Subject::Label(axis) => self.labels.iter().find(|(a, _)| a == axis).map(|(_, l)| Value::Str(l.clone())),
        };
        let mut any = false;
        let mut all = true;
        for (i, (term, _)) in clause.values.iter().enumerate() {
            let other = match term {
                Term::Fixed(v) => v.clone(),
                Term::Computed(e) => self.eval(scope, e)?,
            };
            if value.as_ref() == Some(&other) {
                seen(i);
            }
            let holds = clause.op.holds(value.as_ref(), &other);
            any |= holds;
            all &= holds;
        }
        Ok(if clause.op == Op::Ne { all } else { any })
    }

    /// Whether all clauses hold. Every clause is looked at, so that `seen(clause, value)` hears of each value met.
    pub fn matches(
        &self,
        scope: &Scope,
        predicate: &Predicate,
        mut seen: impl FnMut(usize, usize),
    ) -> Result<bool, EvalError> {
        let mut all = true;
        for (c, clause) in predicate.clauses.iter().enumerate() {
            all &= self.clause(scope, clause, &mut |v| seen(c, v))?;
        }
        Ok(all)
    }
}

fn has_path(table: &Table, path: &str) -> bool {
    match path.split_once('.') {
        None => table.contains_key(path),
        Some((head, rest)) => table.get(head).and_then(Value::as_map).is_some_and(|t| has_path(t, rest)),
    }
}
