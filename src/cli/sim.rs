//! `sim`: the simulated engine as a server, by options of its own or as the image of a real engine.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::SimArgs;
use super::failure::Failure;
use super::output::Output;
use crate::sim::image::{self, Container};
use crate::sim::{self, OPTIONS, SimOptions};
use crate::value::{Table, Value};

/// What follows it is the command line that the real image would get.
const AS_IMAGE: &str = "--as-image";
/// Further options in the environment: how an image is told to misbehave without another command line.
const VARIABLE: &str = "LLMATRIX_SIM";

pub fn command(args: &SimArgs, output: &Output) -> Result<u8, Failure> {
    // What follows the flavour is taken as options of the simulator, so the flags of every command are found here.
    let mut output = *output;
    let mut words = args.options.clone();
    let image = words.iter().position(|w| w == AS_IMAGE).map(|at| {
        let line = words.split_off(at + 1);
        words.truncate(at);
        line
    });
    output.json |= words.iter().any(|w| w == "--json");
    output.quiet |= words.iter().any(|w| w == "-q" || w == "--quiet");
    words.retain(|w| !matches!(w.as_str(), "--json" | "-q" | "--quiet"));
    let environment = environment();
    if let Some(more) = environment.get(VARIABLE).filter(|_| image.is_some()) {
        words.extend(more.split_whitespace().map(str::to_string));
    }
    let mut table = flags(&words)?;
    table.insert("flavor".into(), Value::str(&args.flavor));
    let mut options = SimOptions::from_table(&table).map_err(|e| Failure::Usage(e.to_string()))?;
    if let Some(line) = image {
        let container = Container { env: environment, root: "/".into(), shm: image::shared_memory("/".as_ref()) };
        match image::read(options, &line, &container) {
            Ok(read) => options = read,
            Err(refusal) => {
                refusal.lines.iter().for_each(|line| output.note(line));
                return Ok(refusal.exit_code);
            }
        }
    }
    serve(options, &output)
}

fn serve(options: SimOptions, output: &Output) -> Result<u8, Failure> {
    let shown = format!("{} as {}", options.flavor, options.model);
    let mut server = sim::start(options).map_err(|e| Failure::Environment(e.to_string()))?;
    match output.json {
        true => output.json(&json!({ "url": server.url() })),
        false => output.text(&server.url()),
    }
    output.note(&format!("simulating {shown}; Ctrl-C ends it"));
    crate::host::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Environment(format!("cannot start the runtime: {e}")))?;
    let log = server.take_log();
    let mut status = server.watch();
    let output = *output;
    let telling = async move {
        let Some(mut log) = log else { return };
        while let Some(line) = log.recv().await {
            output.note(&line);
        }
    };
    runtime.block_on(async {
        let telling = tokio::spawn(telling);
        tokio::select! {
            _ = terminated() => {}
            _ = status.wait_for(sim::Status::is_end) => {}
        }
        // It stops at once, and with it the log ends: its last lines tell why.
        server.stop();
        let _ = telling.await;
    });
    let crashed = server.crashed();
    match crashed {
        // As a real engine's process would end.
        Some(cause) => {
            output.note(&cause);
            Ok(1)
        }
        None => Ok(0),
    }
}
/// The environment, as far as it is text.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// `--itl 10ms --no-done --speed=10` as the table of a template.
pub(super) fn flags(words: &[String]) -> Result<Table, Failure> {
    let mut table = Table::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else {
            return Err(Failure::Usage(format!("sim: `{word}` is not an option; write --name value")));
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (name, None),
        };
        let key = name.replace('-', "_");
        let switch = OPTIONS.iter().any(|o| o.name == key && matches!(o.example, "true" | "false"));
        let is_value = |w: &&String| !w.starts_with("--") && (!switch || matches!(w.as_str(), "true" | "false"));
        let text = inline.or_else(|| words.next_if(is_value).cloned());
        let text = match text {
            Some(text) => text,
            None if switch => "true".into(),
            None => return Err(Failure::Usage(format!("sim: --{name} needs a value"))),
        };
        let quoted = OPTIONS.iter().any(|o| o.name == key && o.example.starts_with('"'));
        let value = if quoted { Value::str(&text) } else { scalar(&text) };
        table.insert(key.into(), value);
    }
    Ok(table)
}

fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => {
            let integer = text.parse().ok().map(Value::Int);
            integer.or_else(|| text.parse().ok().and_then(Value::number)).unwrap_or_else(|| Value::str(text))
        }
    }
}

/// The options as they stand in `--help`.
pub fn options_help() -> String {
    let width = OPTIONS.iter().map(|o| o.name.len()).max().unwrap_or(0) + 2;
    let mut out = String::from(
        "Simulator options (the same names in a template's [sim] table and in engine_args of method sim):\n",
    );
    for o in OPTIONS.iter().filter(|o| o.name != "flavor") {
        out.push_str(&format!("  --{:<width$} {}\n", o.name.replace('_', "-"), o.doc));
    }
    out.push_str("\nExamples:\n  llmatrix sim --flavor hf-vllm --port 8000\n  llmatrix sim --flavor hf-trtllm --port 8000 --ttft 50ms --itl 10ms\n  llmatrix sim --flavor triton-python --fail-rate 0.1\n  llmatrix sim --flavor hf-vllm --as-image Qwen/Qwen3-8B --host 127.0.0.1 --max-model-len 8192\n");
    out
}
