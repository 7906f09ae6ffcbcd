//! Readings over a sample's time axis: seconds since the measured part began, so that they can be laid beside
//! `requests.csv`. From them the figures of the window.

use std::io::Write;

use super::gpu::GpuReading;
use super::host::HostReading;
use super::scrape::Look;
use super::vocabulary::{METRICS, Metric, Values};
use super::{Totals, Window};
use crate::stats::{Gauge, ServerLoad};

/// All readings of a sample, in the order of time within each kind.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Seconds since the measured part began; the first look is before it, the last one after it.
    pub(super) engine: Vec<(f64, Look)>,
    pub(super) gpus: Vec<(f64, Vec<GpuReading>)>,
    pub(super) host: Vec<(f64, HostReading)>,
}

impl Series {
    /// Counts seconds from another moment, so many later.
    pub(super) fn shift(&mut self, by_s: f64) {
        self.engine.iter_mut().for_each(|(at, _)| *at -= by_s);
        self.gpus.iter_mut().for_each(|(at, _)| *at -= by_s);
        self.host.iter_mut().for_each(|(at, _)| *at -= by_s);
    }

    /// How loaded the engine was. Counters say something of the window only where a look was before it and one after it.
    pub(super) fn server_load(&self, window: &Window) -> ServerLoad {
        let inside = |metric: Metric| {
            let looks = self.engine.iter().filter(|(at, _)| window.holds(*at));
            Gauge::of(looks.filter_map(|(_, look)| look.values.get(metric)))
        };
        let around = |from: f64, to: f64| from <= window.from_s && to >= window.to_s;
        let ends = self.engine.first().zip(self.engine.last()).filter(|(first, last)| around(first.0, last.0));
        let grown = |metric| ends.and_then(|((_, first), (_, last))| grown(metric, &first.values, &last.values));
        let mean_ms = |sum, count| Some(grown(sum)? / grown(count).filter(|n| *n > 0.0)? * 1e3);
        let counted = || Some(grown(Metric::PrefixHits)? / grown(Metric::PrefixQueries).filter(|n| *n > 0.0)?);
        ServerLoad {
            running: inside(Metric::Running),
            waiting: inside(Metric::Waiting),
            kv_cache_usage: inside(Metric::KvCacheUsage),
            preemptions: grown(Metric::Preemptions),
            prefix_hit_rate: counted().or_else(|| inside(Metric::PrefixHitRate).map(|g| g.mean)),
            queue_mean_ms: mean_ms(Metric::QueueSum, Metric::QueueCount),
            prefill_mean_ms: mean_ms(Metric::PrefillSum, Metric::PrefillCount),
            decode_mean_ms: mean_ms(Metric::DecodeSum, Metric::DecodeCount),
        }
    }

    /// As `telemetry.csv`: one row per reading and metric. `seconds` count from the start of the measured part.
    pub fn write_csv(&self, out: impl Write) -> std::io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(["seconds", "source", "device", "metric", "value"])?;
        let mut row = |at: f64, source: &str, device: &str, metric: &str, value: f64| {
            csv.write_record([&format!("{at:.6}"), source, device, metric, &value.to_string()])
        };
        for (at, Look { values, totals }) in &self.engine {
            for (metric, name) in METRICS {
                values.get(metric).map_or(Ok(()), |value| row(*at, "engine", "", name, value))?;
            }
            write_totals(totals, |name, value| row(*at, "engine", "", name, value))?;
        }
        for (at, readings) in &self.gpus {
            for reading in readings {
                for (name, value) in reading.values() {
                    row(*at, "gpu", &reading.id, name, value)?;
                }
            }
        }
        for (at, reading) in &self.host {
            for (name, value) in reading.values() {
                row(*at, "host", "", name, value)?;
            }
        }
        csv.flush()
    }
}

/// The engine's own names of what `server_*_mean_ms` are made from.
fn write_totals(totals: &Totals, mut row: impl FnMut(&str, f64) -> Result<(), csv::Error>) -> Result<(), csv::Error> {
    totals.iter().try_for_each(|(name, value)| row(name, *value))
}

/// What a counter grew by. One that appears with its first request began at 0; one that is smaller than it was has been
/// started anew, and says nothing of the window.
fn grown(metric: Metric, first: &Values, last: &Values) -> Option<f64> {
    let grown = last.get(metric)? - first.get(metric).unwrap_or(0.0);
    (grown >= 0.0).then_some(grown)
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary;
    use super::*;

    fn window(to_s: f64) -> Window {
        Window { to_s, ..Window::default() }
    }

    fn look(at: f64, text: &str) -> (f64, Look) {
        (at, Look { values: vocabulary::read(text).unwrap(), totals: Totals::new() })
    }

    #[test]
    fn gauges_are_of_the_window_and_counters_of_its_ends() {
        let text = |running: u32, kv: f64, preempted: u32, hits: u32, queue: f64, n: u32| {
            format!(
                "vllm:num_requests_running {running}\nvllm:kv_cache_usage_perc {kv}\nvllm:num_preemptions_total {preempted}\n\
                 vllm:prefix_cache_hits_total {hits}\nvllm:prefix_cache_queries_total {}\n\
                 vllm:request_queue_time_seconds_sum {queue}\nvllm:request_queue_time_seconds_count {n}\n",
                hits * 4
            )
        };
        let series = Series {
            engine: vec![
                look(-0.01, &text(9, 0.9, 1, 100, 1.0, 10)),
                look(1.0, &text(4, 0.25, 1, 110, 1.0, 12)),
                look(2.0, &text(6, 0.75, 2, 120, 1.5, 15)),
                look(2.6, &text(0, 0.0, 3, 140, 2.0, 20)),
            ],
            ..Series::default()
        };
        let load = series.server_load(&window(2.5));
        assert_eq!(load.running, Some(Gauge { mean: 5.0, peak: 6.0 }));
        assert_eq!(load.kv_cache_usage, Some(Gauge { mean: 0.5, peak: 0.75 }));
        assert_eq!(load.preemptions, Some(2.0));
        assert_eq!(load.prefix_hit_rate, Some(0.25));
        assert_eq!(load.queue_mean_ms, Some(100.0));
        assert_eq!((load.waiting, load.decode_mean_ms), (None, None), "what the engine does not tell is not known");
        let mut csv = Vec::new();
        series.write_csv(&mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        assert!(csv.starts_with("seconds,source,device,metric,value\n-0.010000,engine,,running,9\n"), "{csv}");
        assert!(csv.contains("\n2.000000,engine,,kv_cache_usage,0.75\n"), "{csv}");
    }

    #[test]
    fn one_look_says_nothing_of_a_window() {
        let series = Series { engine: vec![look(-0.1, "vllm:num_preemptions_total 3\n")], ..Series::default() };
        assert_eq!(series.server_load(&window(1.0)), ServerLoad::default());
        let again = Series {
            engine: vec![look(-0.1, "vllm:num_preemptions_total 3\n"), look(2.0, "vllm:num_preemptions_total 1\n")],
            ..Series::default()
        };
        assert_eq!(again.server_load(&window(1.0)).preemptions, None, "started anew");
        let late = Series {
            engine: vec![look(0.5, "vllm:num_preemptions_total 3\n"), look(2.0, "vllm:num_preemptions_total 4\n")],
            ..Series::default()
        };
        assert_eq!(late.server_load(&window(1.0)).preemptions, None, "there was no look before the window");
    }
}
