//! `[[matrix]]` blocks: which values are axes, what each point of an axis sets, and which axes collide.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::expr::Term;
use super::params::{Kind, Lookup, lookup};
use super::predicate::Predicate;
use super::read::{Reader, named_by_files};
use super::search::{SearchAxis, grid};
use super::tree::{Data, Entry, Node};
use crate::diag::Diagnostic;
use crate::units::Objective;
use crate::value::Value;

/// One parameter gets one value.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Dotted path.
    pub path: Arc<str>,
    pub term: Term,
    pub span: Range<usize>,
}

/// One `[[matrix]]` block.
#[derive(Debug)]
pub struct Block {
    pub span: Range<usize>,
    pub product: Product,
    pub exclude: Vec<Predicate>,
}

/// Fixed values and axes; its points are the product of its axes.
#[derive(Debug, Default)]
pub struct Product {
    pub fixed: Vec<Assignment>,
    pub axes: Vec<Axis>,
    pub searches: Vec<SearchAxis>,
}

/// A parameter with several values, or a labelled axis.
#[derive(Debug)]
pub struct Axis {
    /// The path that the values stand at, or the name under `vary`.
    pub name: Arc<str>,
    pub span: Range<usize>,
    pub points: Vec<Point>,
}

/// One value of an axis.
#[derive(Debug)]
pub struct Point {
    /// The label, on a `vary` axis.
    pub label: Option<Arc<str>>,
    pub product: Product,
}

impl Product {
    /// Every assignment of the product, those of its axes' points included.
    pub fn assignments<'a>(&'a self, out: &mut Vec<&'a Assignment>) {
        out.extend(&self.fixed);
        self.axes.iter().flat_map(|a| &a.points).for_each(|p| p.product.assignments(out));
    }

    /// Number of points, each value that a search may ask for among them; saturates.
    pub fn count(&self) -> u64 {
        let axes = self.axes.iter().map(|a| a.points.iter().fold(0u64, |n, p| n.saturating_add(p.product.count())));
        axes.chain(self.searches.iter().map(|s| s.grid.len() as u64)).fold(1, u64::saturating_mul)
    }

    /// Every path that some point sets.
    fn sets(&self, into: &mut BTreeSet<Arc<str>>) {
        into.extend(self.fixed.iter().map(|a| a.path.clone()));
        into.extend(self.searches.iter().map(|s| s.path.clone()));
        for axis in &self.axes {
            for point in &axis.points {
                point.product.sets(into);
            }
        }
    }

    /// Names of the labelled axes, nested ones included.
    pub fn labels(&self, into: &mut BTreeSet<Arc<str>>) {
        for axis in &self.axes {
            for point in &axis.points {
                if point.label.is_some() {
                    into.insert(axis.name.clone());
                }
                point.product.labels(into);
            }
        }
    }

    /// Names of the plain axes (dotted paths), nested ones included.
    pub fn axis_paths(&self, into: &mut BTreeSet<Arc<str>>) {
        for axis in &self.axes {
            for point in &axis.points {
                match point.label {
                    // A labelled point's own axes are coordinates too; what it sets is covered by its label.
                    Some(_) => point.product.axis_paths(into),
                    None => point.product.sets(into),
                }
            }
        }
        into.extend(self.searches.iter().map(|s| s.path.clone()));
    }
}

