//! Expansion: defaults → product of axes and `vary` → overrides → expressions → exclude → `--set`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::paths::{PathId, Paths};
use super::work::{EvalError, Labels, Scope, Work};
use crate::diag::{Diagnostic, did_you_mean};
use crate::spec::Spec;
use crate::spec::block::{Assignment, Axis, Block, Product};
use crate::spec::expr::Term;
use crate::spec::predicate::{Op, Predicate, Subject};
use crate::spec::search::SearchAxis;
use crate::spec::types::Vocabulary;
use crate::value::Value;

/// Most cells one experiment may expand to.
pub const MAX_CELLS: u64 = 1_000_000;
/// Problems after which expansion stops looking for more.
const MAX_PROBLEMS: usize = 50;

/// A cell, every parameter with its value.
#[derive(Debug)]
pub struct Expanded {
    /// Set parameters, sorted by path; defaults are not filled in.
    pub values: Vec<(Arc<str>, Value)>,
    pub labels: Labels,
    /// Index of the block it came from.
    pub block: u32,
    /// Overrides with `run` or `slo` that matched, in order.
    pub policies: Arc<[u16]>,
    /// The search that may ask for this cell.
    pub search: Option<SearchPoint>,
}

/// One value that a search may ask for.
#[derive(Clone, Debug)]
pub struct SearchPoint {
    pub axis: Arc<SearchAxis>,
    /// Tells the searches of an experiment apart: cells of one search differ in the searched parameter only.
    pub search: u32,
    pub value: Value,
}

/// Expands a spec. Problems of several cells at one place are reported once.
pub fn expand(
    spec: &Spec,
    words: &Vocabulary,
    paths: &Paths,
    set: &[Assignment],
) -> Result<Vec<Expanded>, Vec<Diagnostic>> {
    too_many(spec)?;
    too_large(spec, paths)?;
    let scope = Scope { paths, words, open: RefCell::new(Vec::new()), steps: Cell::new(0) };
    let mut e = Expander {
        spec,
        scope,
        set,
        out: Vec::new(),
        problems: Vec::new(),
        reported: HashSet::new(),
        overrides: spec.overrides.iter().map(|o| Usage::new(o.when.as_ref())).collect(),
        policies: HashMap::new(),
        axes: HashMap::new(),
        searches: 0,
    };
    for (index, block) in spec.blocks.iter().enumerate() {
        e.block(index as u32, block);
    }
    e.unused_overrides();
    if e.problems.is_empty() { Ok(e.out) } else { Err(e.problems) }
}

fn too_many(spec: &Spec) -> Result<(), Vec<Diagnostic>> {
    let total = spec.blocks.iter().fold(0u64, |n, b| n.saturating_add(b.product.count()));
    if total <= MAX_CELLS {
        return Ok(());
    }
    let largest = spec.blocks.iter().max_by_key(|b| b.product.count()).expect("a total needs a block");
    let sizes: Vec<String> = largest.product.axes.iter().map(|a| format!("{} {}", a.name, axis_len(a))).collect();
    let span = largest.product.axes.first().map_or(largest.span.clone(), |a| a.span.clone());
    let message = format!("the experiment expands to {total} cells; the limit is {MAX_CELLS}");
    let help = format!(
        "the largest block is a product of: {}; fewer values, or several smaller blocks, make it plannable",
        sizes.join(" × ")
    );
    Err(vec![Diagnostic::new("too_many_cells", message).at(&spec.source, span).help(help)])
}

/// Most values in all cells together, most rules of a kind, most axes of a block with those of its points.
const MAX_VALUES: u64 = 100_000_000;
const MAX_RULES: usize = 1000;
const MAX_BLOCKS: usize = 1000;
const MAX_AXES: usize = 256;

