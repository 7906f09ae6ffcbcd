//! A cache in the layout of the hub's own library (`models--ORG--NAME/{blobs,refs,snapshots}`), so that an engine that is
//! given this directory finds what was downloaded here, and the other way round.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::info::{Content, RemoteFile};
use super::{ModelError, RepoRef};

/// The directory below a `HF_HOME` that holds repositories.
pub const HUB: &str = "hub";

/// A cache directory; made when something is put into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The cache of a `HF_HOME`.
    pub fn of_home(home: &Path) -> HubCache {
        HubCache { root: home.join(HUB) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `models--ORG--NAME`.
    pub fn repo(&self, name: &str) -> PathBuf {
        self.root.join(folder(name))
    }

    /// Where a repository's files are at a commit.
    pub fn snapshot(&self, name: &str, commit: &str) -> PathBuf {
        self.repo(name).join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, name: &str, content: &Content) -> PathBuf {
        self.repo(name).join("blobs").join(content.tag())
    }

    pub(super) fn lock(&self, name: &str, content: &Content) -> PathBuf {
        self.root.join(".locks").join(folder(name)).join(format!("{}.lock", content.tag()))
    }

    /// The commit that a reference meant when it was last looked up, by whatever tool.
    pub fn commit_of(&self, repo: &RepoRef) -> Option<String> {
        if repo.is_commit() {
            return Some(repo.revision.clone());
        }
        let commit = fs::read_to_string(self.repo(&repo.name).join("refs").join(&repo.revision)).ok()?;
        Some(commit.trim().to_string()).filter(|c| !c.is_empty())
    }

    /// A snapshot that is here, whole as far as can be told without the hub.
    pub fn present(&self, repo: &RepoRef) -> Option<(String, PathBuf)> {
        let commit = self.commit_of(repo)?;
        let dir = self.snapshot(&repo.name, &commit);
        let filled = fs::read_dir(&dir).ok()?.next().is_some();
        filled.then_some((commit, dir))
    }

    /// The files of a snapshot whose content is not here.
    pub fn missing<'f>(&self, name: &str, files: &[&'f RemoteFile]) -> Vec<&'f RemoteFile> {
        files.iter().copied().filter(|f| !self.has(name, f)).collect()
    }

    pub(super) fn has(&self, name: &str, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(name, &file.content)).is_ok_and(|m| m.len() == file.size)
    }

    /// Bytes that are still to come for these files: what earlier downloads left half done counts as here.
    pub fn bytes_to_come(&self, name: &str, files: &[&RemoteFile]) -> u64 {
        let left = |f: &&RemoteFile| {
            let partial = fs::metadata(partial(&self.blob(name, &f.content))).map_or(0, |m| m.len());
            f.size.saturating_sub(partial)
        };
        self.missing(name, files).iter().map(left).sum()
    }

    /// Shows downloaded content under the names of its files, and under the reference. A snapshot that is not whole is
    /// never shown: this comes after the last byte.
    pub(super) fn show(&self, repo: &RepoRef, commit: &str, files: &[&RemoteFile]) -> Result<PathBuf, ModelError> {
        let dir = self.snapshot(&repo.name, commit);
        for file in files {
            let link = dir.join(&file.path);
            if fs::metadata(&link).is_ok() {
                continue;
            }
            let parent = link.parent().unwrap_or(&dir);
            fs::create_dir_all(parent).map_err(ModelError::io("make", parent))?;
            let up = "../".repeat(2 + file.path.matches('/').count());
            // A link that leads nowhere: its content was removed.
            let _ = fs::remove_file(&link);
            match symlink(format!("{up}blobs/{}", file.content.tag()), &link) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(ModelError::io("make", &link)(e));
                }
                _ => {}
            }
        }
        self.point(repo, commit)?;
        Ok(dir)
    }

    /// Writes down what a branch or tag means.
    fn point(&self, repo: &RepoRef, commit: &str) -> Result<(), ModelError> {
        if repo.is_commit() {
            return Ok(());
        }
        let path = self.repo(&repo.name).join("refs").join(&repo.revision);
        let dir = path.parent().unwrap_or(&self.root);
        let write = || {
            fs::create_dir_all(dir)?;
            let mut temp = tempfile::NamedTempFile::new_in(dir)?;
            temp.write_all(commit.as_bytes())?;
            temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            temp.persist(&path).map(drop).map_err(|e| e.error)
        };
        write().map_err(ModelError::io("write", &path))
    }

    /// Removes content and every name that led to it. Returns the bytes that are free again.
    pub fn remove(&self, name: &str, files: &[RemoteFile]) -> Result<u64, ModelError> {
        let mut freed = 0;
        for file in files {
            let blob = self.blob(name, &file.content);
            match fs::remove_file(&blob) {
                Ok(()) => freed += file.size,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(ModelError::io("remove", &blob)(e)),
            }
        }
        let snapshots = self.repo(name).join("snapshots");
        prune(&snapshots);
        Ok(freed)
    }
}

/// Where a blob grows until it is whole; the name that the hub's own library uses.
pub(super) fn partial(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

fn folder(name: &str) -> String {
    format!("models--{}", name.replace('/', "--"))
}

/// Removes links that lead nowhere, and directories that are empty then.
fn prune(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(t) if t.is_dir() => prune(&path),
            Ok(t) if t.is_symlink() && fs::metadata(&path).is_err() => _ = fs::remove_file(&path),
            _ => {}
        }
    }
    // Only when nothing is left in it.
    let _ = fs::remove_dir(dir);
}
