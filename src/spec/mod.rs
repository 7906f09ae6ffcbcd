//! From TOML text to a validated spec, every problem with its place in the file.

pub mod params;
pub mod policy;