/// What would take more memory or time than any real experiment.
fn too_large(spec: &Spec, paths: &Paths) -> Result<(), Vec<Diagnostic>> {
    let fail = |span: &Range<usize>, message: String| {
        Err(vec![Diagnostic::new("too_large", message).at(&spec.source, span.clone())])
    };
    if let Some(block) = spec.blocks.get(MAX_BLOCKS) {
        return fail(
            &block.span,
            format!("the experiment has {} blocks; the limit is {MAX_BLOCKS}", spec.blocks.len()),
        );
    }
    if spec.overrides.len() > MAX_RULES {
        return fail(
            &(0..0),
            format!("the experiment has {} overrides; the limit is {MAX_RULES}", spec.overrides.len()),
        );
    }
    for block in &spec.blocks {
        if block.exclude.len() > MAX_RULES {
            let n = block.exclude.len();
            return fail(&block.span, format!("the block has {n} rules that exclude; the limit is {MAX_RULES}"));
        }
        let axes = axes_in_a_row(&block.product);
        if axes > MAX_AXES {
            return fail(&block.span, format!("the block has {axes} axes; the limit is {MAX_AXES}"));
        }
    }
    let cells = spec.blocks.iter().fold(0u64, |n, b| n.saturating_add(b.product.count()));
    let mentioned = (paths.len() as u64).saturating_sub(crate::spec::params::PARAMS.len() as u64).max(1);
    if cells.saturating_mul(mentioned) > MAX_VALUES {
        let message = format!(
            "the experiment expands to {cells} cells with {mentioned} parameters of their own; the limit is {MAX_VALUES} values"
        );
        return fail(&(0..0), message);
    }
    Ok(())
}

/// Axes that are chosen from one after the other.
fn axes_in_a_row(product: &Product) -> usize {
    let below = |axis: &Axis| axis.points.iter().map(|p| axes_in_a_row(&p.product)).max().unwrap_or(0);
    product.axes.iter().map(|axis| 1 + below(axis)).sum()
}

fn axis_len(axis: &Axis) -> u64 {
    axis.points.iter().map(|p| p.product.count()).sum()
}

/// What a rule has met so far.
struct Usage {
    matched: bool,
    /// By clause, by value: whether some cell had it.
    seen: Vec<Vec<bool>>,
}

impl Usage {
    fn new(predicate: Option<&Predicate>) -> Usage {
        let seen = predicate.map_or_else(Vec::new, |p| p.clauses.iter().map(|c| vec![false; c.values.len()]).collect());
        Usage { matched: false, seen }
    }

    fn test(&mut self, work: &Work, scope: &Scope, predicate: Option<&Predicate>) -> Result<bool, EvalError> {
        let holds = match predicate {
            None => true,
            Some(p) => work.matches(scope, p, |c, v| self.seen[c][v] = true)?,
        };
        self.matched |= holds;
        Ok(holds)
    }
}

struct Expander<'a> {
    spec: &'a Spec,
    scope: Scope<'a>,
    set: &'a [Assignment],
    out: Vec<Expanded>,
    problems: Vec<Diagnostic>,
    reported: HashSet<(usize, &'static str)>,
    overrides: Vec<Usage>,
    policies: HashMap<Vec<u16>, Arc<[u16]>>,
    axes: HashMap<usize, Arc<SearchAxis>>,
    /// Searches met so far.
    searches: u32,
}

/// What stands below a point of the product tree: axes still to be chosen from.
type Pending<'s> = Vec<&'s Axis>;

impl<'a> Expander<'a> {
    fn block(&mut self, index: u32, block: &'a Block) {
        let mut work = Work::new(self.scope.paths);
        self.assign(&mut work, &self.spec.defaults);
        let mut uses: Vec<Usage> = block.exclude.iter().map(|p| Usage::new(Some(p))).collect();
        let before = self.out.len();
        let problems = self.problems.len();
        self.descend(index, block, work, &block.product, Vec::new(), None, &mut uses);
        if self.problems.len() > problems {
            return;
        }
        for (rule, usage) in block.exclude.iter().zip(&uses) {
            self.unused(rule, usage, "exclude", &rule.span, Some(block));
        }
        if self.out.len() == before {
            let message = "no cell of this block survives its `exclude` rules";
            let problem = Diagnostic::new("empty_block", message).help("loosen a rule, or remove the block");
            self.report(problem, block.span.clone());
        }
    }

