//! Who uses which GPU of this host. A deployment takes its GPUs by UUID under locks that every run on the host sees and
//! that die with their process, so that two runs never measure on the same device.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Gpu, gpu_amd};

/// Where the locks of this host are: a place that all users share.
pub const LOCKS: &str = "/tmp/llmatrix-gpus";

/// Why GPUs cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("`devices` names the GPU `{device}`, and this host has {here}")]
    Unknown { device: String, here: String },
    #[error("it needs {wanted}, and this host has {here}")]
    TooFew { wanted: String, here: String },
    #[error("cannot lock a GPU with {path}: {source}", path = path.display())]
    Lock { path: PathBuf, source: io::Error },
}

/// The GPUs that may be used.
#[derive(Clone, Debug)]
pub struct GpuPool {
    /// Ids as the container engine takes them: UUIDs, or indices where the driver tells none.
    ids: Vec<String>,
    here: String,
    locks: PathBuf,
}

/// GPUs that are ours until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    ids: Vec<String>,
    _locks: Vec<File>,
}

impl Lease {
    /// The GPUs, in the host's order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }
}

impl GpuPool {
    /// All of a host's GPUs, or those of `devices`: UUIDs, beginnings of UUIDs, or indices.
    pub fn new(gpus: &[Gpu], devices: &[String], locks: &Path) -> Result<GpuPool, GpuError> {
        let all: Vec<String> =
            gpus.iter().enumerate().map(|(i, g)| g.uuid.clone().unwrap_or_else(|| i.to_string())).collect();
        let here = counted(all.len());
        let chosen = |device: &String| {
            let at = match device.parse::<usize>() {
                Ok(index) => (index < all.len()).then_some(index),
                Err(_) => all.iter().position(|id| !device.is_empty() && id.starts_with(device.as_str())),
            };
            at.ok_or_else(|| GpuError::Unknown { device: device.clone(), here: here.clone() })
        };
        let mut wanted = devices.iter().map(chosen).collect::<Result<BTreeSet<usize>, _>>()?;
        if devices.is_empty() {
            wanted = (0..all.len()).collect();
        }
        let ids: Vec<String> = wanted.into_iter().map(|i| all[i].clone()).collect();
        let here = match ids.len() == all.len() {
            true => here,
            false => format!("{here}, of which `devices` allows {}", ids.len()),
        };
        Ok(GpuPool { ids, here, locks: locks.to_path_buf() })
    }

    /// Whether so many GPUs are there at all.
    pub fn has(&self, wanted: u32) -> Result<(), GpuError> {
        match self.ids.len() < wanted as usize {
            true => Err(GpuError::TooFew { wanted: counted(wanted as usize), here: self.here.clone() }),
            false => Ok(()),
        }
    }

    /// Takes GPUs that nobody has and that are not in `taken`, those with the least memory in use first; `None` when there
    /// are not enough free ones now. `used` is the memory in use by GPU, as far as it is known.
    pub fn try_take(
        &self,
        wanted: u32,
        taken: &BTreeSet<String>,
        used: &BTreeMap<String, u64>,
    ) -> Result<Option<Lease>, GpuError> {
        self.has(wanted)?;
        let mut free: Vec<usize> = (0..self.ids.len()).filter(|i| !taken.contains(&self.ids[*i])).collect();
        // In steps of a GiB: what a driver keeps for itself is no reason to prefer one.
        free.sort_by_key(|i| (used.get(&self.ids[*i]).copied().unwrap_or(0) >> 30, *i));
        let mut held = BTreeMap::new();
        for index in free {
            if held.len() == wanted as usize {
                break;
            }
            if let Some(lock) = self.lock(&self.ids[index])? {
                held.insert(index, lock);
            }
        }
        if held.len() < wanted as usize {
            return Ok(None);
        }
        let (indices, locks): (Vec<usize>, Vec<File>) = held.into_iter().unzip();
        Ok(Some(Lease { ids: indices.into_iter().map(|i| self.ids[i].clone()).collect(), _locks: locks }))
    }

