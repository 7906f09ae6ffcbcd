//! What an engine and its GPUs do while a sample is measured: the engine's metrics endpoint, the GPUs' counters and the
//! host, looked at once a second on a thread of their own. Nothing of it can make a sample fail: what cannot be read is not
//! known, and is absent.

pub mod gpu;
mod host;
mod iterations;
pub mod latency;
pub mod prometheus;
mod scrape;
mod series;
pub mod vocabulary;
mod watcher;

use std::collections::BTreeMap;
use std::io::Write;

use crate::stats::{ServerLoad, ServerMeans, WatchCost};

pub use host::HostSummary;
pub use scrape::Scraper;
pub use series::Series;
pub use watcher::{Watcher, Watching};

/// Sums and counts by name, over all label sets.
pub type Totals = BTreeMap<String, f64>;

/// The measured part of a sample, once it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// What seconds are counted from, in nanoseconds since 1970: the zero of `requests.csv`.
    pub zero_wall_ns: i64,
    /// First start and last token, seconds.
    pub from_s: f64,
    pub to_s: f64,
    /// Requests that completed.
    pub requests: u64,
}

impl Window {
    pub fn holds(&self, at_s: f64) -> bool {
        (self.from_s..=self.to_s).contains(&at_s)
    }

    pub fn seconds(&self) -> f64 {
        self.to_s - self.from_s
    }
}

/// What was seen while a sample was measured.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Means of the window, from the engine's histograms.
    pub means: ServerMeans,
    pub load: ServerLoad,
    pub gpus: gpu::GpuSummary,
    pub host: HostSummary,
    pub cost: WatchCost,
    /// Of which all of this is.
    pub window: Window,
    /// Every reading.
    pub series: Series,
}

/// `telemetry.csv` of a sample that nothing was seen of: the columns alone.
pub fn write_empty_csv(out: impl Write) -> std::io::Result<()> {
    Series::default().write_csv(out)
}