    fn assign(&self, work: &mut Work, list: &[Assignment]) {
        for a in list {
            work.set(self.scope.paths, self.scope.paths.id(&a.path), a.term.clone());
        }
    }

    /// Applies a product's fixed values, then goes through its axes and those still pending from above.
    #[expect(clippy::too_many_arguments, reason = "one recursion, its whole state")]
    fn descend(
        &mut self,
        index: u32,
        block: &'a Block,
        mut work: Work,
        product: &'a Product,
        mut pending: Pending<'a>,
        mut search: Option<&'a SearchAxis>,
        uses: &mut [Usage],
    ) {
        self.assign(&mut work, &product.fixed);
        for axis in &product.searches {
            if let Some(other) = search.replace(axis) {
                let message = format!("`{}` and `{}` are both searched", other.path, axis.path);
                let help = "a search varies one parameter; give the other one values of its own";
                return self.report(Diagnostic::new("two_searches", message).help(help), axis.span.clone());
            }
        }
        // The last pending axis is chosen next, so the first one written varies slowest.
        pending.extend(product.axes.iter().rev());
        let Some(axis) = pending.pop() else {
            return self.leaf(index, block, work, search, uses);
        };
        for point in &axis.points {
            if self.problems.len() >= MAX_PROBLEMS {
                return;
            }
            let mut work = work.clone();
            if let Some(label) = &point.label {
                work.labels.push((axis.name.clone(), label.clone()));
            }
            self.descend(index, block, work, &point.product, pending.clone(), search, uses);
        }
    }

    /// A finished combination of axis values: one cell, or one for each value that its search may ask for, so that rules
    /// and expressions see a probe as they see any other cell.
    fn leaf(&mut self, index: u32, block: &Block, work: Work, search: Option<&SearchAxis>, uses: &mut [Usage]) {
        let Some(axis) = search.filter(|s| !self.set.iter().any(|a| a.path == s.path)) else {
            return self.cell(index, block, work, None, uses);
        };
        let axis = self.axes.entry(std::ptr::from_ref(axis).addr()).or_insert_with(|| Arc::new(axis.clone())).clone();
        let search = self.searches;
        self.searches += 1;
        for value in axis.grid.iter().filter_map(|v| Value::number(*v)) {
            let mut work = work.clone();
            work.set(self.scope.paths, self.scope.paths.id(&axis.path), Term::Fixed(value.clone()));
            let point = SearchPoint { axis: axis.clone(), search, value };
            self.cell(index, block, work, Some(point), uses);
        }
    }

    fn cell(&mut self, index: u32, block: &Block, mut work: Work, search: Option<SearchPoint>, uses: &mut [Usage]) {
        match self.settle(block, &mut work, uses) {
            Err(e) => self.report(e.diagnostic, e.span),
            Ok(None) => {}
            Ok(Some(policies)) => {
                for a in self.set {
                    let id = self.scope.paths.id(&a.path);
                    work.set(self.scope.paths, id, a.term.clone());
                }
                let policies = match self.policies.get(&policies) {
                    Some(shared) => shared.clone(),
                    None => {
                        let shared: Arc<[u16]> = policies.as_slice().into();
                        self.policies.insert(policies, shared.clone());
                        shared
                    }
                };
                let values = work.values(self.scope.paths);
                self.out.push(Expanded { values, labels: work.labels, block: index, policies, search });
            }
        }
    }

    /// Overrides, expressions, exclude. `None` is an excluded cell.
    fn settle(&mut self, block: &Block, work: &mut Work, uses: &mut [Usage]) -> Result<Option<Vec<u16>>, EvalError> {
        self.scope.steps.set(0);
        let mut policies = Vec::new();
        for (i, rule) in self.spec.overrides.iter().enumerate() {
            if !self.overrides[i].test(work, &self.scope, rule.when.as_ref())? {
                continue;
            }
            for a in &rule.set {
                let id = self.scope.paths.id(&a.path);
                work.set(self.scope.paths, id, a.term.clone());
            }
            for path in &rule.unset {
                work.unset(self.scope.paths, path);
            }
            if !rule.run.is_empty() || rule.slo.is_some() {
                policies.push(i as u16);
            }
        }
        work.evaluate(&self.scope)?;
        let mut excluded = false;
        for (rule, usage) in block.exclude.iter().zip(uses) {
            excluded |= usage.test(work, &self.scope, Some(rule))?;
        }
        Ok((!excluded).then_some(policies))
    }

