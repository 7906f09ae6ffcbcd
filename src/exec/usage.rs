//! What a container uses while a sample is measured, as the container engine counts it.

use std::io::Write;

use crate::deploy::ContainerUsage;
use crate::store::record::Resources;
use crate::telemetry::Seen;

/// Readings over a sample.
#[derive(Clone, Debug, Default)]
pub struct UsageSeries(Vec<(f64, ContainerUsage)>);

impl UsageSeries {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, at_s: f64, usage: ContainerUsage) {
        self.0.push((at_s, usage));
    }

    /// Mean number of cores in use between the first reading and the last.
    pub fn cores(&self) -> Option<f64> {
        let ((from, first), (to, last)) = self.0.first().zip(self.0.last())?;
        (to > from).then_some((last.cpu_s? - first.cpu_s?) / (to - from))
    }

    pub fn memory_peak_mib(&self) -> Option<f64> {
        self.0.iter().filter_map(|(_, u)| u.memory_mib).reduce(f64::max)
    }

    /// Seconds for which its CPU limit held it back.
    pub fn throttled_s(&self) -> Option<f64> {
        let ((_, first), (_, last)) = self.0.first().zip(self.0.last())?;
        Some(last.throttled_s? - first.throttled_s?)
    }

    /// Further rows of a `telemetry.csv`.
    pub fn append_csv(&self, out: impl Write) -> std::io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        for (at, usage) in &self.0 {
            let ContainerUsage { cpu_s, memory_mib, throttled_s } = usage;
            let all = [("cpu_seconds", cpu_s), ("memory_mib", memory_mib), ("throttled_seconds", throttled_s)];
            for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, (*value)?))) {
                csv.write_record([&format!("{at:.6}"), "container", "", name, &value.to_string()])?;
            }
        }
        csv.flush()
    }
}

/// What a sample used, as far as it was seen.
pub fn resources(seen: &Seen, usage: &UsageSeries) -> Resources {
    let gpus = &seen.gpus;
    Resources {
        gpu_power_mean_w: gpus.power_mean_w,
        energy_j: gpus.energy_j,
        gpu_memory_peak_mib: gpus.memory_peak_mib,
        kv_cache_usage_peak: seen.load.kv_cache_usage.map(|g| g.peak),
        gpu_utilization_mean: gpus.utilization_mean,
        gpu_temperature_peak_c: gpus.temperature_peak_c,
        gpu_sm_clock_mean_mhz: gpus.sm_clock_mean_mhz,
        gpu_power_capped: gpus.power_capped,
        host_cpu_mean: seen.host.cpu_fraction,
        host_memory_peak_mib: seen.host.memory_peak_mib,
        container_cpu_cores_mean: usage.cores(),
        container_memory_peak_mib: usage.memory_peak_mib(),
        container_throttled_s: usage.throttled_s(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates() {
        let mut series = UsageSeries::default();
        let usage = |cpu, memory| ContainerUsage { cpu_s: Some(cpu), memory_mib: Some(memory), throttled_s: Some(0.0) };
        series.push(0.0, usage(10.0, 300.0));
        assert_eq!((series.cores(), series.memory_peak_mib()), (None, Some(300.0)));
        series.push(1.0, usage(11.0, 700.0));
        series.push(2.0, usage(13.0, 500.0));
        assert_eq!((series.cores(), series.memory_peak_mib()), (Some(1.5), Some(700.0)));
        let mut csv = Vec::new();
        series.append_csv(&mut csv).unwrap();
        assert!(String::from_utf8(csv).unwrap().starts_with("0.000000,container,,cpu_seconds,10\n"));
        assert_eq!(UsageSeries::default().cores(), None);
    }
}
