//! A directory with an experiment in it, and what a test asks of the program and of the container engine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::image;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A test's own directory, names and turn.
pub struct Workspace {
    pub dir: tempfile::TempDir,
    /// Unique among all tests of this host.
    pub name: String,
    _turn: MutexGuard<'static, ()>,
}

/// What a command did.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    /// `None` where there is no container engine, which is said.
    pub fn new(name: &str) -> Option<Workspace> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
        let mut version = Command::new("docker");
        version.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        if !version.status().is_ok_and(|s| s.success()) {
            assert!(std::env::var_os("CI").is_none(), "no container engine answers, and CI must have one");
            // Around the test harness, which would swallow it.
            let mut err = std::io::stderr().lock();
            writeln!(err, "\n!!! {name} DID NOT RUN: no container engine answers (`docker version`) !!!\n").unwrap();
            return None;
        }
        let name = format!("{name}-{}", std::process::id());
        Some(Workspace { dir: tempfile::tempdir().unwrap(), name, _turn: turn })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The model of this workspace's cells.
    pub fn model(&self) -> String {
        format!("org/{}-1B", self.name)
    }

    /// The conventional name of a stack's container here.
    pub fn container(&self, method: &str, engine: &str) -> String {
        format!("org--{}-1B-{method}-{engine}", self.name)
    }

    /// Writes an experiment of one `hf` × `vllm` cell whose image behaves as these options of the simulator say. What
    /// goes wrong is to be told when it does: the time limit is one that no test waits for.
    pub fn one_cell(&self, simulator: &[&str], extra: &str) -> PathBuf {
        self.one_cell_of("hf", "vllm", simulator, extra)
    }

    /// The same for another stack.
    pub fn one_cell_of(&self, method: &str, engine: &str, simulator: &[&str], extra: &str) -> PathBuf {
        let behaviour = match simulator {
            [] => String::new(),
            words => format!("env.LLMATRIX_SIM = \"{}\"\n", words.join(" ")),
        };
        let text = format!(
            "name = \"{name}\"\n[defaults]\nmodel = \"{model}\"\nmethod = \"{method}\"\nengine = \"{engine}\"\n\
             gpus = 0\nimage = \"{image}\"\n{behaviour}[[matrix]]\ntokens = {{ input = 16, output = 8 }}\n\
             concurrency = 2\nrequests = 10\n[run]\nready_timeout = \"10m\"\nattempts = 1\n{extra}",
            name = self.name,
            model = self.model(),
            image = image::of(method, engine),
        );
        self.write(&text)
    }

    pub fn write(&self, text: &str) -> PathBuf {
        let path = self.path().join(format!("{}.toml", self.name));
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(image::BINARY);
        command.current_dir(self.path()).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The settings and logins of whoever runs the tests are not part of them.
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("LLMATRIX_")) {
            command.env_remove(name);
        }
        command.env_remove("HF_TOKEN").env_remove("NGC_API_KEY").env("XDG_CONFIG_HOME", self.path());
        command.env("DOCKER_CONFIG", self.path());
        // Models of tests are on no hub, and engines are not told of one on the loopback: they find what they look for.
        command.env_remove("HF_HOME").env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", "http://127.0.0.1:1");
        fs::create_dir_all(self.path().join("tmp")).unwrap();
        command.env("TMPDIR", self.path().join("tmp"));
        command
    }

    /// Replaces the experiment's image.
    pub fn with_image(&self, file: &Path, image: &str) {
        let text = fs::read_to_string(file).unwrap().replace(&image::of("hf", "vllm"), image);
        fs::write(file, text).unwrap();
    }

    pub fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args).spawn().unwrap())
    }

    /// Names of all containers, dead or alive, that carry this workspace's experiment.
    pub fn containers(&self) -> Vec<String> {
        let label = format!("label=llmatrix.experiment={}", self.name);
        let text = docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]);
        text.lines().map(str::to_string).collect()
    }

    /// Asserts that no container, no scratch directory and no temporary file is left.
    pub fn assert_clean(&self) {
        assert_eq!(self.containers(), Vec::<String>::new());
        for (what, place) in [("scratch directories", ".cache/scratch"), ("temporary files", "tmp")] {
            let entries = fs::read_dir(self.path().join(place)).into_iter().flatten();
            let left: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
            assert_eq!(left, Vec::<PathBuf>::new(), "{what} are left");
        }
    }
}

pub fn finish(child: Child) -> Done {
    let output = child.wait_with_output().unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Done {
    pub fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The events of a run, or the single value of any other command.
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    /// The first event of a kind.
    pub fn event(&self, kind: &str) -> Value {
        let events = self.json();
        let found = events.iter().find(|e| e["event"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in\n{}\n{}", self.stdout, self.stderr)).clone()
    }
}

/// Runs `docker` and gives what it printed.
pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until something holds, for a minute.
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(60), what, holds);
}

pub fn wait_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A container that is not ours; removed at the end of the test.
pub struct Stranger(pub String);

impl Stranger {
    pub fn create(name: &str) -> Stranger {
        docker(&["create", "--name", name, image::base(), "/bin/llmatrix", "--version"]);
        Stranger(name.to_string())
    }

    pub fn is_there(&self) -> bool {
        docker(&["ps", "-a", "--format", "{{.Names}}"]).lines().any(|n| n == self.0)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}
