//! `lock`: what an experiment refers to, resolved and written beside it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::args::{Global, LockArgs};
use super::containers;
use super::failure::{ENVIRONMENT, Failure};
use super::output::Output;
use super::prepare::{self, Prepared};
use crate::hub::{Daemon, HubError, RegistryLogins, image};
use crate::plan::identity::Contents;
use crate::plan::lock::{self, Lock, LockedContent, LockedImage, LockedModel, Reference, ReferenceKind, is_local};
use crate::settings::Settings;

pub fn command(args: &LockArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let mut code = 0;
    for file in prepare::files(&args.paths)? {
        let prepared = prepare::prepare(&file)?;
        let unresolved = one(&prepared, args, global, output)?;
        if !unresolved.is_empty() {
            code = ENVIRONMENT;
        }
    }
    Ok(code)
}

/// A reference whose meaning is not known, and why.
type Unresolved = (Reference, String);

fn one(prepared: &Prepared, args: &LockArgs, global: &Global, output: &Output) -> Result<Vec<Unresolved>, Failure> {
    let layered = prepare::settings(&prepared.dir, global)?;
    let plan = prepared.plan(&Default::default(), &Default::default(), &layered.settings)?;
    let contents = prepared.contents(&layered.settings);
    let mut new = prepared.lock.clone();
    new.version = Lock::new().version;
    let mut unresolved = Vec::new();
    let mut images = Images::new(&layered.settings, !args.offline)?;
    for (reference, locked) in &plan.references {
        // Local content is cheap to look at; what lies beyond the network keeps what it has unless asked.
        let local =
            is_local(&reference.name) || (reference.kind == ReferenceKind::Asset && !reference.name.contains("://"));
        match local.then(|| contents.digest(&reference.name)) {
            Some(Ok(digest)) => insert(&mut new, reference, digest.to_string()),
            Some(Err(e)) => return Err(Failure::Environment(format!("cannot lock the {reference}: {e}"))),
            None if *locked && !args.update => {}
            None if reference.kind == ReferenceKind::Image => match images.resolve(&reference.name) {
                Ok(digest) => insert(&mut new, reference, digest),
                Err(e) => unresolved.push((reference.clone(), e.to_string())),
            },
            None => unresolved.push((reference.clone(), "this build asks no model hub".into())),
        }
    }
    retain(&mut new, &plan.references);
    report(prepared, &new, &unresolved, output)?;
    Ok(unresolved)
}

fn insert(lock: &mut Lock, reference: &Reference, content: String) {
    let name = reference.name.clone();
    match reference.kind {
        ReferenceKind::Model => {
            let model =
                LockedModel { commit: None, content: Some(content), weight_bytes: None, kv_bytes_per_token: None };
            lock.models.insert(name, model);
        }
        ReferenceKind::Asset => _ = lock.assets.insert(name, LockedContent { content }),
        ReferenceKind::Dataset => _ = lock.datasets.insert(name, LockedContent { content }),
        ReferenceKind::Image => _ = lock.images.insert(name, LockedImage { digest: content }),
    }
}

/// Images, asked of the container engine; it is connected to when the first one is asked for.
struct Images {
    runtime: tokio::runtime::Runtime,
    daemon: Option<Daemon>,
    host: Option<String>,
    logins: RegistryLogins,
    remote: bool,
}

impl Images {
    fn new(settings: &Settings, remote: bool) -> Result<Images, Failure> {
        let logins = containers::logins().map(|dir| RegistryLogins::read(&dir)).unwrap_or_default();
        let host = containers::engine_host(settings);
        Ok(Images { runtime: containers::runtime()?, daemon: None, host, logins, remote })
    }

    fn resolve(&mut self, reference: &str) -> Result<String, HubError> {
        self.runtime.block_on(async {
            let daemon = match &mut self.daemon {
                Some(daemon) => daemon,
                unknown => unknown.insert(Daemon::connect(self.host.as_deref()).await?),
            };
            image::resolve(&daemon.docker, reference, &self.logins, self.remote).await
        })
    }
}

/// What the experiment no longer refers to leaves the lock.
fn retain(lock: &mut Lock, references: &[(Reference, bool)]) {
    let used = |kind, name: &String| references.iter().any(|(r, _)| r.kind == kind && r.name == *name);
    lock.images.retain(|n, _| used(ReferenceKind::Image, n));
    lock.models.retain(|n, _| used(ReferenceKind::Model, n));
    lock.assets.retain(|n, _| used(ReferenceKind::Asset, n));
    lock.datasets.retain(|n, _| used(ReferenceKind::Dataset, n));
}

fn report(prepared: &Prepared, new: &Lock, unresolved: &[Unresolved], output: &Output) -> Result<(), Failure> {
    let path = &prepared.lock_path;
    let diff = lock::diff(&prepared.lock, new);
    let empty = new.entries().is_empty();
    if !diff.is_empty() || (!path.exists() && !empty) {
        write_atomic(path, new.to_text().as_bytes()).map_err(|e| Failure::io("write", path, &e))?;
    }
    if output.json {
        output.json(&serde_json::json!({
            "file": path,
            "locked": new.entries(),
            "changes": diff.lines().collect::<Vec<_>>(),
            "unresolved": unresolved.iter().map(|(reference, _)| reference).collect::<Vec<_>>(),
            "causes": unresolved.iter().map(|(reference, why)| (reference.to_string(), why)).collect::<BTreeMap<_, _>>(),
        }));
        return Ok(());
    }
    output.text(&diff);
    match (diff.is_empty(), empty && unresolved.is_empty()) {
        (_, true) => output.note(&format!("{}: refers to nothing that needs a lock", prepared.path.display())),
        (true, _) => output.note(&format!("{}: unchanged", path.display())),
        (false, _) => output.note(&format!("wrote {}", path.display())),
    }
    if !unresolved.is_empty() {
        output.warning("not locked, or left as they were locked:");
        unresolved.iter().for_each(|(reference, why)| output.note(&format!("  {reference}: {why}")));
    }
    Ok(())
}

fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new().prefix(".lock-").tempfile_in(dir)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    // A committed file is readable by everyone who can read the checkout.
    temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    temp.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(dir)?.sync_all()
}
