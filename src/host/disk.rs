//! Room on the file systems of this host.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file system as seen from a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The path that was asked for.
    pub path: PathBuf,
    /// Tells file systems apart.
    pub device: u64,
    /// Bytes that this process may still write.
    pub free: u64,
}

/// The room at a path, or where it would be made: of its nearest directory that is there. `None` where nothing can be
/// learnt, as for a path of another host.
pub fn room(path: &Path) -> Option<Room> {
    let whole = std::path::absolute(path).ok()?;
    let there = whole.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let device = std::fs::metadata(there).ok()?.dev();
    Some(Room { path: path.to_path_buf(), device, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_yet_has_the_room_of_what_is_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = room(dir.path()).unwrap();
        let below = room(&dir.path().join("a/b/c")).unwrap();
        assert_eq!(here.device, below.device);
        assert!(here.free > 0);
    }
}
