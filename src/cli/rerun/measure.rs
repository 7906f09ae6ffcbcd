//! The measurement as flags of `llmatrix measure`: every unit parameter has one.

use std::path::Path;

use super::super::shell::word;
use super::{Recipe, Step, lines};
use crate::cli::failure::Failure;
use crate::plan::identity::row;
use crate::plan::lock::is_local;
use crate::plan::{Cell, Deployment, TlsOptions};
use crate::spec::params::Scope;
use crate::value::Value;

/// `started`: the script has started the server, and its address is in `$endpoint`.
pub fn step(recipe: &Recipe, started: bool) -> Result<Step, Failure> {
    let Deployment { spec, method, engine, endpoint, served_model, model, headers, tls, container, .. } =
        &recipe.deployment;
    let address = match (started, endpoint) {
        (true, _) => "\"$endpoint\"".to_string(),
        // `measure` reads `${NAME}` from its environment itself.
        (false, Some(endpoint)) => word(endpoint),
        (false, None) => {
            let message = format!("{container} renders to nothing that could be started, and has no `endpoint`");
            return Err(Failure::Usage(message));
        }
    };
    let mut command = vec![format!("llmatrix measure --endpoint {address}")];
    command.push(match method.as_str() {
        "external" => format!("--engine {}", word(engine)),
        _ => format!("--method {} --engine {}", word(method), word(engine)),
    });
    // Without a name that the template gives it, a started engine serves one model, and tells which.
    let name = served_model.as_ref().or(Some(model).filter(|_| !started));
    command.extend(name.map(|n| format!("--model {}", word(n))));
    command.extend(headers.iter().map(|(name, value)| format!("--header {}", word(&format!("{name}: {value}")))));
    command.extend(tls_flags(tls));
    command.extend(tokenizer(recipe).map(|path| format!("--tokenizer {}", word(&path))));
    command.extend(flags(&recipe.cell, &recipe.base));
    command.extend(spec.api.batch.as_ref().map(|path| format!("--batch-path {}", word(path))));
    // A server that goes on running has met these prompts before, and may have kept what it computed of them.
    if started {
        command.push(format!("--prompts-of {} --sample {}", recipe.unit, recipe.sample));
    }
    command.push("\"$@\"".into());
    Ok(Step { says: "The measurement", command: lines(&command) })
}

/// The unit parameters of a cell as flags, in the order of their names. A data set's path starts at `base`.
fn flags(cell: &Cell, base: &Path) -> Vec<String> {
    let unit = cell.0.iter().filter(|(path, _)| row(path).is_some_and(|p| p.scope == Scope::Unit));
    unit.map(|(path, value)| {
        let text = match (&**path, value) {
            ("dataset", _) => base.join(value.to_string()).display().to_string(),
            ("tokens.input_range", Value::List(ends)) => {
                ends.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
            }
            (_, Value::List(_) | Value::Map(_)) => inline_toml(value),
            _ => value.to_string(),
        };
        format!("{} {}", flag(path), word(&text))
    })
    .collect()
}

/// The flag of a unit parameter.
fn flag(path: &str) -> String {
    let name = match path {
        "tokens.input" => "input_tokens_mean",
        "tokens.output" => "output_tokens_mean",
        "tokens.input_stddev" => "input_tokens_stddev",
        "tokens.output_stddev" => "output_tokens_stddev",
        "tokens.input_range" => "input_tokens_range",
        other => other.strip_prefix("tokens.").unwrap_or(other),
    };
    format!("--{}", name.replace('_', "-"))
}

fn inline_toml(value: &Value) -> String {
    let mut out = String::new();
    match serde::Serialize::serialize(value, toml::ser::ValueSerializer::new(&mut out)) {
        Ok(_) => out,
        Err(_) => value.to_string(),
    }
}

fn tls_flags(tls: &TlsOptions) -> Vec<String> {
    let TlsOptions { ca, cert, key, insecure } = tls;
    let files = [("--ca", ca), ("--cert", cert), ("--key", key)];
    let mut out: Vec<String> =
        files.into_iter().filter_map(|(flag, path)| Some(format!("{flag} {}", word(path.as_ref()?)))).collect();
    out.extend(insecure.then(|| "--insecure".to_string()));
    out
}

/// The tokenizer that prompts are made with: the one that the cell names, else that of a local model, where it has one.
fn tokenizer(recipe: &Recipe) -> Option<String> {
    let shown = |path: &str| recipe.base.join(path).display().to_string();
    match recipe.cell.get("tokenizer").as_ref().and_then(Value::as_str) {
        Some(named) => is_local(named).then(|| shown(named)),
        None => {
            let model = &recipe.deployment.model;
            let there = is_local(model) && recipe.base.join(model).join("tokenizer.json").is_file();
            there.then(|| shown(model))
        }
    }
}
