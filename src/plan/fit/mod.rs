//! Whether a deployment fits in the memory of its GPUs, and what that is made of. From the lock and the plan alone: no
//! network, no model. It informs and decides nothing; no id depends on it. Formulas and limits: `docs/memory.md`.

mod ask;
mod cache;
mod card;
mod judge;
mod load;
mod pool;
mod remedy;
#[cfg(test)]
mod tests;
mod text;
mod weights;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::Plan;
use super::lock::Lock;

pub use pool::Share;

/// The answer, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// One sequence of the longest kind fits, and so does the largest load.
    #[serde(rename = "fits")]
    Fits,
    /// It starts, but the largest load does not fit at once, or what is left is within the error of the estimate.
    #[serde(rename = "tight")]
    Tight,
    /// The weights, or the KV cache of one sequence of the longest kind, have no room.
    #[serde(rename = "does not fit")]
    DoesNotFit,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fits => "fits",
            Verdict::Tight => "tight",
            Verdict::DoesNotFit => "does not fit",
        }
    }
}

/// A verdict with what it is made of. Memory is in bytes of one GPU here, and in GiB where it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    pub verdict: Verdict,
    /// Hardware class.
    pub hardware: String,
    /// What the class is named after, in GiB.
    pub nominal_gib: u64,
    /// What the driver shows of it.
    #[serde(rename = "memory_gib", serialize_with = "gib")]
    pub memory: f64,
    /// GPUs that hold one copy of the model.
    pub gpus: u64,
    /// Copies (data parallelism).
    pub copies: u64,
    /// Parameters of the model, and those that one token meets; `null` where only bytes are known.
    pub parameters: Option<u64>,
    pub active_parameters: Option<u64>,
    /// What the engine takes of the memory, and how it counts.
    pub share: Share,
    /// All weights of one copy, as they are served.
    #[serde(rename = "weights_total_gib", serialize_with = "gib")]
    pub weights_total: f64,
    /// Those on one GPU.
    #[serde(rename = "weights_gib", serialize_with = "gib")]
    pub weights: f64,
    /// What the served weights are.
    pub weights_are: String,
    /// Activations, graphs, libraries: an estimate.
    #[serde(rename = "overhead_gib", serialize_with = "gib")]
    pub overhead: f64,
    /// What is left for the KV cache; negative where the weights themselves have no room.
    #[serde(rename = "kv_room_gib", serialize_with = "gib")]
    pub room: f64,
    /// `null` where the lock does not say what a token takes.
    pub kv: Option<Kv>,
    /// What is taken for granted, or has no effect.
    pub notes: Vec<String>,
    /// Changes under which the verdict is better.
    #[serde(rename = "try")]
    pub remedies: Vec<String>,
}

/// The KV cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kv {
    /// What is kept: a type, or `auto` where only the bytes are known.
    pub dtype: String,
    /// Of one token over all layers and heads.
    #[serde(serialize_with = "whole")]
    pub bytes_per_token: f64,
    /// Of one token on one GPU: its layers and heads.
    #[serde(serialize_with = "whole")]
    pub bytes_per_token_per_gpu: f64,
    /// Tokens that have room.
    pub tokens: u64,
    /// One sequence of the longest kind.
    pub longest: Option<Need>,
    /// The largest load among the units.
    pub largest: Option<Need>,
}

/// What a load takes of the KV cache of one copy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    pub sequences: u64,
    /// Tokens of one sequence.
    pub tokens: u64,
    /// On one GPU.
    #[serde(rename = "gib", serialize_with = "gib")]
    pub bytes: f64,
}

/// For each deployment of the plan, a verdict where the lock has the model's sizes and the class has a memory.
pub fn of(plan: &Plan, lock: &Lock) -> Vec<Option<Fit>> {
    let sized = |d: &super::Deployment| ask::Ask::of(d, lock);
    let mut asks: Vec<Option<ask::Ask>> = plan.deployments.iter().map(sized).collect();
    load::add(plan, &mut asks);
    asks.into_iter().map(|ask| Some(remedy::with_remedies(&ask?))).collect()
}

/// A line for each deployment that is tight or does not fit, the worse first.
pub fn warnings(plan: &Plan, fits: &[Option<Fit>]) -> Vec<String> {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    plan.deployments.iter().for_each(|d| *named.entry(&d.container).or_default() += 1);
    let told = |d: &super::Deployment, fit: &Fit| {
        let id = if named[d.container.as_str()] > 1 { format!(" ({})", d.id.short(8)) } else { String::new() };
        Some((fit.verdict, format!("{}{id} {}", d.container, fit.warning()?)))
    };
    let pairs = plan.deployments.iter().zip(fits);
    let mut lines: Vec<(Verdict, String)> = pairs.filter_map(|(d, fit)| told(d, fit.as_ref()?)).collect();
    lines.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let more = lines.len().saturating_sub(MOST_WARNINGS);
    let mut out: Vec<String> = lines.into_iter().take(MOST_WARNINGS).map(|(_, line)| line).collect();
    if more > 0 {
        out.push(format!("{more} more deployments are tight or do not fit in memory: `fit` in --json has them all"));
    }
    out
}

/// Lines about memory before the rest is counted.
const MOST_WARNINGS: usize = 12;

/// Bytes as GiB with two decimals.
fn gib<S: Serializer>(bytes: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((bytes / GIB * 100.0).round() / 100.0)
}

/// A whole number without a fraction: most types take whole bytes.
fn whole<S: Serializer>(bytes: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes.fract() == 0.0 && (0.0..1e15).contains(bytes) {
        true => serializer.serialize_u64(*bytes as u64),
        false => serializer.serialize_f64(*bytes),
    }
}

const GIB: f64 = (1u64 << 30) as f64;
