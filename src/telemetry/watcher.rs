//! The thread that looks. It has an event loop of its own, so that neither the load workers nor the control plane wait for
//! it, and knows what it costs.

use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::gpu::{GpuOptions, GpuSummary, Meter};
use super::host::{HostReading, HostSummary};
use super::scrape::{Look, Scraper};
use super::series::Series;
use super::{Seen, Totals, Window, latency};
use crate::clock::{Clock, Stopwatch, SystemClock, thread_cpu};
use crate::stats::{ServerMeans, WatchCost};

/// Pauses before a second look and further ones, where the server does not yet know of all requests.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

/// How long a first or a last look may take. A look at an engine has a limit of its own; one at a device has none.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Watching {
    /// `None` where the engine has no metrics.
    pub engine: Option<Scraper>,
    pub gpus: GpuOptions,
    /// Between two looks; zero is only before and after.
    pub interval: Duration,
}

enum Command {
    /// The measured part begins once the answer is there.
    Begin(blocking::Sender<()>),
    End(Window, oneshot::Sender<Seen>),
}

/// A thread that watches one sample. It ends with this, or with [`Watcher::end`].
#[derive(Clone, Debug)]
pub struct Watcher(mpsc::UnboundedSender<Command>);

impl Watcher {
    /// `None` where there can be no thread.
    pub fn start(watching: Watching) -> Option<Watcher> {
        let (send, commands) = mpsc::unbounded_channel();
        let body = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(serve(watching, commands));
        };
        std::thread::Builder::new().name("telemetry".into()).spawn(body).ok()?;
        Some(Watcher(send))
    }

    /// The look before the measured part; returns when it is done. Not from within an async runtime.
    pub fn begin(&self) {
        let (done, wait) = blocking::channel();
        // Where the thread is gone nothing will be known, and nothing is waited for.
        if self.0.send(Command::Begin(done)).is_ok() {
            // A driver that hangs is no reason not to measure.
            let _ = wait.recv_timeout(LOOK_LIMIT);
        }
    }

    /// The look after it, and what was seen. A server that counts its requests a little later than it answers them is given
    /// a moment.
    pub async fn end(&self, window: Window) -> Seen {
        let (send, seen) = oneshot::channel();
        if self.0.send(Command::End(window, send)).is_err() {
            return Seen::default();
        }
        tokio::time::timeout(LOOK_LIMIT, seen).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

async fn serve(watching: Watching, mut commands: mpsc::UnboundedReceiver<Command>) {
    let interval = watching.interval;
    // While others warm up.
    let mut watch = Watch::new(watching);
    let Some(Command::Begin(done)) = commands.recv().await else { return };
    let begun_at = watch.begin().await;
    let _ = done.send(());
    // Half an interval later, so that a short sample has a look in its middle.
    let first = tokio::time::Instant::now() + interval / 2;
    let mut ticks = tokio::time::interval_at(first, interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            biased;
            command = commands.recv() => break command,
            _ = ticks.tick(), if !interval.is_zero() => watch.look().await,
        }
    };
    // The sample may have been given up.
    if let Some(Command::End(window, seen)) = end {
        let _ = seen.send(watch.end(&window, begun_at).await);
    }
}

struct Watch {
    engine: Option<Scraper>,
    meter: Option<Meter>,
    series: Series,
    /// What looks are stamped by, and when it began, nanoseconds since 1970.
    since: Stopwatch,
    since_wall_ns: i64,
    scrapes: u32,
    cpu_before: Option<Duration>,
    /// The sums and counts of the first look, where the engine answered it.
    before: Option<Totals>,
}

impl Watch {
    fn new(watching: Watching) -> Watch {
        Watch {
            meter: Meter::find(&watching.gpus),
            engine: watching.engine,
            series: Series::default(),
            since: Stopwatch::start(),
            since_wall_ns: wall_ns(),
            scrapes: 0,
            cpu_before: None,
            before: None,
        }
    }

    /// The first look, which is before the window; gives when it was, in seconds since 1970.
    async fn begin(&mut self) -> f64 {
        let at = SystemClock.now().as_millisecond() as f64 / 1e3;
        self.look_around().await;
        self.before = self.scrape().await.map(|look| look.totals.clone());
        self.cpu_before = thread_cpu();
        at
    }

    async fn look(&mut self) {
        self.look_around().await;
        self.scrape().await;
    }

    /// At all but the engine.
    async fn look_around(&mut self) {
        let at = self.since.elapsed().as_secs_f64();
        self.series.host.push((at, HostReading::now()));
        if let Some(meter) = &self.meter {
            let readings = meter.read().await;
            if !readings.is_empty() {
                self.series.gpus.push((at, readings));
            }
        }
    }

    async fn scrape(&mut self) -> Option<&Look> {
        let asked = self.since.elapsed().as_secs_f64();
        let look = self.engine.as_ref()?.look().await?;
        self.scrapes += 1;
        // Some time between the question and the answer.
        let at = (asked + self.since.elapsed().as_secs_f64()) / 2.0;
        self.series.engine.push((at, look));
        self.series.engine.last().map(|(_, look)| look)
    }

    async fn end(mut self, window: &Window, begun_at: f64) -> Seen {
        // The looks from here on are after the window, whatever they cost.
        let cost = WatchCost { scrapes: self.scrapes, cpu_fraction: self.cpu_fraction(window) };
        self.look_around().await;
        let means = self.means(window, begun_at).await;
        let mut series = self.series;
        series.shift((window.zero_wall_ns - self.since_wall_ns) as f64 / 1e9);
        Seen {
            means,
            load: series.server_load(window),
            gpus: GpuSummary::of(&series.gpus, window),
            host: HostSummary::of(&series.host, window),
            cost,
            window: *window,
            series,
        }
    }

