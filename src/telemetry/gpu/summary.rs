//! Readings of GPUs → figures of the window.

use std::collections::{BTreeMap, BTreeSet};

use super::{GpuReading, Slowdown};
use crate::telemetry::Window;

/// The GPUs of a deployment in a window. `None` is not known, never zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSummary {
    /// GPUs that told anything.
    pub gpus: usize,
    /// Of all together.
    pub energy_j: Option<f64>,
    pub power_mean_w: Option<f64>,
    /// Of the one that used most.
    pub memory_peak_mib: Option<f64>,
    pub temperature_peak_c: Option<f64>,
    /// Over GPUs and looks, 0 to 1.
    pub utilization_mean: Option<f64>,
    pub sm_clock_mean_mhz: Option<f64>,
    /// Share of looks at which the power limit held the clocks down.
    pub power_capped: Option<f64>,
    pub slowed_by: BTreeSet<Slowdown>,
    pub strangers: BTreeSet<u32>,
    /// Uncorrected memory errors in the window.
    pub ecc_errors: Option<f64>,
}

type Track<'a> = Vec<(f64, &'a GpuReading)>;

impl GpuSummary {
    /// Of the readings in the window; energy and errors by those around it.
    pub(in crate::telemetry) fn of(readings: &[(f64, Vec<GpuReading>)], window: &Window) -> GpuSummary {
        let mut tracks: BTreeMap<&str, Track<'_>> = BTreeMap::new();
        for (at, gpus) in readings {
            gpus.iter().for_each(|gpu| tracks.entry(&gpu.id).or_default().push((*at, gpu)));
        }
        let inside = tracks.values().flatten().filter(|(at, _)| window.holds(*at));
        let all: Vec<&GpuReading> = inside.map(|(_, gpu)| *gpu).collect();
        // One that cannot be told makes the sum unknown.
        let energy = tracks.values().map(|track| energy(track, window)).sum::<Option<f64>>();
        let energy_j = energy.filter(|_| !tracks.is_empty());
        let grown = |track: &Track<'_>| Some(track.last()?.1.ecc_errors? - track.first()?.1.ecc_errors?);
        GpuSummary {
            gpus: tracks.len(),
            energy_j,
            power_mean_w: energy_j.filter(|_| window.seconds() > 0.0).map(|j| j / window.seconds()),
            memory_peak_mib: peak(&all, |g| g.memory_used_mib),
            temperature_peak_c: peak(&all, |g| g.temperature_c),
            utilization_mean: mean(&all, |g| g.utilization),
            sm_clock_mean_mhz: mean(&all, |g| g.sm_clock_mhz),
            power_capped: mean(&all, |g| g.power_capped.map(|b| f64::from(u8::from(b)))),
            slowed_by: all.iter().flat_map(|g| g.slowed_by.iter().copied()).collect(),
            strangers: all.iter().flat_map(|g| g.strangers.iter().copied()).collect(),
            ecc_errors: tracks.values().map(grown).sum::<Option<f64>>().filter(|_| !tracks.is_empty()),
        }
    }

    /// Why what was measured meanwhile does not count, if so.
    pub fn problem(&self) -> Option<String> {
        if !self.strangers.is_empty() {
            let pids: Vec<String> = self.strangers.iter().map(u32::to_string).collect();
            return Some(format!("another process used the GPU during the sample: {}", pids.join(", ")));
        }
        if !self.slowed_by.is_empty() {
            let reasons: Vec<&str> = self.slowed_by.iter().map(|s| s.as_str()).collect();
            return Some(format!("a GPU was throttled during the sample: {}", reasons.join(", ")));
        }
        self.ecc_errors
            .filter(|n| *n > 0.0)
            .map(|n| format!("{n} uncorrected memory errors of a GPU during the sample"))
    }
}

/// Joules that one GPU took in the window: from its counter where it has one, else from its power. A counter that did not
/// move has not been read anew by its source; power is known where a look fell into the window.
fn energy(track: &Track<'_>, window: &Window) -> Option<f64> {
    let grown = |counter: &[(f64, f64)]| Some(at(counter, window.to_s)? - at(counter, window.from_s)?);
    let counted: Option<Vec<(f64, f64)>> = track.iter().map(|(at, gpu)| Some((*at, gpu.energy_j?))).collect();
    if let Some(counter) = counted.filter(|c| c.len() > 1) {
        return grown(&counter).filter(|j| *j > 0.0);
    }
    let power: Option<Vec<(f64, f64)>> = track.iter().map(|(at, gpu)| Some((*at, gpu.power_w?))).collect();
    let power = power.filter(|p| p.len() > 1 && p.iter().any(|(at, _)| window.holds(*at)))?;
    // The trapezoids between looks add up to a counter.
    let mut counter = vec![(power[0].0, 0.0)];
    for pair in power.windows(2) {
        let [(t0, p0), (t1, p1)] = pair else { continue };
        let so_far = counter.last().map_or(0.0, |(_, j)| *j);
        counter.push((*t1, so_far + (p0 + p1) / 2.0 * (t1 - t0)));
    }
    grown(&counter)
}

