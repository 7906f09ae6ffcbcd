//! Hardware classes: the part of a GPU host's identity that numbers depend on, under one fixed name each.

use super::HostInfo;

/// The class of a host without GPU.
pub const CPU: &str = "cpu";
/// The class of everything that runs on the simulated engine.
pub const SIM: &str = "sim";

/// GPU names as the driver gives them, NVIDIA's without the maker in front, and the class of each. An MI250 shows as two
/// GPUs of half its memory. Longer names stand before names that they begin with.
const CLASSES: &[(&str, &str)] = &[
    ("B300", "b300-sxm-288gb"),
    ("GB300", "gb300-288gb"),
    ("GB200", "gb200-192gb"),
    ("B200", "b200-sxm-192gb"),
    ("GH200 480GB", "gh200-96gb"),
    ("GH200 144G HBM3e", "gh200-144gb"),
    ("H200 NVL", "h200-nvl-141gb"),
    ("H200", "h200-sxm-141gb"),
    ("H100 80GB HBM3", "h100-sxm-80gb"),
    ("H100 64GB HBM2e", "h100-sxm-64gb"),
    ("H100 NVL", "h100-nvl-94gb"),
    ("H100 PCIe", "h100-pcie-80gb"),
    ("H20", "h20-sxm-96gb"),
    ("A100-SXM4-80GB", "a100-sxm-80gb"),
    ("A100-SXM4-40GB", "a100-sxm-40gb"),
    ("A100 80GB PCIe", "a100-pcie-80gb"),
    ("A100-PCIE-80GB", "a100-pcie-80gb"),
    ("A100-PCIE-40GB", "a100-pcie-40gb"),
    ("L40S", "l40s-48gb"),
    ("L40", "l40-48gb"),
    ("L4", "l4-24gb"),
    ("A40", "a40-48gb"),
    ("A30", "a30-24gb"),
    ("A10G", "a10g-24gb"),
    ("A10", "a10-24gb"),
    ("V100-SXM2-32GB", "v100-sxm-32gb"),
    ("V100-SXM2-16GB", "v100-sxm-16gb"),
    ("Tesla T4", "t4-16gb"),
    ("RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server-96gb"),
    ("RTX 6000 Ada Generation", "rtx-6000-ada-48gb"),
    ("RTX A6000", "rtx-a6000-48gb"),
    ("GeForce RTX 5090", "rtx-5090-32gb"),
    ("GeForce RTX 4090", "rtx-4090-24gb"),
    ("GeForce RTX 3090", "rtx-3090-24gb"),
    ("GB10", "gb10-128gb"),
    ("AMD Instinct MI100", "mi100-32gb"),
    ("AMD Instinct MI210", "mi210-64gb"),
    ("AMD Instinct MI250", "mi250-64gb"),
    ("AMD Instinct MI250X", "mi250x-64gb"),
    ("AMD Instinct MI300A", "mi300a-128gb"),
    ("AMD Instinct MI300X", "mi300x-192gb"),
    ("AMD Instinct MI308X", "mi308x-192gb"),
    ("AMD Instinct MI325X", "mi325x-256gb"),
    ("AMD Instinct MI350X", "mi350x-288gb"),
    ("AMD Instinct MI355X", "mi355x-288gb"),
];

/// The class of a host: its first GPU's, or `cpu`.
pub fn hardware_class(host: &HostInfo) -> String {
    host.gpus.first().map_or_else(|| CPU.to_string(), |gpu| class_of(&gpu.name))
}

/// The class of a GPU by the name its driver gives. A name that is not in the table is made into a class of its own, so
/// that two unknown GPUs are never taken for one.
pub fn class_of(gpu_name: &str) -> String {
    let name = gpu_name.trim();
    let name = name.strip_prefix("NVIDIA ").unwrap_or(name);
    if let Some((_, class)) =
        CLASSES.iter().find(|(known, _)| name == *known || name.strip_prefix("Tesla ") == Some(known))
    {
        return (*class).to_string();
    }
    let dashed: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Gpu;

    #[test]
    fn known_names_have_their_class_and_unknown_ones_their_own() {
        assert_eq!(class_of("NVIDIA H100 80GB HBM3"), "h100-sxm-80gb");
        assert_eq!(class_of("NVIDIA H200"), "h200-sxm-141gb");
        assert_eq!(class_of("NVIDIA A100-SXM4-80GB"), "a100-sxm-80gb");
        assert_eq!(class_of("Tesla V100-SXM2-16GB"), "v100-sxm-16gb");
        assert_eq!(class_of("Tesla T4"), "t4-16gb");
        assert_eq!(class_of("AMD Instinct MI300X"), "mi300x-192gb");
        assert_eq!(class_of("AMD gfx1100"), "amd-gfx1100");
        assert_eq!(class_of("NVIDIA H999 (Preview) 1TB"), "h999-preview-1tb");
        assert_eq!(hardware_class(&HostInfo::default()), "cpu");
        let gpus = vec![Gpu { name: "NVIDIA L4".into(), uuid: None }];
        assert_eq!(hardware_class(&HostInfo { gpus, ..HostInfo::default() }), "l4-24gb");
    }

    #[test]
    fn classes_are_safe_in_names() {
        for (name, class) in CLASSES {
            assert!(class.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        }
    }
}
