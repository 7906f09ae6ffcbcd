//! Reads the tree of an experiment file into a [`Spec`], collecting every problem.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Assignment, Block};
use super::expr::Term;
use super::params::{self, Kind, Lookup, PARAMS, RESERVED, lookup};
use super::policy::RunPolicy;
use super::predicate::Labels;
use super::tree::{self, Data, Entry, Node};
use super::types::{self, Vocabulary};
use super::{Override, Spec, sections};
use crate::diag::{self, Diagnostic, SourceText};
use crate::value::Value;

/// Top-level keys of an experiment file.
pub const SECTIONS: &[&str] =
    &["name", "description", "tags", "defaults", "matrix", "override", "run", "slo", "cost", "gate"];

/// Largest experiment file that is read, bytes.
pub const MAX_FILE: usize = 4 << 20;
/// Most problems that are kept of one file.
pub(super) const MAX_PROBLEMS: usize = 1000;

/// Reads one file's text. `stem` is its name without the extension: the experiment's name when it has none.
pub fn read(source: &Arc<SourceText>, stem: &str, words: &Vocabulary) -> Result<Spec, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    if source.text.len() > MAX_FILE {
        let message = format!("the file has {} bytes; the limit is {MAX_FILE}", source.text.len());
        return Err(vec![Diagnostic::new("too_large", message).at(source, 0..0)]);
    }
    let root = tree::parse(source, &mut problems);
    let broken = problems.iter().any(|p| p.code == "invalid_toml");
    let mut reader = Reader { source, words, problems };
    let spec = reader.spec(&root, stem, broken);
    let mut problems = reader.problems;
    if problems.is_empty() {
        Ok(spec)
    } else {
        diag::tidy(&mut problems);
        Err(problems)
    }
}

