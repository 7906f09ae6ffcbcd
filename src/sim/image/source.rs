//! Where a model comes from, as the engines' libraries find it: a directory in the container, or an id on the hub. No
//! hub is asked; every id that could be one is taken for one, unless the engine is told to be offline.

use serde_json::Value;

use super::Container;

/// What is known of a model before it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Longest sequence, where its configuration tells.
    pub longest: Option<u32>,
    /// It is a directory of the container.
    pub local: bool,
}

/// Why there is no such model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoModel {
    /// Neither a directory nor what could be an id.
    Malformed,
    /// A directory without a configuration that can be read.
    NoConfig(String),
    /// The engine is offline, and its cache does not have it.
    NotCached,
}

/// Looks a model up.
pub fn find(container: &Container, model: &str) -> Result<Model, NoModel> {
    if container.is_dir(model) && model.starts_with('/') {
        let path = format!("{}/config.json", model.trim_end_matches('/'));
        let text = container.text(&path).map_err(|e| NoModel::NoConfig(e.to_string()))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| NoModel::NoConfig(e.to_string()))?;
        return Ok(Model { longest: longest(&config), local: true });
    }
    if !is_id(model) {
        return Err(NoModel::Malformed);
    }
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
        container.var(name).is_some_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    });
    let hub = match (container.var("HF_HUB_CACHE"), container.var("HF_HOME")) {
        (Some(hub), _) => hub.to_string(),
        (None, Some(home)) => format!("{home}/hub"),
        (None, None) => "/root/.cache/huggingface/hub".to_string(),
    };
    if offline && !container.is_dir(&format!("{hub}/models--{}", model.replace('/', "--"))) {
        return Err(NoModel::NotCached);
    }
    Ok(Model::default())
}

/// `name` or `organisation/name`.
fn is_id(model: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 96
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !p.starts_with(['-', '.'])
            && !p.ends_with(['-', '.'])
    };
    match model.split('/').collect::<Vec<_>>().as_slice() {
        [name] => part(name),
        [organisation, name] => part(organisation) && part(name),
        _ => false,
    }
}

fn longest(config: &Value) -> Option<u32> {
    let at = |v: &Value| v.get("max_position_embeddings").and_then(Value::as_u64);
    let found = at(config).or_else(|| at(config.get("text_config")?))?;
    u32::try_from(found).ok()
}

impl NoModel {
    /// The words of the `transformers` and `huggingface_hub` libraries, an exception's name in front.
    pub fn exception(&self, model: &str) -> String {
        match self {
            NoModel::Malformed => format!(
                "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or \
                 'namespace/repo_name': '{model}'. Use `repo_type` argument if needed."
            ),
            NoModel::NoConfig(why) => {
                format!("OSError: {model} does not appear to have a file named config.json. Checkout {model}: {why}")
            }
            NoModel::NotCached => "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached \
                                   snapshot folder for the specified revision on the local disk and outgoing traffic \
                                   has been disabled."
                .to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_and_directories_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let mut container = Container { root: dir.path().into(), ..Container::default() };
        for good in ["gpt2", "org/Model-8B", "Qwen/Qwen2.5-0.5B"] {
            assert_eq!(find(&container, good), Ok(Model::default()), "{good}");
        }
        for bad in ["/models/none", "a/b/c", "", "./m", "org/", "-x"] {
            assert_eq!(find(&container, bad), Err(NoModel::Malformed), "{bad}");
        }
        std::fs::create_dir_all(dir.path().join("m")).unwrap();
        assert!(matches!(find(&container, "/m"), Err(NoModel::NoConfig(_))));
        std::fs::write(dir.path().join("m/config.json"), r#"{"max_position_embeddings": 2048}"#).unwrap();
        assert_eq!(find(&container, "/m"), Ok(Model { longest: Some(2048), local: true }));
        container.env.insert("HF_HUB_OFFLINE".into(), "1".into());
        assert_eq!(find(&container, "gpt2"), Err(NoModel::NotCached));
        std::fs::create_dir_all(dir.path().join("root/.cache/huggingface/hub/models--gpt2")).unwrap();
        assert!(find(&container, "gpt2").is_ok());
    }
}
