//! What an event says in one line of text, for people. Progress within a stage has no line; displays that can redraw show
//! it otherwise.

use std::time::Duration;

use crate::digest::UnitId;
use crate::event::fold::RunState;
use crate::event::{Counts, Entry, Event, without_name};
use crate::units::format_duration;

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

/// One line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Wall-clock time of day, `06:15:00`.
    pub time: String,
    /// One word.
    pub verb: &'static str,
    pub text: String,
    pub tone: Tone,
}

/// The line of an entry, with the state of the run before it.
pub fn line(entry: &Entry, before: &RunState) -> Option<Line> {
    let (verb, tone, text) = words(&entry.event, before)?;
    let time = entry.at.get(11..19).unwrap_or("--:--:--").to_string();
    // A cause may be a traceback; the journal has all of it.
    let text = text.lines().next().unwrap_or_default().to_string();
    Some(Line { time, verb, text, tone })
}

fn words(event: &Event, before: &RunState) -> Option<(&'static str, Tone, String)> {
    let container = |id| before.deployments.get(id).map_or_else(|| short(id), |d| d.container.clone());
    Some(match event {
        Event::RunStarted { run, units, cached, samples, starts, simulated, .. } => {
            let kind = if *simulated { " (simulated)" } else { "" };
            let text = format!(
                "{run}{kind}: {}, {cached} cached; {} to measure over {}",
                count(*units, "unit"),
                count(*samples, "sample"),
                count(*starts, "engine start")
            );
            ("run", Tone::Plain, text)
        }
        Event::DeploymentStarting { container, start, units, .. } => {
            let again = if *start > 1 { format!(" again (start {start})") } else { String::new() };
            ("start", Tone::Plain, format!("{container}{again}, for {}", count(*units, "unit")))
        }
        Event::DeploymentReady { deploy_id, seconds, engine_version, .. } => {
            let version = engine_version.as_ref().map(|v| format!(", version {v}")).unwrap_or_default();
            ("ready", Tone::Plain, format!("{} after {}{version}", container(deploy_id), seconds_text(*seconds)))
        }
        Event::DeploymentFailed { deploy_id, stage, class, cause, retry, .. } => {
            let again = if *retry { "; trying again" } else { "" };
            let (stage, class) = (stage.as_str(), class.as_str());
            let name = container(deploy_id);
            let cause = without_name(cause, &name);
            ("failed", Tone::Bad, format!("{name} at {stage} ({class}{again}): {cause}"))
        }
        Event::SampleFinished { unit_id, sample, valid, reason, seconds, ttft_ms, tpot_ms, output_throughput } => {
            let name = name(unit_id, before);
            let figures = figures(*ttft_ms, *tpot_ms, *output_throughput, *seconds);
            match (valid, reason) {
                (true, _) => ("done", Tone::Good, format!("{name} #{sample}: {figures}")),
                (false, Some(why)) => ("invalid", Tone::Warn, format!("{name} #{sample}: {why} ({figures})")),
                (false, None) => ("invalid", Tone::Warn, format!("{name} #{sample}: {figures}")),
            }
        }
        Event::AttemptFailed { unit_id, sample, attempt, stage, class, cause, retry } => {
            let again = if *retry { "; trying again" } else { "" };
            let (name, stage, class) = (name(unit_id, before), stage.as_str(), class.as_str());
            let text = format!("{name} #{sample} try {attempt} at {stage} ({class}{again}): {cause}");
            ("failed", if *retry { Tone::Warn } else { Tone::Bad }, text)
        }
        Event::UnitTaken { unit_id } => (
            "taken",
            Tone::Plain,
            format!("{} is being measured by another run; looked at again later", short(unit_id)),
        ),
        Event::SearchStarted { search, max_probes, .. } => {
            ("search", Tone::Plain, format!("{search}, ≤ {}", count(u64::from(*max_probes), "probe")))
        }
        Event::ProbeChosen { .. } => return None,
        Event::SearchFinished { result } => {
            let tone = if result.best.is_some() && result.unfinished.is_none() { Tone::Good } else { Tone::Warn };
            ("search", tone, format!("{}: {}", result.search, result.text()))
        }
        Event::Notice { message } => ("note", Tone::Warn, message.clone()),
        Event::RunFinished { counts, exit_code } => {
            let tone = if *exit_code == 0 { Tone::Good } else { Tone::Bad };
            ("end", tone, format!("{}; exit code {exit_code}", counts_text(counts)))
        }
        // Said by the deployment's failure, by the sample's line, or by the redrawn part of a display.
        Event::UnitBlocked { .. }
        | Event::UnitFinished { .. }
        | Event::SampleStarted { .. }
        | Event::DeploymentProgress { .. }
        | Event::DeploymentStopped { .. } => return None,
    })
}

fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(16).collect()
}

fn name(id: &UnitId, before: &RunState) -> String {
    before.measuring.iter().find(|m| m.unit_id == *id).map_or_else(|| short(id), |m| m.name.clone())
}

fn figures(ttft: Option<f64>, tpot: Option<f64>, throughput: Option<f64>, seconds: f64) -> String {
    let mut parts = Vec::new();
    parts.extend(ttft.map(|ms| format!("TTFT {}", millis(ms))));
    parts.extend(tpot.map(|ms| format!("TPOT {}", millis(ms))));
    parts.extend(throughput.map(|t| format!("{} tok/s", figure(t))));
    parts.push(format!("in {}", seconds_text(seconds)));
    parts.join(", ")
}

/// Three significant digits, thousands whole.
pub fn figure(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// Milliseconds, as seconds from ten seconds on.
pub fn millis(ms: f64) -> String {
    if ms >= 10_000.0 { format!("{} s", figure(ms / 1e3)) } else { format!("{} ms", figure(ms)) }
}

/// Seconds as people say them: `0.42s`, `12s`, `3m5s`.
pub fn seconds_text(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.2}s");
    }
    format_duration(Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX))
}

fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Every count that is not zero; measured ones always.
pub fn counts_text(counts: &Counts) -> String {
    let Counts { cached, measured, invalid, failed, blocked, unsupported, not_run } = *counts;
    let mut parts = vec![format!("{measured} measured")];
    for (n, word) in [
        (cached, "cached"),
        (invalid, "invalid"),
        (failed, "failed"),
        (blocked, "blocked"),
        (unsupported, "unsupported"),
        (not_run, "not run"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {word}"));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::digest::DeployId;
    use crate::event::{FailureClass, Outcome, Stage};
    use crate::value::Value;

    fn unit(name: &str) -> UnitId {
        UnitId::of(&Value::str(name))
    }

    /// A small run in which everything happens.
    pub fn run() -> Vec<Entry> {
        let (d, e) = (DeployId::of(&Value::str("d")), DeployId::of(&Value::str("e")));
        let starting = |id, container: &str, start| Event::DeploymentStarting {
            deploy_id: id,
            container: container.into(),
            start,
            units: 2,
        };
        let sample = |name: &str, attempt| Event::SampleStarted {
            unit_id: unit(name),
            sample: 1,
            attempt,
            round: 1,
            name: format!("m-hf-vllm {name}"),
        };
        let finished = |name: &str, reason: Option<&str>| Event::SampleFinished {
            unit_id: unit(name),
            sample: 1,
            valid: reason.is_none(),
            reason: reason.map(String::from),
            seconds: 12.34,
            ttft_ms: Some(83.21),
            tpot_ms: Some(7.126),
            output_throughput: Some(1412.6),
        };
        let events = vec![
            Event::RunStarted {
                run: "20261124T061500Z-demo".into(),
                experiment: "demo".into(),
                units: 5,
                cached: 1,
                samples: 4,
                starts: 2,
                simulated: false,
            },
            starting(d, "m-hf-vllm", 1),
            Event::DeploymentProgress {
                deploy_id: d,
                stage: Stage::Pull,
                message: "layer 3 of 9".into(),
                fraction: Some(0.25),
            },
            Event::DeploymentReady { deploy_id: d, start: 1, seconds: 185.2, engine_version: Some("0.33.0".into()) },
            sample("c=1", 1),
            finished("c=1", None),
            sample("c=8", 1),
            Event::AttemptFailed {
                unit_id: unit("c=8"),
                sample: 1,
                attempt: 1,
                stage: Stage::Measure,
                class: FailureClass::Infrastructure,
                cause: "the engine died\nTraceback".into(),
                retry: true,
            },
            sample("c=8", 2),
            finished("c=8", Some("error rate 0.12 is above 0.01")),
            Event::DeploymentStopped { deploy_id: d, start: 1 },
            starting(e, "m-hf-sglang", 2),
            Event::DeploymentFailed {
                deploy_id: e,
                start: 2,
                stage: Stage::Ready,
                class: FailureClass::Deterministic,
                cause: "CUDA out of memory".into(),
                attempt: 1,
                retry: false,
                environment: false,
                log_tail: None,
            },
            Event::UnitBlocked { unit_id: unit("x"), cause: "CUDA out of memory".into() },
            Event::UnitFinished {
                unit_id: unit("x"),
                outcome: Outcome::Blocked { cause: "CUDA out of memory".into() },
            },
            Event::UnitTaken { unit_id: unit("y") },
            Event::Notice { message: "the lock names another hardware class".into() },
            Event::RunFinished {
                counts: Counts { cached: 1, measured: 1, invalid: 1, blocked: 2, ..Counts::default() },
                exit_code: 5,
            },
        ];
        let entry = |(seq, event)| Entry { seq, at: format!("2026-11-24T06:15:{seq:02}.000Z"), event };
        (0u64..).zip(events).map(entry).collect()
    }

    #[test]
    fn every_event_says_what_people_need() {
        let mut state = RunState::default();
        let mut out = String::new();
        for entry in run() {
            if let Some(l) = line(&entry, &state) {
                out.push_str(&format!("{} {:7} {}\n", l.time, l.verb, l.text));
            }
            state.apply(&entry);
        }
        let y = short(&unit("y"));
        insta::assert_snapshot!(out.replace(&y, "[unit]"), @r"
        06:15:00 run     20261124T061500Z-demo: 5 units, 1 cached; 4 samples to measure over 2 engine starts
        06:15:01 start   m-hf-vllm, for 2 units
        06:15:03 ready   m-hf-vllm after 3m5s, version 0.33.0
        06:15:05 done    m-hf-vllm c=1 #1: TTFT 83.2 ms, TPOT 7.13 ms, 1413 tok/s, in 12s
        06:15:07 failed  m-hf-vllm c=8 #1 try 1 at measure (infrastructure; trying again): the engine died
        06:15:09 invalid m-hf-vllm c=8 #1: error rate 0.12 is above 0.01 (TTFT 83.2 ms, TPOT 7.13 ms, 1413 tok/s, in 12s)
        06:15:11 start   m-hf-sglang again (start 2), for 2 units
        06:15:12 failed  m-hf-sglang at ready (deterministic): CUDA out of memory
        06:15:15 taken   [unit] is being measured by another run; looked at again later
        06:15:16 note    the lock names another hardware class
        06:15:17 end     1 measured, 1 cached, 1 invalid, 2 blocked; exit code 5
        ");
    }

    #[test]
    fn figures_have_three_digits() {
        for (x, text) in [(0.456, "0.46"), (7.126, "7.13"), (83.21, "83.2"), (1412.6, "1413")] {
            assert_eq!(figure(x), text);
        }
        assert_eq!(millis(12_345.0), "12.3 s");
        assert_eq!(seconds_text(185.2), "3m5s");
        assert_eq!(seconds_text(0.5), "0.50s");
    }
}
