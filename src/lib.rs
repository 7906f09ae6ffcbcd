//! Declarative experiment matrices for LLM serving stacks. A spec is validated into a plan; a plan is run into a journal;
//! a journal and the units it committed are read into a report.

pub mod cli;
pub mod clock;
pub mod compare;
pub mod deploy;
pub mod diag;
pub mod digest;
pub mod event;
pub mod exec;
pub mod host;
pub mod hub;
pub mod live;
pub mod load;
pub mod model;
pub mod plan;
pub mod report;
pub mod settings;
pub mod sim;
pub mod spec;
pub mod stats;
pub mod store;
pub mod telemetry;
pub mod template;
pub mod units;
pub mod value;
pub mod wire;
pub mod workload;
