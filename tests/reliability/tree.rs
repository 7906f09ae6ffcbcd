//! A directory with an experiment, the binary in it, and what has to hold of its artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// An experiment in a directory of its own.
pub struct Bench {
    dir: tempfile::TempDir,
    units: usize,
    repeats: usize,
}

/// A committed sample: its record and its files as they are on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    pub record: Value,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// By unit id and number.
pub type Samples = BTreeMap<(String, u64), Committed>;

impl Bench {
    /// `seeds` units on each of two simulated stacks, `repeats` samples each. `pace` is the time to a first token in
    /// microseconds: what a sample of four requests takes is a multiple of it.
    pub fn new(seeds: usize, repeats: usize, pace: u64, policy: &str) -> Bench {
        let list = (1..=seeds).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "name = \"sweep\"\n[defaults]\nrequests = 4\nwarmup = 0\nconcurrency = 1\nengine_args = {{ ttft = \"{pace}us\", itl = \
             \"100us\" }}\n[[matrix]]\nmodel = \"org/tiny-1B\"\nmethod = \"sim\"\nengine = [\"vllm\", \"trtllm\"]\n\
             tokens = {{ input = 8, output = 4 }}\nseed = [{list}]\n[run]\nrepeats = {repeats}\n{policy}\n"
        );
        let dir = tempfile::Builder::new().prefix("llmatrix-reliability-").tempdir().expect("a directory");
        fs::create_dir(dir.path().join("home")).expect("a directory");
        fs::write(dir.path().join("e.toml"), text).expect("the experiment is written");
        Bench { dir, units: 2 * seeds, repeats }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn artifacts(&self) -> PathBuf {
        self.path().join("artifacts")
    }

    /// The binary in this directory with nothing of the caller's environment, and without a container engine.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmatrix"));
        command.args(args).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path().join("home")).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    }

    pub fn run(&self) -> Command {
        let artifacts = self.artifacts();
        let mut command = self.command(&["run", "e.toml", "--artifacts", artifacts.to_str().expect("a plain path")]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self) -> Child {
        self.run().stderr(Stdio::null()).spawn().expect("the binary starts")
    }

    /// Runs to the end and says what it said.
    pub fn complete(&self) -> String {
        let output = self.run().output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }

    pub fn samples(&self) -> Samples {
        samples(&self.artifacts())
    }

    /// Whether every unit has its samples.
    pub fn is_complete(&self) -> bool {
        valid(&self.samples()) == self.units * self.repeats
    }

    /// Everything is there exactly once, and nothing else is.
    pub fn assert_whole(&self) {
        let samples = self.samples();
        assert_eq!(valid(&samples), self.units * self.repeats, "valid samples");
        // What the host disturbed is kept beside it, and is the only thing that may be.
        for (key, sample) in samples.iter().filter(|(_, s)| s.record["valid"] != true) {
            let reason = sample.record["invalid_reason"].as_str().unwrap_or_default();
            assert!(reason.starts_with("the client was the bottleneck"), "{key:?}: {reason}");
        }
        assert_tree(&self.artifacts());
        assert_eq!(processes_in(self.path()), Vec::<String>::new(), "children are left");
    }
}

fn valid(samples: &Samples) -> usize {
    samples.values().filter(|s| s.record["valid"] == true).count()
}

/// Every committed sample below a directory of artifacts.
pub fn samples(artifacts: &Path) -> Samples {
    let mut out = Samples::new();
    for path in files(artifacts).into_iter().filter(|p| p.ends_with("result.json")) {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let result: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()));
        for record in result["samples"].as_array().expect("samples") {
            let number = record["sample"].as_u64().expect("a number");
            let dir = path.with_file_name(format!("sample-{number}"));
            let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            let mut files = BTreeMap::new();
            for entry in entries {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                // It is taken away right after the record is written.
                if name != ".uncommitted" {
                    files.insert(name, fs::read(&path).expect("the file is read"));
                }
            }
            let unit = result["unit_id"].as_str().expect("an id").to_string();
            out.insert((unit, number), Committed { record: record.clone(), files });
        }
    }
    out
}

/// Fails unless everything of `before` is in `now` as it was.
#[track_caller]
pub fn assert_kept(before: &Samples, now: &Samples) {
    for (key, sample) in before {
        assert_eq!(now.get(key), Some(sample), "the committed sample {key:?} was lost or changed");
    }
}

/// What holds of any tree that the last run has left in good order: a row for every sample and failure, an end for every run,
/// nothing half-written, nothing set aside.
#[track_caller]
pub fn assert_tree(artifacts: &Path) {
    let mut rows = BTreeSet::new();
    for path in files(artifacts).into_iter().filter(|p| name(p).starts_with("benchmark_")) {
        let mut reader = csv::Reader::from_path(&path).expect("a results file");
        for row in reader.deserialize::<BTreeMap<String, String>>() {
            let row = row.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let key = (row["unit_id"].clone(), row["sample"].clone(), row["attempt"].clone(), row["run"].clone());
            assert!(rows.insert(key.clone()), "{key:?} has two rows");
        }
    }
    let mut expected = BTreeSet::new();
    for path in files(artifacts).into_iter().filter(|p| p.ends_with("result.json")) {
        let result: Value = serde_json::from_slice(&fs::read(&path).expect("a result")).expect("JSON");
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
        for entry in ["samples", "attempts"].iter().flat_map(|k| result[k].as_array().expect("a list")) {
            let key = (text(&result["unit_id"]), text(&entry["sample"]), text(&entry["attempt"]), text(&entry["run"]));
            expected.insert(key);
        }
    }
    assert_eq!(rows, expected, "results files and units differ");
    let left: Vec<PathBuf> = everything(artifacts)
        .into_iter()
        .filter(|p| name(p).starts_with(".tmp-") || name(p).starts_with("damaged-") || name(p) == ".uncommitted")
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "left over");
    let locks =
        fs::read_dir(artifacts.join(".locks")).into_iter().flatten().map(|e| name(&e.expect("an entry").path()));
    assert_eq!(locks.filter(|l| l.starts_with("run-")).collect::<Vec<_>>(), Vec::<String>::new(), "locks of runs");
    for run in fs::read_dir(artifacts.join("runs")).into_iter().flatten() {
        let plan = run.expect("an entry").path().join("plan.json");
        let plan: Value = serde_json::from_slice(&fs::read(&plan).expect("a plan")).expect("JSON");
        assert!(plan["finished_at"].is_string(), "{} has no end", plan["run"]);
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    everything(dir).into_iter().filter(|p| !p.is_dir()).collect()
}

fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Command lines of processes whose working directory is inside `dir`.
fn processes_in(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().expect("the directory is there");
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        // One that ends meanwhile, or is somebody else's, cannot be looked at.
        if fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)) {
            out.push(fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " "));
        }
    }
    out
}
