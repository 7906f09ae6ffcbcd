//! The size of a model in a local directory: the bytes of its weights, and what its `config.json` says.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::references::{CONFIG, Meaning};
use crate::hub::model::weight_bytes;
use crate::plan::lock::LockedModel;

/// A configuration has a few kilobytes; one with every token of a vocabulary, a few megabytes.
const MAX_CONFIG: u64 = 16 << 20;
/// Deepest nesting of directories that are looked into, as for their content.
const MAX_DEPTH: u32 = 32;

/// What a local model means. Sizes are a convenience: what cannot be read gives none.
pub fn meaning(path: &Path, content: String) -> Meaning {
    let mut files = Vec::new();
    collect(path, "", 0, &mut files);
    let bytes = weight_bytes(files.iter().map(|(name, size)| (name.as_str(), *size)));
    let locked = LockedModel { content: Some(content), ..LockedModel::default() };
    let (locked, why) = locked.sized(bytes, config(&path.join(CONFIG)).as_ref());
    Meaning::Model(Box::new(locked), why)
}

fn config(path: &Path) -> Option<serde_json::Value> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Files below a directory with their sizes; names with `/` between directories.
fn collect(dir: &Path, prefix: &str, depth: u32, out: &mut Vec<(String, u64)>) {
    if depth > MAX_DEPTH {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => collect(&entry.path(), &format!("{name}/"), depth + 1, out),
            Ok(meta) if meta.is_file() => out.push((name, meta.len())),
            _ => {}
        }
    }
}
