//! The display of a person's terminal: what happened scrolls by, what happens is redrawn below it. A thread of its own
//! redraws a few times a second; it reads counters and never waits for the run.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Reporter;
use super::eta::Eta;
use super::line::{Line, Tone, counts_text, figure, line, millis, seconds_text};
use super::rate::Rate;
use crate::digest::{DeployId, UnitId};
use crate::event::Entry;
use crate::event::fold::{Phase, RunState};
use crate::event::live::{LiveUnit, LiveUnits};
use crate::units::format_duration;

const REDRAW: Duration = Duration::from_millis(200);
/// Longest name in a redrawn line; the scrolled lines have all of it.
const NAME: usize = 56;

/// Progress bars on a terminal.
pub struct Terminal {
    screen: Arc<Mutex<Screen>>,
    stop: Arc<AtomicBool>,
    redraw: Option<JoinHandle<()>>,
}

struct Screen {
    bars: MultiProgress,
    overall: Option<ProgressBar>,
    deployments: HashMap<DeployId, ProgressBar>,
    units: HashMap<(UnitId, u32), (ProgressBar, Rate)>,
    live: LiveUnits,
    state: RunState,
    eta: Eta,
    color: bool,
    origin: Instant,
}

impl Terminal {
    /// Draws to `target`; reads the samples in flight from `live`. `color` is the caller's reading of `NO_COLOR`.
    pub fn new(target: ProgressDrawTarget, live: LiveUnits, color: bool) -> Terminal {
        let screen = Arc::new(Mutex::new(Screen {
            bars: MultiProgress::with_draw_target(target),
            overall: None,
            deployments: HashMap::new(),
            units: HashMap::new(),
            live,
            state: RunState::default(),
            eta: Eta::default(),
            color,
            origin: Instant::now(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, halt) = (screen.clone(), stop.clone());
        // Without the thread there are no moving numbers; everything else still shows.
        let redraw = std::thread::Builder::new().name("display".into()).spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                lock(&shared).redraw();
                std::thread::park_timeout(REDRAW);
            }
        });
        Terminal { screen, stop, redraw: redraw.ok() }
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    // A screen that panicked half-way draws the next line over it.
    screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Reporter for Terminal {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        lock(&self.screen).entry(entry)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.redraw.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        lock(&self.screen).bars.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl Screen {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let line = line(entry, &self.state);
        self.state.apply(entry);
        self.eta.see(&entry.event);
        if let Some(line) = line {
            self.bars.println(self.painted(&line))?;
        }
        if self.state.finished.is_some() {
            self.overall = None;
            self.deployments.clear();
            self.units.clear();
            return self.bars.clear();
        }
        self.redraw();
        Ok(())
    }

    fn painted(&self, line: &Line) -> String {
        let code = match line.tone {
            _ if !self.color => return format!("{} {:<7} {}", line.time, line.verb, line.text),
            Tone::Plain => "36",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[2m{}\x1b[0m \x1b[{code}m{:<7}\x1b[0m {}", line.time, line.verb, line.text)
    }

    fn redraw(&mut self) {
        if self.state.run.is_empty() || self.state.finished.is_some() {
            return;
        }
        self.draw_deployments();
        self.draw_units();
        self.draw_overall();
    }

    /// One line per engine that is starting.
    fn draw_deployments(&mut self) {
        let Screen { bars, deployments, state, .. } = self;
        deployments.retain(|id, bar| {
            let starting = matches!(state.deployments.get(id).map(|d| &d.phase), Some(Phase::Starting { .. }));
            if !starting {
                bars.remove(bar);
            }
            starting
        });
        for (id, deployment) in &state.deployments {
            let Phase::Starting { stage, message, fraction } = &deployment.phase else { continue };
            let bar = deployments.entry(*id).or_insert_with(|| {
                let bar = bars.insert(0, ProgressBar::new_spinner().with_style(style("{spinner} {msg} ({elapsed})")));
                bar.enable_steady_tick(REDRAW);
                bar
            });
            let stage = stage.map_or("starting", |s| s.as_str());
            let share = fraction.map(|f| format!(" {:.0}%", f * 100.0)).unwrap_or_default();
            bar.set_message(format!("{} {stage}{share} {}", cut(&deployment.container), cut(message)));
        }
    }

    /// One line per sample in flight.
    fn draw_units(&mut self) {
        let now = self.origin.elapsed();
        let running = self.live.snapshot();
        let Screen { bars, units, .. } = self;
        units.retain(|key, (bar, _)| {
            let runs = running.iter().any(|u| (u.unit_id, u.sample) == *key);
            if !runs {
                bars.remove(bar);
            }
            runs
        });
        for unit in &running {
            let (bar, rate) = units.entry((unit.unit_id, unit.sample)).or_insert_with(|| {
                let bar = ProgressBar::new(1).with_style(style("  {bar:20} {msg}"));
                (bars.insert(0, bar), Rate::default())
            });
            let tokens = unit.progress.output_tokens.load(Ordering::Relaxed);
            let (position, length) = extent(unit);
            bar.set_length(length.max(1));
            bar.set_position(position.min(length.max(1)));
            bar.set_message(unit_text(unit, rate.see(now, tokens)));
        }
    }

    fn draw_overall(&mut self) {
        let state = &self.state;
        let bar = self.overall.get_or_insert_with(|| {
            let bar = ProgressBar::new(1).with_style(style("{bar:30} {pos}/{len} samples  {msg}"));
            self.bars.add(bar)
        });
        bar.set_length(state.samples_planned.max(state.samples_done));
        bar.set_position(state.samples_done);
        let mut parts = Vec::new();
        if let Some(left) = self.eta.remaining(state) {
            parts.push(format!("about {} left", format_duration(Duration::from_secs(left.as_secs()))));
        }
        if !state.outcomes.is_empty() {
            parts.push(counts_text(&state.counts()));
        }
        bar.set_message(parts.join("  "));
    }
}

/// How far a sample is, by requests or by time, whichever is farther.
fn extent(unit: &LiveUnit) -> (u64, u64) {
    let progress = &unit.progress;
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let requests = (get(&progress.done) + get(&progress.failed), get(&progress.planned));
    let elapsed = u64::try_from(unit.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let time = (elapsed, get(&progress.planned_ms));
    let share = |(at, of): (u64, u64)| if of == 0 { 0.0 } else { at as f64 / of as f64 };
    if share(time) > share(requests) { time } else { requests }
}

fn unit_text(unit: &LiveUnit, rate: Option<f64>) -> String {
    let progress = &unit.progress;
    let done = progress.done.load(Ordering::Relaxed);
    let failed = progress.failed.load(Ordering::Relaxed);
    let mut parts = vec![format!("{} #{}", cut(&unit.name), unit.sample), format!("{done} done")];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    parts.extend(progress.mean_ttft_ms().map(|ms| format!("TTFT {}", millis(ms))));
    parts.extend(rate.map(|r| format!("{} tok/s", figure(r))));
    parts.push(seconds_text(unit.since.elapsed().as_secs_f64()));
    parts.join("  ")
}

fn cut(text: &str) -> String {
    let mut chars = text.chars().filter(|c| !c.is_control());
    let head: String = chars.by_ref().take(NAME).collect();
    if chars.next().is_some() { head + "…" } else { head }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    style.progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::run;
    use super::*;
    use crate::clock::Stopwatch;
    use crate::value::Value;
    use indicatif::InMemoryTerm;

    fn terminal(live: &LiveUnits) -> (InMemoryTerm, Terminal) {
        let term = InMemoryTerm::new(40, 120);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        (term, Terminal::new(target, live.clone(), false))
    }

    #[test]
    fn running_units_show_their_figures_and_leave_nothing_behind() {
        let live = LiveUnits::default();
        let (term, mut terminal) = terminal(&live);
        let entries = run();
        let unit = LiveUnit {
            unit_id: UnitId::of(&Value::str("c=1")),
            name: "m-hf-vllm c=1".into(),
            sample: 1,
            progress: Arc::default(),
            since: Stopwatch::start(),
        };
        let p = unit.progress.clone();
        p.planned.store(160, Ordering::Relaxed);
        p.done.store(37, Ordering::Relaxed);
        p.ttft_us_sum.store(83_000 * 37, Ordering::Relaxed);
        p.ttft_count.store(37, Ordering::Relaxed);
        let guard = live.enter(unit);
        for entry in &entries[..5] {
            terminal.entry(entry).unwrap();
        }
        let shown = term.contents();
        assert!(shown.contains("m-hf-vllm c=1 #1  37 done  TTFT 83.0 ms"), "{shown}");
        assert!(shown.contains("0/4 samples"), "{shown}");
        assert!(shown.contains("ready   m-hf-vllm after 3m5s, version 0.33.0"), "{shown}");
        drop(guard);
        for entry in &entries[5..] {
            terminal.entry(entry).unwrap();
        }
        terminal.finish().unwrap();
        let shown = term.contents();
        assert!(!shown.contains("samples  ") && !shown.contains("37 done"), "{shown}");
        assert!(shown.trim_end().ends_with("exit code 5"), "{shown}");
    }

    #[test]
    fn a_starting_engine_shows_its_stage() {
        let (term, mut terminal) = terminal(&LiveUnits::default());
        for entry in &run()[..3] {
            terminal.entry(entry).unwrap();
        }
        let shown = term.contents();
        assert!(shown.contains("m-hf-vllm pull 25% layer 3 of 9"), "{shown}");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(cut(&"ü".repeat(60)).chars().count(), NAME + 1);
        assert_eq!(cut("a\x1b[31mb"), "a[31mb");
    }
}
