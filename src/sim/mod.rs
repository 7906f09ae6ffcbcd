//! A simulated inference engine that is taken for any of the eight stacks: it speaks that stack's wire protocol, spends
//! time as a batching engine does, and fails on request. Runs on a thread and a runtime of its own, so that it never
//! competes with a load generator for a scheduler. Opens a socket or two; reads no file, unless it stands in for a whole
//! image ([`image`]).
//!
//! The timing model is a pure state machine ([`engine`]); everything else brings requests to it and its tokens to sockets.

mod answer;
mod batch;
mod body;
mod connection;
pub mod engine;
mod fault;
pub mod flavor;
mod http;
mod hub;
pub mod image;
mod log;
mod metrics;
mod old_metrics;
mod openai;
pub mod options;
pub mod preset;
mod routes;
mod server;
mod timer;
mod tokens;
mod triton;

pub use answer::RequestTrace;
pub use flavor::Flavor;
pub use options::{FixedTiming, MetricsAt, OPTIONS, OptionDoc, SimError, SimOptions};
pub use server::{SimServer, Status, start};

/// Version of the timing model. Part of what a simulated result depends on: raised whenever the same options and load
/// would give other times.
pub const MODEL_VERSION: u32 = 1;

#[cfg(test)]
mod tests;
