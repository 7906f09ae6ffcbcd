//! What GPUs do while a sample is measured: power, energy, utilisation, memory, clocks, temperature, errors, what holds their
//! clocks down and who else uses them. From NVIDIA's management library, from a DCGM exporter, or from AMD's kernel driver;
//! where there is none of them, nothing is known.

mod amd;
mod dcgm;
mod nvml;
mod summary;

use std::collections::BTreeSet;

pub use summary::GpuSummary;

/// One reading of one GPU. What its source does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuReading {
    /// UUID.
    pub id: String,
    pub power_w: Option<f64>,
    /// Since the driver was loaded.
    pub energy_j: Option<f64>,
    /// Share of time in which a kernel ran, 0 to 1.
    pub utilization: Option<f64>,
    pub memory_used_mib: Option<f64>,
    pub sm_clock_mhz: Option<f64>,
    pub temperature_c: Option<f64>,
    /// Uncorrected memory errors since the driver was loaded.
    pub ecc_errors: Option<f64>,
    /// What holds the clocks down.
    pub slowed_by: BTreeSet<Slowdown>,
    /// The power limit holds the clocks down: how a GPU runs at full load.
    pub power_capped: Option<bool>,
    /// Processes that use it and are none of the engine's.
    pub strangers: BTreeSet<u32>,
}

/// Why a GPU is slower than it should be. A power limit is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slowdown {
    /// Too hot, or the power supply has asked for it.
    Hardware,
    HardwareThermal,
    PowerBrake,
    SoftwareThermal,
}

impl Slowdown {
    /// The bits of `nvmlClocksEventReasons` (NVML API reference), which DCGM passes on.
    const BITS: [(Slowdown, u64); 4] = [
        (Slowdown::Hardware, 0x08),
        (Slowdown::SoftwareThermal, 0x20),
        (Slowdown::HardwareThermal, 0x40),
        (Slowdown::PowerBrake, 0x80),
    ];
    const POWER_CAP: u64 = 0x04;

    fn of(bits: u64) -> BTreeSet<Slowdown> {
        Slowdown::BITS.iter().filter(|(_, bit)| bits & bit != 0).map(|(reason, _)| *reason).collect()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Slowdown::Hardware => "hardware slowdown",
            Slowdown::HardwareThermal => "hardware thermal slowdown",
            Slowdown::PowerBrake => "power brake",
            Slowdown::SoftwareThermal => "software thermal slowdown",
        }
    }
}

impl GpuReading {
    /// With the names they have in files.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let flag = |b: bool| f64::from(u8::from(b));
        let all = [
            ("power_w", self.power_w),
            ("energy_j", self.energy_j),
            ("utilization", self.utilization),
            ("memory_used_mib", self.memory_used_mib),
            ("sm_clock_mhz", self.sm_clock_mhz),
            ("temperature_c", self.temperature_c),
            ("ecc_errors", self.ecc_errors),
            ("power_capped", self.power_capped.map(flag)),
            ("slowed", self.power_capped.map(|_| flag(!self.slowed_by.is_empty()))),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Which GPUs, and who says what they do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuOptions {
    /// UUIDs. With a DCGM exporter, none means all that it tells of.
    pub ids: Vec<String>,
    /// URL of a DCGM exporter's metrics, in place of this host's own.
    pub dcgm: Option<String>,
    /// Text that the control group of the engine's own processes holds: a container's id.
    pub owner: Option<String>,
}

/// A source of readings.
pub(super) enum Meter {
    Nvml(Box<nvml::Meter>),
    Amd(amd::Meter),
    Dcgm(dcgm::Meter),
}

impl Meter {
    /// `None` where nothing tells of these GPUs.
    pub fn find(options: &GpuOptions) -> Option<Meter> {
        if let Some(url) = &options.dcgm {
            return dcgm::Meter::new(url, &options.ids).map(Meter::Dcgm);
        }
        if options.ids.is_empty() {
            return None;
        }
        let nvml = || nvml::Meter::open(&options.ids, options.owner.clone()).map(|meter| Meter::Nvml(Box::new(meter)));
        nvml().or_else(|| amd::Meter::find(&options.ids).map(Meter::Amd))
    }

    pub async fn read(&self) -> Vec<GpuReading> {
        match self {
            Meter::Nvml(meter) => meter.read(),
            Meter::Amd(meter) => meter.read(),
            Meter::Dcgm(meter) => meter.read().await,
        }
    }
}

/// What NVIDIA's library says of this host, for people; the error says why it says nothing.
pub fn nvml_statement() -> Result<String, String> {
    nvml::statement()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_from_a_power_limit() {
        assert_eq!(Slowdown::of(0x04), BTreeSet::new());
        assert_eq!(Slowdown::of(0x44), BTreeSet::from([Slowdown::HardwareThermal]));
        assert_eq!(Slowdown::of(0xe8).len(), 4);
    }

    #[test]
    fn without_gpus_there_is_nothing_to_watch() {
        assert!(Meter::find(&GpuOptions::default()).is_none());
        // No library, or no such GPU: a statement, never an error.
        assert!(Meter::find(&GpuOptions { ids: vec!["GPU-none".into()], ..GpuOptions::default() }).is_none());
    }
}
