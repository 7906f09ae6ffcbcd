//! Which cell of one side is which of the other. Cells are the same when their declared coordinates are: the image as
//! written, not its digest, so that a nightly tag meets itself. What is left over is paired where exactly one partner is
//! possible, and what differs is named.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::side::{SideCell, coordinates};
use crate::value::Value;

/// A parameter that differs within a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differs {
    pub parameter: String,
    pub a: Option<Value>,
    pub b: Option<Value>,
}

/// Cells of both sides by their indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// In the order of side b.
    pub pairs: Vec<Pair>,
    pub only_a: Vec<usize>,
    pub only_b: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub a: usize,
    pub b: usize,
    pub differs: Vec<Differs>,
}

/// How far apart the cells of a pair may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One stack: model, method and engine are the same. What a gate judges.
    Stack,
    /// Any two cells.
    Anything,
    /// Cells of another tool, of which only the load is known.
    Load,
}

/// What makes a stack.
const STACK: [&str; 3] = ["model", "method", "engine"];
/// What another tool's file can say of a load.
const LOAD: [&str; 5] = ["tokens.input", "tokens.output", "concurrency", "rate", "requests"];

/// Pairs the cells of two sides.
pub fn pair(a: &[SideCell], b: &[SideCell], reach: Reach) -> Pairs {
    let mut free = Free { a: (0..a.len()).collect(), b: (0..b.len()).collect(), pairs: Vec::new() };
    if reach == Reach::Load {
        by_load(a, b, &mut free);
    } else {
        free.match_by(a, b, |cell| Some(coordinates(&cell.cell)));
        by_stack(a, b, &mut free);
        if reach == Reach::Anything {
            // Stacks, and then models, that took each other's place; and what is meant when there is but one.
            by_what_agrees(a, b, &mut free, &["model"]);
            by_what_agrees(a, b, &mut free, &[]);
            free.lone();
        }
    }
    free.into_pairs(a, b)
}

/// Pairs cells whose coordinates are the same but for those that `against` gives to side a: `method = "hf"` compares each
/// cell with the same one served by `hf`.
pub fn against(cells: &[SideCell], against: &BTreeMap<String, Value>) -> Pairs {
    let is = |cell: &SideCell| against.iter().all(|(name, value)| cell.cell.get(name) == Some(value));
    let mut pairs = Pairs::default();
    let (bases, layers): (Vec<usize>, Vec<usize>) = (0..cells.len()).partition(|i| is(&cells[*i]));
    for b in layers {
        // The closest base with the same load, model and engine, if it is the only one so close.
        let rest = |cell: &SideCell, name: &&str| !against.contains_key(*name) && cell.cell.contains_key(*name);
        let same = |x: &SideCell, y: &SideCell| {
            let mut names: Vec<&str> =
                ["model", "method", "engine"].into_iter().filter(|n| rest(x, n) || rest(y, n)).collect();
            names.extend(x.cell.keys().chain(y.cell.keys()).map(String::as_str).filter(|n| is_load(n)));
            names.iter().all(|n| x.cell.get(*n) == y.cell.get(*n))
        };
        let mut near: Vec<(usize, usize)> = bases
            .iter()
            .filter(|a| same(&cells[**a], &cells[b]))
            .map(|a| (differs(&cells[*a], &cells[b]).len(), *a))
            .collect();
        near.sort_unstable();
        match near.as_slice() {
            [(_, a)] => pairs.pairs.push(Pair { a: *a, b, differs: differs(&cells[*a], &cells[b]) }),
            [(x, a), (y, _), ..] if x < y => {
                pairs.pairs.push(Pair { a: *a, b, differs: differs(&cells[*a], &cells[b]) });
            }
            _ => pairs.only_b.push(b),
        }
    }
    pairs.only_a = bases.into_iter().filter(|a| pairs.pairs.iter().all(|p| p.a != *a)).collect();
    pairs
}

/// Whether a parameter says what is asked of the engine; how long, and over which of its APIs, does not change what is.
fn is_load(name: &str) -> bool {
    use crate::spec::params::{Lookup, Scope, lookup};
    let how = matches!(name, "requests" | "duration" | "warmup" | "seed" | "api");
    !how && matches!(lookup(name), Lookup::Param(p) if p.scope == Scope::Unit)
}

/// Cells without a partner yet.
struct Free {
    a: Vec<usize>,
    b: Vec<usize>,
    pairs: Vec<(usize, usize)>,
}

impl Free {
    /// Pairs cells of equal keys where each key has one cell on each side.
    fn match_by(&mut self, a: &[SideCell], b: &[SideCell], key: impl Fn(&SideCell) -> Option<String>) {
        let (in_a, in_b) = (self.a.clone(), self.b.clone());
        self.match_among(a, b, &in_a, &in_b, key);
    }

