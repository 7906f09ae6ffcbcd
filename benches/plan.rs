//! Planning at scale, through the binary as a user calls it: a 100,000-cell experiment, and experiments against 10,000
//! existing results. `cargo bench --bench plan` prints a Markdown table; each figure is the median of five runs. In the
//! same run the floor is taken: what it costs to read as many files of the same size.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use llmatrix::diag::SourceText;
use llmatrix::digest::Digest;
use llmatrix::exec::UnitWork;
use llmatrix::plan::Plan;
use llmatrix::plan::build::{PlanRequest, build};
use llmatrix::plan::identity::Contents;
use llmatrix::plan::lock::Lock;
use llmatrix::spec::read::read;
use llmatrix::spec::types::Vocabulary;
use llmatrix::store::Store;
use llmatrix::template::Templates;

const BINARY: &str = env!("CARGO_BIN_EXE_llmatrix");
const RUNS: usize = 5;

fn main() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path();
    let big = experiment(dir, "big.toml", 20, 32768);
    let same = experiment(dir, "same.toml", 2, 32768);
    let changed = experiment(dir, "changed.toml", 2, 65536);
    let results = dir.join("results");
    let stored = fill(&same, dir, &results);
    let none = dir.join("none");
    println!("| case | wall s | CPU s | peak MiB |\n|---|---|---|---|");
    row("`plan`, 100,000 cells, no results", &[&big], &none, &[]);
    row("`plan --json`, 100,000 cells, no results", &[&big], &none, &["--json"]);
    row("`plan`, 10,000 cells, 10,000 results, all cached", &[&same], &results, &[]);
    row("`plan`, 10,000 cells, 10,000 results, all changed", &[&changed], &results, &[]);
    row("`plan`, 100,000 cells, 10,000 results, a tenth cached", &[&big], &results, &[]);
    row("`plan`, a 1-cell experiment (start-up)", &[&experiment(dir, "one.toml", 0, 1024)], &none, &[]);
    println!(
        "| floor: reading the {} files of 10,000 results, one thread | {:.2} | | |",
        stored.len(),
        floor(&stored).as_secs_f64()
    );
}

/// 10 models × 2 engines × 5 batch sizes × 50 lengths × `loads` cells; one cell for 0 loads.
fn experiment(dir: &Path, name: &str, loads: usize, max_model_len: usize) -> PathBuf {
    let small = loads == 0;
    let list = |n: usize, item: &dyn Fn(usize) -> String| {
        (0..if small { 1 } else { n }).map(item).collect::<Vec<_>>().join(", ")
    };
    let text = format!(
        "name = \"bench\"\n[defaults]\nrequests = \"{{{{ 10 * concurrency }}}}\"\nmax_model_len = {max_model_len}\n\
         [[matrix]]\nmethod = \"hf\"\nhardware = \"h100-sxm-80gb\"\nengine = [{}]\nmodel = [{}]\n\
         max_num_seqs = [{}]\ntokens = [{}]\nconcurrency = [{}]\n",
        list(2, &|i| format!("\"{}\"", ["vllm", "sglang"][i])),
        list(10, &|i| format!("\"org/model-{i}\"")),
        list(5, &|i| (64usize << i).to_string()),
        list(50, &|i| format!("{{ input = {}, output = {} }}", 64 + i * 37, 10 + i)),
        list(loads, &|i| (i + 1).to_string()),
    );
    let path = dir.join(name);
    fs::write(&path, text).expect("the experiment can be written");
    path
}

struct NoFiles;

impl Contents for NoFiles {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        Err(format!("{path}: this experiment has no files"))
    }
}

fn plan(path: &Path) -> Plan {
    let text = fs::read_to_string(path).expect("the experiment can be read");
    let source = Arc::new(SourceText { name: "bench".into(), text });
    let words = Vocabulary { methods: vec!["hf".into()], engines: vec!["vllm".into(), "sglang".into()] };
    let spec = read(&source, "bench", &words).expect("the experiment is valid");
    let templates = Templates::new(Vec::new());
    let request = PlanRequest {
        spec: &spec,
        words: &words,
        templates: &templates,
        lock: &Lock::new(),
        contents: &NoFiles,
        detected_hardware: "cpu",
        set: &[],
        only: &[],
        settings: &[],
        simulate: false,
        sim_version: 1,
    };
    build(&request).expect("the experiment can be planned")
}

