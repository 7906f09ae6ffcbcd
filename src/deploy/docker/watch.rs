//! Watching a container from its start to its end: its log as it comes, what the log is known to mean, and its death.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use regex::Regex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::starved::{starved, was_starved};
use crate::clock::Stopwatch;
use crate::deploy::diagnosis::{self, Diagnosis};
use crate::deploy::log::Log;
use crate::deploy::secret::Redactor;
use crate::deploy::{Failure, FailureClass, Milestone, Stage};
use crate::hub::status;
use crate::units::format_bytes;

/// Log lines that go with a failure.
const FAILURE_LINES: usize = 50;
/// How long a dead container's last log lines may take to come.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long an engine that said something fatal may take to end by itself: its exit code and the rest of its words tell
/// more than that one line.
const DYING: Duration = Duration::from_secs(5);
/// Between two tries at an engine that does not answer, and how many there are.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 60;
/// A line that does not end is taken as it is at this length.
const LONGEST: usize = 64 << 10;

const TOO_LITTLE_MEMORY: &str = "the container's memory limit was reached: raise `container.memory`";

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    pub exit_code: Option<i64>,
    /// Something in it was killed for going over the container's own memory limit.
    pub oom_killed: bool,
    /// That limit in bytes, where it has one.
    pub memory_limit: Option<u64>,
    /// What the container engine says of it.
    pub error: String,
}

/// A container under watch. Dropping it ends the watch.
pub struct Watch {
    container: String,
    log: Log,
    milestones: Milestones,
    /// The first line that is known to mean something.
    first: Arc<OnceLock<Diagnosis>>,
    death: watch::Receiver<Option<Death>>,
    fatal: watch::Receiver<Option<Diagnosis>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What a log is read for.
pub struct Reading {
    pub redactor: Redactor,
    /// Milestones of the template, and who hears of them.
    pub milestones: Vec<(String, Regex)>,
    pub reached: mpsc::UnboundedSender<String>,
    /// All that were reached.
    milestones_reached: Milestones,
    /// Since the container was started.
    since: Stopwatch,
}

/// What a log has told so far.
pub type Milestones = Arc<Mutex<Vec<Milestone>>>;

impl Reading {
    /// `milestones` of a template; one that is no regular expression is a fault of the template.
    pub fn new(
        milestones: &BTreeMap<String, String>,
        redactor: Redactor,
        reached: mpsc::UnboundedSender<String>,
    ) -> Result<Reading, Failure> {
        let compiled = milestones.iter().map(|(name, pattern)| {
            Regex::new(pattern).map(|r| (name.clone(), r)).map_err(|e| {
                Failure::deterministic(
                    Stage::Create,
                    format!("the template's milestone `{name}` is not a pattern: {e}"),
                )
            })
        });
        Ok(Reading {
            milestones: compiled.collect::<Result<_, _>>()?,
            redactor,
            reached,
            milestones_reached: Milestones::default(),
            since: Stopwatch::start(),
        })
    }
}

impl Watch {
    /// Watches a container that has been started. `container` is its name in messages.
    pub fn start(docker: &Docker, id: &str, container: &str, reading: Reading) -> Watch {
        let log = Log::default();
        let milestones = reading.milestones_reached.clone();
        let first = Arc::new(OnceLock::new());
        let (tell_death, death) = watch::channel(None);
        let (tell_fatal, fatal) = watch::channel(None);
        let scribe = Scribe { reading, log: log.clone(), first: first.clone(), fatal: tell_fatal.clone() };
        let following = tokio::spawn(follow(docker.clone(), id.to_string(), scribe));
        let mut tasks = vec![following.abort_handle()];
        let (docker, id) = (docker.clone(), id.to_string());
        let (daemon, starving) = (docker.clone(), id.clone());
        let watching = tokio::spawn(async move {
            starved(&daemon, &starving).await;
            tell_fatal.send_if_modified(|f| f.is_none() && f.replace(out_of_memory()).is_none());
        });
        tasks.push(watching.abort_handle());
        let waiting = tokio::spawn(async move {
            let death = end_of(&docker, &id).await;
            let _ = tokio::time::timeout(LAST_WORDS, following).await;
            tell_death.send_replace(Some(death));
        });
        tasks.push(waiting.abort_handle());
        Watch { container: container.to_string(), log, milestones, first, death, fatal, tasks }
    }

