//! `journal.jsonl`: every event of a run, one JSON object per line, each with a checksum of its own. Lines are appended;
//! a reader takes what is whole and says where it stopped, so a torn tail costs the torn line alone.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{StoreError, atomic};
use crate::event::{Entry, Event};

/// Between an entry and its checksum at the end of a line.
const SUM: &str = ",\"sum\":\"";
const SUM_DIGITS: usize = 8;

/// Appends to the journal of a live run.
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    path: PathBuf,
}

impl JournalWriter {
    /// Starts a journal. The file must not be there yet.
    pub fn create(path: &Path) -> Result<JournalWriter, StoreError> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(StoreError::io("create the journal", path))?;
        if let Some(dir) = path.parent() {
            atomic::sync_dir(dir)?;
        }
        Ok(JournalWriter { file, path: path.to_path_buf() })
    }

    /// Appends an entry; one that says that something is committed, failed or over is on the disk when this returns.
    pub fn append(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.file.write_all(line(entry).as_bytes()).map_err(StoreError::io("append to the journal", &self.path))?;
        if must_last(&entry.event) {
            self.file.sync_data().map_err(StoreError::io("sync the journal", &self.path))?;
        }
        Ok(())
    }
}

fn must_last(event: &Event) -> bool {
    match event {
        Event::RunStarted { .. }
        | Event::DeploymentFailed { .. }
        | Event::SampleFinished { .. }
        | Event::AttemptFailed { .. }
        | Event::SearchFinished { .. }
        | Event::RunFinished { .. } => true,
        Event::DeploymentStarting { .. }
        | Event::DeploymentProgress { .. }
        | Event::DeploymentReady { .. }
        | Event::DeploymentStopped { .. }
        | Event::SampleStarted { .. }
        | Event::UnitBlocked { .. }
        | Event::UnitTaken { .. }
        | Event::UnitFinished { .. }
        | Event::SearchStarted { .. }
        | Event::ProbeChosen { .. }
        | Event::Notice { .. } => false,
    }
}

/// An entry with its checksum, and the end of the line.
fn line(entry: &Entry) -> String {
    let mut text = serde_json::to_string(entry).expect("events have string keys and no failing serializers");
    let sum = checksum(&text[..text.len() - 1]);
    text.truncate(text.len() - 1);
    text.push_str(SUM);
    text.push_str(&sum);
    text.push_str("\"}\n");
    text
}

fn checksum(text: &str) -> String {
    crate::digest::Digest::of_bytes(text.as_bytes()).short(SUM_DIGITS)
}

/// A journal as far as it is whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    pub entries: Vec<Entry>,
    /// Why reading stopped before the end of the file; `None` when every line was whole.
    pub stopped: Option<Stop>,
}

/// Where a journal stops being whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

/// Reads a journal, live or not.
pub fn read(path: &Path) -> Result<Journal, StoreError> {
    Ok(parse(&std::fs::read(path).map_err(StoreError::io("read the journal", path))?))
}

/// Reads the bytes of a journal up to the first line that is not whole.
pub fn parse(bytes: &[u8]) -> Journal {
    let mut journal = Journal::default();
    for (i, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        match parse_line(line, i as u64) {
            Ok(entry) => journal.entries.push(entry),
            Err(reason) => {
                journal.stopped = Some(Stop { line: i + 1, reason });
                break;
            }
        }
    }
    journal
}