impl Reader<'_> {
    /// Reads a block (or, for a `vary` point, a partial block).
    pub(super) fn product(&mut self, entries: &[Entry]) -> Product {
        let mut product = Product::default();
        for entry in entries {
            match &*entry.key {
                "exclude" => {}
                "vary" => self.vary(&entry.node, &mut product),
                _ => self.branch(&entry.key.clone(), &entry.key_span, &entry.node, &mut product),
            }
        }
        self.collisions(&product);
        product
    }

    /// Descends tables to the first list or range: that is an axis.
    fn branch(&mut self, path: &str, key_span: &Range<usize>, node: &Node, out: &mut Product) {
        let Some(path) = self.known_path(path, key_span) else { return };
        match &node.data {
            Data::List(items) => self.plain_axis(&path, key_span, node, items, out),
            Data::Table(entries) if is_range(&path, entries) => self.range(&path, key_span, node, out),
            Data::Table(entries) if may_hold_table(&path) && !entries.is_empty() && !named_by_files(entries) => {
                for entry in entries {
                    self.branch(&format!("{path}.{}", entry.key), &entry.key_span, &entry.node, out);
                }
            }
            _ => out.fixed.extend(self.literal(&path, key_span, node)),
        }
    }

    fn plain_axis(&mut self, path: &str, key_span: &Range<usize>, node: &Node, items: &[Node], out: &mut Product) {
        if items.is_empty() {
            self.push(
                Diagnostic::new("empty_axis", format!("the axis `{path}` has no values, so no cell exists"))
                    .help("give it a value, or leave it out"),
                &node.span,
            );
            return;
        }
        let points = items
            .iter()
            .map(|item| Point {
                label: None,
                product: Product { fixed: self.literal(path, &item.span, item), ..Product::default() },
            })
            .collect();
        out.axes.push(Axis { name: path.into(), span: key_span.clone(), points });
    }

    fn vary(&mut self, node: &Node, out: &mut Product) {
        let Some(axes) = node.as_table() else {
            let help = "write [matrix.vary.NAME] with one table per label";
            self.push(
                Diagnostic::new("wrong_type", format!("`vary` takes tables, not {}", node.type_name())).help(help),
                &node.span,
            );
            return;
        };
        for axis in axes {
            if !matches!(lookup(&axis.key), Lookup::Unknown) {
                let message = format!("`{}` is a parameter; a labelled axis needs a name of its own", axis.key);
                self.push(Diagnostic::new("name_taken", message).help("rename the axis"), &axis.key_span);
                continue;
            }
            let labels = axis.node.as_table().unwrap_or_default();
            if labels.is_empty() {
                let message = format!("the labelled axis `{}` has no points", axis.key);
                let help = "write one table per label, such as `fp8 = { quantization = \"fp8\" }`";
                self.push(Diagnostic::new("empty_axis", message).help(help), &axis.node.span);
                continue;
            }
            let mut points = Vec::new();
            for label in labels {
                let Some(entries) = label.node.as_table() else {
                    let message = format!(
                        "the point `{}.{}` is {}; it takes a table of parameters",
                        axis.key,
                        label.key,
                        label.node.type_name()
                    );
                    self.push(Diagnostic::new("wrong_type", message), &label.node.span);
                    continue;
                };
                if let Some(rule) = entries.iter().find(|e| &*e.key == "exclude") {
                    let help = "put the rule into the block's `exclude`; it can name this axis by its label";
                    self.push(
                        Diagnostic::new("unknown_parameter", "a labelled point takes no `exclude`").help(help),
                        &rule.key_span,
                    );
                }
                points.push(Point { label: Some(label.key.clone()), product: self.product(entries) });
            }
            out.axes.push(Axis { name: axis.key.clone(), span: axis.key_span.clone(), points });
        }
    }

    /// Two axes that set one scalar have no order between them, so neither can win.
    fn collisions(&mut self, product: &Product) {
        let mut seen: Vec<(BTreeSet<Arc<str>>, Arc<str>)> = Vec::new();
        let mut found = Vec::new();
        let searches =
            product.searches.iter().map(|s| (BTreeSet::from([s.path.clone()]), s.path.clone(), s.span.clone()));
        let axes = product.axes.iter().map(|axis| {
            let mut sets = BTreeSet::new();
            for point in &axis.points {
                point.product.sets(&mut sets);
            }
            (sets, axis.name.clone(), axis.span.clone())
        });
        for (sets, name, span) in axes.chain(searches) {
            for (other, other_name) in &seen {
                if let Some(path) = sets.iter().find(|p| other.iter().any(|o| overlaps(p, o))) {
                    found.push((path.clone(), other_name.clone(), name.clone(), span.clone()));
                }
            }
            seen.push((sets, name));
        }
        for (path, first, second, span) in found {
            self.push(
                Diagnostic::new("axis_conflict", format!("the axes `{first}` and `{second}` both set `{path}`"))
                    .help("keep one of them, or make them one labelled axis under [matrix.vary.NAME]"),
                &span,
            );
        }
    }
}

/// One path is the other, or a table around it.
pub fn overlaps(a: &str, b: &str) -> bool {
    let inside = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    inside(a, b) || inside(b, a)
}

