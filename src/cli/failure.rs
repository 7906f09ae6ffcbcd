//! What ends a command early, and its exit code.

use crate::diag::Diagnostic;

pub const USAGE: u8 = 2;
pub const INVALID: u8 = 3;
pub const NOTHING: u8 = 4;
pub const ENVIRONMENT: u8 = 7;
pub const INTERNAL: u8 = 70;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// The command line asks for something that cannot be, or a question cannot be asked without a terminal.
    Usage(String),
    /// The experiment, configuration or lock is wrong.
    Invalid(Vec<Diagnostic>),
    /// `--only`, or the paths, select nothing.
    Nothing(String),
    /// The machine lacks something: a file, a disk, a daemon.
    Environment(String),
    /// A bug.
    Internal(String),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::Invalid(_) => INVALID,
            Failure::Nothing(_) => NOTHING,
            Failure::Environment(_) => ENVIRONMENT,
            Failure::Internal(_) => INTERNAL,
        }
    }

    /// A file that cannot be read or written.
    pub fn io(doing: &str, path: &std::path::Path, e: &std::io::Error) -> Failure {
        Failure::Environment(format!("cannot {doing} {}: {e}", path.display()))
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Failure {
        Failure::Invalid(diagnostics)
    }
}
