//! Machine settings: where artifacts and caches are, which container engine, which model `one` takes. Layered with figment;
//! never hashed. Paths of configuration files and the environment are handed in.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::{Figment, Metadata, Profile, Source};
use serde::{Deserialize, Serialize};

/// The settings of this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of results.
    pub artifacts: PathBuf,
    /// Directory of what containers keep between runs: weights, compile caches, profiles.
    pub cache: PathBuf,
    /// Container engine, as in `DOCKER_HOST`; its default when unset.
    pub docker_host: Option<String>,
    /// Port of the web page.
    pub ui_port: u16,
    /// Model of `one` when none is given.
    pub model: String,
    /// Threads of the load generator; 0 is one per core, at most two.
    pub load_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            artifacts: "artifacts".into(),
            cache: ".cache".into(),
            docker_host: None,
            ui_port: 8780,
            model: "Qwen/Qwen2.5-0.5B-Instruct".into(),
            load_threads: 0,
        }
    }
}

/// Names of the settings, as in files, flags and (`LLMATRIX_` upper case) the environment.
pub const KEYS: &[(&str, &str)] = &[
    ("artifacts", "directory of results"),
    ("cache", "directory of what containers keep between runs"),
    ("docker_host", "container engine, as in DOCKER_HOST"),
    ("ui_port", "port of the web page"),
    ("model", "model of `one` when none is given"),
    ("load_threads", "threads of the load generator; 0 is one per core, at most two"),
];

/// What the layers are made from, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The user's configuration file, where there is one.
    pub user: Option<PathBuf>,
    /// `llmatrix.toml` beside the experiments, where there is one.
    pub project: Option<PathBuf>,
    /// `LLMATRIX_*`: (key in lower case without the prefix, value).
    pub environment: Vec<(String, String)>,
    /// Flags: (key, value).
    pub flags: Vec<(String, String)>,
}

/// Settings and where each came from.
#[derive(Clone, Debug)]
pub struct Layered {
    pub settings: Settings,
    /// (key, value as text, source), in the order of [`KEYS`].
    pub sources: Vec<(&'static str, String, String)>,
}

/// Why settings cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the settings: {0}")]
pub struct SettingsError(#[from] Box<figment::Error>);

impl Layers {
    /// Merges the layers.
    pub fn merge(&self) -> Result<Layered, SettingsError> {
        let mut figment = Figment::from(Named("built-in", Serialized::defaults(Settings::default())));
        for file in [&self.user, &self.project].into_iter().flatten() {
            figment = figment.merge(Toml::file_exact(file));
        }
        for (name, pairs) in [("environment", &self.environment), ("flag", &self.flags)] {
            for (key, value) in pairs {
                let shown: &'static str = if name == "flag" { "flag" } else { "environment" };
                figment = figment.merge(Named(shown, Serialized::default(key, typed(value))));
            }
        }
        let mut settings: Settings = figment.extract().map_err(Box::new)?;
        // A path in a file is relative to that file.
        for (key, path) in [("artifacts", &mut settings.artifacts), ("cache", &mut settings.cache)] {
            if let Some(Source::File(file)) = figment.find_metadata(key).and_then(|m| m.source.clone())
                && let Some(dir) = file.parent()
            {
                *path = dir.join(&*path);
            }
        }
        let values = serde_json::to_value(&settings).expect("settings have a JSON form");
        let sources = KEYS
            .iter()
            .map(|(key, _)| {
                let text = match &values[key] {
                    serde_json::Value::String(s) => s.clone(),
                    serde_json::Value::Null => String::new(),
                    other => other.to_string(),
                };
                (*key, text, figment.find_metadata(key).map_or_else(|| "built-in".into(), |m| origin(m, key)))
            })
            .collect();
        Ok(Layered { settings, sources })
    }
}

fn origin(metadata: &Metadata, key: &str) -> String {
    match (&metadata.source, &*metadata.name) {
        (Some(Source::File(path)), _) => path.display().to_string(),
        (_, "environment") => format!("environment LLMATRIX_{}", key.to_uppercase()),
        (_, "flag") => format!("flag --{}", key.replace('_', "-")),
        (_, name) => name.to_string(),
    }
}

/// Numbers stay numbers, so that `LLMATRIX_UI_PORT=8080` is one.
fn typed(text: &str) -> serde_json::Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Into::into)
}

/// The nearest file of that name in `dir` or above it, up to and including the first directory that holds `.git`.
pub fn upwards(dir: &Path, name: &str) -> Option<PathBuf> {
    for dir in dir.ancestors() {
        let candidate = dir.join(name);
        if candidate.exists() {
            return Some(candidate);
        }
        if dir.join(".git").exists() {
            return None;
        }
    }
    None
}

/// A provider under a name of ours.
struct Named<P>(&'static str, P);

impl<P: figment::Provider> figment::Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<figment::value::Map<Profile, figment::value::Dict>, figment::Error> {
        self.1.data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_each_value_has_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("llmatrix.toml");
        std::fs::write(&project, "artifacts = \"out\"\nui_port = 1\n").unwrap();
        let layers = Layers {
            project: Some(project.clone()),
            environment: vec![("ui_port".into(), "2".into())],
            flags: vec![("model".into(), "m".into())],
            ..Layers::default()
        };
        let layered = layers.merge().unwrap();
        assert_eq!(layered.settings.artifacts, dir.path().join("out"));
        assert_eq!((layered.settings.ui_port, layered.settings.model.as_str()), (2, "m"));
        let source = |key| layered.sources.iter().find(|s| s.0 == key).unwrap().2.clone();
        assert_eq!(source("artifacts"), project.display().to_string());
        assert_eq!(source("ui_port"), "environment LLMATRIX_UI_PORT");
        assert_eq!(source("model"), "flag --model");
        assert_eq!(source("cache"), "built-in");
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("llmatrix.toml");
        std::fs::write(&project, "artefacts = \"out\"\n").unwrap();
        let e = Layers { project: Some(project), ..Layers::default() }.merge().unwrap_err().to_string();
        assert!(e.contains("artefacts"), "{e}");
    }
}
