//! `schedule`: the files that start a run by themselves, printed or written. What they run is an ordinary `run`; they add
//! when, with what environment, that two nights do not overlap, and that there is a summary whatever the end.

mod cron;
mod github;
mod systemd;
mod when;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Global, RunFlags, ScheduleArgs, SelectionArgs};
use super::failure::Failure;
use super::output::Output;
use super::{prepare, results, run};
use crate::plan::Plan;
use crate::units::{format_duration, parse_duration};
use when::When;

/// What a scheduler needs to know of a night.
struct Night {
    /// Names the units, the lock, the log and the summary.
    name: String,
    /// Name of the experiment.
    experiment: String,
    when: When,
    /// The program.
    program: PathBuf,
    /// Where it is started; paths are relative to it where they can be.
    directory: PathBuf,
    artifacts: PathBuf,
    simulated: bool,
    /// `run` and what follows, without `--summary`.
    words: Vec<String>,
    /// Variables that the run reads: (name, what for).
    variables: Vec<(String, String)>,
    /// After which it is ended in good order, if ever.
    longest: Option<Duration>,
}

/// A file to write: its name, its text, and what it is.
struct Made {
    name: String,
    text: String,
}

pub fn command(args: &ScheduleArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let night = Night::of(args, global)?;
    let (files, hint) = if args.cron {
        (cron::files(&night), cron::HINT)
    } else if args.github {
        (github::files(&night), github::HINT)
    } else {
        (systemd::files(&night), systemd::HINT)
    };
    match &args.output {
        Some(dir) => {
            results::create_dir(dir)?;
            for file in &files {
                write(&dir.join(&file.name), &file.text, output)?;
            }
        }
        None if output.json => {
            let map: serde_json::Map<String, serde_json::Value> =
                files.iter().map(|f| (f.name.clone(), f.text.clone().into())).collect();
            output.json(&map);
        }
        None => {
            let several = files.len() > 1;
            let heading = |f: &Made| if several { format!("# --- {}\n", f.name) } else { String::new() };
            let text: Vec<String> = files.iter().map(|f| format!("{}{}", heading(f), f.text)).collect();
            output.text(&text.join("\n"));
        }
    }
    output.note(&hint.replace("NAME", &night.name));
    Ok(0)
}

/// A file with secrets in it may be there already: it is kept.
fn write(path: &Path, text: &str, output: &Output) -> Result<(), Failure> {
    if path.exists() && path.extension().is_some_and(|e| e == "env") {
        output.note(&format!("kept  {}, which is there already", path.display()));
        return Ok(());
    }
    results::write(path, text)?;
    output.note(&format!("wrote {}", path.display()));
    Ok(())
}

impl Night {
    fn of(args: &ScheduleArgs, global: &Global) -> Result<Night, Failure> {
        let usage = |flag: &'static str| move |e: String| Failure::Usage(format!("{flag}: {e}"));
        let when = match (&args.at, &args.on) {
            (Some(at), _) => When::daily(at).map_err(usage("--at"))?,
            (None, Some(on)) => When::weekly(on).map_err(usage("--on"))?,
            (None, None) => return Err(Failure::Usage("say when: --at 02:00, or --on 'Sun 02:00'".into())),
        };
        if args.file.is_dir() {
            let what = "is a directory; a timer runs one experiment";
            return Err(Failure::Usage(format!("{} {what}", args.file.display())));
        }
        prepare::files(std::slice::from_ref(&args.file))?;
        let prepared = prepare::prepare(&args.file)?;
        let settings = prepare::settings(&prepared.dir, global)?.settings;
        let flags = RunFlags {
            max_age: args.max_age.clone(),
            budget: args.budget.clone(),
            gate: args.gate.clone(),
            float: args.float.clone(),
            simulate: args.simulate,
            ..RunFlags::default()
        };
        // What would not run tonight is told now.
        let plan = run::planned(&prepared, &SelectionArgs::default(), &flags, &settings)?;
        let here = std::env::current_dir()
            .map_err(|e| Failure::Environment(format!("cannot tell the current directory: {e}")))?;
        let program = std::env::current_exe()
            .map_err(|e| Failure::Environment(format!("cannot tell where this program is: {e}")))?;
        let file = std::path::absolute(&args.file).map_err(|e| Failure::io("find", &args.file, &e))?;
        let file = file.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(file);
        let artifacts = settings.artifacts.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(settings.artifacts);
        let name = args.name.clone().unwrap_or_else(|| format!("llmatrix-{}", plain(&plan.experiment)));
        if name.is_empty() || plain(&name) != name {
            let what = "a name of files and units has letters, digits, `-`, `_` and `.` only";
            return Err(Failure::Usage(format!("--name {name}: {what}")));
        }
        Ok(Night {
            experiment: plan.experiment.clone(),
            when,
            program,
            words: words(args, global, &file)?,
            variables: variables(&plan),
            longest: longest(&plan),
            simulated: plan.simulated,
            directory: here,
            artifacts,
            name,
        })
    }

