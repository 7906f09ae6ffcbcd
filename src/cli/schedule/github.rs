//! A GitHub Actions workflow for a runner of one's own. Texts are written as JSON strings, which YAML reads as they are.

use serde_json::Value as Json;

use super::{Made, Night};
use crate::cli::shell::word;

pub const HINT: &str = "\
To install: commit the workflow under .github/workflows/, give the runner with the GPUs the label `gpu`, and add the secrets \
that it names.";

pub fn files(night: &Night) -> Vec<Made> {
    vec![Made { name: format!("{}.yml", night.name), text: workflow(night) }]
}

fn workflow(night: &Night) -> String {
    let Night { name, experiment, .. } = night;
    let command: Vec<String> =
        ["llmatrix".to_string()].into_iter().chain(night.command("SUMMARY")).map(|w| word(&w)).collect();
    let minutes = night.longest.map_or(24 * 60, |l| l.as_secs().div_ceil(60));
    let environment: Vec<String> =
        night.variables.iter().map(|(name, _)| format!("      {name}: ${{{{ secrets.{name} }}}}\n")).collect();
    let environment =
        if environment.is_empty() { String::new() } else { format!("    env:\n{}", environment.concat()) };
    let artifacts = night.artifacts.display().to_string();
    let text = |t: String| Json::from(t).to_string();
    format!(
        "name: {}\n\
         on:\n  \
           schedule:\n    \
             - cron: {} # UTC\n  \
           workflow_dispatch: {{}}\n\
         # A night that is still running is waited for, not cut off.\n\
         concurrency:\n  \
           group: {name}\n  \
           cancel-in-progress: false\n\
         permissions:\n  \
           contents: read\n\
         jobs:\n  \
           measure:\n    \
             runs-on: [self-hosted, gpu]\n    \
             timeout-minutes: {minutes}\n\
         {environment}    \
             steps:\n      \
               - uses: actions/checkout@v5\n        \
                 with:\n          \
                   clean: false # what was measured before stays, and is not measured again\n      \
               - name: Measure\n        \
                 run: {}\n      \
               - name: Keep the reports\n        \
                 if: always()\n        \
                 uses: actions/upload-artifact@v4\n        \
                 with:\n          \
                   name: {name}\n          \
                   path: {}\n          \
                   retention-days: 30\n",
        text(format!("llmatrix {experiment}")),
        text(night.when.cron()),
        text(command.join(" ").replace("SUMMARY", "\"$GITHUB_STEP_SUMMARY\"")),
        text(format!("{artifacts}/{}runs/", if night.simulated { "simulated/" } else { "" })),
    )
}
