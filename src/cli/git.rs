//! Reading files as they are at a git revision, through the `git` command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::contents::digest_of_directory;
use super::failure::Failure;
use crate::digest::Digest;
use crate::plan::identity::Contents;

/// A revision of the repository around a directory.
pub struct Revision {
    root: PathBuf,
    name: String,
}

impl Revision {
    /// Finds the repository and the revision.
    pub fn open(dir: &Path, name: &str) -> Result<Revision, Failure> {
        let out = git(dir, &["rev-parse", "--show-toplevel"])?;
        let root = PathBuf::from(out.trim_end());
        let spec = format!("{name}^{{commit}}");
        git(&root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &spec])
            .map_err(|_| Failure::Usage(format!("--base {name}: git knows no such revision")))?;
        Ok(Revision { root, name: name.to_string() })
    }

    /// A file's text at the revision; `None` when it is not there.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let object = format!("{}:{}", self.name, self.relative(path)?.display());
        let out = Command::new("git").arg("-C").arg(&self.root).args(["cat-file", "blob", &object]).output().ok()?;
        out.status.success().then_some(out.stdout)
    }

    /// Files below a directory at the revision, absolute.
    pub fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let Some(relative) = self.relative(dir) else { return Vec::new() };
        let mut args =
            vec!["ls-tree".to_string(), "-r".into(), "--name-only".into(), "-z".into(), self.name.clone(), "--".into()];
        args.push(relative.display().to_string());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = git(&self.root, &args).unwrap_or_default();
        out.split('\0').filter(|p| !p.is_empty()).map(|p| self.root.join(p)).collect()
    }

    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        let parent = path.parent()?.canonicalize().unwrap_or_else(|_| path.parent().unwrap_or(&path).to_path_buf());
        let full = parent.join(path.file_name()?);
        full.strip_prefix(&self.root).ok().map(Path::to_path_buf)
    }
}

/// The commit that a revision names in the repository around a directory; `None` where git knows none.
pub fn commit(dir: &Path, name: &str) -> Option<String> {
    let spec = format!("{name}^{{commit}}");
    let out = git(dir, &["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).ok()?;
    Some(out.trim().to_string()).filter(|c| !c.is_empty())
}

/// Data sets and assets as they are at a revision.
pub struct RevisionContents<'a> {
    pub revision: &'a Revision,
    pub dir: PathBuf,
}

impl Contents for RevisionContents<'_> {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        let full = self.dir.join(path);
        if let Some(bytes) = self.revision.read(&full) {
            return Ok(Digest::of_bytes(&bytes));
        }
        let files = self.revision.list(&full);
        if files.is_empty() {
            return Err(format!("{} is not in {}", full.display(), self.revision.name));
        }
        let root = self.revision.root.join(self.revision.relative(&full).unwrap_or_default());
        let mut tree = Tree::default();
        for file in &files {
            let bytes = self.revision.read(file).unwrap_or_default();
            let names = file.strip_prefix(&root).unwrap_or(file).components();
            tree.insert(names.map(|n| n.as_os_str().to_string_lossy().into_owned()), Digest::of_bytes(&bytes));
        }
        Ok(tree.digest())
    }
}

/// A directory put together from the paths of its files.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, Digest>,
    directories: BTreeMap<String, Tree>,
}

impl Tree {
    fn insert(&mut self, mut names: impl Iterator<Item = String>, digest: Digest) {
        let mut tree = self;
        let Some(mut name) = names.next() else { return };
        for below in names {
            tree = tree.directories.entry(std::mem::replace(&mut name, below)).or_default();
        }
        tree.files.insert(name, digest);
    }

    fn digest(self) -> Digest {
        let directories = self.directories.into_iter().map(|(name, tree)| (name, tree.digest()));
        digest_of_directory(self.files.into_iter().chain(directories).collect())
    }
}

fn git(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    let out = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .output()
        .map_err(|e| Failure::Environment(format!("cannot run git: {e}")))?;
    if !out.status.success() {
        let message = String::from_utf8_lossy(&out.stderr).trim().to_string();
        return Err(Failure::Environment(format!("git {} in {}: {message}", args.join(" "), dir.display())));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