/// A counter at a moment, linear between its readings and beyond them.
fn at(counter: &[(f64, f64)], moment: f64) -> Option<f64> {
    let after = counter.partition_point(|(t, _)| *t < moment).clamp(1, counter.len() - 1);
    let ((t0, c0), (t1, c1)) = (counter[after - 1], counter[after]);
    if t1 <= t0 {
        return Some(c1);
    }
    Some(c0 + (c1 - c0) * (moment - t0) / (t1 - t0))
}

fn peak(all: &[&GpuReading], of: impl Fn(&GpuReading) -> Option<f64>) -> Option<f64> {
    all.iter().filter_map(|g| of(g)).reduce(f64::max)
}

fn mean(all: &[&GpuReading], of: impl Fn(&GpuReading) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = all.iter().filter_map(|g| of(g)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(to_s: f64) -> Window {
        Window { to_s, ..Window::default() }
    }

    fn gpu(id: &str, power_w: f64, energy_j: Option<f64>) -> GpuReading {
        GpuReading { id: id.into(), power_w: Some(power_w), energy_j, ..GpuReading::default() }
    }

    #[test]
    fn energy_is_the_difference_of_the_counters_over_the_window() {
        // 400 W and 100 W, looked at before and after a window of 2 s.
        let readings: Vec<_> = [-0.5, 0.5, 1.5, 2.5]
            .map(|t| (t, vec![gpu("a", 0.0, Some(1000.0 + 400.0 * t)), gpu("b", 0.0, Some(50.0 + 100.0 * t))]))
            .into();
        let s = GpuSummary::of(&readings, &window(2.0));
        assert_eq!((s.gpus, s.energy_j, s.power_mean_w), (2, Some(1000.0), Some(500.0)));
        assert_eq!((s.memory_peak_mib, s.power_capped), (None, None));
    }

    #[test]
    fn without_a_counter_power_is_integrated() {
        let readings: Vec<_> =
            [(0.0, 100.0), (1.0, 300.0), (2.0, 300.0)].map(|(t, w)| (t, vec![gpu("a", w, None)])).into();
        assert_eq!(GpuSummary::of(&readings, &window(2.0)).energy_j, Some(500.0));
        assert_eq!(GpuSummary::of(&readings[..1], &window(2.0)).energy_j, None, "one look is no energy");
        assert_eq!(GpuSummary::of(&[], &window(2.0)), GpuSummary::default(), "nothing is unknown, not zero");
    }

    #[test]
    fn looks_around_the_window_are_not_of_it() {
        let busy = |t: f64, share: f64, watts: f64| {
            (t, vec![GpuReading { utilization: Some(share), power_w: Some(watts), ..gpu("a", watts, None) }])
        };
        let readings = [busy(-0.5, 0.0, 90.0), busy(0.5, 1.0, 700.0), busy(1.5, 0.5, 700.0), busy(9.0, 0.0, 90.0)];
        assert_eq!(GpuSummary::of(&readings, &window(2.0)).utilization_mean, Some(0.75));
        let idle = [busy(-0.5, 0.0, 90.0), busy(2.5, 0.0, 90.0)];
        let summary = GpuSummary::of(&idle, &window(2.0));
        assert_eq!((summary.utilization_mean, summary.energy_j), (None, None), "no look fell into it");
        let stuck: Vec<_> = [-0.5, 1.0, 2.5].map(|t| (t, vec![gpu("a", 0.0, Some(7.0))])).into();
        assert_eq!(GpuSummary::of(&stuck, &window(2.0)).energy_j, None, "its source has not read it anew");
    }

    #[test]
    fn one_gpu_that_tells_nothing_leaves_the_sum_unknown() {
        let readings: Vec<_> = [0.0, 1.0]
            .map(|t| (t, vec![gpu("a", 100.0, Some(t)), GpuReading { id: "b".into(), ..GpuReading::default() }]))
            .into();
        assert_eq!(GpuSummary::of(&readings, &window(1.0)).energy_j, None);
    }

    #[test]
    fn throttling_and_strangers_are_problems_and_a_power_limit_is_none() {
        let of = |change: fn(&mut GpuReading)| {
            let mut reading = gpu("a", 1.0, None);
            change(&mut reading);
            GpuSummary::of(&[(0.5, vec![reading])], &window(1.0)).problem()
        };
        assert_eq!(of(|g| g.power_capped = Some(true)), None);
        let throttled = of(|g| _ = g.slowed_by.insert(Slowdown::HardwareThermal)).unwrap();
        assert_eq!(throttled, "a GPU was throttled during the sample: hardware thermal slowdown");
        let stranger = of(|g| _ = g.strangers.insert(4711)).unwrap();
        assert_eq!(stranger, "another process used the GPU during the sample: 4711");
    }
}
