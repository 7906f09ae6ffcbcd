//! `ps` and `status`: the containers of this host that are ours.

use super::args::{Global, StatusArgs};
use super::containers;
use super::failure::Failure;
use super::output::{Output, table};
use crate::deploy::docker::{self, Container, Keeper, Owner};

pub fn ps(global: &Global, output: &Output) -> Result<u8, Failure> {
    let all = containers::with_engine(global, async |daemon, _| {
        docker::list(&daemon.docker, &Owner::this()).await.map_err(|e| containers::engine_failure(&e))
    })?;
    if output.json {
        output.json(&all);
        return Ok(0);
    }
    if all.is_empty() {
        output.note("no containers of ours");
        return Ok(0);
    }
    let mut rows = table(&["CONTAINER", "STATE", "KEPT BY", "MODEL", "STACK", "URL", "GPUS"]);
    for c in &all {
        let stack = format!("{} × {}", c.method, c.engine);
        let url = c.url.clone().unwrap_or_default();
        rows.add_row([&c.name, &state(c), kept_by(c), &c.model, &stack, &url, &c.gpus.len().to_string()]);
    }
    output.text(&rows.to_string());
    Ok(0)
}

pub fn status(args: &StatusArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let name = args.container_name.clone();
    let container = containers::with_engine(global, async |daemon, _| containers::find(&daemon, &name).await)?;
    if output.json {
        output.json(&container);
        return Ok(0);
    }
    let mut rows = table(&[]);
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            rows.add_row([name, value]);
        }
    };
    let c = &container;
    row("container", &c.name);
    row("id", c.id.get(..12).unwrap_or(&c.id));
    row("state", &state(c));
    row("started", c.started_at.as_deref().unwrap_or_default());
    row("kept by", kept_by(c));
    row("stack", &format!("{} × {}", c.method, c.engine));
    row("model", &c.model);
    row("served as", &c.served_model);
    row("url", c.url.as_deref().unwrap_or_default());
    row("measured at", c.bridge_url.as_deref().unwrap_or_default());
    row("image", &format!("{} ({})", c.image, c.image_id));
    row("gpus", &c.gpus.join(", "));
    row("experiment", &c.experiment);
    row("run", c.run.as_deref().unwrap_or_default());
    row("deployment", &c.deploy_id);
    output.text(&rows.to_string());
    Ok(0)
}

fn state(c: &Container) -> String {
    match (c.exit_code, c.oom_killed) {
        (Some(code), true) => format!("{} ({code}, out of memory)", c.state),
        (Some(code), false) => format!("{} ({code})", c.state),
        (None, _) => c.state.clone(),
    }
}

fn kept_by(c: &Container) -> &str {
    match c.kept_by {
        Keeper::Run => c.run.as_deref().unwrap_or("a run"),
        Keeper::Hand => "hand",
        Keeper::Nobody => "nobody: its run died",
        Keeper::Elsewhere => "a process elsewhere",
    }
}
