//! Files that appear whole or not at all, also after a power failure.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::StoreError;

/// What the names of half-written files and directories begin with.
pub const TEMP: &str = ".tmp-";

/// Creates a directory with its parents, each made durable in the one above it.
pub fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StoreError::io("create the directory", dir)(e)),
    }
}

/// Replaces a file: temporary file beside it, fsync, rename, fsync of the directory. Only one process may write `path`
/// at a time (its writers hold a lock), so the temporary name is fixed and a leftover is replaced.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().expect("artifact files have names").to_string_lossy();
    let temp = path.with_file_name(format!("{TEMP}{name}"));
    // A leftover, which may be a link to something else.
    remove(&temp)?;
    let mut file = File::create_new(&temp).map_err(StoreError::io("create", &temp))?;
    file.write_all(bytes).map_err(StoreError::io("write", &temp))?;
    file.sync_all().map_err(StoreError::io("sync", &temp))?;
    rename(&temp, path)
}

/// Renames within one directory and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename into place", to))?;
    sync_parent(to)
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let file = File::open(dir).map_err(StoreError::io("open", dir))?;
    file.sync_all().map_err(StoreError::io("sync", dir))
}

/// Makes every file directly in a directory durable, then their names.
pub fn sync_files_in(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        if path.is_file() {
            File::open(&path).and_then(|f| f.sync_all()).map_err(StoreError::io("sync", &path))?;
        }
    }
    sync_dir(dir)
}

/// Makes the name of a path durable.
pub fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Removes a file or a directory with everything in it; nothing there is fine.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    let done = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