    fn match_among(
        &mut self,
        a: &[SideCell],
        b: &[SideCell],
        in_a: &[usize],
        in_b: &[usize],
        key: impl Fn(&SideCell) -> Option<String>,
    ) {
        let index = |cells: &[SideCell], which: &[usize]| {
            let mut map: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for i in which {
                if let Some(key) = key(&cells[*i]) {
                    map.entry(key).or_default().push(*i);
                }
            }
            map
        };
        let (by_a, by_b) = (index(a, in_a), index(b, in_b));
        for (key, members) in by_b {
            if let ([y], Some([x])) = (members.as_slice(), by_a.get(&key).map(Vec::as_slice)) {
                self.pairs.push((*x, *y));
                self.a.retain(|i| i != x);
                self.b.retain(|i| i != y);
            }
        }
    }

    /// Two cells without any other.
    fn lone(&mut self) {
        if let ([x], [y]) = (self.a.as_slice(), self.b.as_slice()) {
            self.pairs.push((*x, *y));
            (self.a, self.b) = (Vec::new(), Vec::new());
        }
    }

    fn into_pairs(mut self, a: &[SideCell], b: &[SideCell]) -> Pairs {
        self.pairs.sort_unstable_by_key(|(_, y)| *y);
        let pairs = self.pairs.into_iter().map(|(x, y)| Pair { a: x, b: y, differs: differs(&a[x], &b[y]) }).collect();
        Pairs { pairs, only_a: self.a, only_b: self.b }
    }
}

/// Within each stack: what all its left-over cells changed in the same breath, such as the image, is no coordinate.
fn by_stack(a: &[SideCell], b: &[SideCell], free: &mut Free) {
    let stack = |cell: &SideCell| STACK.map(|n| cell.cell.get(n).map(ToString::to_string));
    let stacks: BTreeSet<_> = free.b.iter().map(|i| stack(&b[*i])).collect();
    for wanted in stacks {
        let members = |cells: &[SideCell], which: &[usize]| -> Vec<usize> {
            which.iter().copied().filter(|i| stack(&cells[*i]) == wanted).collect()
        };
        let (in_a, in_b) = (members(a, &free.a), members(b, &free.b));
        match_what_agrees(a, b, free, (&in_a, &in_b), &STACK);
    }
}

fn by_what_agrees(a: &[SideCell], b: &[SideCell], free: &mut Free, kept: &[&str]) {
    let (in_a, in_b) = (free.a.clone(), free.b.clone());
    match_what_agrees(a, b, free, (&in_a, &in_b), kept);
}

/// Pairs by the parameters on which the two sets agree somewhere: one on which they never do is what changed.
fn match_what_agrees(a: &[SideCell], b: &[SideCell], free: &mut Free, sets: (&[usize], &[usize]), kept: &[&str]) {
    let (in_a, in_b) = sets;
    let names: BTreeSet<&String> =
        in_a.iter().flat_map(|i| a[*i].cell.keys()).chain(in_b.iter().flat_map(|i| b[*i].cell.keys())).collect();
    let texts = |cells: &[SideCell], which: &[usize], name: &str| -> BTreeSet<Option<String>> {
        which.iter().map(|i| cells[*i].cell.get(name).map(ToString::to_string)).collect()
    };
    let agrees = |name: &&String| {
        kept.contains(&name.as_str()) || is_load(name) || !texts(a, in_a, name).is_disjoint(&texts(b, in_b, name))
    };
    let key: Vec<&String> = names.into_iter().filter(agrees).collect();
    free.match_among(a, b, in_a, in_b, |cell| {
        Some(
            key.iter()
                .map(|n| format!("{}\n", cell.cell.get(*n).map(ToString::to_string).unwrap_or_default()))
                .collect(),
        )
    });
}

/// By what both sides say of the load: two lone cells always, others where one partner is possible.
fn by_load(a: &[SideCell], b: &[SideCell], free: &mut Free) {
    free.lone();
    let said = |cells: &[SideCell], name: &str| cells.iter().any(|c| c.cell.contains_key(name));
    let common: Vec<&str> = LOAD.into_iter().filter(|n| said(a, n) && said(b, n)).collect();
    let model = said(a, "model") && said(b, "model");
    let names: Vec<&str> = common.iter().copied().chain(model.then_some("model")).collect();
    let key = |names: &[&str], cell: &SideCell| -> Option<String> {
        Some(
            names
                .iter()
                .map(|n| format!("{n}={}\n", cell.cell.get(*n).map(ToString::to_string).unwrap_or_default()))
                .collect(),
        )
    };
    free.match_by(a, b, |cell| key(&names, cell));
    free.match_by(a, b, |cell| key(&common, cell));
}

fn differs(a: &SideCell, b: &SideCell) -> Vec<Differs> {
    let names: BTreeSet<&String> = a.cell.keys().chain(b.cell.keys()).collect();
    names
        .into_iter()
        .map(|n| Differs { parameter: n.clone(), a: a.cell.get(n).cloned(), b: b.cell.get(n).cloned() })
        .filter(|d| d.a != d.b)
        .collect()
}

