//! `run --summary FILE`: a Markdown file that says how the run ended, whatever its end is. It is there from the beginning,
//! so that one that is killed leaves a file that says so.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::Failure;
use super::{output, results};
use crate::clock::rfc3339;
use crate::diag;
use crate::store::run_dir::RunFiles;

/// The file, and what it says so far.
pub struct Summary {
    path: Option<PathBuf>,
    begun: String,
    /// The summaries of the runs that ended.
    parts: Vec<String>,
}

impl Summary {
    /// Writes that the run has begun. A place that cannot be written to is told before anything is measured.
    pub fn begin(path: Option<&Path>, experiments: &[PathBuf]) -> Result<Summary, Failure> {
        let names: Vec<String> = experiments.iter().map(|p| format!("`{}`", p.display())).collect();
        let begun = begun(&names.join(", "));
        if let Some(path) = path {
            results::write(path, &begun)?;
        }
        Ok(Summary { path: path.map(Path::to_path_buf), begun, parts: Vec::new() })
    }

    /// Adds the summary of a run that has ended.
    pub fn add(&mut self, files: &RunFiles) {
        if self.path.is_some()
            && let Ok(text) = std::fs::read_to_string(files.summary())
        {
            self.parts.push(text);
        }
    }

    /// Adds a sentence.
    pub fn say(&mut self, text: &str) {
        self.parts.push(format!("{text}.\n"));
    }

    /// Writes how it ended.
    pub fn end(self, ended: &Result<u8, Failure>) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = self.parts.join("\n");
        match ended {
            Ok(0) => {}
            Ok(code) => text.push_str(&format!("\nExit code **{code}**: {}.\n", meaning(*code))),
            Err(failure) => {
                let code = failure.exit_code();
                let cause = cause(failure);
                text.push_str(&format!(
                    "# No result\n\nExit code **{code}**: {}.\n\n```text\n{cause}\n```\n",
                    meaning(code)
                ));
            }
        }
        if text.trim().is_empty() {
            text = format!("{}\nIt ended without anything to say.\n", self.begun);
        }
        results::write(path, &text)
    }
}

/// What stands in a summary until its run has ended.
pub fn begun(what: &str) -> String {
    format!(
        "# Running\n\n{what} since {}. **It has not ended.** Where nothing is running any more, it was killed: the next run \
         goes on from what it measured, and `llmatrix report` shows that.\n",
        rfc3339(Timestamp::now())
    )
}

fn cause(failure: &Failure) -> String {
    match failure {
        Failure::Invalid(problems) => diag::render(problems, false, output::width()),
        Failure::Usage(m) | Failure::Nothing(m) | Failure::Environment(m) | Failure::Internal(m) => m.clone(),
    }
    .trim_end()
    .to_string()
}

fn meaning(code: u8) -> &'static str {
    match code {
        130 => "interrupted",
        2 => "the command line asks for something that cannot be",
        3 => "the experiment, settings or lock are invalid",
        4 => "nothing is selected",
        7 => "this machine lacks something",
        6 => "regression",
        9 => "the gate cannot decide",
        5 => "some units failed, were blocked or are invalid",
        8 => "incomplete",
        _ => "internal error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_from_the_beginning_and_says_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.md");
        let read = || std::fs::read_to_string(&path).unwrap();
        let summary = Summary::begin(Some(&path), &["a.toml".into()]).unwrap();
        assert!(read().contains("`a.toml` since") && read().contains("It has not ended"));
        summary.end(&Err(Failure::Environment("no daemon".into()))).unwrap();
        assert!(read().contains("Exit code **7**") && read().contains("no daemon"), "{}", read());
        let mut summary = Summary::begin(Some(&path), &["a.toml".into()]).unwrap();
        summary.parts.push("# nightly\n".into());
        summary.end(&Ok(6)).unwrap();
        assert_eq!(read(), "# nightly\n\nExit code **6**: regression.\n");
        assert!(Summary::begin(Some(&dir.path().join("no/s.md")), &[]).is_err());
    }
}
