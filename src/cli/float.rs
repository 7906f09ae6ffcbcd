//! `[run] float`: references that each run resolves anew. What they were found to mean stands in the run's directory; the
//! committed lock stays as it is.

use super::failure::Failure;
use super::output::Output;
use super::prepare::Prepared;
use super::references::{self, References};
use crate::plan::Plan;
use crate::plan::lock::{self, Lock, ReferenceKind};
use crate::settings::Settings;

/// The lock that a run goes by where something floats; `None` where nothing does. A rehearsal resolves nothing, and
/// without the network the lock stands as it is.
pub fn lock(prepared: &Prepared, plan: &Plan, settings: &Settings, output: &Output) -> Result<Option<Lock>, Failure> {
    let policy = &plan.policy;
    let kinds: Vec<ReferenceKind> = policy.float.iter().filter_map(|word| ReferenceKind::parse(word)).collect();
    if kinds.is_empty() || plan.simulated {
        return Ok(None);
    }
    if policy.offline {
        output.warning("`float` resolves nothing offline; the lock stands as it is");
        return Ok(None);
    }
    let mut resolver = References::new(settings, true)?;
    let mut new = prepared.lock.clone();
    new.version = Lock::new().version;
    for (reference, _) in plan.references.iter().filter(|(r, _)| kinds.contains(&r.kind) && r.is_remote()) {
        let meaning = resolver.resolve(reference).map_err(|why| {
            Failure::Environment(format!("`float` cannot resolve the {reference}: {why}. `--offline` goes by the lock"))
        })?;
        references::insert(&mut new, reference, meaning);
    }
    let moved = lock::diff(&prepared.lock, &new);
    if !moved.is_empty() {
        output.note(&format!("resolved for this run:\n{}", moved.trim_end()));
    }
    Ok(Some(new))
}
