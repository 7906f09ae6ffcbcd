//! The memory of a GPU by its hardware class.

use super::GIB;

/// Memory as `nvidia-smi` shows it, in MiB: what error correction and the driver keep for themselves is not in it.
const SHOWN: &[(&str, u64)] = &[
    ("b200-sxm-192gb", 183_359),
    ("h200-sxm-141gb", 143_771),
    ("h200-nvl-141gb", 143_771),
    ("h100-sxm-80gb", 81_559),
    ("h100-pcie-80gb", 81_559),
    ("h100-nvl-94gb", 95_830),
    ("h20-sxm-96gb", 97_871),
    ("gh200-96gb", 97_871),
    ("a100-sxm-80gb", 81_920),
    ("a100-pcie-80gb", 81_920),
    ("a100-sxm-40gb", 40_960),
    ("a100-pcie-40gb", 40_960),
    ("l40s-48gb", 46_068),
    ("l40-48gb", 46_068),
    ("a40-48gb", 46_068),
    ("l4-24gb", 23_034),
    ("a10g-24gb", 23_028),
    ("a10-24gb", 23_028),
    ("t4-16gb", 15_360),
    ("rtx-a6000-48gb", 49_140),
    ("rtx-6000-ada-48gb", 49_140),
    ("rtx-5090-32gb", 32_607),
    ("rtx-4090-24gb", 24_564),
];

/// One GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Card {
    /// What the class is named after, in GiB.
    pub nominal_gib: u64,
    pub bytes: f64,
}

impl Card {
    /// A class says its memory at its end (`h100-sxm-80gb`); one that is not in the table is taken at its word.
    pub fn of(class: &str) -> Option<Card> {
        let nominal_gib: u64 = class.rsplit('-').next()?.strip_suffix("gb")?.parse().ok()?;
        if !(1..=1 << 20).contains(&nominal_gib) {
            return None;
        }
        let shown = SHOWN.iter().find(|(name, _)| *name == class).map(|(_, mib)| *mib as f64 * GIB / 1024.0);
        Some(Card { nominal_gib, bytes: shown.unwrap_or(nominal_gib as f64 * GIB) })
    }
}
