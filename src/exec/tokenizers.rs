//! The tokenizers of a run: found beside the model, read when a sample needs one, kept for the next.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::loader::LoaderError;
use crate::load::Tokenizer;
use crate::plan::lock::is_local;
use crate::plan::{Deployment, identity};
use crate::workload::tokenizer::TokenText;

/// Name of the file in a model's directory.
const FILE: &str = "tokenizer.json";

/// Where a unit's tokenizer may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerPath {
    /// A `tokenizer.json`, or a directory with one.
    pub path: PathBuf,
    /// The cell names it. Otherwise it is looked for in the model's directory, and done without where it is not there or
    /// of no use.
    pub required: bool,
}

impl TokenizerPath {
    /// The tokenizer that a cell names, else that of a local model. `None` where neither is a path: then lengths are
    /// calibrated by the server's counts.
    pub fn of(deployment: &Deployment, cell: &crate::plan::Cell, base: &Path) -> Option<TokenizerPath> {
        let named = identity::get(&cell.0, "tokenizer").and_then(|v| v.as_str());
        let local = |text: &str, required| is_local(text).then(|| TokenizerPath { path: base.join(text), required });
        match named {
            Some(path) => local(path, true),
            None => local(&deployment.model, false),
        }
    }
}

type Read = Result<TokenText, String>;
/// A file as it was at some time.
type Version = (PathBuf, Option<SystemTime>);

/// What was read so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tokenizers(Arc<Mutex<HashMap<Version, Read>>>);

impl Tokenizers {
    /// Reads a tokenizer, or finds it among those that were read; `None` where it is not needed after all. Takes a second
    /// or so for a large vocabulary, so it belongs on a blocking thread.
    pub fn read(&self, wanted: &TokenizerPath) -> Result<Option<Tokenizer>, LoaderError> {
        let path = if wanted.path.is_dir() { wanted.path.join(FILE) } else { wanted.path.clone() };
        let modified = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let key = (path.clone(), modified);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let read = known.unwrap_or_else(|| {
            let read = std::fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|json| TokenText::from_json(&json).map_err(|e| e.to_string()));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, read.clone());
            read
        });
        match read {
            Ok(text) => Ok(Some(Tokenizer { text, required: wanted.required })),
            Err(_) if !wanted.required => Ok(None),
            Err(e) => Err(LoaderError {
                cause: format!(
                    "the tokenizer {} cannot be used: {e}. Leave `tokenizer` out and lengths are calibrated by the \
                     server's counts",
                    path.display()
                ),
                deterministic: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::tests::deployment;
    use crate::plan::Cell;
    use crate::value::Value;
    use crate::workload::tokenizer::tests::{byte_level, json};

    #[test]
    fn a_named_tokenizer_goes_before_the_models_own() {
        let mut deployment = deployment("[api]\ndialect = \"openai\"\ndefault = \"chat\"\n");
        let cell = |tokenizer: Option<&str>| {
            Cell(tokenizer.map(|t| ("tokenizer".into(), Value::str(t))).into_iter().collect())
        };
        let of = |deployment: &Deployment, tokenizer| {
            TokenizerPath::of(deployment, &cell(tokenizer), Path::new("/e")).map(|t| (t.path, t.required))
        };
        assert_eq!(of(&deployment, None), None, "a model of the hub is not here");
        assert_eq!(of(&deployment, Some("org/t")), None);
        assert_eq!(of(&deployment, Some("./t")), Some(("/e/./t".into(), true)));
        deployment.model = "../m".into();
        assert_eq!(of(&deployment, None), Some(("/e/../m".into(), false)));
        assert_eq!(of(&deployment, Some("/t.json")), Some(("/t.json".into(), true)));
    }

    #[test]
    fn only_a_named_tokenizer_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let all = Tokenizers::default();
        let wanted = |required| TokenizerPath { path: dir.path().to_path_buf(), required };
        assert!(all.read(&wanted(false)).unwrap().is_none());
        let e = all.read(&wanted(true)).unwrap_err();
        assert!(e.deterministic && e.cause.contains("tokenizer.json"), "{}", e.cause);
        std::fs::write(dir.path().join(FILE), json(&byte_level())).unwrap();
        let found = all.read(&wanted(true)).unwrap().unwrap();
        assert!(found.required);
        assert!(!all.read(&wanted(false)).unwrap().unwrap().required);
    }
}