/// Collects problems while it reads.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<SourceText>,
    pub(super) words: &'a Vocabulary,
    pub(super) problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn push(&mut self, problem: Diagnostic, span: &Range<usize>) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        self.problems.push(problem.at(self.source, span.clone()));
    }

    fn spec(&mut self, root: &Node, stem: &str, broken: bool) -> Spec {
        let mut spec = Spec {
            source: self.source.clone(),
            name: stem.to_string(),
            description: None,
            tags: Vec::new(),
            defaults: Vec::new(),
            blocks: Vec::new(),
            overrides: Vec::new(),
            run: RunPolicy::default(),
            slo: Default::default(),
            cost: Default::default(),
            gate: Default::default(),
        };
        let entries = root.as_table().unwrap_or_default();
        for entry in entries {
            let node = &entry.node;
            match &*entry.key {
                "name" => spec.name = self.name(node).unwrap_or(spec.name),
                "description" => spec.description = self.string("description", node),
                "tags" => spec.tags = self.strings("tags", node),
                "defaults" => spec.defaults = self.table("defaults", node, Reader::assignments),
                "matrix" => spec.blocks = self.tables("matrix", node).into_iter().map(|n| self.block(n)).collect(),
                "override" => {} // needs the labels of every block
                "run" => {
                    for setting in self.table("run", node, Reader::run_settings) {
                        setting.apply(&mut spec.run);
                    }
                }
                "slo" => spec.slo = self.table("slo", node, Reader::slo),
                "cost" => spec.cost = self.table("cost", node, Reader::cost),
                "gate" => spec.gate = self.table("gate", node, Reader::gate),
                other => {
                    let help = diag::did_you_mean(other, SECTIONS.iter().copied()).unwrap_or_else(|| match lookup(other) {
                        Lookup::Unknown => format!("the sections are {}", SECTIONS.join(", ")),
                        _ => "parameters stand under [defaults], in a [[matrix]] block or in the `set` of an [[override]]".into(),
                    });
                    let message = format!("`{other}` is not a section of an experiment file");
                    self.push(Diagnostic::new("unknown_section", message).help(help), &entry.key_span);
                }
            }
        }
        if let Some(node) = root.get("override") {
            let mut labels = Labels::new();
            spec.blocks.iter().for_each(|b| b.product.labels(&mut labels));
            spec.overrides = self.tables("override", node).into_iter().map(|n| self.override_(n, &labels)).collect();
        }
        if spec.blocks.is_empty() && root.get("matrix").is_none() && !broken {
            let help = "add one: [[matrix]] with at least `model`, `method` and `engine`";
            self.push(
                Diagnostic::new("no_matrix", "the file has no [[matrix]] block, so it has no cell").help(help),
                &(0..0),
            );
        }
        spec
    }

    fn block(&mut self, node: &Node) -> Block {
        let product = self.product(node.as_table().unwrap_or_default());
        let mut labels = Labels::new();
        product.labels(&mut labels);
        let rules = node.get("exclude").map(|n| self.tables("exclude", n)).unwrap_or_default();
        let exclude = rules.into_iter().filter_map(|n| self.predicate(n, &labels)).collect();
        Block { span: node.span.clone(), product, exclude }
    }

    fn override_(&mut self, node: &Node, labels: &Labels) -> Override {
        let mut out = Override {
            span: node.span.clone(),
            when: None,
            set: Vec::new(),
            unset: Vec::new(),
            run: Vec::new(),
            slo: None,
        };
        let mut does = false;
        for entry in node.as_table().unwrap_or_default() {
            let inner = &entry.node;
            does |= &*entry.key != "when";
            match &*entry.key {
                "when" => out.when = self.predicate(inner, labels),
                "set" => out.set = self.table("set", inner, Reader::assignments),
                "unset" => {
                    for path in self.strings("unset", inner) {
                        out.unset.extend(self.known_path(&path, &inner.span));
                    }
                }
                "run" => out.run = self.table("run", inner, Reader::run_settings),
                "slo" => out.slo = Some(self.table("slo", inner, Reader::slo)),
                other => {
                    let known = ["when", "set", "unset", "run", "slo"];
                    let help = diag::did_you_mean(other, known)
                        .unwrap_or_else(|| "an override has `when`, `set`, `unset`, `run` and `slo`".into());
                    self.push(
                        Diagnostic::new("unknown_section", format!("`{other}` is not a key of an override")).help(help),
                        &entry.key_span,
                    );
                }
            }
        }
        if !does {
            let help = "give it `set`, `unset`, `run` or `slo`";
            self.push(Diagnostic::new("empty_rule", "the override changes nothing").help(help), &node.span);
        }
        out
    }

    /// Parameters with literal values: a list is a value here.
    pub(super) fn assignments(&mut self, entries: &[Entry]) -> Vec<Assignment> {
        entries.iter().flat_map(|e| self.literal(&e.key.clone(), &e.key_span, &e.node)).collect()
    }

    /// The assignments of one literal value: a table is descended to its leaves.
    pub(super) fn literal(&mut self, path: &str, key_span: &Range<usize>, node: &Node) -> Vec<Assignment> {
        let Some(path) = self.known_path(path, key_span) else { return Vec::new() };
        match (&node.data, lookup(&path)) {
            (Data::Table(entries), Lookup::Table) => self.literals_below(&path, entries),
            (Data::Table(entries), Lookup::Param(p))
                if p.is_open() && !named_by_files(entries) && (!entries.is_empty() || p.name == &*path) =>
            {
                self.literals_below(&path, entries)
            }
            (_, Lookup::Param(param)) => {
                let value = node.to_value();
                let Some(term) = self.term(value, &node.span) else { return Vec::new() };
                let term = match term {
                    Term::Fixed(value) => match types::check(param, &path, value, self.words) {
                        Ok(v) => Term::Fixed(v),
                        Err(e) => {
                            let help = e.help.or_else(|| axis_hint(node, param.kind));
                            self.push(Diagnostic::new(e.code, e.message).maybe_help(help), &node.span);
                            return Vec::new();
                        }
                    },
                    computed => computed,
                };
                vec![Assignment { path, term, span: key_span.start..node.span.end.max(key_span.end) }]
            }
            _ => {
                let message = format!("`{path}` is a table of parameters, not {}", node.type_name());
                let inner: Vec<&str> =
                    PARAMS.iter().filter_map(|p| p.name.strip_prefix(&*path)?.strip_prefix('.')).collect();
                self.push(
                    Diagnostic::new("wrong_type", message).help(format!("its parameters are {}", inner.join(", "))),
                    &node.span,
                );
                Vec::new()
            }
        }
    }

    fn literals_below(&mut self, path: &str, entries: &[Entry]) -> Vec<Assignment> {
        entries.iter().flat_map(|e| self.literal(&format!("{path}.{}", e.key), &e.key_span, &e.node)).collect()
    }

    /// A value as a term; every name that an expression reads must be a parameter.
    pub(super) fn term(&mut self, value: Value, span: &Range<usize>) -> Option<Term> {
        match Term::new(value, span.clone()) {
            Ok(term) => {
                if let Term::Computed(expr) = &term {
                    for name in &expr.reads {
                        self.readable(name, span);
                    }
                }
                Some(term)
            }
            Err(e) => {
                let help = "an expression is minijinja over the cell's parameters, such as `{{ 10 * concurrency }}`";
                self.push(
                    Diagnostic::new("bad_expression", format!("the expression cannot be read: {e}")).help(help),
                    span,
                );
                None
            }
        }
    }

    fn readable(&mut self, name: &str, span: &Range<usize>) {
        if matches!(lookup(name), Lookup::Unknown)
            && !matches!(lookup(name.split('.').next().unwrap_or(name)), Lookup::Param(p) if p.is_open())
        {
            let message = format!("the expression reads `{name}`, which is not a parameter");
            self.push(Diagnostic::new("unknown_parameter", message).maybe_help(suggest(name, &Labels::new())), span);
        }
    }

    /// The normal spelling of a path that names a parameter or a table of them.
    pub(super) fn known_path(&mut self, path: &str, span: &Range<usize>) -> Option<Arc<str>> {
        self.known_path_or(path, span, &Labels::new())
    }

    pub(super) fn known_path_or(&mut self, path: &str, span: &Range<usize>, labels: &Labels) -> Option<Arc<str>> {
        let path = normal_path(path);
        let head = path.split('.').next().unwrap_or(&path);
        if RESERVED.contains(&head) {
            let message =
                format!("`{head}` is reserved for deployments over several machines, which this version does not make");
            self.push(Diagnostic::new("reserved_parameter", message), span);
            return None;
        }
        if matches!(lookup(&path), Lookup::Unknown) {
            let message = format!("`{path}` is not a parameter");
            self.push(Diagnostic::new("unknown_parameter", message).maybe_help(suggest(&path, labels)), span);
            return None;
        }
        Some(path.into())
    }

    fn name(&mut self, node: &Node) -> Option<String> {
        let name = self.string("name", node)?;
        let fine = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !fine || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.len() > 96 {
            let help =
                "letters, digits, `.`, `_` and `-`, at most 96, beginning with a letter or digit: it names directories";
            self.push(
                Diagnostic::new("bad_name", format!("`{name}` is not a name for an experiment")).help(help),
                &node.span,
            );
            return None;
        }
        Some(name)
    }

    pub(super) fn string(&mut self, what: &str, node: &Node) -> Option<String> {
        match node.as_scalar().and_then(Value::as_str) {
            Some(s) => Some(s.to_string()),
            None => {
                self.push(
                    Diagnostic::new("wrong_type", format!("`{what}` takes a string, not {}", node.type_name())),
                    &node.span,
                );
                None
            }
        }
    }

    pub(super) fn strings(&mut self, what: &str, node: &Node) -> Vec<String> {
        match &node.data {
            Data::List(items) => items.iter().filter_map(|n| self.string(what, n)).collect(),
            _ => {
                let message = format!("`{what}` takes a list of strings, not {}", node.type_name());
                self.push(Diagnostic::new("wrong_type", message), &node.span);
                Vec::new()
            }
        }
    }

    fn table<T: Default>(&mut self, what: &str, node: &Node, read: impl FnOnce(&mut Self, &[Entry]) -> T) -> T {
        match node.as_table() {
            Some(entries) => read(self, entries),
            None => {
                self.push(
                    Diagnostic::new("wrong_type", format!("`{what}` takes a table, not {}", node.type_name())),
                    &node.span,
                );
                T::default()
            }
        }
    }

    fn tables<'n>(&mut self, what: &str, node: &'n Node) -> Vec<&'n Node> {
        let Data::List(items) = &node.data else {
            let help = match what {
                "exclude" => "write exclude = [{ … }]".to_string(),
                _ => format!("write [[{what}]] with two brackets"),
            };
            let message = format!("`{what}` takes a list of tables, not {}", node.type_name());
            self.push(Diagnostic::new("wrong_type", message).help(help), &node.span);
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items {
            if item.as_table().is_some() {
                out.push(item);
            } else {
                self.push(
                    Diagnostic::new("wrong_type", format!("`{what}` takes tables, not {}", item.type_name())),
                    &item.span,
                );
            }
        }
        out
    }
}

