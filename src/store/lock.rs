//! Locks that die with the process that holds them: an advisory lock on an open file, released by the kernel however the
//! process ends. There is nothing to unlock by hand and no guessing from process ids or ages.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::{StoreError, atomic};

/// A held lock. Dropping it, or the end of the process, releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// The answer to a try.
#[derive(Debug)]
pub enum TryLock {
    Held(Lock),
    /// Another holder is alive.
    Taken,
}

impl Lock {
    /// Takes the lock on `path`, which is created when it is not there, or says that it is taken. Does not wait.
    pub fn attempt(path: &Path) -> Result<TryLock, StoreError> {
        if let Some(dir) = path.parent() {
            atomic::create_dir(dir)?;
        }
        // It would be opened, and never found to be the file of this name.
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return Err(StoreError::Link { path: path.to_path_buf() });
        }
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .map_err(StoreError::io("open the lock", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(TryLock::Taken),
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", path)(e)),
            }
            // Between opening and locking, the holder before may have removed the file: then this lock is on a file
            // that nobody else can find, and does not count.
            if is_at(&file, path) {
                return Ok(TryLock::Held(Lock { file, path: path.to_path_buf() }));
            }
        }
    }

    /// Makes the lock's file durable: one that outlives a power failure says that its holder did not.
    pub fn persist(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("sync the lock", &self.path))?;
        atomic::sync_parent(&self.path)
    }

    /// Releases the lock and removes its file.
    pub fn remove(self) -> Result<(), StoreError> {
        atomic::remove(&self.path)?;
        drop(self.file);
        Ok(())
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_dropping_releases() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/a");
        let TryLock::Held(first) = Lock::attempt(&path).unwrap() else { panic!("free") };
        assert!(matches!(Lock::attempt(&path).unwrap(), TryLock::Taken));
        drop(first);
        let TryLock::Held(second) = Lock::attempt(&path).unwrap() else { panic!("released") };
        second.remove().unwrap();
        assert!(!path.exists());
        assert!(matches!(Lock::attempt(&path).unwrap(), TryLock::Held(_)));
    }

    #[test]
    fn a_lock_on_a_removed_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let TryLock::Held(first) = Lock::attempt(&path).unwrap() else { panic!("free") };
        std::fs::remove_file(&path).unwrap();
        // A newcomer finds no file, makes its own and holds that one.
        assert!(matches!(Lock::attempt(&path).unwrap(), TryLock::Held(_)));
        drop(first);
    }
}