    /// A file of the night among the artifacts, which git does not look at.
    fn beside(&self, ending: &str) -> String {
        self.artifacts.join(format!("{}{ending}", self.name)).display().to_string()
    }

    /// The words of the command after the program's name.
    fn command(&self, summary: &str) -> Vec<String> {
        let (file, flags) = self.words.split_last().expect("the file is the last word");
        let summary = ["--summary".to_string(), summary.to_string()];
        flags.iter().cloned().chain(summary).chain([file.clone()]).collect()
    }

    /// Lines of a file of `NAME=value` for who fills it in.
    fn environment(&self) -> String {
        let mut out = format!(
            "# Environment of {}. Values stand here and nowhere else: keep this file readable by its owner only (chmod 600).\n",
            self.name
        );
        for (name, what) in &self.variables {
            out.push_str(&format!("# {what}\n#{name}=\n"));
        }
        out
    }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

fn words(args: &ScheduleArgs, global: &Global, file: &Path) -> Result<Vec<String>, Failure> {
    let mut words = vec!["run".to_string(), "--yes".into()];
    let mut put = |flag: &str, value: &Option<String>| {
        if let Some(value) = value {
            words.extend([flag.to_string(), value.clone()]);
        }
    };
    put("--max-age", &args.max_age.as_deref().map(duration("--max-age")).transpose()?);
    put("--budget", &args.budget.as_deref().map(duration("--budget")).transpose()?);
    put("--gate", &args.gate);
    put("--float", &(!args.float.is_empty()).then(|| args.float.join(",")));
    let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
    put("--artifacts", &path(&global.artifacts));
    put("--cache", &path(&global.cache));
    if args.simulate {
        words.push("--simulate".into());
    }
    words.push(file.display().to_string());
    if let Some(odd) = words.iter().find(|w| w.chars().any(char::is_control)) {
        return Err(Failure::Usage(format!("{odd:?} cannot stand in such a file: it has control characters")));
    }
    Ok(words)
}

fn duration(flag: &'static str) -> impl Fn(&str) -> Result<String, Failure> {
    move |text| match parse_duration(text) {
        Ok(d) => Ok(format_duration(d)),
        Err(e) => Err(Failure::Usage(format!("{flag}: {e}"))),
    }
}

/// The budget, and what the last sample and the end of its engine may take after it.
fn longest(plan: &Plan) -> Option<Duration> {
    let policy = &plan.policy;
    policy.budget.map(|b| b + policy.ready_timeout + policy.measure_timeout + Duration::from_secs(15 * 60))
}

/// Variables that the experiment names, the tokens that its methods take, and settings that hold now.
fn variables(plan: &Plan) -> Vec<(String, String)> {
    let mut named = BTreeSet::new();
    for d in &plan.deployments {
        let env = d.spec.container.iter().flat_map(|c| c.env.values());
        let texts = env.chain(d.headers.iter().map(|(_, v)| v)).chain(&d.endpoint).chain(&plan.policy.webhook);
        texts.for_each(|text| named.extend(references(text)));
    }
    named.extend(plan.policy.webhook.iter().flat_map(|text| references(text)));
    let mut out: Vec<(String, String)> =
        named.into_iter().map(|name| (name, format!("named by {}", plan.experiment))).collect();
    let real =
        |methods: &[&str]| !plan.simulated && plan.deployments.iter().any(|d| methods.contains(&d.method.as_str()));
    for (name, methods, what) in [
        ("HF_TOKEN", &["hf", "triton", "unim"][..], "for gated models"),
        ("NGC_API_KEY", &["nim", "unim"][..], "for NVIDIA's images and models"),
    ] {
        if real(methods) && !out.iter().any(|(n, _)| n == name) {
            out.push((name.to_string(), what.to_string()));
        }
    }
    let set = std::env::vars().map(|(name, _)| name).filter(|n| n.starts_with("LLMATRIX_") || n == "DOCKER_HOST");
    out.extend(set.map(|name| (name, "set where this file was made".to_string())));
    out
}

/// Names in `${NAME}`.
fn references(text: &str) -> Vec<String> {
    let after = text.split("${").skip(1);
    after.filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_texts() {
        assert_eq!(references("Bearer ${KEY}/${B}$x${"), ["KEY", "B"]);
        assert_eq!(plain("my sweep/ü"), "my-sweep--");
    }
}
