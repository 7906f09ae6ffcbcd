//! What a server says of itself while a client measures it: latencies as it counts them, and how loaded it was.

use serde::{Deserialize, Serialize};

/// Means over the requests that the server counted between two looks; `None` where it has no such metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerMeans {
    pub server_ttft_mean_ms: Option<f64>,
    pub server_itl_mean_ms: Option<f64>,
    pub server_e2el_mean_ms: Option<f64>,
    /// Requests that it counted: those of `server_ttft_mean_ms`, else of `server_e2el_mean_ms`.
    pub requests: Option<u64>,
    /// It was started anew between the two looks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restarted: bool,
}

/// A gauge over the looks within a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    pub mean: f64,
    pub peak: f64,
}

impl Gauge {
    /// `None` without values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Gauge> {
        let (mut n, mut sum, mut peak) = (0_u32, 0.0, f64::NEG_INFINITY);
        for value in values {
            (n, sum, peak) = (n + 1, sum + value, f64::max(peak, value));
        }
        (n > 0).then(|| Gauge { mean: sum / f64::from(n), peak })
    }
}

/// How loaded a server was in the window, by its own metrics; `None` where it has no such metric, or where no look fell into
/// the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerLoad {
    /// Requests in the batch.
    pub running: Option<Gauge>,
    /// Requests that wait for a place in it.
    pub waiting: Option<Gauge>,
    /// Share of the KV cache, 0 to 1.
    pub kv_cache_usage: Option<Gauge>,
    /// Requests that were put back for want of KV cache.
    pub preemptions: Option<f64>,
    /// Share of prompt tokens found in the prefix cache, 0 to 1.
    pub prefix_hit_rate: Option<f64>,
    /// Means over the requests that ended in the window, milliseconds.
    pub queue_mean_ms: Option<f64>,
    pub prefill_mean_ms: Option<f64>,
    pub decode_mean_ms: Option<f64>,
}

/// What it took to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchCost {
    /// Looks at the server's metrics that were answered.
    pub scrapes: u32,
    /// CPU time of the thread that looked, as a share of one core over the measured part.
    pub cpu_fraction: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_has_a_mean_and_a_peak() {
        assert_eq!(Gauge::of([1.0, 4.0, 1.0].into_iter()), Some(Gauge { mean: 2.0, peak: 4.0 }));
        assert_eq!(Gauge::of(std::iter::empty()), None);
    }
}
