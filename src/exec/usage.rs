//! What a container uses while a sample is measured, as the container engine counts it.

use std::io::Write;

use crate::deploy::ContainerUsage;
use crate::store::record::Resources;
use crate::telemetry::{Seen, Window};

/// Readings over a sample: nanoseconds since 1970, and what had been used until then.
#[derive(Clone, Debug, Default)]
pub struct UsageSeries(Vec<(i64, ContainerUsage)>);

/// Readings on the clock of the window.
struct Placed<'a>(Vec<Reading<'a>>);

/// At a second, what had been used until then.
type Reading<'a> = (f64, &'a ContainerUsage);

impl UsageSeries {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, wall_ns: i64, usage: ContainerUsage) {
        self.0.push((wall_ns, usage));
    }

    fn placed(&self, window: &Window) -> Placed<'_> {
        Placed(self.0.iter().map(|(at, usage)| ((at - window.zero_wall_ns) as f64 / 1e9, usage)).collect())
    }

    /// Further rows of a `telemetry.csv`.
    pub fn append_csv(&self, window: &Window, out: impl Write) -> std::io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        for (at, usage) in &self.placed(window).0 {
            let ContainerUsage { cpu_s, memory_mib, throttled_s } = usage;
            let all = [("cpu_seconds", cpu_s), ("memory_mib", memory_mib), ("throttled_seconds", throttled_s)];
            for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, (*value)?))) {
                csv.write_record([&format!("{at:.6}"), "container", "", name, &value.to_string()])?;
            }
        }
        csv.flush()
    }
}

impl Placed<'_> {
    /// The last reading before the window, else the first one in it, and the last one in it.
    fn ends(&self, window: &Window) -> Option<(Reading<'_>, Reading<'_>)> {
        let inside = || self.0.iter().copied().filter(|(at, _)| window.holds(*at));
        let before = self.0.iter().copied().rfind(|(at, _)| *at <= window.from_s);
        before.or_else(|| inside().next()).zip(inside().next_back()).filter(|(first, last)| last.0 > first.0)
    }

    /// Mean number of cores in use.
    fn cores(&self, window: &Window) -> Option<f64> {
        let ((from, first), (to, last)) = self.ends(window)?;
        Some((last.cpu_s? - first.cpu_s?) / (to - from))
    }

    fn memory_peak_mib(&self, window: &Window) -> Option<f64> {
        self.0.iter().filter(|(at, _)| window.holds(*at)).filter_map(|(_, u)| u.memory_mib).reduce(f64::max)
    }

    /// Seconds for which its CPU limit held it back.
    fn throttled_s(&self, window: &Window) -> Option<f64> {
        let ((_, first), (_, last)) = self.ends(window)?;
        Some(last.throttled_s? - first.throttled_s?)
    }
}

/// What a sample used, as far as it was seen.
pub fn resources(seen: &Seen, usage: &UsageSeries) -> Resources {
    let (gpus, window) = (&seen.gpus, &seen.window);
    let usage = usage.placed(window);
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
        container_cpu_cores_mean: usage.cores(window),
        container_memory_peak_mib: usage.memory_peak_mib(window),
        container_throttled_s: usage.throttled_s(window),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates_of_the_window() {
        const S: i64 = 1_000_000_000;
        let window = Window { zero_wall_ns: 100 * S, from_s: 0.0, to_s: 2.5, requests: 0 };
        let mut series = UsageSeries::default();
        let usage = |cpu, memory| ContainerUsage { cpu_s: Some(cpu), memory_mib: Some(memory), throttled_s: Some(0.0) };
        // Warm-up, which is not of the window.
        series.push(90 * S, usage(1.0, 900.0));
        series.push(100 * S, usage(10.0, 300.0));
        series.push(101 * S, usage(11.0, 700.0));
        series.push(102 * S, usage(13.0, 500.0));
        series.push(110 * S, usage(13.0, 800.0));
        let placed = series.placed(&window);
        assert_eq!((placed.cores(&window), placed.memory_peak_mib(&window)), (Some(1.5), Some(700.0)));
        assert_eq!(placed.throttled_s(&window), Some(0.0));
        let mut csv = Vec::new();
        series.append_csv(&window, &mut csv).unwrap();
        assert!(String::from_utf8(csv).unwrap().starts_with("-10.000000,container,,cpu_seconds,1\n"));
        assert_eq!(UsageSeries::default().placed(&window).cores(&window), None);
    }
}