    fn report(&mut self, problem: Diagnostic, span: Range<usize>) {
        if self.reported.insert((span.start, problem.code)) {
            self.problems.push(problem.at(&self.spec.source, span));
        }
    }

    fn unused_overrides(&mut self) {
        if !self.problems.is_empty() {
            return;
        }
        let overrides = std::mem::take(&mut self.overrides);
        for (rule, usage) in self.spec.overrides.iter().zip(&overrides) {
            if let Some(when) = &rule.when {
                self.unused(when, usage, "when", &when.span, None);
            }
        }
    }

    /// A rule that matches nothing is a mistake, and so is a listed value that no cell has.
    fn unused(&mut self, rule: &Predicate, usage: &Usage, what: &str, span: &Range<usize>, block: Option<&Block>) {
        let mut named = false;
        for (clause, seen) in rule.clauses.iter().zip(&usage.seen) {
            for ((term, value_span), seen) in clause.values.iter().zip(seen) {
                let (Term::Fixed(value), false, Op::Eq) = (term, *seen, clause.op) else { continue };
                let known = self.known_values(&clause.subject, block);
                let name = clause.subject.name();
                let help =
                    value.as_str().and_then(|v| did_you_mean(v, known.iter().map(String::as_str))).or_else(|| {
                        (!known.is_empty() && known.len() <= 12).then(|| format!("the cells have {}", known.join(", ")))
                    });
                let message = format!("no cell has `{name}` = {value}, so this value of `{what}` matches nothing");
                self.report(Diagnostic::new("matches_nothing", message).maybe_help(help), value_span.clone());
                named = true;
            }
        }
        if !usage.matched && !named {
            let message = format!("this `{what}` rule matches no cell");
            let help = "every part holds for some cell, but never all at once; loosen it, or remove it";
            self.report(Diagnostic::new("matches_nothing", message).help(help), span.clone());
        }
    }

    /// Values that a parameter or labelled axis is given anywhere in the file; only for messages.
    fn known_values(&self, subject: &Subject, block: Option<&Block>) -> Vec<String> {
        let mut out = BTreeSet::new();
        let blocks = block.map_or_else(|| self.spec.blocks.iter().collect::<Vec<_>>(), |b| vec![b]);
        for b in blocks {
            collect_values(&b.product, subject, &mut out);
        }
        if let Subject::Param(path) = subject {
            let fixed = self.spec.defaults.iter().chain(self.spec.overrides.iter().flat_map(|o| &o.set));
            out.extend(fixed.filter(|a| a.path == *path).filter_map(|a| a.term.fixed()).map(Value::to_string));
        }
        out.into_iter().collect()
    }
}

fn collect_values(product: &Product, subject: &Subject, out: &mut BTreeSet<String>) {
    if let Subject::Param(path) = subject {
        out.extend(
            product.fixed.iter().filter(|a| a.path == *path).filter_map(|a| a.term.fixed()).map(Value::to_string),
        );
    }
    for axis in &product.axes {
        for point in &axis.points {
            if let (Subject::Label(name), Some(label)) = (subject, &point.label)
                && *name == axis.name
            {
                out.insert(label.to_string());
            }
            collect_values(&point.product, subject, out);
        }
    }
}

/// Whether a finished cell matches; used by `--only`.
pub fn matches(
    values: &[(Arc<str>, Value)],
    labels: &Labels,
    predicate: &Predicate,
    paths: &Paths,
    words: &Vocabulary,
) -> bool {
    let mut work = Work::new(paths);
    for (path, value) in values {
        work.set(paths, paths.id(path), Term::Fixed(value.clone()));
    }
    work.labels = labels.clone();
    let scope = Scope { paths, words, open: RefCell::new(Vec::<PathId>::new()), steps: Cell::new(0) };
    work.matches(&scope, predicate, |_, _| {}).unwrap_or(false)
}
