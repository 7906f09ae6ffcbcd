//! Runs a plan. One dispatcher owns all state of the run; groups work, tell it what happens, and commit what they measure
//! to the artifacts. May use everything below it, and neither `live` nor `report`: those read events and files.

pub mod ahead;
pub mod cancel;
pub mod client;
pub mod control;
mod dispatch;
pub mod exit;
pub mod group;
pub mod loader;
mod run;
mod sample;
pub mod search;
mod start;
mod startup;
#[cfg(test)]
mod tests;
mod throttle;
pub mod tokenizers;
pub mod usage;
pub mod work;

pub use cancel::Cancel;
pub use client::LoadClient;
pub use exit::Verdict;
pub use group::{GroupContext, run_group};
pub use loader::{ClientError, Job, Loader, LoaderError, Measurement, Watch};
pub use run::{ExecError, Judge, Reporter, RunOutcome, RunRequest, run};
pub use work::{GroupWork, UnitWork};
