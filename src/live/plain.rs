//! One line of text per event, for logs and for standard error that is not a terminal.

use std::io::{self, Write};

use super::Reporter;
use super::line::line;
use crate::event::Entry;
use crate::event::fold::RunState;

/// Writes lines of text, each flushed at once.
pub struct Plain<W> {
    out: W,
    state: RunState,
}

impl<W: Write + Send> Plain<W> {
    pub fn new(out: W) -> Self {
        Plain { out, state: RunState::default() }
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let line = line(entry, &self.state);
        self.state.apply(entry);
        if let Some(line) = line {
            writeln!(self.out, "{} {:<7} {}", line.time, line.verb, line.text)?;
            self.out.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::run;
    use super::*;

    #[test]
    fn lines_are_whole_and_have_no_control_characters() {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        run().iter().for_each(|e| plain.entry(e).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() >= 10 && text.ends_with("exit code 5\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!text.contains("Traceback"));
    }
}
