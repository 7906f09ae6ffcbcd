//! The commit that an experiment stands at, asked of `git`.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where a working tree stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Tracked files differ from the commit.
    pub dirty: bool,
}

/// The repository that holds `path` (a file or directory). `None` outside of one, before its first commit, and without
/// `git`.
pub fn repository(path: &Path) -> Option<Repository> {
    let dir = if path.is_dir() { path } else { path.parent()? };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let commit = git(dir, &["rev-parse", "--verify", "--quiet", "HEAD"])?.trim().to_string();
    let changes = git(dir, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(Repository { commit, dirty: !changes.trim().is_empty() })
}

fn git(dir: &Path, args: &[&str]) -> Option<String> {
    // Only reads: no lock is taken that could disturb a git at work beside us.
    let mut command = Command::new("git");
    command.arg("--no-optional-locks").arg("-C").arg(dir).args(args).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|o| o.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_and_whether_it_is_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| git(dir.path(), args).unwrap();
        run(&["init", "-q"]);
        let file = dir.path().join("e.toml");
        std::fs::write(&file, "a").unwrap();
        assert_eq!(repository(&file), None);
        run(&["add", "."]);
        run(&["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "m"]);
        let clean = repository(&file).unwrap();
        assert_eq!((clean.commit.len(), clean.dirty), (40, false));
        std::fs::write(&file, "b").unwrap();
        assert_eq!(repository(&file), Some(Repository { dirty: true, ..clean }));
    }
}