    fn lock(&self, id: &str) -> Result<Option<File>, GpuError> {
        let safe: String = id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let path = self.locks.join(safe);
        let file = open_shared(&self.locks, &path).map_err(|source| GpuError::Lock { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(GpuError::Lock { path, source }),
        }
    }
}

/// Opens a lock file that any user of the host may lock. A file of another user is opened as it is: in a directory like
/// `/tmp` the kernel may refuse to open it for creation.
fn open_shared(dir: &Path, path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match DirBuilder::new().mode(0o777).create(dir) {
        Ok(()) => std::fs::set_permissions(dir, Permissions::from_mode(0o1777))?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => File::open(path),
        opened => opened,
    }
}

/// Bytes in use by GPU UUID, as far as a driver tells.
pub fn memory_used() -> BTreeMap<String, u64> {
    let amd = gpu_amd::detect(Path::new(gpu_amd::TOPOLOGY));
    let mut used = gpu_amd::memory_used(&amd, Path::new(gpu_amd::DRM));
    used.append(&mut nvidia_memory_used());
    used
}

/// Asked of `nvidia-smi`; empty without it.
fn nvidia_memory_used() -> BTreeMap<String, u64> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]);
    let Ok(output) = command.stdin(Stdio::null()).stderr(Stdio::null()).output() else { return BTreeMap::new() };
    parse_memory(&String::from_utf8_lossy(&output.stdout))
}

/// `GPU-…, 1234` lines, in MiB. What the driver does not tell (`[N/A]`) is left out.
fn parse_memory(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|l| l.split_once(','));
    pairs.filter_map(|(id, mib)| Some((id.trim().to_string(), mib.trim().parse::<u64>().ok()? << 20))).collect()
}

fn counted(n: usize) -> String {
    match n {
        0 => "no GPU".into(),
        1 => "1 GPU".into(),
        n => format!("{n} GPUs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(n: usize) -> Vec<Gpu> {
        (0..n).map(|i| Gpu { name: "NVIDIA H100 80GB HBM3".into(), uuid: Some(format!("GPU-{i}abc")) }).collect()
    }

    fn none() -> (BTreeSet<String>, BTreeMap<String, u64>) {
        (BTreeSet::new(), BTreeMap::new())
    }

    #[test]
    fn a_gpu_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let pool = || GpuPool::new(&gpus(3), &[], &dir.path().join("locks")).unwrap();
        let (taken, used) = none();
        let first = pool().try_take(2, &taken, &used).unwrap().unwrap();
        assert_eq!(first.ids(), ["GPU-0abc", "GPU-1abc"]);
        assert!(pool().try_take(2, &taken, &used).unwrap().is_none());
        // A try that failed holds nothing.
        let rest = pool().try_take(1, &taken, &used).unwrap().unwrap();
        assert_eq!(rest.ids(), ["GPU-2abc"]);
        drop(first);
        assert_eq!(pool().try_take(2, &taken, &used).unwrap().unwrap().ids(), ["GPU-0abc", "GPU-1abc"]);
        let e = pool().try_take(4, &taken, &used).unwrap_err().to_string();
        assert_eq!(e, "it needs 4 GPUs, and this host has 3 GPUs");
    }

    #[test]
    fn busy_and_taken_gpus_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pool = GpuPool::new(&gpus(3), &[], dir.path()).unwrap();
        let used = BTreeMap::from([("GPU-0abc".to_string(), 5u64 << 30), ("GPU-1abc".to_string(), 400 << 20)]);
        assert_eq!(pool.try_take(1, &BTreeSet::new(), &used).unwrap().unwrap().ids(), ["GPU-1abc"]);
        let taken = BTreeSet::from(["GPU-1abc".to_string(), "GPU-2abc".to_string()]);
        assert_eq!(pool.try_take(1, &taken, &used).unwrap().unwrap().ids(), ["GPU-0abc"]);
        assert!(pool.try_take(2, &taken, &used).unwrap().is_none());
    }

    #[test]
    fn devices_are_named_by_uuid_or_index() {
        let dir = tempfile::tempdir().unwrap();
        let pool = |devices: &[&str]| {
            GpuPool::new(&gpus(3), &devices.iter().map(ToString::to_string).collect::<Vec<_>>(), dir.path())
        };
        let (taken, used) = none();
        let ids = |devices: &[&str]| pool(devices).unwrap().try_take(2, &taken, &used).unwrap().unwrap().ids().to_vec();
        assert_eq!(ids(&["2", "GPU-0"]), ["GPU-0abc", "GPU-2abc"]);
        let e = pool(&["7"]).unwrap_err().to_string();
        assert_eq!(e, "`devices` names the GPU `7`, and this host has 3 GPUs");
        let e = pool(&["1"]).unwrap().has(2).unwrap_err().to_string();
        assert_eq!(e, "it needs 2 GPUs, and this host has 3 GPUs, of which `devices` allows 1");
        assert!(GpuPool::new(&[], &[], dir.path()).unwrap().has(1).unwrap_err().to_string().ends_with("has no GPU"));
    }

    #[test]
    fn memory_in_use_is_read_as_far_as_it_is_told() {
        let used = parse_memory("GPU-a, 1024\nGPU-b, [N/A]\n\n");
        assert_eq!(used, BTreeMap::from([("GPU-a".to_string(), 1 << 30)]));
    }
}
