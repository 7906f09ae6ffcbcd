//! What this machine is: the facts that stand beside results, and the hardware class that is part of their identity.
//! Reads `/proc` and asks `git`; what cannot be learnt is absent, never guessed.

pub mod disk;
pub mod git;
pub mod gpu;
pub mod gpu_amd;
pub mod hardware;

use std::fs;
use std::path::Path;

/// A machine, as far as results depend on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostInfo {
    pub hostname: Option<String>,
    /// As `uname -r` prints it.
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    /// Logical CPUs that this process may use.
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// By PCI address.
    pub gpus: Vec<Gpu>,
    /// Version of the NVIDIA kernel driver.
    pub driver: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver names it, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    pub uuid: Option<String>,
}

/// Version of this program.
pub fn tool_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Commit that this program was built from, where the build said so (`LLMATRIX_COMMIT`).
pub fn tool_commit() -> Option<&'static str> {
    option_env!("LLMATRIX_COMMIT")
}

/// Looks at this machine.
pub fn detect() -> HostInfo {
    let mut host = detect_in(Path::new("/proc"));
    if host.gpus.is_empty() {
        let amd = gpu_amd::detect(Path::new(gpu_amd::TOPOLOGY)).into_iter();
        host.gpus = amd.map(|g| Gpu { name: g.name, uuid: Some(g.uuid) }).collect();
    }
    host
}

fn detect_in(proc: &Path) -> HostInfo {
    let line =
        |path: &str| Some(fs::read_to_string(proc.join(path)).ok()?.trim().to_string()).filter(|s| !s.is_empty());
    HostInfo {
        hostname: line("sys/kernel/hostname"),
        kernel: line("sys/kernel/osrelease"),
        cpu: line("cpuinfo").and_then(|text| field(&text, "model name")),
        cpus: std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()),
        memory_bytes: line("meminfo").and_then(|text| kib(&field(&text, "MemTotal")?)),
        gpus: gpus(&proc.join("driver/nvidia/gpus")),
        driver: line("driver/nvidia/version").and_then(|text| driver_version(&text)),
    }
}

impl HostInfo {
    /// In words, for people.
    pub fn gpu_statement(&self) -> String {
        match self.gpus.as_slice() {
            [] => "no GPU is visible to this process".into(),
            [gpu] => format!("1 × {}", gpu.name),
            [first, rest @ ..] if rest.iter().all(|g| g.name == first.name) => {
                format!("{} × {}", self.gpus.len(), first.name)
            }
            gpus => gpus.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Raises the limit of open files as far as this process may: every held unit and every connection is one. Returns the
/// limit that now holds; `None` is no limit.
pub fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => now.maximum,
        Err(_) => now.current,
    }
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string())
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn gpus(dir: &Path) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let texts = paths.iter().filter_map(|p| fs::read_to_string(p.join("information")).ok());
    texts.filter_map(|t| Some(Gpu { name: field(&t, "Model")?, uuid: field(&t, "GPU UUID") })).collect()
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …` → `550.54.15`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with("NVRM version"))?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_gpu_host_is_read_from_proc() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        write(proc, "sys/kernel/hostname", "node1\n");
        write(proc, "sys/kernel/osrelease", "6.8.0\n");
        write(proc, "cpuinfo", "processor\t: 0\nmodel name\t: Xeon: Gold\nmodel name\t: other\n");
        write(proc, "meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        for gpu in ["0000:02:00.0", "0000:01:00.0"] {
            let text = format!("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\nGPU UUID: \t GPU-{gpu}\n");
            write(proc, &format!("driver/nvidia/gpus/{gpu}/information"), &text);
        }
        write(
            proc,
            "driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:\n",
        );
        let host = detect_in(proc);
        assert_eq!(host.cpu.as_deref(), Some("Xeon: Gold"));
        assert_eq!(host.memory_bytes, Some(16 << 20));
        assert_eq!(host.driver.as_deref(), Some("550.54.15"));
        assert_eq!(host.gpus[0].uuid.as_deref(), Some("GPU-0000:01:00.0"));
        assert_eq!(host.gpu_statement(), "2 × NVIDIA H100 80GB HBM3");
    }

    #[test]
    fn a_host_that_tells_nothing_is_absent_facts() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostInfo { cpus: None, ..detect_in(dir.path()) };
        assert_eq!(host, HostInfo::default());
        assert_eq!(host.gpu_statement(), "no GPU is visible to this process");
    }
}
