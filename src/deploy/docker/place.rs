//! What this host gives to a container: resolved environment, cache directories, rendered files, the model and the assets.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::repositories::{HUB_CACHE, cache_dir};
use super::request::Bind;
use super::scratch::Scratch;
use crate::deploy::secret::{Redactor, Secret, resolve};
use crate::deploy::{Failure, Stage, Variables};
use crate::hub::model::{ENDPOINT_VARIABLE, HubSettings, OFFLINE_VARIABLE};
use crate::plan::lock::is_local;
use crate::plan::{ASSET_ROOT, Deployment, MODEL_ROOT, names};
use crate::template::spec::{ContainerSpec, Mount};

/// Tokens that are handed on where they are set, and the methods whose images ask for them.
const TOKENS: &[(&str, &[&str])] = &[("HF_TOKEN", &["hf", "triton", "unim"]), ("NGC_API_KEY", &["nim", "unim"])];

/// Tokens of the environment that containers of a method are given, where they are set.
pub fn handed_tokens(method: &str) -> impl Iterator<Item = &'static str> {
    TOKENS.iter().filter(move |(_, methods)| methods.contains(&method)).map(|(name, _)| *name)
}

/// Directories of this host that paths start from.
#[derive(Clone, Copy, Debug)]
pub struct Directories<'a> {
    /// Where relative paths of the experiment start.
    pub base: &'a Path,
    pub cache: &'a Path,
    /// Where the hub's own cache is, if not there.
    pub hub: &'a HubSettings,
    /// Remote assets by name, as they were downloaded.
    pub assets: &'a BTreeMap<String, PathBuf>,
}

/// A container's environment.
#[derive(Debug, Default)]
pub struct Environment {
    pub variables: Vec<(String, Secret)>,
    /// Names of those whose values came from our own environment.
    pub secret: Vec<String>,
    pub redactor: Redactor,
}

/// Resolves every `${NAME}`, and adds the tokens that the method's images ask for.
pub fn environment(
    deployment: &Deployment,
    spec: &ContainerSpec,
    variables: &Variables,
) -> Result<Environment, Failure> {
    let mut out = Environment::default();
    for (name, text) in &spec.env {
        let value = resolve(text, &format!("env.{name}"), variables, &mut out.redactor)?;
        if value.expose() != text {
            out.secret.push(name.clone());
        }
        out.variables.push((name.clone(), value));
    }
    for (name, methods) in TOKENS {
        let wanted = methods.contains(&deployment.method.as_str()) && !spec.env.contains_key(*name);
        if let Some(value) = variables(name).filter(|v| wanted && !v.is_empty()) {
            out.redactor.learn(&value);
            out.variables.push(((*name).to_string(), Secret::new(value)));
            out.secret.push((*name).to_string());
        }
    }
    // An engine that looks for its model asks the hub that we ask, or none.
    let looks = spec.mounts.iter().any(|m| m.source.strip_prefix("cache:") == Some(HUB_CACHE));
    for name in [OFFLINE_VARIABLE, ENDPOINT_VARIABLE] {
        let reaches = |v: &String| !v.is_empty() && !v.contains("://127.0.0.1") && !v.contains("://localhost");
        if let Some(value) = variables(name).filter(|v| looks && reaches(v) && !spec.env.contains_key(name)) {
            out.variables.push((name.to_string(), Secret::new(value)));
        }
    }
    Ok(out)
}

/// Everything that is mounted. `image_user` is who the image runs as.
pub fn binds(
    deployment: &Deployment,
    spec: &ContainerSpec,
    directories: Directories<'_>,
    scratch: &Scratch,
    image_user: Option<&str>,
) -> Result<Vec<Bind>, Failure> {
    let mut out = Vec::new();
    let user = spec.user.as_deref().or(image_user);
    for mount in &spec.mounts {
        out.push(mounted(deployment, mount, directories, user)?);
    }
    if is_local(&deployment.model) {
        let target = format!("{MODEL_ROOT}/{}", names::sanitize(&deployment.model));
        let source = existing(directories.base, &deployment.model, "the model")?;
        out.extend(tree(&source, &target).map_err(|e| unusable(&source, &e))?);
    }
    for (name, reference) in &deployment.assets {
        let source = match directories.assets.get(name) {
            Some(downloaded) => downloaded.clone(),
            None => existing(directories.base, reference, &format!("the asset `{name}`"))?,
        };
        out.extend(tree(&source, &format!("{ASSET_ROOT}/{name}")).map_err(|e| unusable(&source, &e))?);
    }
    let files = scratch.write(&spec.files).map_err(|e| unusable(scratch.path(), &e))?;
    out.extend(files.into_iter().map(|(source, target)| Bind { source, target, read_only: true }));
    Ok(out)
}

