//! Runs that are killed, and runs side by side: the binary against one artifacts directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const EXPERIMENT: &str = r#"
name = "killed"
[defaults]
requests = 20
engine_args.speed = 20
[[matrix]]
model = "org/tiny-1B"
method = "sim"
engine = ["vllm", "sglang"]
tokens = { input = 32, output = 8 }
concurrency = [1, 2, 4]
[run]
repeats = 4
"#;
const UNITS: usize = 6;
const REPEATS: u64 = 4;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("e.toml"), EXPERIMENT).unwrap();
        Bench(dir)
    }

    fn run(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_llmatrix"))
            .args(["run", "e.toml", "--quiet"])
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn artifacts(&self) -> PathBuf {
        self.0.path().join("artifacts")
    }

    /// Every committed sample, as it stands in its file.
    fn committed(&self) -> BTreeMap<(String, u64), Value> {
        let mut samples = BTreeMap::new();
        for path in files(&self.artifacts()).filter(|p| p.ends_with("result.json")) {
            let result: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for sample in result["samples"].as_array().unwrap() {
                let unit = result["unit_id"].as_str().unwrap().to_string();
                samples.insert((unit, sample["sample"].as_u64().unwrap()), sample.clone());
            }
        }
        samples
    }

    /// Unit and sample of every results row; each is there once.
    fn rows(&self) -> BTreeSet<(String, u64)> {
        let mut rows = BTreeSet::new();
        for path in files(&self.artifacts().join("")).filter(|p| is_results(p)) {
            let mut reader = csv::Reader::from_path(&path).unwrap();
            for row in reader.deserialize::<BTreeMap<String, String>>() {
                let row = row.unwrap();
                assert_eq!(row["status"], "measured");
                assert!(
                    rows.insert((row["unit_id"].clone(), row["sample"].parse().unwrap())),
                    "{row:?} is there twice"
                );
            }
        }
        rows
    }

    /// The tree is whole: every unit has its samples, every sample its row, every run its end, and nothing is left over.
    fn assert_whole(&self) {
        let committed = self.committed();
        assert_eq!(committed.len() as u64, UNITS as u64 * REPEATS);
        assert!(committed.keys().all(|(_, n)| (1..=REPEATS).contains(n)), "numbers have no gaps");
        assert_eq!(self.rows(), committed.into_keys().collect());
        let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
        let leftovers: Vec<PathBuf> = files(&self.artifacts())
            .filter(|p| p.components().any(|c| c.as_os_str().to_string_lossy().starts_with(".tmp-")))
            .collect();
        assert_eq!(leftovers, Vec::<PathBuf>::new());
        let locks: Vec<String> =
            fs::read_dir(self.artifacts().join(".locks")).unwrap().map(|e| name(&e.unwrap().path())).collect();
        assert!(locks.iter().all(|l| !l.starts_with("run-")), "{locks:?}");
        for plan in files(&self.artifacts()).filter(|p| p.ends_with("plan.json")) {
            let plan: Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
            assert!(plan["finished_at"].is_string(), "{} has no end", plan["run"]);
        }
    }
}

fn is_results(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("benchmark_"))
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.into_iter()
}

#[test]
fn a_kill_at_any_instant_loses_no_committed_sample() {
    let bench = Bench::new();
    let mut committed = BTreeMap::new();
    // Instants spread over a run by the golden ratio: some in its start, some in a sample, some in a commit.
    for i in 0..25u32 {
        let mut run = bench.run();
        std::thread::sleep(Duration::from_millis(20 + u64::from(i * 618 % 250)));
        run.kill().unwrap();
        run.wait().unwrap();
        let now = bench.committed();
        for (key, sample) in &committed {
            assert_eq!(now.get(key), Some(sample), "a committed sample is immutable");
        }
        committed = now;
    }
    assert!(bench.run().wait().unwrap().success());
    let now = bench.committed();
    assert!(committed.iter().all(|(key, sample)| now.get(key) == Some(sample)));
    bench.assert_whole();
}

#[test]
fn runs_side_by_side_share_the_work() {
    let bench = Bench::new();
    let mut runs: Vec<Child> = (0..3).map(|_| bench.run()).collect();
    for run in &mut runs {
        assert!(run.wait().unwrap().success());
    }
    bench.assert_whole();
}
