//! From what the artifacts say of a unit to its recipe.

use std::path::PathBuf;
use std::sync::Arc;

use super::Recipe;
use crate::cli::failure::Failure;
use crate::plan::{Cell, identity};
use crate::spec::policy::RunPolicy;
use crate::store::record::{UnitRecord, UnitResult};
use crate::template::spec::DeploySpec;
use crate::value::Value;

pub fn recipe(record: &UnitRecord, result: &UnitResult) -> Result<Recipe, Failure> {
    let counting = result.samples.iter().rev().find(|s| s.valid);
    let sample = counting.or(result.samples.last());
    let provenance = sample.map(|s| &s.provenance).or(result.attempts.last().map(|a| &a.provenance));
    let spec = provenance.and_then(|p| p.template.as_deref()).and_then(|t| toml::from_str::<DeploySpec>(t).ok());
    let (Some(provenance), Some(spec)) = (provenance, spec) else {
        return Err(Failure::Environment(format!(
            "the artifacts do not say what unit {} was started as; give its experiment file too, and it is planned again",
            record.unit_id.short(16)
        )));
    };
    let facts = &record.facts;
    let pairs: Vec<(Arc<str>, Value)> = facts.cell.iter().map(|(k, v)| (Arc::from(k.as_str()), v.clone())).collect();
    let deployment =
        identity::deployment(&pairs, record.deploy.clone(), spec, facts.hardware.clone(), facts.gpus, flavor(record));
    Ok(Recipe {
        unit: record.unit_id,
        image: provenance.image_digest.clone(),
        deployment,
        cell: Cell(pairs),
        sample: sample.map_or(1, |s| s.sample),
        // Nor where the experiment was: relative paths start where the script is made.
        base: PathBuf::new(),
        // The artifacts do not keep it.
        patience: RunPolicy::default().ready_timeout,
    })
}

/// The stack that is impersonated, as the deployment's document names it.
fn flavor(record: &UnitRecord) -> Option<String> {
    let document = record.deploy.as_map()?;
    let simulated = document.get("simulated").or(document.get("simulator"))?;
    simulated.as_map()?.get("flavor")?.as_str().map(str::to_string)
}