fn may_hold_table(path: &str) -> bool {
    match lookup(path) {
        Lookup::Table => true,
        Lookup::Param(p) => p.is_open(),
        Lookup::Unknown => false,
    }
}

const RANGE_KEYS: [&str; 6] = ["from", "to", "times", "step", "until", "within"];

/// A table of range keys, or anything with one of them where a number belongs.
fn is_range(path: &str, entries: &[Entry]) -> bool {
    let known = |e: &Entry| RANGE_KEYS.contains(&&*e.key);
    let numeric = matches!(lookup(path), Lookup::Param(p) if matches!(p.kind, Kind::Int { .. } | Kind::Float { .. }));
    let both = ["from", "to"].iter().all(|k| entries.iter().any(|e| &*e.key == *k));
    (numeric && entries.iter().any(known)) || (both && entries.iter().all(known))
}

/// Most values of one range.
const MAX_POINTS: f64 = 1e6;

/// The numbers of a range, `to` always included.
pub fn range_values(from: f64, to: f64, times: Option<f64>, step: Option<f64>) -> Vec<Value> {
    let mut out = Vec::new();
    let mut i = 0u32;
    loop {
        let x = match (times, step) {
            (Some(times), _) => from * times.powi(i as i32),
            (None, Some(step)) => from + step * f64::from(i),
            (None, None) => to,
        };
        // A hair below the end counts as the end: 0.1 steps do not add up exactly.
        if x >= to - (to.abs() * 1e-12) {
            break;
        }
        out.extend(Value::number(as_written(x)));
        i += 1;
    }
    out.extend(Value::number(to));
    out
}

/// The number that a person would have written: 0.1 + 2 × 0.1 is 0.3, so that a range and the list of its values are the
/// same cells. A float carries fifteen decimal digits faithfully.
fn as_written(x: f64) -> f64 {
    format!("{x:.14e}").parse().unwrap_or(x)
}