    async fn means(&mut self, window: &Window, begun_at: f64) -> ServerMeans {
        let before = self.before.take();
        let Some((dialect, before)) = self.engine.as_ref().map(|e| e.dialect).zip(before) else {
            return ServerMeans::default();
        };
        let mut means = ServerMeans::default();
        for pause in std::iter::once(Duration::ZERO).chain(PAUSES) {
            tokio::time::sleep(pause).await;
            let Some(after) = self.scrape().await else { break };
            means = latency::means(dialect, begun_at, &before, &after.totals);
            if means.requests.is_none_or(|n| n >= window.requests) {
                break;
            }
        }
        means
    }

    fn cpu_fraction(&self, window: &Window) -> Option<f64> {
        let used = thread_cpu()?.saturating_sub(self.cpu_before?);
        (window.seconds() > 0.0).then(|| used.as_secs_f64() / window.seconds())
    }
}

fn wall_ns() -> i64 {
    i64::try_from(SystemClock.now().as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::stats::Gauge;
    use crate::wire::ApiSpec;

    /// A window that begins now.
    fn now() -> Window {
        Window { zero_wall_ns: wall_ns(), ..Window::default() }
    }

    /// A server that answers each request with the next of these texts, the last one for ever.
    async fn serving(texts: &'static [&'static str], asked: Arc<AtomicUsize>) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for i in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.fetch_add(1, Relaxed);
                let text = texts[texts.len().min(i + 1) - 1];
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", text.len());
                stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
            }
        });
        url
    }

    async fn watcher(texts: &'static [&'static str], interval: Duration) -> Watcher {
        counted(texts, interval, Arc::default()).await
    }

    async fn counted(texts: &'static [&'static str], interval: Duration, asked: Arc<AtomicUsize>) -> Watcher {
        let url = serving(texts, asked).await;
        let api: ApiSpec = toml::from_str("dialect = \"openai\"\ndefault = \"chat\"\nmetrics = \"/metrics\"").unwrap();
        let client = crate::hub::http::client().unwrap();
        let engine = Scraper::new(client, &url, &api);
        let watcher = Watcher::start(Watching { engine, gpus: GpuOptions::default(), interval }).unwrap();
        let begun = watcher.clone();
        tokio::task::spawn_blocking(move || begun.begin()).await.unwrap();
        watcher
    }

    async fn scraped(texts: &'static [&'static str], requests: u64) -> ServerMeans {
        watcher(texts, Duration::ZERO).await.end(Window { to_s: 1.0, requests, ..now() }).await.means
    }

    const BEFORE: &str = "sglang:e2e_request_latency_seconds_sum 10\nsglang:e2e_request_latency_seconds_count 2\n";
    const HALF: &str = "sglang:e2e_request_latency_seconds_sum 11\nsglang:e2e_request_latency_seconds_count 3\n";
    const AFTER: &str = "sglang:e2e_request_latency_seconds_sum 14\nsglang:e2e_request_latency_seconds_count 4\n";

    #[tokio::test]
    async fn requests_that_the_server_counts_late_are_waited_for() {
        let means = scraped(&[BEFORE, HALF, AFTER], 2).await;
        assert_eq!((means.server_e2el_mean_ms, means.requests), (Some(2000.0), Some(2)));
        let means = scraped(&[BEFORE, HALF, AFTER], 1).await;
        assert_eq!((means.server_e2el_mean_ms, means.requests), (Some(1000.0), Some(1)));
    }

    #[tokio::test]
    async fn what_is_no_metrics_is_not_known() {
        assert_eq!(scraped(&["[{\"iter\": 1}]"], 1).await, ServerMeans::default());
        assert_eq!(scraped(&[BEFORE, "<html>"], 1).await, ServerMeans::default());
        assert_eq!(scraped(&["<html>", AFTER], 1).await, ServerMeans::default(), "there was no look before");
    }

    #[tokio::test]
    async fn looks_go_on_until_the_end() {
        let texts = &["vllm:num_requests_running 0\n", "vllm:num_requests_running 4\n"];
        let watcher = watcher(texts, Duration::from_millis(20)).await;
        let begun = now();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = watcher.end(Window { to_s: 3600.0, ..begun }).await;
        assert_eq!(seen.load.running, Some(Gauge { mean: 4.0, peak: 4.0 }));
        assert!(seen.cost.scrapes >= 2 && seen.cost.cpu_fraction.is_some(), "{:?}", seen.cost);
        assert_eq!((seen.gpus.gpus, seen.gpus.energy_j), (0, None));
    }

    #[tokio::test]
    async fn a_sample_that_was_given_up_ends_its_watcher() {
        let asked = Arc::<AtomicUsize>::default();
        drop(counted(&[BEFORE], Duration::from_millis(20), asked.clone()).await);
        let quiet = async {
            loop {
                let before = asked.load(Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
                if asked.load(Relaxed) == before {
                    break before;
                }
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(10), quiet).await.expect("it stops asking");
        assert!(asked >= 1);
        // One that was never begun has nothing to say, and is not waited for.
        let never_begun = Watcher::start(Watching::default()).unwrap();
        assert!(never_begun.end(now()).await.series.host.is_empty());
    }
}
