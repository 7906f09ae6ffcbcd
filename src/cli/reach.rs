//! What a run would reach outside of the experiment's directory, the caches and the artifacts. `plan` shows all of it, so
//! that an experiment of somebody else can be judged before it runs.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use crate::deploy::docker::handed_tokens;
use crate::plan::lock::is_local;
use crate::plan::{Deployment, Plan, Unit};

/// One thing that is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reach {
    pub kind: Kind,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A directory or file of the host in a container; writable unless it says otherwise.
    Mount,
    /// A device of the host in a container.
    Device,
    /// A namespace of the host that a container shares.
    Share,
    /// A file or directory that is read.
    Read,
    /// An environment variable whose value is handed on.
    Variable,
    /// A server that is not started by the run.
    Server,
}

impl Kind {
    pub fn heading(self) -> &'static str {
        match self {
            Kind::Mount => "host directories that containers will see",
            Kind::Device => "devices that containers will have",
            Kind::Share => "what containers share with the host",
            Kind::Read => "files outside of the experiment's directory that are read",
            Kind::Variable => "environment variables that are handed on",
            Kind::Server => "servers that are sent requests",
        }
    }
}

/// Everything that a plan reaches, each once. Relative paths start at `dir`.
pub fn of(plan: &Plan, dir: &Path) -> Vec<Reach> {
    let mut out = BTreeSet::new();
    let mut add = |kind, what: String| _ = out.insert(Reach { kind, what });
    for d in &plan.deployments {
        // A rehearsal starts no container and reads no model.
        if d.flavor.is_none() {
            of_container(d, dir, &mut add);
            of_server(d, dir, &mut add);
        }
    }
    let probes = plan.searches.iter().flat_map(|s| s.probes.iter().map(|p| &p.unit));
    for unit in plan.units.iter().chain(probes) {
        of_unit(unit, dir, &mut add);
    }
    if let Some(url) = &plan.policy.dcgm {
        add(Kind::Server, url.clone());
    }
    if let Some(url) = &plan.policy.webhook {
        add(Kind::Server, url.clone());
        variables(url).into_iter().for_each(|name| add(Kind::Variable, format!("{name}, in `webhook`")));
    }
    out.into_iter().collect()
}

fn of_container(d: &Deployment, dir: &Path, add: &mut dyn FnMut(Kind, String)) {
    let Some(container) = &d.spec.container else { return };
    for mount in container.mounts.iter().filter(|m| !m.source.starts_with("cache:")) {
        let mode = if mount.read_only { ", read-only" } else { "" };
        add(Kind::Mount, format!("{} → {}{mode}", mount.source, mount.target));
    }
    container.devices.iter().for_each(|device| add(Kind::Device, device.clone()));
    if let Some(ipc) = container.ipc.as_ref().filter(|ipc| is_shared(ipc)) {
        add(Kind::Share, format!("memory between processes (ipc = \"{ipc}\")"));
    }
    let local = d.assets.iter().map(|(name, path)| (format!("the asset `{name}`"), path));
    let model = is_local(&d.model).then(|| ("the model".to_string(), &d.model));
    for (what, path) in local.chain(model) {
        if let Some(path) = outside(dir, path) {
            add(Kind::Read, format!("{}, {what}, mounted read-only", path.display()));
        }
    }
    for (name, text) in &container.env {
        variables(text).into_iter().for_each(|v| add(Kind::Variable, format!("{v}, as {name} of a container")));
    }
    handed_tokens(&d.method)
        .filter(|name| !container.env.contains_key(*name))
        .for_each(|name| add(Kind::Variable, format!("{name}, where it is set, as {name} of a container")));
}

/// Whether this IPC mode lets a container see the shared memory of the host or of another container.
fn is_shared(ipc: &str) -> bool {
    !matches!(ipc, "" | "none" | "private" | "shareable")
}

fn of_server(d: &Deployment, dir: &Path, add: &mut dyn FnMut(Kind, String)) {
    if let Some(endpoint) = &d.endpoint {
        add(Kind::Server, endpoint.clone());
        variables(endpoint).into_iter().for_each(|v| add(Kind::Variable, format!("{v}, in `endpoint`")));
    }
    for (name, text) in &d.headers {
        variables(text).into_iter().for_each(|v| add(Kind::Variable, format!("{v}, in the header {name}")));
    }
    let tls = [("tls.ca", &d.tls.ca), ("tls.cert", &d.tls.cert), ("tls.key", &d.tls.key)];
    for (name, path) in tls.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
        if let Some(path) = outside(dir, path) {
            add(Kind::Read, format!("{}, `{name}`", path.display()));
        }
    }
}

fn of_unit(unit: &Unit, dir: &Path, add: &mut dyn FnMut(Kind, String)) {
    for parameter in ["dataset", "tokenizer"] {
        let value = unit.cell.get(parameter);
        let Some(path) = value.as_ref().and_then(|v| v.as_str()) else { continue };
        // A tokenizer is a model's name unless it is written as a path.
        let is_path = parameter == "dataset" || is_local(path);
        if let Some(path) = outside(dir, path).filter(|_| is_path) {
            add(Kind::Read, format!("{}, `{parameter}`", path.display()));
        }
    }
}

/// The file that a path leads to, links followed, when it is outside of the directory.
fn outside(dir: &Path, path: &str) -> Option<PathBuf> {
    if path.contains("://") {
        return None;
    }
    let whole = dir.join(path);
    match (whole.canonicalize(), dir.canonicalize()) {
        (Ok(real), Ok(dir)) => (!real.starts_with(dir)).then_some(real),
        // What is not there is judged by how it is written.
        _ => {
            let leaves = Path::new(path).components().any(|c| matches!(c, Component::ParentDir | Component::RootDir));
            leaves.then_some(whole)
        }
    }
}

/// Names in `${NAME}`.
fn variables(text: &str) -> Vec<String> {
    let parts = text.split("${").skip(1);
    parts.filter_map(|part| Some(part.split_once('}')?.0.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_followed_to_where_they_lead() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("experiments");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("inside.jsonl"), "").unwrap();
        std::fs::write(base.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", dir.join("innocent.jsonl")).unwrap();
        let secret = base.path().canonicalize().unwrap().join("secret");
        for path in ["../secret", "innocent.jsonl", "./x/../../secret", secret.to_str().unwrap()] {
            let found = outside(&dir, path);
            assert!(found.is_some(), "{path}");
        }
        assert_eq!(outside(&dir, "innocent.jsonl"), Some(secret));
        assert_eq!(outside(&dir, "inside.jsonl"), None);
        assert_eq!(outside(&dir, "./inside.jsonl"), None);
        assert_eq!(outside(&dir, "missing.jsonl"), None);
        assert!(outside(&dir, "/nonexistent").is_some() && outside(&dir, "../nonexistent").is_some());
        assert_eq!(outside(&dir, "hf://org/name@1"), None);
    }

    #[test]
    fn memory_of_others_is_shared_in_these_modes() {
        assert!(["host", "container:other"].into_iter().all(is_shared));
        assert!(!["private", "shareable", "none"].into_iter().any(is_shared));
    }

    #[test]
    fn names_of_variables_are_found() {
        assert_eq!(variables("Bearer ${A}/${B_2}$x${"), ["A", "B_2"]);
    }
}
