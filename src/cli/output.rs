//! The one place that prints. Results go to stdout, everything else to stderr; a reader that went away is not an error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use crate::diag;

/// How this invocation prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
    /// Colours on stderr.
    pub color: bool,
    /// Colours on stdout.
    pub color_out: bool,
}

/// Problems that are shown in full; more are counted.
const SHOWN: usize = 30;

impl Output {
    pub fn new(json: bool, quiet: bool) -> Output {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Output {
            json,
            quiet,
            color: !plain && io::stderr().is_terminal(),
            color_out: !plain && io::stdout().is_terminal(),
        }
    }

    /// Text for a person or a pipe, to stdout.
    pub fn text(&self, text: &str) {
        self.write(|out| {
            out.write_all(text.as_bytes())?;
            if text.is_empty() || text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") }
        });
    }

    /// One JSON value on a line of its own, to stdout.
    pub fn json<T: Serialize>(&self, value: &T) {
        self.write(|out| {
            serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
            out.write_all(b"\n")
        });
    }

    /// Writes to a buffered stdout. A closed pipe ends the writing, nothing else.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
        if let Err(e) = write(&mut out).and_then(|()| out.flush())
            && e.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = writeln!(io::stderr(), "llmatrix: cannot write to standard output: {e}");
        }
    }

    /// A line to stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    pub fn warning(&self, text: &str) {
        let mark = if self.color { "\u{1b}[33mwarning\u{1b}[0m" } else { "warning" };
        self.note(&format!("{mark}: {text}"));
    }

    /// Says why a command failed; `--quiet` does not hide it.
    pub fn failure(&self, failure: &Failure) {
        let mut err = io::stderr();
        let mark = if self.color { "\u{1b}[31merror\u{1b}[0m" } else { "error" };
        let _ = match failure {
            Failure::Invalid(problems) => {
                let shown = &problems[..problems.len().min(SHOWN)];
                let mut text = diag::render(shown, self.color, width());
                match problems.len() {
                    1 => text.push_str(&format!("{mark}: 1 problem\n")),
                    n if n > SHOWN => text.push_str(&format!("{mark}: {n} problems, the first {SHOWN} are shown\n")),
                    n => text.push_str(&format!("{mark}: {n} problems\n")),
                }
                write!(err, "{text}")
            }
            Failure::Usage(m) | Failure::Nothing(m) | Failure::Environment(m) => writeln!(err, "{mark}: {m}"),
            Failure::Internal(m) => writeln!(
                err,
                "{mark}: internal error: {m}\nThis is a bug in llmatrix; please report it with the command that led here."
            ),
        };
    }
}

/// Columns of the terminal, or a readable default.
pub fn width() -> usize {
    let columns = console::Term::stderr().size_checked().map_or(100, |(_, columns)| columns);
    usize::from(columns).clamp(60, 160)
}

/// A plain table that copies well.
pub fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = pairs();
    table.set_header(header.to_vec());
    table
}

/// The same without a header: names and values.
pub fn pairs() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}
