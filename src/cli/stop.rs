//! `stop`: ends containers of ours and removes what they left.

use bollard::query_parameters::StopContainerOptionsBuilder;

use super::args::{Global, StopArgs};
use super::containers;
use super::failure::Failure;
use super::output::Output;
use crate::deploy::docker::{self, Keeper};

pub fn command(args: &StopArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let stopped = containers::with_engine(global, async |daemon, _| {
        // Every name is looked up before the first one is stopped.
        let mut found = Vec::new();
        for name in &args.containers {
            let container = containers::find(&daemon, name).await?;
            if container.kept_by == Keeper::Run && !args.force {
                let run = container.run.as_deref().unwrap_or("a run");
                return Err(Failure::Usage(format!(
                    "{name} belongs to {run}, which is alive: end the run with Ctrl-C, or give --force"
                )));
            }
            found.push(container);
        }
        for container in &found {
            let options = StopContainerOptionsBuilder::new().t(args.grace).build();
            let _ = daemon.docker.stop_container(&container.id, Some(options)).await;
            let removed = docker::remove(&daemon.docker, &container.id).await;
            removed.map_err(|e| Failure::Environment(format!("cannot remove {}: {e}", container.name)))?;
            container.scratch.iter().for_each(|path| docker::remove_scratch(path));
            output.note(&format!("stopped {}", container.name));
        }
        Ok(found)
    })?;
    if output.json {
        output.json(&stopped);
    }
    Ok(0)
}
