//! AMD GPUs, from what the kernel driver shows under `/sys/class/drm` (its documentation: amdgpu, *GPU Power/Thermal
//! Controls and Monitoring*).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::GpuReading;
use crate::host::gpu_amd;

/// GPUs of this host, and where the driver shows each of them.
pub struct Meter(Vec<(String, PathBuf)>);

impl Meter {
    /// `None` where the driver knows none of the GPUs.
    pub fn find(ids: &[String]) -> Option<Meter> {
        let here = gpu_amd::detect(Path::new(gpu_amd::TOPOLOGY)).into_iter();
        let place = |render: &Path| Some(Path::new(gpu_amd::DRM).join(render.file_name()?).join("device"));
        let wanted: Vec<(String, PathBuf)> =
            here.filter(|g| ids.contains(&g.uuid)).filter_map(|g| Some((g.uuid, place(&g.render)?))).collect();
        (!wanted.is_empty()).then_some(Meter(wanted))
    }

    pub fn read(&self) -> Vec<GpuReading> {
        self.0.iter().map(|(id, place)| reading(id, place)).collect()
    }
}

fn reading(id: &str, device: &Path) -> GpuReading {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<f64>().ok();
    let sensors = fs::read_dir(device.join("hwmon")).ok().and_then(|mut all| Some(all.next()?.ok()?.path()));
    let sensor = |name: &str| sensors.as_ref().and_then(|dir| number(dir.join(name)));
    GpuReading {
        id: id.to_string(),
        // Newer ones tell what is drawn now, older ones a short mean; microwatts.
        power_w: sensor("power1_input").or_else(|| sensor("power1_average")).map(|uw| uw / 1e6),
        energy_j: None,
        utilization: number(device.join("gpu_busy_percent")).map(|percent| percent / 100.0),
        memory_used_mib: number(device.join("mem_info_vram_used")).map(|b| b / f64::from(1 << 20)),
        sm_clock_mhz: sensor("freq1_input").map(|hz| hz / 1e6),
        temperature_c: sensor("temp1_input").map(|mc| mc / 1e3),
        ecc_errors: None,
        slowed_by: BTreeSet::new(),
        power_capped: None,
        strangers: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let sensors = dir.path().join("hwmon/hwmon3");
        fs::create_dir_all(&sensors).unwrap();
        for (path, text) in [
            (dir.path().join("gpu_busy_percent"), "75\n"),
            (dir.path().join("mem_info_vram_used"), "1073741824\n"),
            (sensors.join("power1_average"), "650000000\n"),
            (sensors.join("temp1_input"), "61000\n"),
        ] {
            fs::write(path, text).unwrap();
        }
        let reading = reading("GPU-1", dir.path());
        assert_eq!((reading.power_w, reading.utilization), (Some(650.0), Some(0.75)));
        assert_eq!((reading.memory_used_mib, reading.temperature_c), (Some(1024.0), Some(61.0)));
        assert_eq!((reading.energy_j, reading.sm_clock_mhz), (None, None));
        assert!(Meter::find(&["GPU-none".into()]).is_none());
    }
}