    /// What the log has told so far.
    pub fn milestones(&self) -> Vec<Milestone> {
        self.milestones.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Resolves when the container has ended, with why.
    pub async fn ended(&self) -> Failure {
        let mut death = self.death.clone();
        let ended = death.wait_for(Option::is_some).await.ok().and_then(|d| d.clone());
        match ended {
            Some(death) => self.failure(&death),
            // The watch itself ended: the runtime is going down.
            None => std::future::pending().await,
        }
    }

    /// Resolves when the container has ended, or has said something that nothing good comes after.
    pub async fn doomed(&self) -> Failure {
        let mut fatal = self.fatal.clone();
        let said = async {
            let said = fatal.wait_for(Option::is_some).await.ok().and_then(|d| d.clone());
            match said {
                Some(said) => {
                    tokio::time::sleep(DYING).await;
                    said
                }
                // The log ended without: the end of the container tells.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            failure = self.ended() => failure,
            said = said => self.hopeless(&said),
        }
    }

    fn hopeless(&self, said: &Diagnosis) -> Failure {
        let cause = format!("{} cannot become ready: {}. It said: {}", self.container, said.meaning, said.line);
        Failure { class: said.class, ..Failure::infrastructure(Stage::Start, cause) }
            .with_log(self.log.tail(FAILURE_LINES))
    }

    fn failure(&self, death: &Death) -> Failure {
        let tail = self.log.tail(FAILURE_LINES);
        let (class, cause) = explain(&self.container, death, self.first.get(), &self.log.tail(usize::MAX));
        Failure { class, ..Failure::infrastructure(Stage::Start, cause) }.with_log(tail)
    }
}

/// A process in the container was killed for its memory use: those that wait for it may never end.
fn out_of_memory() -> Diagnosis {
    Diagnosis {
        class: FailureClass::Deterministic,
        fatal: true,
        meaning: TOO_LITTLE_MEMORY.into(),
        line: "(the kernel:) a process in the container was killed".into(),
    }
}

/// What a death means and what to try: what the log says first, else what the exit code does.
pub fn explain(container: &str, death: &Death, known: Option<&Diagnosis>, log: &str) -> (FailureClass, String) {
    use FailureClass::{Deterministic, Infrastructure};
    let how = match death.exit_code {
        None => death.error.clone(),
        Some(code) => format!("it ended with exit code {code}{}", signal(code, death.oom_killed)),
    };
    if death.oom_killed {
        let limit = death.memory_limit.map(|bytes| format!(", {},", format_bytes(bytes))).unwrap_or_default();
        let what = format!("the container's memory limit{limit} was reached: raise `container.memory`");
        return (Deterministic, format!("{container}: {how}: {what}"));
    }
    if let Some(known) = known {
        return (known.class, format!("{container}: {how}. {}. It said: {}", capital(&known.meaning), known.line));
    }
    let said = diagnosis::first_error(log).or_else(|| log.lines().rev().find(|l| !l.trim().is_empty()));
    let said = said.map(|l| format!(". It said: {}", l.trim())).unwrap_or_default();
    let (class, hint) = match death.exit_code {
        Some(2) => (Deterministic, ". Its command line may be refused: check `engine_args`"),
        Some(126 | 127) => (Deterministic, ". The image has no such program: check `container.entrypoint`"),
        Some(137) => (Infrastructure, ". Something killed it: the host may be out of memory"),
        _ => (Infrastructure, ""),
    };
    (class, format!("{container}: {how}{said}{hint}"))
}

fn signal(code: i64, oom_killed: bool) -> &'static str {
    match code {
        137 if oom_killed => " (killed for its memory use)",
        132 => " (SIGILL: the program was built for another processor)",
        134 => " (SIGABRT)",
        137 => " (SIGKILL)",
        139 => " (SIGSEGV)",
        143 => " (SIGTERM)",
        _ => "",
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Waits for a container to end. An engine that restarts is waited for; one that stays away counts as an end.
async fn end_of(docker: &Docker, id: &str) -> Death {
    let mut failed = 0;
    loop {
        // Whatever the answer is, the container's state decides.
        let _ = std::pin::pin!(docker.wait_container(id, None)).next().await;
        match docker.inspect_container(id, None).await {
            Ok(found) => {
                failed = 0;
                let state = found.state.unwrap_or_default();
                if state.running != Some(true) {
                    let limit = found.host_config.and_then(|h| h.memory).and_then(|m| u64::try_from(m).ok());
                    let memory_limit = limit.filter(|bytes| *bytes > 0);
                    // The container's own mark is that of its first process; a killed child only shows as an event.
                    let oom_killed = state.oom_killed == Some(true)
                        || (memory_limit.is_some() && state.exit_code != Some(0) && was_starved(docker, id).await);
                    let error = state.error.unwrap_or_default();
                    return Death { exit_code: state.exit_code, oom_killed, memory_limit, error };
                }
            }
            Err(e) if status(&e) == Some(404) => {
                return Death { error: "somebody removed it".into(), ..Death::default() };
            }
            Err(e) => {
                failed += 1;
                if failed == TRIES {
                    let error = format!("the container engine does not answer any more: {}", crate::hub::reason(&e));
                    return Death { error, ..Death::default() };
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads a container's log to its end; taken up again where the engine cut it off. The stream of a container that ends
/// may break off before its last lines: they are read once more after the end.
async fn follow(docker: Docker, id: String, scribe: Scribe) {
    let mut reader = LogReader { scribe, last: String::new() };
    for _ in 0..TRIES {
        reader.read(&docker, &id, true).await;
        let running = docker.inspect_container(&id, None).await.map(|c| c.state.and_then(|s| s.running));
        if matches!(&running, Ok(Some(true))) || matches!(&running, Err(e) if status(e).is_none()) {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        return reader.read(&docker, &id, false).await;
    }
}

/// Reads a log piece by piece, and each entry once.
struct LogReader {
    scribe: Scribe,
    /// When the last entry was written, as the engine writes times: they sort as they are.
    last: String,
}

impl LogReader {
    /// Reads what has been written since the last entry, and with `follow` what comes, until the engine ends the stream.
    async fn read(&mut self, docker: &Docker, id: &str, follow: bool) {
        let since = self.last.parse::<jiff::Timestamp>().map_or(0, |t| i32::try_from(t.as_second()).unwrap_or(0));
        let options = LogsOptionsBuilder::new().follow(follow).stdout(true).stderr(true).timestamps(true);
        let mut log = std::pin::pin!(docker.logs(id, Some(options.since(since).build())));
        let mut lines = [Line::default(), Line::default()];
        // Entries of one pass may share their time; only what an earlier pass has read is left out.
        let read = self.last.clone();
        while let Some(Ok(part)) = log.next().await {
            let stream = usize::from(matches!(part, LogOutput::StdErr { .. }));
            let bytes: &[u8] = part.as_ref();
            let at = memchr::memchr(b' ', bytes).unwrap_or(0);
            let (time, text) = (String::from_utf8_lossy(&bytes[..at]), &bytes[(at + 1).min(bytes.len())..]);
            if *time > *read {
                self.last = time.into_owned();
                lines[stream].take(text, &mut |line| self.scribe.line(line));
            }
        }
        lines.iter_mut().for_each(|rest| rest.end(&mut |line| self.scribe.line(line)));
    }
}

/// Takes lines down.
struct Scribe {
    reading: Reading,
    log: Log,
    first: Arc<OnceLock<Diagnosis>>,
    fatal: watch::Sender<Option<Diagnosis>>,
}

impl Scribe {
    fn line(&mut self, raw: &str) {
        let line = self.reading.redactor.redact(raw);
        if let Some(found) = diagnosis::line(&line) {
            if found.fatal {
                self.fatal.send_if_modified(|f| f.is_none() && f.replace(found.clone()).is_none());
            }
            let _ = self.first.set(found);
        }
        for (name, pattern) in &self.reading.milestones {
            if let Some(found) = pattern.captures(&line) {
                let value = found.get(1).map_or("", |m| m.as_str());
                let seconds = self.reading.since.elapsed().as_secs_f64();
                let milestone = Milestone { name: name.clone(), value: value.to_string(), seconds };
                self.reading.milestones_reached.lock().unwrap_or_else(PoisonError::into_inner).push(milestone);
                let text = name.replace('_', " ");
                let _ = self.reading.reached.send(if value.is_empty() { text } else { format!("{text}: {value}") });
            }
        }
        self.log.push(line);
    }
}

/// A line in the making.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    fn take(&mut self, bytes: &[u8], whole: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") || self.0.len() > LONGEST {
                self.end(whole);
            }
        }
    }

    fn end(&mut self, whole: &mut dyn FnMut(&str)) {
        let bytes = std::mem::take(&mut self.0);
        let text = String::from_utf8_lossy(&bytes);
        // A progress bar draws over itself: what it shows last counts.
        let text = text.trim_end_matches(['\n', '\r']);
        let text = text.rsplit('\r').next().unwrap_or(text);
        let text = console::strip_ansi_codes(text);
        if !text.trim().is_empty() {
            whole(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_cleaned() {
        let mut lines = Vec::new();
        let mut line = Line::default();
        line.take(b"a \xff", &mut |l| lines.push(l.to_string()));
        line.take(b"b\r\n\n 10%\r 90%\r100%\n\x1b[31mred\x1b[0m\nrest", &mut |l| lines.push(l.to_string()));
        line.end(&mut |l| lines.push(l.to_string()));
        assert_eq!(lines, ["a \u{fffd}b", "100%", "red", "rest"]);
    }

    #[test]
    fn a_log_is_read_for_secrets_causes_and_milestones() {
        let (reached, mut heard) = mpsc::unbounded_channel();
        let mut redactor = Redactor::default();
        redactor.learn("hf_secret");
        let milestones = BTreeMap::from([("kv_cache".to_string(), "KV cache size: ([0-9,]+) tokens".to_string())]);
        let reading = Reading::new(&milestones, redactor, reached).unwrap();
        let (tell, fatal) = watch::channel(None);
        let mut scribe = Scribe { reading, log: Log::default(), first: Arc::default(), fatal: tell };
        scribe.line("INFO GPU KV cache size: 81,920 tokens");
        scribe.line("ERROR token hf_secret: No space left on device");
        scribe.line("torch.OutOfMemoryError: CUDA out of memory");
        scribe.line("RuntimeError: NCCL error");
        assert_eq!(heard.try_recv().unwrap(), "kv cache: 81,920");
        assert!(scribe.log.tail(9).contains("ERROR token [redacted]: No space"));
        assert!(scribe.first.get().unwrap().meaning.contains("disk"));
        assert!(fatal.borrow().as_ref().unwrap().meaning.contains("too little memory"));
    }

    #[test]
    fn deaths_are_explained() {
        let death = |code| Death { exit_code: Some(code), ..Death::default() };
        let (class, cause) = explain("c", &death(2), None, "usage: x\nerror: what?\n");
        assert_eq!(class, FailureClass::Deterministic);
        assert_eq!(
            cause,
            "c: it ended with exit code 2. It said: error: what?. Its command line may be refused: check `engine_args`"
        );
        let killed = Death { oom_killed: true, memory_limit: Some(96 << 20), ..death(137) };
        let (class, cause) = explain("c", &killed, None, "");
        assert_eq!(class, FailureClass::Deterministic);
        assert_eq!(
            cause,
            "c: it ended with exit code 137 (killed for its memory use): the container's memory limit, 96MiB, was \
             reached: raise `container.memory`"
        );
        // The first process went on for a moment, and ended by itself.
        let child = Death { oom_killed: true, ..death(1) };
        let cause = explain("c", &child, None, "").1;
        assert!(cause.contains("exit code 1: the container's memory limit was reached"), "{cause}");
        let known = diagnosis::line("ValueError: No available memory for the cache blocks").unwrap();
        let (class, cause) = explain("c", &death(1), Some(&known), "");
        assert_eq!(class, FailureClass::Deterministic);
        assert!(cause.contains("exit code 1. No GPU memory is left"), "{cause}");
        let (class, cause) = explain("c", &death(0), None, "bye\n");
        assert_eq!(
            (class, cause.as_str()),
            (FailureClass::Infrastructure, "c: it ended with exit code 0. It said: bye")
        );
        let gone = Death { error: "somebody removed it".into(), ..Death::default() };
        assert_eq!(explain("c", &gone, None, "").1, "c: somebody removed it");
    }
}
