//! What an image does before its engine serves. The simulator is started with the command line, the environment and the
//! files that the real image would get, takes its settings from them, and refuses what the real one refuses, in its
//! words and with its exit code: so a slip in a template is found without a GPU. Reads files, and nothing else of the
//! machine; the environment is handed in.
//!
//! Where the real one only ignores a mistake (a `NIM_` variable that nobody reads), it is refused here: nothing is left
//! to find out in a benchmark.

mod arguments;
mod flags;
mod nim;
mod pbtxt;
mod sglang;
mod source;
mod triton;
mod trtllm;
mod vllm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flavor::{Family, Openai};
use super::options::SimOptions;

/// Shared memory below which no stack starts: container engines give 64 MiB unless told otherwise, which is too little
/// for all of them.
const LEAST_SHM: u64 = 128 << 20;

/// What a process of the image sees.
#[derive(Clone, Debug, Default)]
pub struct Container {
    pub env: BTreeMap<String, String>,
    /// Where its file system begins: `/` inside a container.
    pub root: PathBuf,
    /// Size of `/dev/shm` in bytes, where there is one.
    pub shm: Option<u64>,
}

/// Why the image does not serve: what it says before it ends, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub lines: Vec<String>,
    pub exit_code: u8,
}

impl Refusal {
    fn new(exit_code: u8, lines: impl IntoIterator<Item = impl Into<String>>) -> Refusal {
        Refusal { lines: lines.into_iter().map(Into::into).collect(), exit_code }
    }

    /// How Python programs end: with an exception, and 1.
    fn exception(line: impl Into<String>) -> Refusal {
        Refusal::new(1, ["Traceback (most recent call last):".to_string(), line.into()])
    }

    /// How a shell says that there is no such program.
    fn no_program(word: &str) -> Refusal {
        Refusal::new(127, [format!("/opt/nvidia/nvidia_entrypoint.sh: exec: {word}: not found")])
    }
}

/// The settings that `words`, the image's command line, and `container` come to; `base` decides what those do not say.
pub fn read(base: SimOptions, words: &[String], container: &Container) -> Result<SimOptions, Refusal> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match base.flavor.family() {
        Family::Openai(Openai::Vllm) => vllm::image(base, &words, container),
        Family::Openai(Openai::Sglang) => sglang::image(base, &words, container),
        Family::Openai(Openai::Trtllm) => trtllm::image(base, &words, container),
        Family::Openai(Openai::Nim) => nim::image(base, &words, container),
        Family::Triton(model) => triton::image(base, model, &words, container),
    }
}

impl Container {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_dir(&self, path: &str) -> bool {
        self.path(path).is_dir()
    }

    fn text(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(self.path(path))
    }

    /// Names in a directory, sorted; none where there is no such directory.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// A variable that is set to something.
    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// How many GPUs the container was given; unknown where no runtime handed any out.
    fn gpus(&self) -> Option<u64> {
        match self.var("NVIDIA_VISIBLE_DEVICES")? {
            "all" => None,
            "none" | "void" => Some(0),
            list => Some(list.split(',').count() as u64),
        }
    }

    /// The shared memory that is missing, in MiB: what is needed and what is there.
    fn short_shm(&self) -> Option<(u64, u64)> {
        self.shm.filter(|size| *size < LEAST_SHM).map(|size| (LEAST_SHM >> 20, size >> 20))
    }
}

/// Size of the shared memory of this process, as its file system tells it.
pub fn shared_memory(root: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(root.join("dev/shm")).ok()?;
    Some(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