/// Writes a result for every unit of the experiment: its own `unit.json`, and a `result.json` with the samples of a real
/// measurement under its ids. Gives the files.
fn fill(experiment: &Path, dir: &Path, results: &Path) -> Vec<PathBuf> {
    let sample = dir.join("sample");
    let measured = Command::new(BINARY)
        .args(["one", "sim", "vllm", "--requests", "8", "--set", "engine_args.speed=1000", "--quiet", "--artifacts"])
        .arg(&sample)
        .stdout(Stdio::null())
        .status();
    assert!(measured.is_ok_and(|s| s.success()), "a sample can be measured");
    let store = Store::open(&sample, false);
    let stack = store.stacks().pop().expect("the sample has a stack");
    let unit = fs::read_dir(store.stack_dir(&stack).join("units")).expect("it has units").next().expect("one");
    let text = fs::read(unit.expect("it is readable").path().join("result.json")).expect("it has a result");
    let mut result: serde_json::Value = serde_json::from_slice(&text).expect("the result is JSON");
    let plan = plan(experiment);
    let store = Store::open(results, false);
    let mut files = Vec::new();
    for unit in &plan.units {
        let record = UnitWork::new(&plan, unit, Timestamp::UNIX_EPOCH, dir).record;
        let dir = store.unit_dir(&plan.deployments[unit.deployment].directory, &unit.id);
        fs::create_dir_all(&dir).expect("a unit directory can be made");
        result["unit_id"] = unit.id.to_string().into();
        result["deploy_id"] = plan.deployments[unit.deployment].id.to_string().into();
        for (name, json) in [("unit.json", serde_json::to_vec(&record)), ("result.json", serde_json::to_vec(&result))] {
            files.push(dir.join(name));
            fs::write(dir.join(name), json.expect("a record is JSON")).expect("a record can be written");
        }
    }
    files
}

/// One line of the table: the median run of five.
fn row(case: &str, paths: &[&PathBuf], artifacts: &Path, flags: &[&str]) {
    let mut runs: Vec<(f64, f64, f64)> = (0..RUNS).map(|_| timed(paths, artifacts, flags)).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (wall, cpu, peak) = runs[RUNS / 2];
    println!("| {case} | {wall:.2} | {cpu:.2} | {peak:.0} |");
}

/// Wall seconds, CPU seconds, peak MiB of one invocation, as the kernel counted them.
fn timed(paths: &[&PathBuf], artifacts: &Path, flags: &[&str]) -> (f64, f64, f64) {
    let watch = Instant::now();
    let mut child = Command::new(BINARY)
        .arg("plan")
        .args(paths)
        .args(flags)
        .arg("--artifacts")
        .arg(artifacts)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let pid = child.id();
    let mut peak_kib = 0.0f64;
    let status = loop {
        peak_kib = peak_kib.max(high_water(pid).unwrap_or(0.0));
        match child.try_wait().expect("the child can be waited for") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    assert!(status.success(), "plan succeeds");
    let wall = watch.elapsed().as_secs_f64();
    (wall, children_cpu(), peak_kib / 1024.0)
}

fn high_water(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// CPU seconds of the children that ended since the last call.
fn children_cpu() -> f64 {
    static BEFORE: std::sync::Mutex<f64> = std::sync::Mutex::new(0.0);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // cutime and cstime, in hundredths of a second.
    let total = (ticks(13) + ticks(14)) / 100.0;
    let mut before = BEFORE.lock().unwrap_or_else(|e| e.into_inner());
    let spent = total - *before;
    *before = total;
    spent
}

fn floor(files: &[PathBuf]) -> Duration {
    let watch = Instant::now();
    let bytes: usize = files.iter().map(|f| fs::read(f).map_or(0, |b| b.len())).sum();
    assert!(bytes > 0, "there are files");
    watch.elapsed()
}
