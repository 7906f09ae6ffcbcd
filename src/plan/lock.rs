//! `STEM.lock`: what the references of an experiment meant when it was locked. TOML, committed beside `STEM.toml`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::model::{KvShape, ModelShape, ShapeError};

/// Schema number of the lock file.
const VERSION: u32 = 1;

/// A lock file. Keys are references as written in the experiment or its templates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub version: u32,
    /// Hardware class that the experiment is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// Image reference → digest, or the image's id for one built locally.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, LockedImage>,
    /// `model` or `model@revision` → commit, or the content hash of a local directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, LockedModel>,
    /// Asset reference → commit or content hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assets: BTreeMap<String, LockedContent>,
    /// Remote data set → content hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub datasets: BTreeMap<String, LockedContent>,
}

/// What an image reference meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    pub digest: String,
}

/// What a model reference meant: a commit on a hub, or the content of a directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedModel {
    /// Commit of a hub model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// BLAKE3 of a local directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Bytes of the weights that engines load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
    /// Bytes that a token takes in the KV cache, in the type of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes_per_token: Option<u64>,
    /// What its configuration says of its size. Sizes say what fits; no id depends on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<ModelShape>,
}

impl LockedModel {
    /// The same model with what its files say of its size: the bytes of its weights, and its `config.json` where there is
    /// one. The second value says why the configuration gives no shape.
    pub fn sized(self, weight_bytes: u64, config: Option<&serde_json::Value>) -> (LockedModel, Option<ShapeError>) {
        let (shape, why) = match config.map(ModelShape::read) {
            None => (None, None),
            Some(Ok(shape)) => (Some(shape), None),
            Some(Err(why)) => (None, Some(why)),
        };
        let kv_bytes_per_token = config.and_then(|c| KvShape::read(c).ok()?.bytes_per_token());
        let weight_bytes = Some(weight_bytes).filter(|b| *b > 0);
        (LockedModel { weight_bytes, kv_bytes_per_token, shape, ..self }, why)
    }
}

/// What an asset or data-set reference meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedContent {
    /// BLAKE3 of a file or directory, or a hub commit.
    pub content: String,
}

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    Image,
    Model,
    Asset,
    Dataset,
}

impl ReferenceKind {
    /// Reads a word of `[run] float`.
    pub fn parse(word: &str) -> Option<ReferenceKind> {
        Some(match word {
            "image" => ReferenceKind::Image,
            "model" => ReferenceKind::Model,
            "asset" => ReferenceKind::Asset,
            _ => return None,
        })
    }
}

/// Something outside the experiment that its result depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Reference {
    pub kind: ReferenceKind,
    pub name: String,
}

impl Reference {
    /// It is looked up beyond this host, rather than read from a path.
    pub fn is_remote(&self) -> bool {
        match self.kind {
            ReferenceKind::Image => true,
            ReferenceKind::Model => !is_local(&self.name),
            ReferenceKind::Asset | ReferenceKind::Dataset => self.name.contains("://"),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ReferenceKind::Image => "image",
            ReferenceKind::Model => "model",
            ReferenceKind::Asset => "asset",
            ReferenceKind::Dataset => "data set",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Lock {
    pub fn new() -> Lock {
        Lock { version: VERSION, ..Lock::default() }
    }

    /// Reads a lock file's text.
    pub fn parse(text: &str) -> Result<Lock, toml::de::Error> {
        let lock: Lock = toml::from_str(text)?;
        if lock.version != VERSION {
            let message =
                format!("version {} of the lock file is not known; this tool reads version {VERSION}", lock.version);
            return Err(serde::de::Error::custom(message));
        }
        Ok(lock)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let body = toml::to_string(self).expect("a lock has a TOML form");
        format!("# Written by `llmatrix lock`. Commit it; `llmatrix lock --update` moves it.\n{body}")
    }

    /// Every locked reference with what it means, for diffs.
    pub fn entries(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        out.extend(self.hardware.iter().map(|h| ("hardware".to_string(), h.clone())));
        out.extend(self.images.iter().map(|(k, v)| (format!("image {k}"), v.digest.clone())));
        for (k, v) in &self.models {
            out.insert(format!("model {k}"), v.commit.clone().or(v.content.clone()).unwrap_or_default());
        }
        out.extend(self.assets.iter().map(|(k, v)| (format!("asset {k}"), v.content.clone())));
        out.extend(self.datasets.iter().map(|(k, v)| (format!("data set {k}"), v.content.clone())));
        out
    }
}

/// Lines `+ new`, `- gone`, `~ moved` between two locks; empty when they agree.
pub fn diff(old: &Lock, new: &Lock) -> String {
    let (old, new) = (old.entries(), new.entries());
    let mut out = String::new();
    for (name, value) in &old {
        match new.get(name) {
            None => _ = writeln!(out, "- {name} {value}"),
            Some(now) if now != value => _ = writeln!(out, "~ {name} {value} → {now}"),
            Some(_) => {}
        }
    }
    for (name, value) in new.iter().filter(|(n, _)| !old.contains_key(*n)) {
        _ = writeln!(out, "+ {name} {value}");
    }
    out
}

/// Hub models are locked with their revision.
pub fn model_key(model: &str, revision: Option<&str>) -> String {
    match revision {
        Some(revision) => format!("{model}@{revision}"),
        None => model.to_string(),
    }
}

/// A path rather than a hub id or a URL.
pub fn is_local(reference: &str) -> bool {
    reference.starts_with("./") || reference.starts_with("../") || reference.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_where_they_are_and_locks_without_them_too() {
        let old = "version = 1\n[models.\"org/m\"]\ncommit = \"c\"\nweight_bytes = 10\n";
        let lock = Lock::parse(old).unwrap();
        assert_eq!(lock.models["org/m"].shape, None);
        let config = serde_json::json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 100});
        let (sized, why) = lock.models["org/m"].clone().sized(7, Some(&config));
        assert_eq!((sized.weight_bytes, sized.kv_bytes_per_token, why), (Some(7), Some(256), None));
        let (parameters, commit) = (sized.shape.as_ref().map(|s| s.parameters), sized.commit.as_deref());
        // Two embeddings, five norms, and in two layers attention (64 × 64 × 3) and three matrices of 64 × 128.
        assert_eq!((parameters, commit), (Some(2 * 6400 + 5 * 64 + 2 * (3 * 4096 + 3 * 8192)), Some("c")));
        let mut lock = Lock::new();
        lock.models.insert("org/m".into(), sized);
        assert_eq!(Lock::parse(&lock.to_text()).unwrap(), lock);
        assert!(Lock::parse(&format!("{old}wieght_bytes = 3\n")).is_err());
    }

    #[test]
    fn a_lock_reads_back_and_differs_by_name() {
        let mut lock = Lock::new();
        lock.images.insert("a/b:1".into(), LockedImage { digest: "sha256:1".into() });
        assert_eq!(Lock::parse(&lock.to_text()).unwrap(), lock);
        let mut moved = lock.clone();
        moved.images.insert("a/b:1".into(), LockedImage { digest: "sha256:2".into() });
        moved.hardware = Some("h100".into());
        assert_eq!(diff(&lock, &moved), "~ image a/b:1 sha256:1 → sha256:2\n+ hardware h100\n");
        assert!(Lock::parse("version = 9\n").unwrap_err().to_string().contains("version 9"));
    }
}
