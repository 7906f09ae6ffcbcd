//! `clean`: removes what dead runs left behind.

use super::args::{CleanArgs, Global};
use super::containers;
use super::failure::{ENVIRONMENT, Failure};
use super::output::Output;
use crate::deploy::docker::{Leftovers, Owner};

pub fn command(args: &CleanArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let (left, failed) = containers::with_engine(global, async |daemon, settings| {
        let left = Leftovers::find(&daemon.docker, &settings.cache, &Owner::this(), args.elsewhere).await;
        let left = left.map_err(|e| containers::engine_failure(&e))?;
        let failed = if args.dry_run { Vec::new() } else { left.remove(&daemon.docker).await };
        Ok((left, failed))
    })?;
    for (name, why) in &failed {
        output.warning(&format!("cannot remove {name}: {why}"));
    }
    if output.json {
        output.json(&serde_json::json!({
            "dry_run": args.dry_run,
            "containers": left.containers,
            "directories": left.directories,
            "failed": failed.iter().map(|(name, why)| serde_json::json!({"name": name, "cause": why})).collect::<Vec<_>>(),
        }));
    } else if left.is_empty() {
        output.note("nothing is left over");
    } else {
        let word = if args.dry_run { "would remove" } else { "removed" };
        let gone = left.containers.iter().filter(|c| failed.iter().all(|(name, _)| *name != c.name));
        gone.for_each(|c| output.text(&format!("{word} container {}", c.name)));
        left.directories.iter().for_each(|d| output.text(&format!("{word} {}", d.display())));
    }
    Ok(if failed.is_empty() { 0 } else { ENVIRONMENT })
}
