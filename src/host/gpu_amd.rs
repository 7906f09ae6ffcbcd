//! AMD GPUs, from the topology that the kernel driver shows in `/sys`, and the device nodes that a container needs to use
//! one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the driver shows its nodes.
pub const TOPOLOGY: &str = "/sys/class/kfd/kfd/topology/nodes";
/// The compute device, shared by all GPUs.
pub const KFD: &str = "/dev/kfd";

/// Where the driver shows what belongs to a device node.
pub const DRM: &str = "/sys/class/drm";

/// Product names by PCI device id, as the vendor's own list (`pci.ids`) has them.
const PRODUCTS: &[(u64, &str)] = &[
    (0x738c, "Instinct MI100"),
    (0x7408, "Instinct MI250X"),
    (0x740c, "Instinct MI250"),
    (0x740f, "Instinct MI210"),
    (0x74a0, "Instinct MI300A"),
    (0x74a1, "Instinct MI300X"),
    (0x74a2, "Instinct MI308X"),
    (0x74a5, "Instinct MI325X"),
    (0x75a0, "Instinct MI350X"),
    (0x75a3, "Instinct MI355X"),
];

/// An AMD GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmdGpu {
    /// `AMD Instinct MI300X`, or with the architecture in place of a product that is not known.
    pub name: String,
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
    let target = format!("gfx{}{:x}{:x}", version / 10000, version / 100 % 100, version % 100);
    let product = PRODUCTS.iter().find(|(id, _)| value("device_id") == Some(*id)).map(|(_, name)| *name);
    Some(AmdGpu {
        name: format!("AMD {}", product.unwrap_or(&target)),
        uuid: format!("GPU-{:x}", value("unique_id").filter(|id| *id != 0)?),
        render: PathBuf::from(format!("/dev/dri/renderD{}", value("drm_render_minor")?)),
        target,
    })
}

/// Bytes in use by GPU, as far as the driver tells under `drm`.
pub fn memory_used(gpus: &[AmdGpu], drm: &Path) -> BTreeMap<String, u64> {
    let used = |gpu: &AmdGpu| {
        let node = gpu.render.file_name()?;
        let text = fs::read_to_string(drm.join(node).join("device/mem_info_vram_used")).ok()?;
        Some((gpu.uuid.clone(), text.trim().parse().ok()?))
    };
    gpus.iter().filter_map(used).collect()
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
            ("10", "simd_count 1216\nunique_id 255\ndrm_render_minor 136\ngfx_target_version 90402\ndevice_id 29857\n"),
            ("2", "simd_count 1216\nunique_id 16\ndrm_render_minor 128\ngfx_target_version 90010\n"),
        ] {
            fs::create_dir(dir.path().join(node)).unwrap();
            fs::write(dir.path().join(node).join("properties"), text).unwrap();
        }
        let found = detect(dir.path());
        let shown: Vec<_> =
            found.iter().map(|g| (g.uuid.as_str(), g.render.to_str().unwrap(), g.target.as_str())).collect();
        assert_eq!(shown, [("GPU-10", "/dev/dri/renderD128", "gfx90a"), ("GPU-ff", "/dev/dri/renderD136", "gfx942")]);
        let names: Vec<&str> = found.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["AMD gfx90a", "AMD Instinct MI300X"]);
        let drm = dir.path().join("renderD136/device");
        fs::create_dir_all(&drm).unwrap();
        fs::write(drm.join("mem_info_vram_used"), "1048576\n").unwrap();
        assert_eq!(memory_used(&found, dir.path()), BTreeMap::from([("GPU-ff".to_string(), 1 << 20)]));
        assert!(detect(Path::new("/nowhere")).is_empty());
    }
}
