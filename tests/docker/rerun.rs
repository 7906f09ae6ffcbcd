//! `explain --rerun`: what it prints, put into a shell, measures again what a run measured.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::image;
use super::workspace::{Done, Workspace, docker, finish};

/// Puts a script into a shell as a person would: the program is on the path, and so are its secrets.
fn paste(w: &Workspace, script: &str, words: &[&str]) -> Done {
    let program = Path::new(image::BINARY).parent().unwrap().display().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-s", "--"]).args(words).current_dir(w.path());
    bash.env("PATH", format!("{program}:{}", std::env::var("PATH").unwrap())).env("MY_SECRET", "very_much_hidden");
    bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    finish(bash)
}

/// The only row of the last run.
fn row(w: &Workspace) -> Value {
    w.run(&["report", "--json", "--samples", "last"]).expect(0).json().remove(0)
}

fn same_measurement(method: &str, engine: &str, cell: &str) {
    let Some(w) = Workspace::new(&format!("rerun-{method}-{engine}")) else { return };
    let text = format!(
        "name = \"{name}\"\n[defaults]\nmodel = \"{model}\"\nmethod = \"{method}\"\nengine = \"{engine}\"\ngpus = 0\n\
         image = \"{image}\"\nenv.EXTRA = \"key ${{MY_SECRET}}\"\n[[matrix]]\n{cell}\n[run]\nready_timeout = \"10m\"\n",
        name = w.name,
        model = w.model(),
        image = image::of(method, engine),
    );
    let file = w.write(&text);
    let mut run = w.command(&["run", "--json", file.to_str().unwrap()]);
    run.env("MY_SECRET", "very_much_hidden");
    finish(run.spawn().unwrap()).expect(0);
    let measured = row(&w);
    let unit = measured["unit_id"].as_str().unwrap();

    let script = w.run(&["explain", unit, "--rerun"]).expect(0).stdout;
    assert!(!script.contains("very_much_hidden"), "{script}");
    let again = paste(&w, &script, &["--json"]).expect(0).json().remove(0);
    for column in [
        "n_sent",
        "n_ok",
        "input_tokens",
        "output_tokens",
        "isl_actual_mean",
        "osl_actual_mean",
        "requests",
        "concurrency",
        "request_rate",
        "api",
        "isl",
        "osl",
        "seed",
        "valid",
    ] {
        assert_eq!(again[column], measured[column], "{column}\n{script}\n{again}");
    }
    assert!(measured["n_ok"].as_u64().unwrap() > 0, "{measured}");
    assert!(again["mean_ttft_ms"].as_f64().unwrap() > 0.0, "{again}");
    let left = docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(!left.contains(&w.name), "{left}");
    w.assert_clean();

    // The plan says the same, before anything was measured.
    let told = w.run(&["explain", unit, "--rerun", "--json", file.to_str().unwrap()]).expect(0).json().remove(0);
    let commands: Vec<&str> = told["commands"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let measure =
        |text: &str| text[text.find("llmatrix measure --").unwrap()..].split("\"$@\"").next().unwrap().to_string();
    assert_eq!(measure(commands.last().unwrap()), measure(&script));
    assert!(commands.iter().any(|c| c.contains("docker run")), "{told}");
}

#[test]
fn what_a_row_tells_is_measured_again_by_hand() {
    // Lengths that scatter: only the same prompts have the same sums.
    same_measurement(
        "hf",
        "vllm",
        "tokens = { input = 64, input_stddev = 12, output = 8, output_stddev = 3 }\nconcurrency = 3\nrequests = 12\n\
         warmup = 2\nseed = 7",
    );
}

#[test]
fn a_stack_with_rendered_files_is_started_by_hand() {
    same_measurement(
        "triton",
        "vllm",
        "tokens = { input = 16, output = 8 }\nrate = 200\narrival = \"constant\"\nrequests = 20",
    );
}
