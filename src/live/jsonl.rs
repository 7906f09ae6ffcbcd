//! One JSON object per event and line: the journal's own format, for programs.

use std::io::{self, Write};

use super::Reporter;
use crate::event::Entry;

/// Writes events as JSON lines, each flushed at once.
pub struct JsonLines<W>(W);

impl<W: Write + Send> JsonLines<W> {
    pub fn new(out: W) -> Self {
        JsonLines(out)
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Counts, Event};

    #[test]
    fn a_line_reads_back_as_the_entry() {
        let entry = Entry {
            seq: 4,
            at: "2026-11-24T06:15:00.000Z".into(),
            event: Event::RunFinished { counts: Counts { measured: 2, ..Counts::default() }, exit_code: 0 },
        };
        let mut out = Vec::new();
        JsonLines::new(&mut out).entry(&entry).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}
