//! Content hashes of local files and directories, remembered by inode, size and modification time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::plan::identity::Contents;

/// Files smaller than this are hashed faster than remembered.
const REMEMBER: u64 = 4 << 20;
/// Deepest nesting of a directory that is hashed.
const MAX_DEPTH: u32 = 32;

/// Reads what an experiment refers to, relative to its directory.
pub struct LocalContents {
    dir: PathBuf,
    memory: Option<PathBuf>,
    known: RefCell<BTreeMap<PathBuf, Known>>,
}

#[derive(Clone, Serialize, Deserialize, PartialEq)]
struct Known {
    inode: u64,
    size: u64,
    mtime_ns: i128,
    digest: Digest,
}

impl LocalContents {
    /// `memory` is the file that remembers digests of large files between invocations.
    pub fn new(dir: PathBuf, memory: Option<PathBuf>) -> LocalContents {
        let read = |p: &PathBuf| serde_json::from_slice(&fs::read(p).ok()?).ok();
        let known = memory.as_ref().and_then(read).unwrap_or_default();
        LocalContents { dir, memory, known: RefCell::new(known) }
    }

    fn file(&self, path: &Path) -> std::io::Result<Digest> {
        // A pipe or a device would be read for ever.
        if !fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is neither a file nor a directory"));
        }
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let stamp = |digest| Known {
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            digest,
        };
        if let Some(known) = self.known.borrow().get(path)
            && *known == stamp(known.digest)
        {
            return Ok(known.digest);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => _ = hasher.update(&buffer[..n]),
            }
        }
        let digest = Digest::from_hash(hasher.finalize());
        if meta.size() >= REMEMBER {
            self.known.borrow_mut().insert(path.to_path_buf(), stamp(digest));
            self.save();
        }
        Ok(digest)
    }

    /// Remembering is a convenience: when it cannot be written, files are hashed again next time.
    fn save(&self) {
        let Some(memory) = &self.memory else { return };
        let Some(parent) = memory.parent() else { return };
        let Ok(json) = serde_json::to_vec(&*self.known.borrow()) else { return };
        let _ = fs::create_dir_all(parent).and_then(|()| {
            let mut temp = tempfile::NamedTempFile::new_in(parent)?;
            std::io::Write::write_all(&mut temp, &json)?;
            temp.persist(memory).map(drop).map_err(|e| e.error)
        });
    }

    fn directory(&self, path: &Path, depth: u32) -> std::io::Result<Digest> {
        if depth > MAX_DEPTH {
            let message =
                format!("directories nest deeper than {MAX_DEPTH} levels: is a link among them that leads back?");
            return Err(std::io::Error::other(message));
        }
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.insert(entry.file_name().to_string_lossy().into_owned(), self.any(&entry.path(), depth + 1)?);
        }
        Ok(digest_of_directory(entries))
    }

    fn any(&self, path: &Path, depth: u32) -> std::io::Result<Digest> {
        if fs::metadata(path)?.is_dir() { self.directory(path, depth) } else { self.file(path) }
    }
}

/// Names and contents, so that a renamed file counts as a change.
pub fn digest_of_directory(entries: BTreeMap<String, Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (name, digest) in entries {
        hasher.update(format!("{}:{name}{digest}", name.len()).as_bytes());
    }
    Digest::from_hash(hasher.finalize())
}

impl Contents for LocalContents {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        let full = self.dir.join(path);
        self.any(&full, 0).map_err(|e| format!("{}: {e}", full.display()))
    }
}
