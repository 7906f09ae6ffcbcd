//! NVIDIA's management library, loaded where it is there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;

use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{GpuReading, Slowdown};

/// The name that the driver installs; the one without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// GPUs of this host.
pub struct Meter {
    nvml: Nvml,
    ids: Vec<String>,
    owner: Option<String>,
}

fn open() -> Result<Nvml, String> {
    Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map_err(|e| match e {
        // Its own words for the loader's.
        NvmlError::LibloadingError(e) => e.to_string(),
        e => e.to_string(),
    })
}

/// What can be watched, in words; the error says why nothing can.
pub fn statement() -> Result<String, String> {
    let nvml = open()?;
    let count = nvml.device_count().map_err(|e| e.to_string())?;
    Ok(format!("NVML, driver {}, {count} GPUs", nvml.sys_driver_version().unwrap_or_else(|_| "unknown".into())))
}

impl Meter {
    /// `None` without the library, or where it knows none of the GPUs.
    pub fn open(ids: &[String], owner: Option<String>) -> Option<Meter> {
        let nvml = open().ok()?;
        let ids: Vec<String> = ids.iter().filter(|id| device(&nvml, id).is_some()).cloned().collect();
        (!ids.is_empty()).then_some(Meter { nvml, ids, owner })
    }

    pub fn read(&self) -> Vec<GpuReading> {
        let devices = self.ids.iter().filter_map(|id| Some((id, device(&self.nvml, id)?)));
        devices.map(|(id, device)| self.reading(id, &device)).collect()
    }

    fn reading(&self, id: &str, device: &Device<'_>) -> GpuReading {
        let bits = device.current_throttle_reasons().ok().map(|reasons| reasons.bits());
        GpuReading {
            id: id.to_string(),
            power_w: device.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
            energy_j: device.total_energy_consumption().ok().map(|mj| mj as f64 / 1e3),
            utilization: device.utilization_rates().ok().map(|u| f64::from(u.gpu) / 100.0),
            memory_used_mib: device.memory_info().ok().map(|m| m.used as f64 / f64::from(1 << 20)),
            sm_clock_mhz: device.clock_info(Clock::SM).ok().map(f64::from),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            ecc_errors: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok().map(|n| n as f64),
            slowed_by: bits.map(Slowdown::of).unwrap_or_default(),
            power_capped: bits.map(|b| b & Slowdown::POWER_CAP != 0),
            strangers: self.strangers(device),
        }
    }

    /// Processes on the GPU that are not in the engine's control group. Whose a process is that this one cannot see is not
    /// known, and it is left out; without an owner to tell them by, all are.
    fn strangers(&self, device: &Device<'_>) -> BTreeSet<u32> {
        let Some(owner) = &self.owner else { return BTreeSet::new() };
        let running = device.running_compute_processes().unwrap_or_default();
        let foreign = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| !groups.contains(owner.as_str()))
        };
        running.into_iter().map(|p| p.pid).filter(foreign).collect()
    }
}

/// By UUID, or by index where that is what the driver's ids are.
fn device<'a>(nvml: &'a Nvml, id: &str) -> Option<Device<'a>> {
    match id.parse() {
        Ok(index) => nvml.device_by_index(index).ok(),
        Err(_) => nvml.device_by_uuid(id).ok(),
    }
}
