//! From TOML text to a validated spec, every problem with its place in the file. No files, no clock, no network: the text
//! and the known methods and engines are handed in.

pub mod block;
pub mod cost;
pub mod expr;
pub mod gate;
pub mod params;
pub mod policy;
pub mod predicate;
pub mod read;
pub mod schema;
pub mod search;
pub mod sections;
pub mod set;
pub mod stages;
pub mod tree;
pub mod types;

use std::ops::Range;
use std::sync::Arc;

use crate::diag::SourceText;
use block::{Assignment, Block};
use policy::{Cost, Gate, RunPolicy, Slo};
use predicate::Predicate;

/// A validated experiment file.
#[derive(Debug)]
pub struct Spec {
    pub source: Arc<SourceText>,
    pub name: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub defaults: Vec<Assignment>,
    pub blocks: Vec<Block>,
    pub overrides: Vec<Override>,
    pub run: RunPolicy,
    pub slo: Slo,
    pub cost: Cost,
    pub gate: Gate,
}

/// One `[[override]]`.
#[derive(Debug)]
pub struct Override {
    pub span: Range<usize>,
    pub when: Option<Predicate>,
    pub set: Vec<Assignment>,
    pub unset: Vec<Arc<str>>,
    pub run: Vec<sections::RunSetting>,
    pub slo: Option<Slo>,
}