fn parse_line(line: &[u8], seq: u64) -> Result<Entry, String> {
    let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
    let line = std::str::from_utf8(line).map_err(|e| e.to_string())?;
    let body = line.strip_suffix("\"}").ok_or("the line has no checksum")?;
    let (body, sum) = body.rsplit_once(SUM).ok_or("the line has no checksum")?;
    if checksum(body) != sum {
        return Err("the checksum is not the line's".into());
    }
    let entry: Entry = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if entry.seq != seq {
        return Err(format!("entry {} stands where {seq} is expected", entry.seq));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::{DeployId, UnitId};
    use crate::event::fold::RunState;
    use crate::event::{Counts, FailureClass, Outcome, Stage};
    use crate::value::Value;

    fn unit() -> impl Strategy<Value = UnitId> {
        (0i64..4).prop_map(|n| UnitId::of(&Value::Int(n)))
    }

    fn deploy() -> impl Strategy<Value = DeployId> {
        (0i64..2).prop_map(|n| DeployId::of(&Value::Int(n)))
    }

    fn event() -> impl Strategy<Value = Event> {
        let text = "\\PC{0,12}|\"}|,\"sum\":\"|\n\u{0}é";
        prop_oneof![
            (text, any::<u64>()).prop_map(|(experiment, units)| Event::RunStarted {
                run: "r".into(),
                experiment,
                units,
                cached: 0,
                samples: 1,
                starts: 1,
                simulated: true
            }),
            (deploy(), text).prop_map(|(deploy_id, container)| Event::DeploymentStarting {
                deploy_id,
                container,
                start: 1,
                units: 2
            }),
            (deploy(), any::<f64>().prop_filter("finite", |f| f.is_finite())).prop_map(|(deploy_id, seconds)| {
                Event::DeploymentReady { deploy_id, start: 1, seconds, engine_version: None }
            }),
            (deploy(), text).prop_map(|(deploy_id, cause)| Event::DeploymentFailed {
                deploy_id,
                start: 1,
                stage: Stage::Ready,
                class: FailureClass::Infrastructure,
                cause,
                attempt: 1,
                retry: false,
                environment: false,
                log_tail: Some("a\nb".into())
            }),
            (unit(), text).prop_map(|(unit_id, name)| Event::SampleStarted {
                unit_id,
                sample: 1,
                attempt: 1,
                round: 1,
                name
            }),
            (unit(), proptest::option::of(text)).prop_map(|(unit_id, reason)| Event::SampleFinished {
                unit_id,
                sample: 1,
                valid: reason.is_none(),
                reason,
                seconds: 0.1,
                ttft_ms: Some(1.0),
                tpot_ms: None,
                output_throughput: Some(0.1 + 0.2)
            }),
            (unit(), text)
                .prop_map(|(unit_id, reason)| Event::UnitFinished { unit_id, outcome: Outcome::Invalid { reason } }),
            any::<u64>()
                .prop_map(|n| Event::RunFinished { counts: Counts { measured: n, ..Counts::default() }, exit_code: 5 }),
        ]
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec(event(), 0..20).prop_map(|events| {
            let entry = |(i, event)| Entry { seq: i as u64, at: "2026-11-24T06:15:00.000Z".into(), event };
            events.into_iter().enumerate().map(entry).collect()
        })
    }

    proptest! {
        /// Whatever is cut off the end, what is read is a prefix of what was written, it misses no whole line, and its
        /// fold is the state the run had then.
        #[test]
        fn any_prefix_of_the_bytes_replays_to_a_state_the_run_had(entries in entries(), cut in any::<prop::sample::Index>()) {
            let bytes: Vec<u8> = entries.iter().flat_map(|e| line(e).into_bytes()).collect();
            let whole = parse(&bytes);
            prop_assert_eq!(&whole, &Journal { entries: entries.clone(), stopped: None });

            let at = cut.index(bytes.len() + 1);
            let part = parse(&bytes[..at]);
            let lines = bytes[..at].iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(part.entries.len(), lines);
            prop_assert_eq!(&part.entries[..], &entries[..lines]);
            prop_assert_eq!(part.stopped.is_some(), at > 0 && bytes[at - 1] != b'\n');

            let mut state = RunState::default();
            entries[..lines].iter().for_each(|e| state.apply(e));
            prop_assert_eq!(RunState::of(&part.entries), state);
        }

        /// A flipped bit is seen.
        #[test]
        fn a_changed_byte_ends_the_reading_there(entries in entries(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes: Vec<u8> = entries.iter().flat_map(|e| line(e).into_bytes()).collect();
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            let before = bytes[..at].iter().filter(|b| **b == b'\n').count();
            bytes[at] ^= 1 << bit;
            let read = parse(&bytes);
            prop_assert_eq!(&read.entries[..], &entries[..before]);
            prop_assert_eq!(read.stopped.map(|s| s.line), Some(before + 1));
        }
    }

    #[test]
    fn a_journal_is_appended_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = JournalWriter::create(&path).unwrap();
        let entry = Entry { seq: 0, at: "t".into(), event: Event::Notice { message: "m".into() } };
        journal.append(&entry).unwrap();
        assert_eq!(read(&path).unwrap().entries, [entry]);
        assert!(JournalWriter::create(&path).is_err());
    }
}
