//! Two sides of measurements read into verdicts. A [`Side`] is what was measured under one name: runs, a baseline file,
//! another tool's results. Cells of two sides are paired by their declared coordinates, each metric of a pair is tested
//! with all the others, and a [`Comparison`] says what is better, worse, the same or undecided, and why.
//!
//! Works on what it is handed; opens no file.

pub mod baseline;
mod circumstances;
mod control;
mod finding;
pub mod gate;
pub mod history;
pub mod import;
mod judge;
pub mod metric;
pub mod pair;
mod replicates;
pub mod show;
pub mod side;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trial;

pub use circumstances::Difference;
pub use control::Drift;
pub use gate::{Outcome, Rules};
pub use judge::{Compared, Comparison, Finding, Needed, Verdict, compare};
pub use side::{Side, SideCell, SideRun, SideSample};
