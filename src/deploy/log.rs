//! The last lines of an engine's log, as they come in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Lines that are kept; earlier ones are forgotten.
const LINES: usize = 4000;
/// A longer line is cut: what engines print in one line beyond that is data, not a message.
const LONGEST: usize = 8 << 10;

/// A log that grows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    /// Adds a line.
    pub fn push(&self, mut line: String) {
        if line.len() > LONGEST {
            let cut = (0..=LONGEST).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
            line.truncate(cut);
            line.push('…');
        }
        let mut kept = self.0.lock().expect("no holder of the log panics");
        if kept.len() == LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }

    /// The last lines, each with its line feed.
    pub fn tail(&self, lines: usize) -> String {
        let kept = self.0.lock().expect("no holder of the log panics");
        let mut text = String::new();
        for line in kept.iter().skip(kept.len().saturating_sub(lines)) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_and_long_ones_are_cut() {
        let log = Log::default();
        (0..LINES + 2).for_each(|i| log.push(format!("{i} ")));
        assert_eq!(log.tail(2), "4000\n4001\n");
        assert!(log.tail(usize::MAX).starts_with("2\n"));
        log.push("é".repeat(LONGEST));
        assert!(log.tail(1).len() <= LONGEST + 4);
    }
}
