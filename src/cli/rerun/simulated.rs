//! A simulated engine as a process of its own.

use super::super::shell::word;
use super::{Recipe, Step, lines};
use crate::cli::failure::Failure;
use crate::value::Table;

/// Its options are those of the run; only its address may be another.
pub fn steps(recipe: &Recipe, options: &Table) -> Result<Vec<Step>, Failure> {
    let mut command = vec!["llmatrix sim".to_string()];
    let flavor = options.get("flavor").map(ToString::to_string).or_else(|| recipe.deployment.flavor.clone());
    command.extend(flavor.map(|f| format!("--flavor {}", word(&f))));
    let others = options.iter().filter(|(name, _)| !matches!(&***name, "flavor" | "host" | "port"));
    command.extend(others.map(|(name, value)| word(&format!("--{}={value}", name.replace('_', "-")))));
    command.push("--port=0 > \"$scratch\"/url 2> \"$scratch\"/log &".into());
    Ok(vec![
        Step {
            says: "What is started here ends with the script",
            command:
                "scratch=$(mktemp -d)\nengine=\ntrap '[ -z \"$engine\" ] || kill \"$engine\" 2> /dev/null || true; \
                      rm -rf \"$scratch\"' EXIT"
                    .into(),
        },
        Step {
            says: "The simulated engine, on a free port, which it tells",
            command: format!(
                "{}\nengine=$!\nuntil [ -s \"$scratch\"/url ]; do\n  kill -0 \"$engine\" || {{ cat \"$scratch\"/log >&2; \
                 exit 1; }}\n  sleep 0.1\ndone\nendpoint=$(cat \"$scratch\"/url)",
                lines(&command)
            ),
        },
        recipe.wait("kill -0 \"$engine\"", "cat \"$scratch\"/log >&2")?,
    ])
}