impl Differs {
    /// `image: v1 → v2`.
    pub fn text(&self) -> String {
        let shown = |v: &Option<Value>| v.as_ref().map_or("unset".to_string(), ToString::to_string);
        format!("{}: {} → {}", self.parameter, shown(&self.a), shown(&self.b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> SideCell {
        let cell = text
            .split_whitespace()
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_string(), v.parse::<i64>().map_or_else(|_| Value::str(v), Value::Int)))
            .collect();
        SideCell { name: text.into(), cell, ..SideCell::default() }
    }

    fn cells(all: &[&str]) -> Vec<SideCell> {
        all.iter().map(|t| cell(t)).collect()
    }

    fn shown(a: &[&str], b: &[&str], reach: Reach) -> Vec<String> {
        let (a, b) = (cells(a), cells(b));
        let pairs = pair(&a, &b, reach);
        let differs = |p: &Pair| p.differs.iter().map(Differs::text).collect::<Vec<_>>().join(", ");
        let mut out: Vec<String> =
            pairs.pairs.iter().map(|p| format!("{} | {} | {}", a[p.a].name, b[p.b].name, differs(p))).collect();
        out.extend(pairs.only_a.iter().map(|i| format!("a: {}", a[*i].name)));
        out.extend(pairs.only_b.iter().map(|i| format!("b: {}", b[*i].name)));
        out
    }

    #[test]
    fn the_same_coordinates_are_the_same_cell() {
        let a = ["engine=vllm concurrency=1", "engine=vllm concurrency=8"];
        let b = ["engine=vllm concurrency=8", "engine=vllm concurrency=64"];
        assert_eq!(shown(&a, &b, Reach::Stack)[0], "engine=vllm concurrency=8 | engine=vllm concurrency=8 | ");
        // Another load is another question.
        assert_eq!(shown(&a, &b, Reach::Stack)[1..], [format!("a: {}", a[0]), format!("b: {}", b[1])]);
        let more = ["engine=vllm concurrency=1 requests=10", "engine=vllm concurrency=8 requests=80"];
        let less = ["engine=vllm concurrency=1 requests=20", "engine=vllm concurrency=8 requests=160"];
        assert!(shown(&more, &less, Reach::Stack)[1].ends_with("| requests: 80 → 160"));
    }

    #[test]
    fn a_new_image_is_named() {
        let a = ["engine=vllm image=v1 concurrency=1", "engine=vllm image=v1 concurrency=8"];
        let b =
            ["engine=vllm image=v2 concurrency=1", "engine=vllm image=v2 concurrency=8", "engine=sglang concurrency=1"];
        let have = shown(&a, &b, Reach::Stack);
        assert_eq!(have[0], format!("{} | {} | image: v1 → v2", a[0], b[0]));
        assert_eq!(have[1], format!("{} | {} | image: v1 → v2", a[1], b[1]));
        assert_eq!(have[2..], ["b: engine=sglang concurrency=1"]);
    }

    #[test]
    fn another_engine_is_compared_but_not_gated() {
        let (a, b) = (["engine=vllm concurrency=1"], ["engine=sglang concurrency=1"]);
        assert_eq!(shown(&a, &b, Reach::Stack).len(), 2);
        assert_eq!(shown(&a, &b, Reach::Anything), [format!("{} | {} | engine: vllm → sglang", a[0], b[0])]);
    }

    #[test]
    fn what_could_be_two_is_neither() {
        let a = ["engine=vllm x=1 concurrency=1", "engine=vllm x=2 concurrency=1"];
        let b = ["engine=vllm x=3 concurrency=1"];
        assert_eq!(shown(&a, &b, Reach::Anything).len(), 3);
    }

    #[test]
    fn another_tools_file_is_paired_by_its_load() {
        let a = ["model=m method=hf engine=vllm concurrency=1", "model=m method=hf engine=vllm concurrency=8"];
        let have = shown(&a, &["model=other concurrency=8"], Reach::Load);
        assert!(have[0].starts_with(a[1]), "{have:?}");
        assert_eq!(shown(&a[..1], &["concurrency=4"], Reach::Load).len(), 1, "two lone cells are meant");
    }

    #[test]
    fn layers_are_compared_with_what_is_below_them() {
        let all = cells(&[
            "model=m method=hf engine=vllm image=v concurrency=1",
            "model=m method=hf engine=vllm image=v concurrency=8",
            "model=m method=triton engine=vllm image=t concurrency=1",
            "model=m method=nim engine=vllm concurrency=8",
            "model=m method=triton engine=trtllm concurrency=1",
        ]);
        let pairs = against(&all, &BTreeMap::from([("method".to_string(), Value::str("hf"))]));
        let have: Vec<(usize, usize)> = pairs.pairs.iter().map(|p| (p.a, p.b)).collect();
        assert_eq!(have, [(0, 2), (1, 3)]);
        assert_eq!(pairs.only_b, [4]);
        assert!(pairs.pairs[0].differs.iter().any(|d| d.text() == "method: hf → triton"));
    }
}
