//! A line for a crontab. A lock keeps a night from starting while the one before it is still running.

use super::{Made, Night};
use crate::cli::shell::word;

pub const HINT: &str = "\
To install: crontab -e, and add the line. Values of variables go into ~/.config/llmatrix/NAME.env (chmod 600).";

/// What flock exits with when somebody else holds the lock.
const TAKEN: u8 = 75;

pub fn files(night: &Night) -> Vec<Made> {
    vec![
        Made { name: format!("{}.cron", night.name), text: line(night) },
        Made { name: format!("{}.env", night.name), text: night.environment() },
    ]
}

fn line(night: &Night) -> String {
    let environment = format!("\"$HOME\"/.config/llmatrix/{}.env", night.name);
    let (lock, log) = (word(&night.beside(".lock")), word(&night.beside(".log")));
    let program = word(&night.program.display().to_string());
    let command: Vec<String> = night.command(&night.beside("-summary.md")).iter().map(|w| word(w)).collect();
    let text = format!(
        "cd {} && mkdir -p {} && {{ if [ -r {environment} ]; then set -a; . {environment}; set +a; fi; \
         flock -n -E {TAKEN} {lock} {program} {}; \
         if [ $? -eq {TAKEN} ]; then echo \"{}: the night before is still running, so this one is left out\"; fi; }} \
         >> {log} 2>&1",
        word(&night.directory.display().to_string()),
        word(&night.artifacts.display().to_string()),
        command.join(" "),
        night.name,
    );
    // cron takes `%` for the end of a line.
    format!("# llmatrix {}: local time\n{} {}\n", night.experiment, night.when.cron(), text.replace('%', "\\%"))
}
