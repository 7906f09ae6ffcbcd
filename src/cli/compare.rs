//! `compare`: two sides, or many nights.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::args::{CompareArgs, CompareFormat, ErrorFlag, Global};
use super::failure::Failure;
use super::gate::{self, Request};
use super::output::{self, Output};
use super::sides::{NotFound, Sides, only};
use super::webhook::Webhook;
use super::{prepare, results};
use crate::compare::gate::{MINIMUM, Measure, Rules};
use crate::compare::{Comparison, Outcome, history, show};
use crate::exec::exit::{REGRESSION, UNDECIDABLE};
use crate::report::junit;
use crate::report::terminal::Style;
use crate::spec::gate::parse_share;
use crate::spec::policy::{ErrorTerm, Gate};

pub fn command(args: &CompareArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let sides = Sides::new(&layered.settings.artifacts, args.simulated);
    if let Some(nights) = args.history {
        return history_of(args, &sides, nights as usize, output).map(|()| 0);
    }
    let section = args.experiment.as_deref().map(|p| prepare::prepare(p).map(|p| p.spec.gate)).transpose()?;
    let webhook = args.webhook.as_deref().map(Webhook::of).transpose()?;
    // What is compared comes first: it says whose earlier runs are meant.
    let b_name = args.b.as_deref().unwrap_or("last");
    let b_name = if args.against.is_some() { args.a.as_deref().unwrap_or(b_name) } else { b_name };
    let b = sides.find(b_name, None, None).map_err(NotFound::into_failure)?;
    let section = section.or_else(|| b.record.as_ref().map(|r| r.gate.clone())).unwrap_or_default();
    let rules = rules(args, &section)?;
    let request = Request {
        sides: &sides,
        against: against(args, &section)?,
        nights: args.nights.map(|n| n as usize),
        rules: &rules,
        only: &args.only,
    };
    let comparison = match gate::compare(&request, b) {
        Ok(comparison) => comparison,
        Err(NotFound::FirstNight(text)) if args.gate => {
            output.note(&text);
            return Ok(0);
        }
        Err(NotFound::Unknown(text)) if args.gate => {
            output.failure(&Failure::Nothing(text));
            return Ok(UNDECIDABLE as u8);
        }
        Err(e) => return Err(e.into_failure()),
    };
    print(args, &comparison, output)?;
    if let Some(webhook) = webhook {
        let message = json!({ "text": show::brief::lines(&comparison).join("\n") });
        webhook.tell(&message, &super::containers::runtime()?, output);
    }
    Ok(match comparison.outcome {
        None | Some(Outcome::Pass) => 0,
        Some(Outcome::Regression) => REGRESSION as u8,
        Some(Outcome::Undecidable { .. }) => UNDECIDABLE as u8,
    })
}

/// Flags over the section over the defaults.
fn rules(args: &CompareArgs, section: &Gate) -> Result<Rules, Failure> {
    let usage = Failure::Usage;
    let share = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match parse_share(text) {
            Some(share) => Ok(Some(share)),
            None => Err(usage(format!("--{flag} {text}: give a share above 0 and below 1 such as 5%"))),
        },
    };
    let limits: Vec<Measure> = args
        .limit
        .iter()
        .map(|text| {
            let (metric, limit) = text.split_once('=').ok_or_else(|| format!("--limit {text}: write METRIC=LIMIT"))?;
            Measure::parse(metric.trim(), limit).map_err(|e| format!("--limit {text}: {e}"))
        })
        .collect::<Result<_, String>>()
        .map_err(usage)?;
    let error = match args.error {
        None => section.error,
        Some(ErrorFlag::Starts) => ErrorTerm::Starts,
        Some(ErrorFlag::Samples) => ErrorTerm::Samples,
    };
    let fdr = share("fdr", &args.fdr)?.unwrap_or(section.fdr);
    let minimum = share("min-effect", &args.min_effect)?.unwrap_or(MINIMUM);
    let mut rules = match args.gate {
        true => Rules { fdr, error, ..Rules::of_gate(section).map_err(usage)? },
        false => Rules::of_metrics(&args.metrics, minimum, fdr, error).map_err(usage)?,
    };
    if !limits.is_empty() {
        rules.measures = limits;
    }
    Ok(rules)
}

/// What to compare with: the first name, the flag, or what the section says.
fn against(args: &CompareArgs, section: &Gate) -> Result<gate::Against, Failure> {
    if let Some(text) = &args.against {
        return gate::Against::coordinates(text).map_err(Failure::Usage);
    }
    match &args.a {
        Some(name) => Ok(gate::Against::Name(name.clone())),
        None => Ok(gate::Against::of_section(section)),
    }
}

fn style(output: &Output) -> Style {
    let width = io::stdout().is_terminal().then(|| u16::try_from(output::width()).unwrap_or(120));
    Style { width, color: output.color_out }
}

fn print(args: &CompareArgs, comparison: &Comparison, output: &Output) -> Result<(), Failure> {
    let suites = || junit::document(&[show::junit::suite(comparison)]);
    let format = if output.json { CompareFormat::Json } else { args.format };
    let plain = args.output.is_some();
    let text = match format {
        CompareFormat::Table => {
            let mut out = Vec::new();
            let style = if plain { Style::default() } else { style(output) };
            let _ = show::table::write(comparison, style, args.all, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
        CompareFormat::Markdown => show::markdown::comparison(comparison),
        CompareFormat::Json => serde_json::to_string(comparison).map_err(|e| Failure::Internal(e.to_string()))?,
        CompareFormat::Junit => suites(),
    };
    put(args.output.as_deref(), &text, output)?;
    if let Some(path) = &args.junit {
        put(Some(path), &suites(), output)?;
    }
    if let Some(path) = &args.markdown {
        put(Some(path), &show::markdown::comparison(comparison), output)?;
    }
    Ok(())
}

fn put(path: Option<&Path>, text: &str, output: &Output) -> Result<(), Failure> {
    let Some(path) = path else {
        output.text(text);
        return Ok(());
    };
    results::create(path)?.write_all(text.as_bytes()).map_err(|e| Failure::io("write", path, &e))?;
    output.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn history_of(args: &CompareArgs, sides: &Sides, nights: usize, output: &Output) -> Result<(), Failure> {
    let mut found = sides.history(args.a.as_deref(), nights).map_err(NotFound::into_failure)?;
    only(&mut found.side, &args.only)?;
    let rules = rules(args, &Gate::default())?;
    let history = history::history(&found.side, nights, &rules);
    let format = if output.json { CompareFormat::Json } else { args.format };
    let text = match format {
        CompareFormat::Table => {
            let mut out = Vec::new();
            let _ = show::table::write_history(&history, style(output), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
        CompareFormat::Markdown => show::markdown::history(&history),
        CompareFormat::Json => serde_json::to_string(&history).map_err(|e| Failure::Internal(e.to_string()))?,
        CompareFormat::Junit => {
            return Err(Failure::Usage("a history has no JUnit form: give table, markdown or json".into()));
        }
    };
    put(args.output.as_deref(), &text, output)
}