/// One mount of the specification: a cache directory of the method, or a path of the host.
fn mounted(
    deployment: &Deployment,
    mount: &Mount,
    directories: Directories<'_>,
    user: Option<&str>,
) -> Result<Bind, Failure> {
    let source = match mount.source.strip_prefix("cache:") {
        Some(name) => cache(directories, &deployment.method, name, user)?,
        None => existing(directories.base, &mount.source, "a mount's source")?,
    };
    Ok(Bind { source, target: mount.target.clone(), read_only: mount.read_only })
}

/// Whether all caches that the specification mounts hold something; `None` where it mounts none.
pub fn warm_caches(deployment: &Deployment, spec: &ContainerSpec, directories: Directories<'_>) -> Option<bool> {
    let names = spec.mounts.iter().filter_map(|m| m.source.strip_prefix("cache:"));
    let holds = |name| {
        let path = cache_dir(directories.cache, &deployment.method, name, directories.hub);
        fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
    };
    names.map(holds).reduce(|all, one| all && one)
}

/// `{cache}/{method}/{name}`, made where it is not there, and writable for the container's user.
fn cache(directories: Directories<'_>, method: &str, name: &str, user: Option<&str>) -> Result<PathBuf, Failure> {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\']);
    if !plain(name) || !plain(method) {
        let cause = format!("`cache:{name}` is not the name of a cache: letters, digits, `-` and `_`");
        return Err(Failure::deterministic(Stage::Create, cause));
    }
    let path = cache_dir(directories.cache, method, name, directories.hub);
    let made = fs::create_dir_all(&path).and_then(|()| path.canonicalize()).and_then(|p| open_to(&p, user).map(|()| p));
    made.map_err(|e| unusable(&path, &e))
}

