//! The host's processors and memory, from `/proc` (proc(5)). Elsewhere than on Linux nothing is known of them.

use std::fs;
use std::path::Path;

use super::Window;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostReading {
    /// Seconds that all processors together have worked, and could have, since the host began.
    pub busy_s: Option<f64>,
    pub total_s: Option<f64>,
    pub memory_used_mib: Option<f64>,
}

/// The host in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostSummary {
    /// Share of all processors that was in use, 0 to 1.
    pub cpu_fraction: Option<f64>,
    pub memory_peak_mib: Option<f64>,
}

/// Ticks per second of `/proc/stat`: the same on every architecture that is supported.
const TICKS: f64 = 100.0;

impl HostReading {
    pub fn now() -> HostReading {
        HostReading::of(Path::new("/proc"))
    }

    fn of(proc: &Path) -> HostReading {
        let times = fs::read_to_string(proc.join("stat")).ok().and_then(|text| cpu(&text));
        let memory = fs::read_to_string(proc.join("meminfo")).ok();
        HostReading {
            busy_s: times.map(|(busy, _)| busy),
            total_s: times.map(|(_, total)| total),
            memory_used_mib: memory
                .and_then(|text| Some((kib(&text, "MemTotal:")? - kib(&text, "MemAvailable:")?) / 1024.0)),
        }
    }

    /// With the names they have in files.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let HostReading { busy_s, total_s, memory_used_mib } = *self;
        let all = [("cpu_busy_seconds", busy_s), ("cpu_seconds", total_s), ("memory_used_mib", memory_used_mib)];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl HostSummary {
    /// From the last look before the window to the last one in it.
    pub(super) fn of(readings: &[(f64, HostReading)], window: &Window) -> HostSummary {
        let before = readings.iter().rfind(|(at, _)| *at <= window.from_s);
        let inside = || readings.iter().filter(|(at, _)| window.holds(*at));
        let ends = before.or_else(|| inside().next()).zip(inside().next_back());
        let share = ends.and_then(|((_, first), (_, last))| {
            let total = last.total_s? - first.total_s?;
            (total > 0.0).then_some((last.busy_s? - first.busy_s?) / total)
        });
        let peak = inside().filter_map(|(_, r)| r.memory_used_mib).reduce(f64::max);
        HostSummary { cpu_fraction: share, memory_peak_mib: peak }
    }
}

/// Busy and total seconds of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. What a
/// guest uses is in `user` already.
fn cpu(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total: f64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0.0);
    Some(((total - idle) / TICKS, total / TICKS))
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { zero_wall_ns: 0, from_s: 0.0, to_s: 2.0, requests: 0 };

    #[test]
    fn processors_and_memory_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let reading = |user: u32, idle: u32, available: u32| {
            fs::write(dir.path().join("stat"), format!("cpu  {user} 0 100 {idle} 100 0 0 0 7 0\ncpu0 1 2 3\n"))
                .unwrap();
            let memory = format!("MemTotal: 4096000 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n");
            fs::write(dir.path().join("meminfo"), memory).unwrap();
            HostReading::of(dir.path())
        };
        let (before, after) = (reading(100, 700, 2_048_000), reading(250, 750, 1_024_000));
        assert_eq!(before.memory_used_mib, Some(2000.0));
        assert_eq!((before.busy_s, before.total_s), (Some(2.0), Some(10.0)));
        let summary = HostSummary::of(&[(-0.1, before), (1.0, after), (9.0, reading(9000, 9000, 0))], &WINDOW);
        assert_eq!(summary, HostSummary { cpu_fraction: Some(0.75), memory_peak_mib: Some(3000.0) });
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let reading = HostReading::of(Path::new("/nonexistent"));
        assert_eq!(reading, HostReading::default());
        assert_eq!(reading.values().count(), 0);
        assert_eq!(HostSummary::of(&[(0.0, reading)], &WINDOW), HostSummary::default());
    }
}