/// `engine_args.max-num-seqs` is `engine_args.max_num_seqs`.
pub fn normal_path(path: &str) -> String {
    match path.strip_prefix("engine_args.") {
        Some(rest) => {
            let (first, below) = rest.split_once('.').map_or((rest, None), |(a, b)| (a, Some(b)));
            let first = first.trim_start_matches('-').replace('-', "_");
            match below {
                Some(below) => format!("engine_args.{first}.{below}"),
                None => format!("engine_args.{first}"),
            }
        }
        None => path.to_string(),
    }
}

/// Names people bring from elsewhere.
const ALIASES: &[(&str, &str)] = &[
    ("tp", "tensor_parallel"),
    ("tp_size", "tensor_parallel"),
    ("tensor_parallel_size", "tensor_parallel"),
    ("pp", "pipeline_parallel"),
    ("dp", "data_parallel"),
    ("ep", "expert_parallel"),
    ("isl", "tokens.input"),
    ("osl", "tokens.output"),
    ("input_tokens", "tokens.input"),
    ("output_tokens", "tokens.output"),
    ("max_tokens", "tokens.output"),
    ("num_prompts", "requests"),
    ("num_requests", "requests"),
    ("max_concurrency", "concurrency"),
    ("conc", "concurrency"),
    ("request_rate", "rate"),
    ("qps", "rate"),
    ("precision", "quantization"),
    ("backend", "engine"),
    ("framework", "engine"),
    ("gpu", "hardware"),
    ("mem_fraction_static", "gpu_memory_utilization"),
    ("context_length", "max_model_len"),
    ("max_batch_size", "max_num_seqs"),
];

