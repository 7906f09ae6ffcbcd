//! Flags that select cells and stand over `[run]`, as the spec's own types.

use std::collections::{BTreeMap, BTreeSet};

use super::args::{RunFlags, SelectionArgs};
use super::failure::Failure;
use crate::spec::Spec;
use crate::spec::block::Assignment;
use crate::spec::predicate::{Labels, Op, Predicate, Subject};
use crate::spec::sections::RunSetting;
use crate::spec::set::{parse_only, parse_set};
use crate::spec::types::Vocabulary;
use crate::store::record::CellRecord;
use crate::value::Value;

/// `--set` and `--only`, read for one experiment: its labelled axes can be named.
pub struct Selection {
    pub set: Vec<Assignment>,
    pub only: Vec<Predicate>,
}

impl Selection {
    pub fn read(args: &SelectionArgs, spec: &Spec, words: &Vocabulary) -> Result<Selection, Failure> {
        let mut labels: Labels = BTreeSet::new();
        spec.blocks.iter().for_each(|b| b.product.labels(&mut labels));
        let usage = |e: crate::spec::set::FlagError| Failure::Usage(e.to_string());
        let set = args.set.iter().map(|s| parse_set(s, words).map_err(usage)).collect::<Result<_, _>>()?;
        let only = args.only.iter().map(|o| parse_only(o, &labels, words).map_err(usage)).collect::<Result<_, _>>()?;
        Ok(Selection { set, only })
    }
}

/// Whether a rule accepts a cell as it stands in files; an unset parameter has its default.
pub fn holds(rule: &Predicate, cell: &CellRecord, labels: &BTreeMap<&str, &str>) -> bool {
    let value = |subject: &Subject| match subject {
        Subject::Param(p) => cell.get(&**p).cloned().or_else(|| crate::plan::identity::default_of(p)),
        Subject::Label(l) => labels.get(&**l).map(Value::str),
    };
    rule.clauses.iter().all(|c| {
        let cell = value(&c.subject);
        let mut each = c.values.iter().filter_map(|(t, _)| t.fixed()).map(|v| c.op.holds(cell.as_ref(), v));
        if c.op == Op::Ne { each.all(|b| b) } else { each.any(|b| b) }
    })
}

/// The flags that were given, as settings of `[run]`.
pub fn settings(flags: &RunFlags) -> Result<Vec<RunSetting>, Failure> {
    let RunFlags {
        simulate,
        force,
        retry_failed,
        fail_fast,
        max_age,
        budget,
        offline,
        gate,
        repeats,
        starts,
        attempts,
        ready_timeout,
        request_timeout,
        measure_timeout,
        settle,
        max_error_rate,
        max_units,
        sanity,
        parallel,
        devices,
        float,
        evict,
        prefetch,
        seed,
        scrape_interval,
        dcgm,
        webhook,
    } = flags;
    let mut given: Vec<(&str, Value)> = Vec::new();
    for (key, on) in [
        ("simulate", simulate),
        ("force", force),
        ("retry_failed", retry_failed),
        ("fail_fast", fail_fast),
        ("offline", offline),
    ] {
        given.extend(on.then_some((key, Value::Bool(true))));
    }
    given.extend(prefetch.map(|on| ("prefetch", Value::Bool(on))));
    given.extend(evict.as_ref().map(|what| ("evict", what.parse().map_or_else(|_| Value::str(what), Value::Bool))));
    for (key, text) in [
        ("max_age", max_age),
        ("budget", budget),
        ("gate", gate),
        ("ready_timeout", ready_timeout),
        ("request_timeout", request_timeout),
        ("measure_timeout", measure_timeout),
        ("settle", settle),
        ("sanity", sanity),
        ("scrape_interval", scrape_interval),
        ("dcgm", dcgm),
        ("webhook", webhook),
    ] {
        given.extend(text.as_ref().map(|t| (key, Value::str(t))));
    }
    for (key, count) in [
        ("repeats", repeats),
        ("starts", starts),
        ("attempts", attempts),
        ("max_units", max_units),
        ("parallel", parallel),
        ("seed", seed),
    ] {
        given.extend(count.map(|n| (key, Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))));
    }
    given.extend(max_error_rate.and_then(Value::number).map(|v| ("max_error_rate", v)));
    for (key, list) in [("devices", devices), ("float", float)] {
        if !list.is_empty() {
            given.push((key, Value::list(list.iter().map(Value::str).collect())));
        }
    }
    let flag = |key: &str| key.replace('_', "-");
    given
        .iter()
        .map(|(key, value)| RunSetting::new(key, value).map_err(|e| Failure::Usage(format!("--{}: {e}", flag(key)))))
        .collect()
}
