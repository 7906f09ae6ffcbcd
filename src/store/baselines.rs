//! `baselines/{name}.json`: what was measured under a name, whole, so that it outlives the runs it came from. What is in
//! the file is not the store's business.

use std::fs;
use std::path::PathBuf;

use super::{Store, StoreError, atomic, read_dir_names};

pub(super) const BASELINES: &str = "baselines";
const ENDING: &str = ".json";

impl Store {
    /// Names of all baselines, sorted.
    pub fn baselines(&self) -> Vec<String> {
        let names = read_dir_names(&self.root.join(BASELINES)).into_iter().filter(|n| !n.starts_with('.'));
        let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(ENDING).map(str::to_string)).collect();
        names.sort();
        names
    }

    /// Where a baseline lies; `None` for what is no name of one.
    pub fn baseline_path(&self, name: &str) -> Option<PathBuf> {
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fits = !name.is_empty() && name.len() <= 96 && name.chars().all(safe) && !name.starts_with('.');
        fits.then(|| self.root.join(BASELINES).join(format!("{name}{ENDING}")))
    }

    /// Keeps a baseline under a path of [`Store::baseline_path`], in place of one that is there.
    pub fn write_baseline(&self, path: &std::path::Path, text: &str) -> Result<(), StoreError> {
        atomic::create_dir(&self.root.join(BASELINES))?;
        atomic::write(path, text.as_bytes())
    }

    /// Removes a baseline; whether there was one.
    pub fn remove_baseline(&self, path: &std::path::Path) -> Result<bool, StoreError> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("remove", path)(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), false);
        assert!(store.baselines().is_empty());
        for wrong in ["", "a/b", "../x", ".hidden", "a b"] {
            assert_eq!(store.baseline_path(wrong), None, "{wrong}");
        }
        let path = store.baseline_path("v1.2_good").unwrap();
        store.write_baseline(&path, "{}").unwrap();
        store.write_baseline(&path, "{\"a\": 1}").unwrap();
        assert_eq!(
            (store.baselines(), fs::read_to_string(&path).unwrap()),
            (vec!["v1.2_good".into()], "{\"a\": 1}".into())
        );
        assert!(store.stacks().is_empty(), "it is no stack");
        assert!(store.remove_baseline(&path).unwrap() && !store.remove_baseline(&path).unwrap());
    }
}
