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

/// What was seen while a sample was measured.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Means of the window, from the engine's histograms.
    pub means: ServerMeans,
    pub load: ServerLoad,
    pub gpus: gpu::GpuSummary,
    pub host: HostSummary,
    pub cost: WatchCost,
    /// Every reading.
    pub series: Series,
}

/// `telemetry.csv` of a sample that nothing was seen of: the columns alone.
pub fn write_empty_csv(out: impl Write) -> std::io::Result<()> {
    Series::default().write_csv(out)
}
