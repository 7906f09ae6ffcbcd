//! What a file was when it was committed, so that a later look tells whether it still is that. A look compares size and
//! time of change, and reads only what differs in them; a close look reads everything.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest::Digest;

/// Size, time of change and content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeal {
    pub bytes: u64,
    /// Nanoseconds since 1970. A copy has another one: it is then read and compared by content.
    pub modified_ns: i64,
    pub blake3: Digest,
}

/// By name, for the files of one directory.
pub type FileSeals = BTreeMap<String, FileSeal>;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Size and time of change; content only where they differ.
    Glance,
    /// Content.
    Close,
}

impl FileSeal {
    /// Seals a file as it is now.
    pub fn of(path: &Path) -> Result<FileSeal, StoreError> {
        let meta = fs::symlink_metadata(path).map_err(StoreError::io("look at", path))?;
        let blake3 = digest(path).map_err(StoreError::io("read", path))?;
        Ok(FileSeal { bytes: meta.len(), modified_ns: modified_ns(&meta), blake3 })
    }

    /// Why the file is not what it was, if it is not.
    pub fn problem(&self, path: &Path, look: Look) -> Option<String> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Some("is no longer a file".into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Some("is missing".into()),
            Err(e) => return Some(format!("cannot be looked at: {e}")),
        };
        if meta.len() != self.bytes {
            return Some(format!("has {} bytes where {} were written", meta.len(), self.bytes));
        }
        if look == Look::Glance && modified_ns(&meta) == self.modified_ns {
            return None;
        }
        match digest(path) {
            Ok(now) if now == self.blake3 => None,
            Ok(_) => Some("does not have the content that was written".into()),
            Err(e) => Some(format!("cannot be read: {e}")),
        }
    }
}

/// Seals every file directly in a directory.
pub fn seal_files_in(dir: &Path) -> Result<FileSeals, StoreError> {
    let mut seals = FileSeals::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().is_file() {
            seals.insert(name, FileSeal::of(&entry.path())?);
        }
    }
    Ok(seals)
}

/// The first sealed file of a directory that is not what it was: `requests.csv is missing`.
pub fn first_problem(dir: &Path, seals: &FileSeals, look: Look) -> Option<String> {
    seals.iter().find_map(|(name, seal)| Some(format!("{name} {}", seal.problem(&dir.join(name), look)?)))
}

/// BLAKE3 of a file's content.
fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(hasher.finalize())),
            Ok(n) => _ = hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn modified_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_sees_size_and_time_and_a_close_look_sees_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        fs::write(&path, "one").unwrap();
        let seals = seal_files_in(dir.path()).unwrap();
        let problem = |look| first_problem(dir.path(), &seals, look);
        assert_eq!((problem(Look::Glance), problem(Look::Close)), (None, None));

        // A copy: another time, the same content.
        let copied = |text: &str| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, text).unwrap();
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
            File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        };
        copied("one");
        assert_eq!(problem(Look::Glance), None);
        copied("two");
        assert!(problem(Look::Glance).unwrap().contains("a.csv does not have the content"));
        copied("three");
        assert_eq!(problem(Look::Glance).unwrap(), "a.csv has 5 bytes where 3 were written");

        // Same size, same time: only a close look sees it.
        fs::write(&path, "onf").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(seals["a.csv"].modified_ns as u64);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(problem(Look::Glance), None);
        assert!(problem(Look::Close).unwrap().contains("content"));

        fs::remove_file(&path).unwrap();
        assert_eq!(problem(Look::Glance).unwrap(), "a.csv is missing");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(problem(Look::Glance).unwrap(), "a.csv is no longer a file");
    }
}