/// What an unknown path may have meant.
pub fn suggest(path: &str, labels: &Labels) -> Option<String> {
    let lower = path.to_ascii_lowercase().replace('-', "_");
    if let Some((_, name)) = ALIASES.iter().find(|(alias, _)| *alias == lower) {
        return Some(format!("did you mean `{name}`?"));
    }
    if let Some(setting) = sections::RUN_KEYS.iter().find(|k| **k == lower) {
        return Some(format!("`{setting}` is not part of a cell: it stands under [run]"));
    }
    let tables = ["tokens", "tls"];
    let mut known: Vec<&str> = params::PARAMS.iter().map(|p| p.name).collect();
    known.extend(tables);
    known.extend(labels.iter().map(|l| &**l));
    diag::did_you_mean(&lower, known.iter().copied())
        .or_else(|| {
            // `tokens.inptu`: compare what follows the table.
            let (head, rest) = path.split_once('.')?;
            let inner = known.iter().filter_map(|k| k.strip_prefix(head)?.strip_prefix('.'));
            let near = diag::nearest(rest, inner.clone()).map(|n| format!("did you mean `{head}.{n}`?"));
            near.or_else(|| {
                let all: Vec<&str> = inner.collect();
                (!all.is_empty()).then(|| format!("`{head}` has {}", all.join(", ")))
            })
        })
        .or_else(|| {
            Some(
                "options of the engine itself go under `engine_args`; `llmatrix schema --params` lists all parameters"
                    .into(),
            )
        })
}

/// A table under file names, such as `container.files`: it is one value, since its keys cannot be parts of a path.
pub(super) fn named_by_files(entries: &[Entry]) -> bool {
    entries.iter().any(|e| e.key.contains('/'))
}

/// A list where a scalar belongs is mostly an axis in the wrong section.
fn axis_hint(node: &Node, kind: Kind) -> Option<String> {
    let table = matches!(&node.data, Data::Table(e) if e.iter().any(|e| &*e.key == "from"));
    (!matches!(kind, Kind::Pair | Kind::Stages) && (matches!(node.data, Data::List(_)) || table))
        .then(|| "an axis of several values stands in a [[matrix]] block".to_string())
}
