//! The repositories of a model hub that a deployment needs: its model, where its template mounts the hub's cache, and its
//! remote assets.

use std::path::{Path, PathBuf};

use crate::deploy::{Failure, Stage};
use crate::hub::model::{HubCache, HubSettings, RepoRef};
use crate::plan::Deployment;
use crate::plan::lock::is_local;

/// The cache that holds a hub's repositories in the hub's own layout: a template that mounts it has its model downloaded
/// there.
pub const HUB_CACHE: &str = "huggingface";

/// A repository that is to be in a cache of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `None` is the model.
    pub asset: Option<String>,
    /// As the experiment refers to it.
    pub reference: RepoRef,
    /// What the lock says that means.
    pub locked: Option<String>,
    pub cache: HubCache,
}

impl Wanted {
    /// The repository at its locked commit, else as it is referred to.
    pub fn repo(&self) -> RepoRef {
        self.locked.as_ref().map_or_else(|| self.reference.clone(), |commit| self.reference.at(commit))
    }
}

/// The directory that `cache:NAME` means. The hub's cache is the user's own where `HF_HOME` names one.
pub fn cache_dir(cache: &Path, method: &str, name: &str, hub: &HubSettings) -> PathBuf {
    match &hub.home {
        Some(home) if name == HUB_CACHE => home.clone(),
        _ => cache.join(method).join(name),
    }
}

/// What a deployment needs of the hub.
pub fn wanted(deployment: &Deployment, cache: &Path, hub: &HubSettings) -> Result<Vec<Wanted>, Failure> {
    let unreadable = |e: crate::hub::model::ModelError| {
        Failure::deterministic(Stage::Pull, format!("cannot start {}: {e}", deployment.container))
    };
    let mut out = Vec::new();
    let mounts = deployment.spec.container.iter().flat_map(|c| &c.mounts);
    let mounted = mounts.into_iter().any(|m| m.source.strip_prefix("cache:") == Some(HUB_CACHE));
    if mounted && !is_local(&deployment.model) {
        let home = cache_dir(cache, &deployment.method, HUB_CACHE, hub);
        let reference = RepoRef::new(&deployment.model, deployment.revision()).map_err(unreadable)?;
        let locked = deployment.locked_model().map(str::to_string);
        out.push(Wanted { asset: None, reference, locked, cache: HubCache::of_home(&home) });
    }
    for (name, reference) in deployment.assets.iter().filter(|(_, r)| r.contains("://")) {
        let home = hub.home.clone().unwrap_or_else(|| cache.join(HUB_CACHE));
        let locked = deployment.locked_asset(name).filter(|l| l != reference).map(str::to_string);
        let reference = RepoRef::from_url(reference).map_err(unreadable)?;
        out.push(Wanted { asset: Some(name.clone()), reference, locked, cache: HubCache::of_home(&home) });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::FailureClass;
    use crate::deploy::tests::deployment;

    const SPEC: &str = "[api]\ndialect = \"openai\"\ndefault = \"chat\"\n[container]\nimage = \"i\"\nport = 1\n";
    const MOUNTED: &str = "mounts = [{ source = \"cache:huggingface\", target = \"/root/.cache/huggingface\" }]\n";

    fn hub(home: Option<&str>) -> HubSettings {
        HubSettings::from(|name| (name == "HF_HOME").then(|| home.map(String::from)).flatten())
    }

    #[test]
    fn a_model_is_wanted_where_the_hubs_cache_is_mounted() {
        let roots = |spec: &str, home| {
            let d = deployment(&format!("{SPEC}{spec}"));
            let wanted = wanted(&d, Path::new("/c"), &hub(home)).unwrap();
            wanted.iter().map(|w| w.cache.root().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(roots(MOUNTED, None), ["/c/hf/huggingface/hub"]);
        assert_eq!(roots(MOUNTED, Some("/home/u/hf")), ["/home/u/hf/hub"]);
        assert!(roots("", None).is_empty());
        let mut local = deployment(&format!("{SPEC}{MOUNTED}"));
        local.model = "./model".into();
        assert!(wanted(&local, Path::new("/c"), &hub(None)).unwrap().is_empty());
    }

    #[test]
    fn remote_assets_are_wanted_and_local_ones_are_not() {
        let mut d = deployment(SPEC);
        d.assets = vec![("lora".into(), "hf://org/lora@v2".into()), ("config".into(), "./x.yaml".into())];
        let found = wanted(&d, Path::new("/c"), &hub(None)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].asset.as_deref(), found[0].reference.to_string().as_str()), (Some("lora"), "org/lora@v2"));
        assert_eq!((found[0].locked.as_ref(), found[0].cache.root()), (None, Path::new("/c/huggingface/hub")));
        d.assets = vec![("x".into(), "s3://bucket/x".into())];
        let failure = wanted(&d, Path::new("/c"), &hub(None)).unwrap_err();
        assert_eq!(failure.class, FailureClass::Deterministic);
        assert!(
            failure.cause.contains("s3://bucket/x") && failure.cause.contains("hf://org/name"),
            "{}",
            failure.cause
        );
    }
}
