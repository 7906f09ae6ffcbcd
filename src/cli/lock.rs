//! `lock`: what an experiment refers to, resolved and written beside it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::args::{Global, LockArgs};
use super::failure::{ENVIRONMENT, Failure};
use super::local_model;
use super::output::Output;
use super::prepare::{self, Prepared};
use super::references::{self, Meaning, References};
use crate::plan::identity::Contents;
use crate::plan::lock::{self, Lock, LockedModel, Reference, ReferenceKind};

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
    let mut resolver = References::new(&layered.settings, !args.offline)?;
    for (reference, locked) in &plan.references {
        // Local content is cheap to look at; what lies beyond the network keeps what it has unless asked.
        let meaning = match (!reference.is_remote()).then(|| contents.digest(&reference.name)) {
            Some(Ok(digest)) if reference.kind == ReferenceKind::Model => {
                local_model::meaning(&prepared.dir.join(&reference.name), digest.to_string())
            }
            Some(Ok(digest)) => Meaning::Content(digest.to_string()),
            Some(Err(e)) => return Err(Failure::Environment(format!("cannot lock the {reference}: {e}"))),
            None if *locked && !args.update => match missing_sizes(&new, reference, &resolver, args.offline) {
                Some(meaning) => meaning,
                None => continue,
            },
            None => match resolver.resolve(reference) {
                Ok(meaning) => meaning,
                Err(why) => {
                    unresolved.push((reference.clone(), why));
                    continue;
                }
            },
        };
        if let Meaning::Model(_, Some(why)) = &meaning {
            output.note(&format!("{}: its size is known in bytes alone: {why}", reference.name));
        }
        references::insert(&mut new, reference, meaning);
    }
    retain(&mut new, &plan.references);
    report(prepared, &new, &unresolved, output)?;
    Ok(unresolved)
}

/// A model that was locked without its sizes gets those of the very commit that is locked. Where they cannot be had, the
/// entry stays as it is.
fn missing_sizes(lock: &Lock, reference: &Reference, resolver: &References, offline: bool) -> Option<Meaning> {
    let locked = lock.models.get(&reference.name).filter(|_| reference.kind == ReferenceKind::Model)?;
    if offline || locked.shape.is_some() {
        return None;
    }
    let commit = locked.commit.clone()?;
    match resolver.sizes(reference, &commit) {
        Ok(Meaning::Model(found, why)) if found.shape.is_some() || locked.weight_bytes.is_none() => {
            let kept = LockedModel { commit: Some(commit), content: locked.content.clone(), ..*found };
            Some(Meaning::Model(Box::new(kept), why))
        }
        _ => None,
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
    // Sizes change no meaning, so they are no line of the difference.
    let sized = diff.is_empty() && new.models != prepared.lock.models;
    if !diff.is_empty() || sized || (!path.exists() && !empty) {
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
        (true, _) if sized => output.note(&format!("wrote the sizes of models into {}", path.display())),
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
