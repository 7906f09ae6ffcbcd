//! AMD GPUs, from the topology that the kernel driver shows in `/sys`, and the device nodes that a container needs to use
//! one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the driver shows its nodes.
pub const TOPOLOGY: &str = "/sys/class/kfd/kfd/topology/nodes";
/// The compute device, shared by all GPUs.
pub const KFD: &str = "/dev/kfd";

/// An AMD GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmdGpu {
    /// `GPU-` and the unique id in hexadecimal digits, as ROCm's own tools name it.
    pub uuid: String,
    /// `/dev/dri/renderD128`.
    pub render: PathBuf,
    /// LLVM's name of the architecture, such as `gfx942`.
    pub target: String,
}

/// The GPUs among the nodes of a topology, in its order. CPUs are nodes too, without compute units.
pub fn detect(topology: &Path) -> Vec<AmdGpu> {
    let Ok(entries) = fs::read_dir(topology) else { return Vec::new() };
    let number = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok());
    let mut nodes: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| number(p).is_some()).collect();
    nodes.sort_by_key(number);
    let texts = nodes.iter().filter_map(|node| fs::read_to_string(node.join("properties")).ok());
    texts.filter_map(|text| gpu(&text)).collect()
}

fn gpu(properties: &str) -> Option<AmdGpu> {
    let value = |name: &str| {
        let line = properties.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    if value("simd_count")? == 0 {
        return None;
    }
    let version = value("gfx_target_version").unwrap_or(0);
    Some(AmdGpu {
        uuid: format!("GPU-{:x}", value("unique_id").filter(|id| *id != 0)?),
        render: PathBuf::from(format!("/dev/dri/renderD{}", value("drm_render_minor")?)),
        target: format!("gfx{}{:x}{:x}", version / 10000, version / 100 % 100, version % 100),
    })
}

/// The group that may use a device node.
pub fn group_of(node: &Path) -> Option<u32> {
    fs::metadata(node).ok().map(|m| m.gid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_told_from_cpus() {
        let dir = tempfile::tempdir().unwrap();
        for (node, text) in [
            ("0", "cpu_cores_count 96\nsimd_count 0\nunique_id 0\ndrm_render_minor 0\n"),
            ("10", "simd_count 1216\nunique_id 255\ndrm_render_minor 136\ngfx_target_version 90402\n"),
            ("2", "simd_count 1216\nunique_id 16\ndrm_render_minor 128\ngfx_target_version 90010\n"),
        ] {
            fs::create_dir(dir.path().join(node)).unwrap();
            fs::write(dir.path().join(node).join("properties"), text).unwrap();
        }
        let found = detect(dir.path());
        let shown: Vec<_> =
            found.iter().map(|g| (g.uuid.as_str(), g.render.to_str().unwrap(), g.target.as_str())).collect();
        assert_eq!(shown, [("GPU-10", "/dev/dri/renderD128", "gfx90a"), ("GPU-ff", "/dev/dri/renderD136", "gfx942")]);
        assert!(detect(Path::new("/nowhere")).is_empty());
    }
}
