//! A unit's measurement as a script that a person can run without a run: the stack is started, measured and removed. What
//! the script does is what a run does, as far as commands of others can say it; where they differ a comment tells.

mod container;
mod measure;
mod simulated;
mod stored;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::shell::word;
use crate::digest::UnitId;
use crate::hub::model::HubSettings;
use crate::plan::{Cell, Deployment, Plan, Unit};
use crate::store::record::{UnitRecord, UnitResult};

/// What a script is made from.
pub struct Recipe {
    unit: UnitId,
    deployment: Deployment,
    cell: Cell,
    /// Digest or id of the image, where the row or the lock knows it.
    image: Option<String>,
    /// Number of the sample whose prompts are sent.
    sample: u32,
    /// Where relative paths of the experiment start.
    base: PathBuf,
    /// From the start of the engine until it is given up.
    patience: Duration,
}

/// Directories of this host.
pub struct Host<'a> {
    pub cache: &'a Path,
    pub hub: &'a HubSettings,
}

/// One step of a script.
struct Step {
    /// What a comment says of it.
    says: &'static str,
    command: String,
}

impl Recipe {
    /// A planned unit; relative paths start at `base`.
    pub fn planned(plan: &Plan, unit: &Unit, base: &Path) -> Recipe {
        let deployment = plan.deployments[unit.deployment].clone();
        Recipe {
            unit: unit.id,
            image: deployment.locked_image().map(str::to_string),
            deployment,
            cell: unit.cell.clone(),
            sample: 1,
            base: std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf()),
            patience: plan.policy_of(unit).ready_timeout,
        }
    }

    /// A measured unit: its newest sample that counts.
    pub fn stored(record: &UnitRecord, result: &UnitResult) -> Result<Recipe, Failure> {
        stored::recipe(record, result)
    }

    /// Prints the script, or with `--json` its commands too.
    pub fn print(&self, host: &Host, output: &Output) -> Result<(), Failure> {
        let steps = self.steps(host)?;
        let script = self.script(&steps);
        if output.json {
            let commands: Vec<&str> = steps.iter().map(|s| s.command.as_str()).collect();
            output
                .json(&json!({ "unit_id": self.unit, "sample": self.sample, "commands": commands, "script": script }));
        } else {
            output.text(&script);
        }
        Ok(())
    }

    fn steps(&self, host: &Host) -> Result<Vec<Step>, Failure> {
        let spec = &self.deployment.spec;
        // In a run, too, the simulator goes before a container, and both before an endpoint.
        let mut steps = match (&spec.sim, &spec.container) {
            (Some(options), _) => simulated::steps(self, options)?,
            (None, Some(container)) => container::steps(self, container, host)?,
            (None, None) => Vec::new(),
        };
        steps.push(measure::step(self, !steps.is_empty())?);
        Ok(steps)
    }

    /// In parentheses: the shell reads it as a whole before it begins, a failure ends the script and not the shell that it
    /// was pasted into, and what was started is removed when it ends.
    fn script(&self, steps: &[Step]) -> String {
        let Deployment { model, method, engine, .. } = &self.deployment;
        let mut out = format!(
            "#!/usr/bin/env bash\n# Unit {} by hand: {method} × {engine}, {}, with the prompts of its sample {}.\n",
            self.unit.short(16),
            model.replace(char::is_control, " "),
            self.sample,
        );
        out.push_str(
            "# Words behind the script go to `llmatrix measure`: … | bash -s -- --json\n(\nset -euo pipefail\n",
        );
        for step in steps {
            out.push_str(&format!("\n# {}\n{}\n", step.says, step.command));
        }
        out.push_str(")\n");
        out
    }

    /// Waits until the health path answers 200; `alive` is a command that fails when the engine is dead, `last_words` one
    /// that shows why.
    fn wait(&self, alive: &str, last_words: &str) -> Result<Step, Failure> {
        let path = self.deployment.spec.api.health.as_ref().ok_or_else(|| {
            Failure::Usage(format!(
                "the template of {} names no `health` path under [api], so nobody can wait for it",
                self.deployment.container
            ))
        })?;
        let seconds = self.patience.as_secs();
        Ok(Step {
            says: "Ready is a 200 on the health path; `measure` asks for one token first",
            command: format!(
                "SECONDS=0\nuntil curl --silent --fail --output /dev/null --max-time 10 \"$endpoint\"{path}; do\n  \
                 {alive} || {{ {last_words}; echo 'the engine ended' >&2; exit 1; }}\n  \
                 [ \"$SECONDS\" -lt {seconds} ] || {{ {last_words}; echo 'not ready after {seconds} s' >&2; exit 1; }}\n  \
                 sleep 1\ndone",
                path = word(path),
            ),
        })
    }
}

/// Words of one command, a line for each group of them.
fn lines(groups: &[String]) -> String {
    groups.join(" \\\n  ")
}

#[cfg(test)]
mod tests;