impl Reader<'_> {
    fn range(&mut self, path: &str, key_span: &Range<usize>, node: &Node, out: &mut Product) {
        let mut numbers = [None; 4];
        let mut until = None;
        let mut within = None;
        let mut good = true;
        for entry in node.as_table().unwrap_or_default() {
            let slot = ["from", "to", "times", "step"].iter().position(|k| *k == &*entry.key);
            match (slot, &entry.node.data) {
                (Some(i), Data::Scalar(v)) if v.as_f64().is_some() => numbers[i] = v.as_f64(),
                (None, Data::Scalar(Value::Str(s))) if &*entry.key == "until" => until = Some(s.to_string()),
                (None, Data::Scalar(Value::Str(s))) if &*entry.key == "within" && percent(s).is_some() => {
                    within = percent(s);
                }
                (None, Data::Scalar(Value::Str(s))) if &*entry.key == "within" => {
                    let message = format!("`within = \"{s}\"` is not a percentage");
                    let help = "for example within = \"5%\": the width at which the search ends";
                    self.push(Diagnostic::new("bad_range", message).help(help), &entry.node.span);
                    good = false;
                }
                (None, _) if !RANGE_KEYS.contains(&&*entry.key) => {
                    let message = format!("`{}` is not a key of a range", entry.key);
                    let help =
                        "a range is { from, to, times } or { from, to, step }; a search is { from, to, until, within }";
                    self.push(Diagnostic::new("bad_range", message).help(help), &entry.key_span);
                    good = false;
                }
                _ => {
                    let message = format!("`{}` of a range cannot be {}", entry.key, entry.node.type_name());
                    self.push(Diagnostic::new("bad_range", message), &entry.node.span);
                    good = false;
                }
            }
        }
        if !good {
            return;
        }
        let [from, to, times, step] = numbers;
        let problem = match (from, to, times, step, &until) {
            (None, ..) | (_, None, ..) => Some("a range needs both `from` and `to`"),
            (Some(f), Some(t), ..) if f > t => Some("`from` is larger than `to`"),
            (_, _, Some(_), Some(_), _) => Some("a range has `times` or `step`, not both"),
            (_, _, None, None, None) => Some("a range needs `times` or `step`, or `until` for a search"),
            (_, _, Some(_), _, Some(_)) | (_, _, _, Some(_), Some(_)) => {
                Some("a search (`until`) has no `times` or `step`")
            }
            (Some(f), _, Some(t), ..) if t <= 1.0 || f <= 0.0 => {
                Some("`times` must be above 1 and `from` above 0, or the range never ends")
            }
            (.., Some(s), _) if s <= 0.0 => Some("`step` must be above 0, or the range never ends"),
            (Some(f), .., Some(_)) if f <= 0.0 => Some("a search starts above 0"),
            _ => None,
        };
        if let Some(problem) = problem {
            let help = "for example { from = 1, to = 64, times = 4 } is 1, 4, 16, 64";
            self.push(Diagnostic::new("bad_range", format!("`{path}`: {problem}")).help(help), &node.span);
            return;
        }
        let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
        if let Some(until) = until {
            let within = within.unwrap_or(0.05);
            return self.search(path, key_span, node, Wanted { from, to, until, within }, out);
        }
        let count = match (times, step) {
            (Some(times), _) => (to / from).ln() / times.ln(),
            (None, step) => (to - from) / step.unwrap_or(f64::INFINITY),
        };
        if count > MAX_POINTS {
            let message = format!("`{path}`: the range has about {count:.0} values; the limit is {MAX_POINTS:.0}");
            self.push(
                Diagnostic::new("too_many_cells", message).help("take larger steps, or a `times` range"),
                &node.span,
            );
            return;
        }
        let points = range_values(from, to, times, step)
            .into_iter()
            .map(|v| {
                let item = Node { span: node.span.clone(), data: Data::Scalar(v) };
                Point {
                    label: None,
                    product: Product { fixed: self.literal(path, &node.span, &item), ..Product::default() },
                }
            })
            .collect();
        out.axes.push(Axis { name: path.into(), span: key_span.clone(), points });
    }

    fn search(&mut self, path: &str, key_span: &Range<usize>, node: &Node, wanted: Wanted, out: &mut Product) {
        let Wanted { from, to, until, within } = wanted;
        if !matches!(path, "rate" | "concurrency") {
            let message = format!("`{path}` cannot be searched; `rate` and `concurrency` can");
            return self.push(Diagnostic::new("bad_range", message), key_span);
        }
        let Some(until) = Objective::ALL.into_iter().find(|o| o.as_str() == until) else {
            let message = format!("`until = \"{until}\"` is not an objective");
            let help = "`until = \"slo\"` finds the largest load within the SLOs, `until = \"knee\"` the knee of the load curve";
            return self.push(Diagnostic::new("unknown_value", message).help(help), &node.span);
        };
        // Both ends must be values of the parameter; whatever lies between them then is one too.
        for end in [from, to] {
            let data = Data::Scalar(Value::number(end).unwrap_or(Value::Int(0)));
            if self.literal(path, key_span, &Node { span: node.span.clone(), data }).is_empty() {
                return;
            }
        }
        let Some(grid) = grid(from, to, within, path == "concurrency") else {
            let message = format!("`{path}`: the search has too many values between {from} and {to}");
            return self.push(Diagnostic::new("bad_range", message).help("make `within` larger"), &node.span);
        };
        let (path, span) = (path.into(), key_span.clone());
        out.searches.push(SearchAxis { path, span, from, to, until, within, grid });
    }
}

/// A search as written.
struct Wanted {
    from: f64,
    to: f64,
    until: String,
    within: f64,
}

/// `5%` as 0.05.
pub fn percent(text: &str) -> Option<f64> {
    let x: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (x > 0.0 && x <= 100.0).then_some(x / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_their_end() {
        let list =
            |f, t, times, step| range_values(f, t, times, step).iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        assert_eq!(list(1.0, 64.0, Some(4.0), None), [1.0, 4.0, 16.0, 64.0]);
        assert_eq!(list(1.0, 50.0, Some(4.0), None), [1.0, 4.0, 16.0, 50.0]);
        assert_eq!(list(4.0, 4.0, Some(2.0), None), [4.0]);
        assert_eq!(list(0.0, 0.8, None, Some(0.1)), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]);
        assert_eq!(list(0.001, 1.0, Some(10.0), None), [0.001, 0.01, 0.1, 1.0]);
    }

    #[test]
    fn paths_overlap_when_one_holds_the_other() {
        assert!(overlaps("tokens", "tokens.input") && overlaps("a.b", "a.b"));
        assert!(!overlaps("tokens.input", "tokens.input_stddev"));
    }
}
