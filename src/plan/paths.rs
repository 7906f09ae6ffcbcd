//! Every dotted path that an experiment mentions, numbered in sorted order, so that a cell under construction is an array.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::spec::block::{Assignment, Product, overlaps};
use crate::spec::expr::Term;
use crate::spec::predicate::{Predicate, Subject};
use crate::spec::{Spec, params};

/// Index of a path; sorted as the paths are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u16);

/// The paths of one experiment.
#[derive(Debug)]
pub struct Paths {
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, PathId>,
    /// Paths that setting this one replaces: the table it is in, or what is below it.
    replaces: Vec<Vec<PathId>>,
}

impl Paths {
    /// Collects the paths of a spec and of flags; the error is how many there are when that is more than `limit`.
    pub fn collect<'a>(
        spec: &Spec,
        set: &[Assignment],
        only: impl Iterator<Item = &'a Predicate>,
        limit: usize,
    ) -> Result<Paths, usize> {
        let mut names: BTreeSet<Arc<str>> = params::PARAMS.iter().map(|p| Arc::from(p.name)).collect();
        assignments(&spec.defaults, &mut names);
        assignments(set, &mut names);
        for block in &spec.blocks {
            product(&block.product, &mut names);
            block.exclude.iter().for_each(|p| predicate(p, &mut names));
        }
        for rule in &spec.overrides {
            assignments(&rule.set, &mut names);
            names.extend(rule.unset.iter().cloned());
            rule.when.iter().for_each(|p| predicate(p, &mut names));
        }
        only.for_each(|p| predicate(p, &mut names));
        if names.len() > limit {
            return Err(names.len());
        }
        let names: Vec<Arc<str>> = names.into_iter().collect();
        let index = names.iter().enumerate().map(|(i, n)| (n.clone(), PathId(i as u16))).collect();
        let replaces = names
            .iter()
            .map(|name| {
                let others = names.iter().enumerate().filter(|(_, o)| *o != name && overlaps(name, o));
                others.map(|(i, _)| PathId(i as u16)).collect()
            })
            .collect();
        Ok(Paths { names, index, replaces })
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn name(&self, id: PathId) -> &Arc<str> {
        &self.names[usize::from(id.0)]
    }

    pub fn get(&self, name: &str) -> Option<PathId> {
        self.index.get(name).copied()
    }

    /// The id of a path that the spec, `--set` or `--only` mentions; others are a bug.
    pub fn id(&self, name: &str) -> PathId {
        self.get(name).expect("every path of the spec was collected")
    }

    /// Paths that setting this one unsets: a table around it, and what lies below it.
    pub fn replaces(&self, id: PathId) -> &[PathId] {
        &self.replaces[usize::from(id.0)]
    }

    /// The path itself and everything below it.
    pub fn below<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathId> + 'a {
        let inside = move |n: &str| n.strip_prefix(name).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        self.names.iter().enumerate().filter(move |(_, n)| inside(n)).map(|(i, _)| PathId(i as u16))
    }
}

fn term(t: &Term, names: &mut BTreeSet<Arc<str>>) {
    if let Term::Computed(e) = t {
        names.extend(e.reads.iter().map(|r| Arc::from(r.as_str())));
    }
}

fn assignments(list: &[Assignment], names: &mut BTreeSet<Arc<str>>) {
    for a in list {
        names.insert(a.path.clone());
        term(&a.term, names);
    }
}

fn product(p: &Product, names: &mut BTreeSet<Arc<str>>) {
    assignments(&p.fixed, names);
    names.extend(p.searches.iter().map(|s| s.path.clone()));
    for point in p.axes.iter().flat_map(|a| &a.points) {
        product(&point.product, names);
    }
}

fn predicate(p: &Predicate, names: &mut BTreeSet<Arc<str>>) {
    for clause in &p.clauses {
        if let Subject::Param(path) = &clause.subject {
            names.insert(path.clone());
        }
        clause.values.iter().for_each(|(t, _)| term(t, names));
    }
}
