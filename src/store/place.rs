//! Directories of the tree: durable before anything in them counts, and never reached through a link. A process that was
//! killed may leave a directory whose name is not on the disk yet, so that what is there is not taken for durable: each
//! process makes every directory that it writes to durable once.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::lock::{Lock, TryLock};
use super::{Store, StoreError, atomic};

/// Directories whose names this process has made durable; clones of a store share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable(Arc<Mutex<HashSet<PathBuf>>>);

impl Durable {
    fn holds(&self, dir: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(dir)
    }

    fn add(&self, dir: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(dir);
    }

    fn forget(&self, dir: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|d| !d.starts_with(dir));
    }
}

impl Store {
    /// Makes a directory of the tree with everything above it, all durable.
    pub(super) fn make_dir(&self, dir: &Path) -> Result<(), StoreError> {
        if self.durable.holds(dir) && dir.is_dir() {
            return Ok(());
        }
        self.durable.forget(dir);
        atomic::create_dir(&self.root)?;
        let mut path = self.root.clone();
        for part in self.inside(dir).components() {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_symlink() => return Err(StoreError::Link { path }),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::create_dir(&path) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(StoreError::io("create the directory", &path)(e));
                    }
                    _ => {}
                },
                Err(e) => return Err(StoreError::io("look at", &path)(e)),
            }
            if !self.durable.holds(&path) {
                atomic::sync_parent(&path)?;
                self.durable.add(path.clone());
            }
        }
        Ok(())
    }

    /// Refuses a path of the tree that a link leads to, whatever it leads to: what is written there would be written
    /// elsewhere. The root may be one: it is the person's own choice.
    pub(super) fn refuse_links(&self, path: &Path) -> Result<(), StoreError> {
        let mut at = self.root.clone();
        for part in self.inside(path).components() {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(meta) if meta.is_symlink() => return Err(StoreError::Link { path: at }),
                Ok(_) => {}
                // What is not there, or is below a file, is no link.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Tries for a lock of the tree.
    pub(super) fn try_lock(&self, path: &Path) -> Result<TryLock, StoreError> {
        self.refuse_links(path)?;
        Lock::attempt(path)
    }

    fn inside<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).expect("paths of the tree begin at its root")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_in_the_tree_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let store = Store::open(dir.path().join("artifacts"), false);
        store.make_dir(&store.root().join("a/b")).unwrap();
        symlink(&elsewhere, store.root().join("a/link")).unwrap();
        let path = store.root().join("a/link/c");
        for refused in [store.make_dir(&path), store.refuse_links(&path), store.try_lock(&path).map(|_| ())] {
            let e = refused.unwrap_err().to_string();
            assert!(e.contains("a/link is a symbolic link"), "{e}");
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        // One that leads nowhere is one too.
        symlink("/nonexistent", store.root().join("dead")).unwrap();
        assert!(store.make_dir(&store.root().join("dead")).is_err());
    }

    #[test]
    fn the_root_may_be_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("large-disk");
        fs::create_dir(&disk).unwrap();
        symlink(&disk, dir.path().join("artifacts")).unwrap();
        let store = Store::open(dir.path().join("artifacts"), false);
        store.make_dir(&store.root().join("a")).unwrap();
        assert!(disk.join("a").is_dir());
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("artifacts"), false);
        let path = store.root().join("a/b");
        store.make_dir(&path).unwrap();
        fs::remove_dir_all(store.root()).unwrap();
        store.make_dir(&path).unwrap();
        assert!(path.is_dir());
    }
}
