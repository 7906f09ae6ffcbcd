//! Directories for what a deployment renders: made at its start, removed at its end, and known by their owner in between.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::owner::{Life, Owner};

/// Under the cache directory.
const DIR: &str = "scratch";
const OWNER: &str = "owner.json";

/// A scratch directory; dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes one under `cache`, its name beginning with `prefix` and then its owner: one whose owner dies before it has
    /// written its file is recognised too.
    pub fn create(cache: &Path, prefix: &str, owner: &Owner) -> io::Result<Scratch> {
        let root = cache.join(DIR);
        fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let dir = tempfile::Builder::new().prefix(&format!("{prefix}-{}-", mark(owner))).tempdir_in(&root)?.keep();
        let scratch = Scratch { path: dir, keep: false };
        let owner = serde_json::to_vec(owner).expect("an owner has a JSON form");
        fs::write(scratch.path.join(OWNER), owner)?;
        Ok(scratch)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes files and gives the host path of each. Their places in the container are not their places here: names are
    /// numbers, so that no path can lead out.
    pub fn write(&self, files: &BTreeMap<String, String>) -> io::Result<Vec<(PathBuf, String)>> {
        let mut out = Vec::new();
        for (i, (target, content)) in files.iter().enumerate() {
            let name = Path::new(target).file_name().and_then(|n| n.to_str()).unwrap_or("file");
            let path = self.path.join(format!("{i}-{name}"));
            fs::write(&path, content)?;
            // Whatever user the container runs as reads it.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            out.push((path, target.clone()));
        }
        Ok(out)
    }

    /// Leaves the directory where it is, for a container that outlives this process.
    pub fn leave(mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// An owner as a part of a name: process, start, boot, namespace.
fn mark(owner: &Owner) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).take(12).collect::<String>();
    let namespace: String = owner.pid_namespace.chars().filter(char::is_ascii_digit).collect();
    format!("{}_{}_{}_{namespace}", owner.pid, owner.started, digits(&owner.boot_id))
}

/// Whether the owner in a name is a process of this boot and namespace that has ended.
fn is_of_the_dead(name: &str, here: &Owner) -> bool {
    let Some(mark) = name.split('-').find(|part| part.matches('_').count() == 3) else { return false };
    let mut parts = mark.split('_');
    let (Some(pid), Some(started)) =
        (parts.next().and_then(|p| p.parse().ok()), parts.next().and_then(|s| s.parse().ok()))
    else {
        return false;
    };
    let owner = Owner { pid, started, ..here.clone() };
    // Of another boot or namespace nothing can be said from here.
    self::mark(&owner) == mark && owner.life(here) == Life::Dead
}

/// Removes a scratch directory by the path that a label names; anything else is left alone.
pub fn remove(path: &Path) {
    let named = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.matches('_').count() >= 3);
    let ours =
        path.parent().and_then(Path::file_name).is_some_and(|n| n == DIR) && (path.join(OWNER).is_file() || named);
    if ours {
        let _ = fs::remove_dir_all(path);
    }
}

/// Scratch directories under `cache` whose owner is dead and that no container in `used` needs.
pub fn leftovers(cache: &Path, here: &Owner, used: &[PathBuf]) -> Vec<PathBuf> {
    let Ok(root) = cache.join(DIR).canonicalize() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let dead = |path: &PathBuf| {
        let owner = fs::read(path.join(OWNER)).ok().and_then(|b| serde_json::from_slice::<Owner>(&b).ok());
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        owner.map_or_else(|| is_of_the_dead(name, here), |o| o.life(here) == Life::Dead) && !used.contains(path)
    };
    let mut out: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(dead).collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner() {
        let cache = tempfile::tempdir().unwrap();
        let here = Owner::this();
        let scratch = Scratch::create(cache.path(), "abc", &here).unwrap();
        let files = BTreeMap::from([("/models/llm/1/../../../x.json".to_string(), "{}".to_string())]);
        let written = scratch.write(&files).unwrap();
        assert_eq!(fs::read_to_string(&written[0].0).unwrap(), "{}");
        assert!(written[0].0.starts_with(scratch.path()));
        assert!(leftovers(cache.path(), &here, &[]).is_empty());
        let dead = Owner { started: here.started + 1, ..here.clone() };
        let left = Scratch::create(cache.path(), "dead", &dead).unwrap();
        let path = left.path().to_path_buf();
        left.leave();
        assert_eq!(leftovers(cache.path(), &here, &[]), std::slice::from_ref(&path));
        assert!(leftovers(cache.path(), &here, std::slice::from_ref(&path)).is_empty());
        remove(&path);
        assert!(!path.exists());
        // Its owner died before it had written its name into it.
        let early = Scratch::create(cache.path(), "abc", &dead).unwrap();
        fs::remove_file(early.path().join(OWNER)).unwrap();
        let path = early.path().to_path_buf();
        early.leave();
        assert_eq!(leftovers(cache.path(), &here, &[]), std::slice::from_ref(&path));
        remove(&path);
        assert!(!path.exists());
        let kept = scratch.path().to_path_buf();
        fs::remove_file(kept.join(OWNER)).unwrap();
        assert!(leftovers(cache.path(), &here, &[]).is_empty(), "its owner lives");
        drop(scratch);
        assert!(!kept.exists());
    }

    #[test]
    fn only_a_scratch_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("precious");
        fs::create_dir(&other).unwrap();
        remove(&other);
        assert!(other.exists());
    }
}
