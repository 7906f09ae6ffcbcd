//! Drives the binary as a user does: a directory of its own, an environment of its own, real processes.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;

pub mod canonical;
pub mod rendering;
pub mod server;

/// The columns of the results, in order: other people's scripts depend on their names.
pub const COLUMNS: &str = include_str!("columns.txt");

/// Options of the simulated engine that make a request take about a millisecond.
pub const FAST: &str = r#"engine_args = { ttft = "300us", itl = "20us" }"#;

/// A directory in which the binary runs, removed at the end.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

impl Default for Sandbox {
    fn default() -> Self {
        Sandbox::new()
    }
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let sandbox =
            Sandbox { dir: tempfile::Builder::new().prefix("llmatrix-test-").tempdir().expect("a directory") };
        sandbox.mkdir(".home");
        sandbox
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub fn mkdir(&self, relative: &str) {
        fs::create_dir_all(self.path(relative)).expect("a directory");
    }

    /// Writes a file and the directories above it.
    pub fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("below the sandbox")).expect("a directory");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{relative}: {e}"));
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub fn exists(&self, relative: &str) -> bool {
        self.path(relative).exists()
    }

    /// The binary in this directory, with nothing of the caller's environment but `PATH`, and with no container engine.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmatrix"));
        command.args(args).current_dir(self.root()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path(".home")).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command.env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs `llmatrix` with words that are separated by spaces.
    pub fn run(&self, line: &str) -> Done {
        self.run_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn run_args(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args), &args.join(" "))
    }

    /// `plan --json` of one experiment, and its exit code is 0.
    pub fn plan(&self, line: &str) -> Plan {
        Plan(self.run(&format!("plan --json {line}")).success().json())
    }

    /// Relative paths of all files below a directory; the locks, which nobody reads, are left out.
    pub fn tree(&self, relative: &str) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        walk(&self.path(relative), "", &mut out);
        out
    }

    /// Every `result.json` below a directory: path → bytes.
    pub fn results(&self, relative: &str) -> BTreeMap<String, Vec<u8>> {
        let files = self.tree(relative).into_iter().filter(|f| f.ends_with("/result.json"));
        files.map(|f| (f.clone(), fs::read(self.path(relative).join(&f)).expect("it was listed"))).collect()
    }

    /// Unit id → numbers of its valid samples, over all units below a directory of artifacts.
    pub fn samples(&self, artifacts: &str) -> BTreeMap<String, Vec<u64>> {
        let read = |bytes: Vec<u8>| -> Json { serde_json::from_slice(&bytes).expect("result.json is JSON") };
        let results = self.results(artifacts).into_values().map(read);
        results
            .map(|r| {
                let samples = r["samples"].as_array().expect("samples").iter().filter(|s| s["valid"] == true);
                let numbers = samples.map(|s| s["sample"].as_u64().expect("a number")).collect();
                (r["unit_id"].as_str().expect("an id").to_string(), numbers)
            })
            .collect()
    }

    /// Names of the directories in `runs/`, oldest first.
    pub fn runs(&self, artifacts: &str) -> Vec<String> {
        let dir = self.path(artifacts).join("runs");
        let mut names: Vec<String> = fs::read_dir(dir)
            .map(|d| d.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

fn walk(dir: &Path, prefix: &str, out: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if name == ".locks" {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type().expect("a type").is_dir() {
            walk(&entry.path(), &format!("{path}/"), out);
        } else {
            out.insert(path);
        }
    }
}

/// Waits for a process and takes its output.
pub fn finish(command: &mut Command, what: &str) -> Done {
    let output = command.output().unwrap_or_else(|e| panic!("{what}: {e}"));
    Done {
        what: what.to_string(),
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Done {
    pub what: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn success(self) -> Done {
        self.exit(0)
    }

    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn exit(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "llmatrix {}\n{}\n{}", self.what, self.stdout, self.stderr);
        self
    }

    /// Fails unless stderr contains each of these.
    #[track_caller]
    pub fn says(self, all: &[&str]) -> Done {
        for text in all {
            assert!(self.stderr.contains(text), "llmatrix {}: `{text}` is not in\n{}", self.what, self.stderr);
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.what, self.stdout))
    }

    #[track_caller]
    pub fn json_lines(&self) -> Vec<Json> {
        let line = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("{}: {e}\n{l}", self.what));
        self.stdout.lines().map(line).collect()
    }
}

/// What `plan --json` printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan(pub Json);

impl Plan {
    pub fn units(&self) -> &[Json] {
        self.0["units"].as_array().expect("units")
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.units().iter().map(|u| text(&u["unit_id"])).collect()
    }

    pub fn deploy_ids(&self) -> BTreeSet<String> {
        self.0["deployments"].as_array().expect("deployments").iter().map(|d| text(&d["deploy_id"])).collect()
    }

    /// Units of a status.
    pub fn with(&self, status: &str) -> Vec<&Json> {
        self.units().iter().filter(|u| u["status"] == status).collect()
    }

    /// Status → how many units have it.
    pub fn statuses(&self) -> BTreeMap<String, usize> {
        let mut out = BTreeMap::new();
        self.units().iter().for_each(|u| *out.entry(text(&u["status"])).or_default() += 1);
        out
    }

    /// Fails unless every unit has this status.
    #[track_caller]
    pub fn all(&self, status: &str, context: &str) {
        assert!(!self.units().is_empty(), "{context}: no unit");
        let others: Vec<_> = self.units().iter().filter(|u| u["status"] != status).collect();
        assert!(others.is_empty(), "{context}: not {status}: {others:#?}");
    }
}

/// Fields that a unit's reasons name.
pub fn fields(unit: &Json) -> BTreeSet<String> {
    unit["reasons"].as_array().expect("reasons").iter().map(|r| text(&r["field"])).collect()
}

#[track_caller]
pub fn text(value: &Json) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text")).to_string()
}

/// The rows of a CSV file as column → value.
pub fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    reader.deserialize().map(|row| row.unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// Names of the columns, in order.
pub fn columns() -> Vec<&'static str> {
    COLUMNS.split_whitespace().collect()
}
