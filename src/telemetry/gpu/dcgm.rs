//! NVIDIA's DCGM exporter: GPU fields as Prometheus metrics, of this host or another. Field names: DCGM API, field
//! identifiers.

use super::{GpuReading, Slowdown};
use crate::hub::http;
use crate::telemetry::prometheus::{self, FormatError, Sample};
use crate::telemetry::scrape::fetch;
use std::collections::BTreeMap;

/// DCGM writes a field that a GPU does not have as a number from here on (`DCGM_INT64_BLANK`, `DCGM_FP64_BLANK`).
const BLANK: f64 = 1.4e14;

/// An exporter, and the GPUs of interest; none are all.
pub struct Meter {
    client: reqwest::Client,
    url: String,
    ids: Vec<String>,
}

impl Meter {
    /// `None` where the client cannot be made.
    pub fn new(url: &str, ids: &[String]) -> Option<Meter> {
        Some(Meter { client: http::client().ok()?, url: url.to_string(), ids: ids.to_vec() })
    }

    pub async fn read(&self) -> Vec<GpuReading> {
        let Some(text) = fetch(&self.client, &self.url).await else { return Vec::new() };
        readings(&text, &self.ids).unwrap_or_default()
    }
}

fn readings(text: &str, ids: &[String]) -> Result<Vec<GpuReading>, FormatError> {
    let mut found: BTreeMap<&str, GpuReading> = BTreeMap::new();
    prometheus::samples(text, |sample| {
        let Some(id) = sample.label("UUID").filter(|id| ids.is_empty() || ids.iter().any(|i| i == id)) else { return };
        let gpu = found.entry(id).or_insert_with(|| GpuReading { id: id.to_string(), ..GpuReading::default() });
        note(gpu, sample);
    })?;
    Ok(found.into_values().collect())
}

fn note(gpu: &mut GpuReading, sample: &Sample<'_>) {
    let value = sample.value;
    if !value.is_finite() || value >= BLANK {
        return;
    }
    match sample.name {
        "DCGM_FI_DEV_POWER_USAGE" => gpu.power_w = Some(value),
        // Millijoules.
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" => gpu.energy_j = Some(value / 1e3),
        "DCGM_FI_DEV_GPU_UTIL" => gpu.utilization = Some(value / 100.0),
        "DCGM_FI_DEV_FB_USED" => gpu.memory_used_mib = Some(value),
        "DCGM_FI_DEV_SM_CLOCK" => gpu.sm_clock_mhz = Some(value),
        "DCGM_FI_DEV_GPU_TEMP" => gpu.temperature_c = Some(value),
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" => gpu.ecc_errors = Some(value),
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS" | "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS" => {
            gpu.slowed_by = Slowdown::of(value as u64);
            gpu.power_capped = Some(value as u64 & Slowdown::POWER_CAP != 0);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_exporters_text_is_read_by_gpu() {
        let gpu =
            |i: u32, id: &str| format!("gpu=\"{i}\",UUID=\"{id}\",device=\"nvidia{i}\",modelName=\"NVIDIA H100\"");
        let text = format!(
            "# TYPE DCGM_FI_DEV_POWER_USAGE gauge\nDCGM_FI_DEV_POWER_USAGE{{{a}}} 412.5\nDCGM_FI_DEV_POWER_USAGE{{{b}}} 90\n\
             DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{a}}} 2500000\nDCGM_FI_DEV_GPU_UTIL{{{a}}} 98\n\
             DCGM_FI_DEV_FB_USED{{{a}}} 70000\nDCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{{a}}} 68\n",
            a = gpu(0, "GPU-a"),
            b = gpu(1, "GPU-b"),
        );
        let all = readings(&text, &[]).unwrap();
        assert_eq!(all.iter().map(|g| g.id.as_str()).collect::<Vec<_>>(), ["GPU-a", "GPU-b"]);
        assert_eq!((all[0].power_w, all[0].energy_j, all[0].utilization), (Some(412.5), Some(2500.0), Some(0.98)));
        assert_eq!(all[0].slowed_by, BTreeSet::from([Slowdown::HardwareThermal]));
        assert_eq!((all[0].power_capped, all[1].power_capped), (Some(true), None));
        let one = readings(&text, &["GPU-b".into()]).unwrap();
        assert_eq!((one.len(), one[0].power_w, one[0].energy_j), (1, Some(90.0), None));
        assert!(readings("<html>", &[]).is_err());
        let blank = format!("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{{}}} 9223372036854775794\n", gpu(0, "GPU-a"));
        let blank = readings(&blank, &[]).unwrap();
        assert!(blank[0].slowed_by.is_empty() && blank[0].power_capped.is_none(), "{blank:?}");
    }
}