/// Root and we ourselves may write anyway. Another user gets a directory of its own where we may give it away, else one
/// that all may write. A directory that somebody set up is left as it is.
fn open_to(path: &Path, user: Option<&str>) -> io::Result<()> {
    let uid = match user.map(|u| u.split(':').next().unwrap_or(u)) {
        None | Some("" | "0" | "root") => return Ok(()),
        Some(user) => user.parse::<u32>().ok(),
    };
    let meta = fs::metadata(path)?;
    if Some(meta.uid()) == uid || fs::read_dir(path)?.next().is_some() {
        return Ok(());
    }
    if let Some(uid) = uid
        && std::os::unix::fs::chown(path, Some(uid), None).is_ok()
    {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// A directory or file as one bind, or, where a directory holds links (as a hub's cache does, into a store beside it) at
/// any depth, as one bind per entry, each to what its link leads to.
pub fn tree(source: &Path, target: &str) -> io::Result<Vec<Bind>> {
    let whole = Bind { source: source.to_path_buf(), target: target.to_string(), read_only: true };
    if !source.is_dir() {
        return Ok(vec![whole]);
    }
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(source)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut linked = false;
    let mut out = Vec::new();
    for entry in entries {
        let target = format!("{target}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = tree(&entry.path(), &target)?;
            linked |= below.len() != 1 || below[0].source != entry.path();
            out.extend(below);
        } else {
            linked |= kind.is_symlink();
            out.push(Bind { source: entry.path().canonicalize()?, target, read_only: true });
        }
    }
    Ok(if linked { out } else { vec![whole] })
}

fn existing(base: &Path, path: &str, what: &str) -> Result<PathBuf, Failure> {
    let full = base.join(path);
    full.canonicalize().map_err(|e| {
        let full = full.display();
        Failure::deterministic(Stage::Create, format!("{what} is `{path}`, and {full} cannot be used: {e}"))
    })
}

fn unusable(path: &Path, e: &io::Error) -> Failure {
    Failure::infrastructure(Stage::Create, format!("cannot prepare {} for the container: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::owner::Owner;
    use super::*;
    use crate::deploy::FailureClass;
    use crate::deploy::tests::deployment;

    const SPEC: &str = "[api]\ndialect = \"openai\"\ndefault = \"chat\"\n[container]\nimage = \"i\"\nport = 1\n";

    fn variables() -> Variables {
        Arc::new(|name| match name {
            "HF_TOKEN" => Some("hf_secret".into()),
            "NGC_API_KEY" => Some("nvapi".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    fn hub(home: Option<&str>) -> HubSettings {
        HubSettings::from(|name| (name == "HF_HOME").then(|| home.map(String::from)).flatten())
    }

    #[test]
    fn the_hubs_cache_is_the_users_own_where_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = root.join("home");
        let d = deployment(&format!(
            "{SPEC}mounts = [{{ source = \"cache:huggingface\", target = \"/h\" }}, {{ source = \"cache:vllm\", target = \"/v\" }}]\n"
        ));
        let spec = d.spec.container.clone().unwrap();
        let scratch = Scratch::create(&root, "x", &Owner::this()).unwrap();
        let (hub, assets) = (hub(home.to_str()), BTreeMap::from([("lora".to_string(), root.join("snapshot"))]));
        let at = Directories { base: &root, cache: &root, hub: &hub, assets: &assets };
        let found = binds(&d, &spec, at, &scratch, None).unwrap();
        assert_eq!((&found[0].source, &found[1].source), (&home, &root.join("hf/vllm")));
        // An asset that was downloaded is where it was downloaded to.
        fs::create_dir(root.join("snapshot")).unwrap();
        let d = Deployment { assets: vec![("lora".into(), "hf://org/lora".into())], ..d };
        let found = binds(&d, &spec, at, &scratch, None).unwrap();
        assert_eq!((&found[2].source, found[2].target.as_str()), (&root.join("snapshot"), "/llmatrix/assets/lora"));
    }

    #[test]
    fn the_hub_that_is_asked_here_is_asked_there() {
        let names = |endpoint: &'static str, mounts: &str| {
            let d = deployment(&format!("{SPEC}{mounts}"));
            let variables: Variables = Arc::new(move |name| match name {
                "HF_ENDPOINT" => Some(endpoint.into()),
                "HF_HUB_OFFLINE" => Some("1".into()),
                _ => None,
            });
            let found = environment(&d, d.spec.container.as_ref().unwrap(), &variables).unwrap();
            found.variables.into_iter().map(|(n, _)| n).collect::<Vec<_>>()
        };
        let mounted = "mounts = [{ source = \"cache:huggingface\", target = \"/h\" }]\n";
        assert_eq!(names("https://mirror.example", mounted), ["HF_HUB_OFFLINE", "HF_ENDPOINT"]);
        assert_eq!(names("http://127.0.0.1:9", mounted), ["HF_HUB_OFFLINE"], "a container has its own loopback");
        assert!(names("https://mirror.example", "").is_empty());
    }

    fn env(method: &str, extra: &str) -> Result<Environment, Failure> {
        let mut d = deployment(&format!("{SPEC}{extra}"));
        d.method = method.into();
        let spec = d.spec.container.clone().unwrap();
        environment(&d, &spec, &variables())
    }

    #[test]
    fn tokens_go_where_they_are_wanted_and_are_hidden() {
        let names = |e: &Environment| e.variables.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
        assert_eq!(names(&env("hf", "").unwrap()), ["HF_TOKEN"]);
        assert_eq!(names(&env("nim", "").unwrap()), ["NGC_API_KEY"]);
        assert_eq!(names(&env("unim", "").unwrap()), ["HF_TOKEN", "NGC_API_KEY"]);
        assert!(env("mine", "").unwrap().variables.is_empty());
        let own = env("hf", "env = { HF_TOKEN = \"x ${HF_TOKEN}\", PLAIN = \"1\" }").unwrap();
        assert_eq!(own.variables[0].1.expose(), "x hf_secret");
        assert_eq!(own.secret, ["HF_TOKEN"]);
        assert_eq!(own.redactor.redact("saw hf_secret"), "saw [redacted]");
        assert!(!format!("{own:?}").contains("hf_secret"));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let failure = env("hf", "env = { KEY = \"${NOPE}\" }").unwrap_err();
        assert_eq!(failure.class, FailureClass::Deterministic);
        assert!(failure.cause.contains("`env.KEY` takes `${NOPE}`"), "{}", failure.cause);
    }

    #[test]
    fn directories_files_model_and_assets_are_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("models/tiny")).unwrap();
        fs::write(base.join("models/tiny/config.json"), "{}").unwrap();
        fs::write(base.join("lora.bin"), "x").unwrap();
        let mut d = deployment(&format!(
            "{SPEC}user = \"1000:0\"\nmounts = [{{ source = \"cache:hub\", target = \"/hub\" }}, {{ source = \"models\", \
             target = \"/m\", read_only = true }}]\nfiles = {{ \"/etc/x.json\" = \"{{}}\" }}\n"
        ));
        d.model = "./models/tiny".into();
        d.assets = vec![("lora".into(), "lora.bin".into())];
        let spec = d.spec.container.clone().unwrap();
        let cache = base.join("cache");
        let scratch = Scratch::create(&cache, "x", &Owner::this()).unwrap();
        let (hub, assets) = (hub(None), BTreeMap::new());
        let at = Directories { base: &base, cache: &cache, hub: &hub, assets: &assets };
        let found = binds(&d, &spec, at, &scratch, None).unwrap();
        let shown: Vec<(String, &str, bool)> = found
            .iter()
            .map(|b| (b.source.strip_prefix(&base).unwrap().display().to_string(), b.target.as_str(), b.read_only))
            .collect();
        assert_eq!(shown[0], ("cache/hf/hub".into(), "/hub", false));
        assert_eq!(shown[1], ("models".into(), "/m", true));
        assert_eq!(shown[2], ("models/tiny".into(), "/llmatrix/models/tiny", true));
        assert_eq!(shown[3], ("lora.bin".into(), "/llmatrix/assets/lora", true));
        assert_eq!((shown[4].1, shown[4].2), ("/etc/x.json", true));
        let meta = fs::metadata(base.join("cache/hf/hub")).unwrap();
        assert!(meta.uid() == 1000 || meta.mode() & 0o777 == 0o777);
    }

    #[test]
    fn links_of_a_model_directory_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("snapshot")).unwrap();
        fs::write(base.join("blob"), "weights").unwrap();
        std::os::unix::fs::symlink("../blob", base.join("snapshot/model.safetensors")).unwrap();
        let found = tree(&base.join("snapshot"), "/m").unwrap();
        let bind = Bind { source: base.join("blob"), target: "/m/model.safetensors".into(), read_only: true };
        assert_eq!(found, std::slice::from_ref(&bind));
        // A link further down is one, too; a directory without any stays in one piece.
        fs::create_dir_all(base.join("snapshot/sub")).unwrap();
        std::os::unix::fs::symlink("../../blob", base.join("snapshot/sub/x.bin")).unwrap();
        fs::create_dir(base.join("snapshot/plain")).unwrap();
        fs::write(base.join("snapshot/plain/y"), "").unwrap();
        let found = tree(&base.join("snapshot"), "/m").unwrap();
        let targets: Vec<&str> = found.iter().map(|b| b.target.as_str()).collect();
        assert_eq!(targets, ["/m/model.safetensors", "/m/plain", "/m/sub/x.bin"]);
        assert_eq!(found[2].source, base.join("blob"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path(), "x", &Owner::this()).unwrap();
        let (hub, downloaded) = (hub(None), BTreeMap::new());
        let at = Directories { base: dir.path(), cache: dir.path(), hub: &hub, assets: &downloaded };
        let cause = |extra: &str, assets: Vec<(String, String)>| {
            let mut d = deployment(&format!("{SPEC}{extra}"));
            d.assets = assets;
            let spec = d.spec.container.clone().unwrap();
            let failure = binds(&d, &spec, at, &scratch, None).unwrap_err();
            assert_eq!(failure.class, FailureClass::Deterministic);
            failure.cause
        };
        assert!(cause("mounts = [{ source = \"/nowhere\", target = \"/x\" }]", vec![]).contains("`/nowhere`"));
        assert!(cause("mounts = [{ source = \"cache:../x\", target = \"/x\" }]", vec![]).contains("cache:../x"));
        assert!(cause("", vec![("a".into(), "gone".into())]).contains("the asset `a`"));
    }
}
