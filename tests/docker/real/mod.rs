//! Real engines: vLLM on a CPU and Triton's Python backend, in images that `tests/images/real-*.sh` make, with a tiny
//! model of random weights. They run where `LLMATRIX_REAL` asks for them (`1`, or names of engines); where it does not,
//! that is said loudly.

mod triton;
mod vllm;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::workspace::{Done, Workspace, docker, finish, wait_within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A real engine, and what its example measures.
struct Real {
    /// As in `LLMATRIX_REAL` and in the names of scripts and examples.
    name: &'static str,
    made: OnceLock<()>,
}

static VLLM: Real = Real { name: "vllm", made: OnceLock::new() };
static TRITON: Real = Real { name: "triton", made: OnceLock::new() };

impl Real {
    fn asked(&self) -> bool {
        let asked = std::env::var("LLMATRIX_REAL").unwrap_or_default();
        match asked.as_str() {
            "" | "0" => false,
            "1" => true,
            names => names.split(',').any(|name| {
                assert!(["vllm", "triton"].contains(&name), "LLMATRIX_REAL={asked}: 1, or of vllm,triton");
                name == self.name
            }),
        }
    }

    /// A workspace in which the engine can be run; `None` where it is not asked for, which is said.
    fn workspace(&self, test: &str) -> Option<Workspace> {
        if !self.asked() {
            // Around the test harness, which would swallow it.
            let mut err = std::io::stderr().lock();
            let Real { name, .. } = self;
            writeln!(err, "\n!!! {test} DID NOT RUN: the real {name} runs with LLMATRIX_REAL={name} or =1 !!!\n")
                .unwrap();
            return None;
        }
        let w = Workspace::new(test)?;
        // What the script says is its progress, for whoever watches.
        self.made.get_or_init(|| {
            let script = format!("{ROOT}/tests/images/real-{}.sh", self.name);
            let done = Command::new(&script).arg(cache()).status().unwrap_or_else(|e| panic!("{script}: {e}"));
            assert!(done.success(), "{script} failed; what it said stands above");
        });
        Some(w)
    }

    /// The example that comes with the project, under this workspace's name, with a change to its text.
    fn example(&self, w: &Workspace, change: impl Fn(String) -> String) -> PathBuf {
        let path = format!("{ROOT}/experiments/real-{}.toml", self.name);
        let text = fs::read_to_string(&path).unwrap();
        let own = text
            .replace(&format!("name = \"real-{}\"", self.name), &format!("name = \"{}\"", w.name))
            .replace("../target/real/tiny-llama", model().to_str().unwrap());
        assert!(own.contains(&w.name) && own.contains(model().to_str().unwrap()), "{own}");
        w.write(&change(own))
    }

    /// One cell of the example, with more settings of the experiment's own syntax.
    fn one_cell(&self, w: &Workspace, only: &str, set: &[&str]) -> Done {
        let file = self.example(w, |text| text);
        let mut args = vec!["run", "--json", "--attempts", "1", "--only", only];
        for set in set {
            args.extend(["--set", set]);
        }
        args.push(file.to_str().unwrap());
        w.run(&args)
    }
}

/// Where the scripts keep what they make.
fn cache() -> PathBuf {
    std::env::var_os("LLMATRIX_REAL_CACHE").map_or_else(|| Path::new(ROOT).join("target/real"), PathBuf::from)
}

fn model() -> PathBuf {
    cache().join("tiny-llama")
}

/// A setting by which somebody else is on the port when the server starts; `server` is what the image would run.
fn taken_port(server: &str) -> String {
    let reached = "python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8000))\" 2>/dev/null";
    let script =
        format!("python3 -m http.server 8000 >/dev/null 2>&1 & until {reached}; do :; done; exec {server} \"$@\"");
    format!("container.entrypoint={}", serde_json::to_string(&["sh", "-c", &script, "sh"]).unwrap())
}

/// The model without its weights.
fn without_weights(w: &Workspace) -> PathBuf {
    let half = w.path().join("half");
    fs::create_dir(&half).unwrap();
    for entry in fs::read_dir(model()).unwrap().map(Result::unwrap) {
        if entry.file_name() != "model.safetensors" {
            fs::copy(entry.path(), half.join(entry.file_name())).unwrap();
        }
    }
    half
}

/// The rows of all samples that a workspace has measured.
fn rows(w: &Workspace) -> Vec<Value> {
    w.run(&["report", "--json", "--samples"]).expect(0).json()
}

/// What a row's column holds.
fn number(row: &Value, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} in {row}"))
}

/// Asserts that two figures of every cell agree: ours is within a share of the server's own, or within so many
/// milliseconds, by the number of streams, where that is more. A machine of two cores, which engine and client share, has its moments: the middle of
/// a cell's samples counts.
fn assert_agree(rows: &[Value], ours: &str, theirs: &str, share: f64, at_least_ms: impl Fn(f64) -> f64) {
    let mut cells: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
    let mut table = String::new();
    for row in rows {
        let (a, b) = (number(row, ours), number(row, theirs));
        let cell = format!("{} {} {:>2} streams", row["engine"], row["api"], row["concurrency"]);
        table += &format!("{cell}: {ours} {a:.3}, {theirs} {b:.3}\n");
        cells.entry(cell).or_default().push((a - b).abs() / (share * b).max(at_least_ms(number(row, "concurrency"))));
    }
    println!("{table}");
    for (cell, mut off) in cells {
        off.sort_by(f64::total_cmp);
        let middle = off[off.len() / 2];
        assert!(middle <= 1.0, "{cell}: off by {middle:.2} of what is allowed\n{table}");
    }
}

/// Asserts that the only start failed, as what, and saying what.
fn assert_start_fails(done: Done, class: &str, says: &[&str]) {
    let done = done.expect(5);
    let failed = done.event("deployment_failed");
    assert_eq!(failed["class"], class, "{failed}");
    let cause = failed["cause"].as_str().unwrap();
    for part in says {
        // A sentence of its own where an engine ended, the end of one where it only cannot become ready.
        assert!(
            cause.to_lowercase().contains(&part.to_lowercase()),
            "`{part}` is not in: {cause}\n{}",
            failed["log_tail"].as_str().unwrap_or("")
        );
    }
}

/// Kills an engine in the middle of a measurement, and asserts what is said of it.
fn assert_killed_while_measured(real: &Real, w: &Workspace, only: &str, container: &str) {
    let file = real.example(w, |text| text);
    let file = file.to_str().unwrap();
    let args = ["run", "--json", "--attempts", "1", "--only", only, "--set", "requests=100000", file];
    let child = w.command(&args).spawn().unwrap();
    wait_within(Duration::from_secs(300), "a sample is begun", || {
        let runs = fs::read_dir(w.path().join("artifacts/runs")).into_iter().flatten().flatten();
        let journals = runs.filter_map(|run| fs::read_to_string(run.path().join("journal.jsonl")).ok());
        journals.into_iter().any(|text| text.contains("\"sample_started\""))
    });
    docker(&["kill", container]);
    let done = finish(child).expect(5);
    let failed = done.event("attempt_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&"measure".into(), &"infrastructure".into()), "{failed}");
    assert!(failed["cause"].as_str().unwrap().contains("exit code 137 (SIGKILL)"), "{failed}");
    w.assert_clean();
}
