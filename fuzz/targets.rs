//! What is fuzzed: one function per reader of files and streams that others make. Each takes any bytes; a panic, a hang or a
//! broken promise is a finding. The fuzzer's own programs and the bounded run of the test suite (`tests/fuzz.rs`) share them.

use std::collections::BTreeMap;
use std::sync::Arc;

use llmatrix::diag::SourceText;
use llmatrix::digest::Digest;
use llmatrix::plan::build::{PlanRequest, build};
use llmatrix::plan::catalog::EmptyCatalog;
use llmatrix::plan::identity::Contents;
use llmatrix::plan::lock::Lock;
use llmatrix::spec::params::{BUILTIN_ENGINES, BUILTIN_METHODS};
use llmatrix::spec::read::read;
use llmatrix::spec::types::Vocabulary;
use llmatrix::store::journal;
use llmatrix::store::record::{Record, RunRecord, UnitRecord, UnitResult, read_bytes, to_bytes};
use llmatrix::template::{TemplateText, Templates};
use llmatrix::value::{Table, Value};
use llmatrix::wire::Dialect;
use llmatrix::wire::events::Interpreter;
use llmatrix::wire::sse::SseParser;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 9] = [
    ("plan", plan),
    ("lock", lock),
    ("journal", read_journal),
    ("unit", unit),
    ("result", result),
    ("run", run),
    ("template", template),
    ("sse", sse),
    ("events", events),
];

/// Files that are all there and all alike.
struct AnyFile;

impl Contents for AnyFile {
    fn digest(&self, path: &str) -> Result<Digest, String> {
        Ok(Digest::of_bytes(path.as_bytes()))
    }
}

fn words() -> Vocabulary {
    let list = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    Vocabulary { methods: list(BUILTIN_METHODS), engines: list(BUILTIN_ENGINES) }
}

/// Cells beyond which a plan takes longer than an input is worth; that it is a limit at all has tests of its own.
const CELLS: u64 = 200;

/// An experiment's text → its plan: problems have places inside the text, equal texts have equal plans.
pub fn plan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Arc::new(SourceText { name: "fuzz.toml".into(), text: text.into() });
    let words = words();
    let spec = match read(&source, "fuzz", &words) {
        Ok(spec) => spec,
        Err(problems) => {
            assert!(!problems.is_empty(), "an error without a problem");
            problems.iter().for_each(|p| assert!(!p.message.is_empty()));
            return;
        }
    };
    let cells = spec.blocks.iter().fold(0u64, |n, b| n.saturating_add(b.product.count()));
    if cells > CELLS && cells < 1_000_000 {
        return;
    }
    let templates = Templates::new(Vec::new());
    let planned = || {
        build(&PlanRequest {
            spec: &spec,
            words: &words,
            templates: &templates,
            lock: &Lock::new(),
            contents: &AnyFile,
            detected_hardware: "cpu",
            set: &[],
            only: &[],
            settings: &[],
            simulate: false,
            sim_version: 1,
        })
    };
    let (Ok(mut plan), Ok(again)) = (planned(), planned()) else { return };
    let ids = |p: &llmatrix::plan::Plan| p.units.iter().map(|u| u.id).collect::<Vec<_>>();
    assert_eq!(ids(&plan), ids(&again), "the same text has other ids");
    plan.compare(&EmptyCatalog, "2026-11-24T06:15:00Z".parse().expect("a time"));
    for unit in &plan.units {
        let _ = plan.workload(unit).check();
        assert_eq!(llmatrix::digest::UnitId::of(&plan.unit_document(unit)), unit.id, "the document is not the id's");
    }
    let _ = plan.estimate();
}

/// A lock file: what is read is written and read back the same.
pub fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(lock) = Lock::parse(text) else { return };
    assert_eq!(Lock::parse(&lock.to_text()).expect("what was written is read"), lock);
    let _ = lock.entries();
}

/// A journal: whatever is read of it has the numbers 0, 1, 2, …, and more bytes take nothing of it back.
pub fn read_journal(bytes: &[u8]) {
    let whole = journal::parse(bytes);
    assert!(whole.entries.iter().enumerate().all(|(i, e)| e.seq == i as u64));
    let half = journal::parse(&bytes[..bytes.len() / 2]);
    assert_eq!(half.entries[..], whole.entries[..half.entries.len()]);
    let _ = llmatrix::event::fold::RunState::of(&whole.entries);
}

fn record<T: Record + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(record) = read_bytes::<T>(bytes) else { return };
    // A file of an older schema is read without a checksum, and written with one.
    let again = read_bytes::<T>(&to_bytes(&record));
    assert_eq!(again.as_ref(), Ok(&record));
}

pub fn unit(bytes: &[u8]) {
    record::<UnitRecord>(bytes);
}

pub fn result(bytes: &[u8]) {
    record::<UnitResult>(bytes);
}

pub fn run(bytes: &[u8]) {
    record::<RunRecord>(bytes);
}

/// A template's text, rendered with the parameters of an ordinary cell.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = TemplateText { name: "hf/fuzz".into(), origin: "fuzz".into(), text: text.into() };
    let templates = Templates::new(vec![text]);
    let mut context = Table::new();
    context.insert("model".into(), "org/model-8B".into());
    context.insert("engine".into(), "vllm".into());
    context.insert("method".into(), "hf".into());
    context.insert("tensor_parallel".into(), Value::Int(2));
    let arguments = r#"{"eager":true,"off":false,"max_num_seqs":64,"rope":{"a":1.5},"list":[1,"b"]}"#;
    context.insert("engine_args".into(), serde_json::from_str(arguments).expect("JSON"));
    let known: Vec<&'static str> =
        llmatrix::spec::params::PARAMS.iter().map(|p| p.name).filter(|n| !n.contains('.')).collect();
    if let Ok(rendered) = templates.render("hf/fuzz", &context, &known) {
        assert!(rendered.text.len() <= 1 << 20);
    }
}

fn sse_events<'a>(slices: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut parser = SseParser::default();
    let mut out = Vec::new();
    for slice in slices {
        parser.feed(slice, |event| out.push(event.to_vec())).expect("no event is too large");
    }
    parser.finish(|event| out.push(event.to_vec()));
    out
}

/// Server-sent events: however a stream is cut into slices, its events are the same. The first bytes say where it is cut.
pub fn sse(bytes: &[u8]) {
    let Some((cuts, stream)) = bytes.split_at_checked(4) else { return };
    let mut at: Vec<usize> = cuts.iter().map(|c| usize::from(*c).min(stream.len())).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    let whole = sse_events(std::iter::once(stream));
    assert_eq!(sse_events(at.windows(2).map(|w| &stream[w[0]..w[1]])), whole);
    assert_eq!(sse_events(stream.chunks(1)), whole);
}

/// Token events of a stream, and whether each is visible.
fn parsed(dialect: Dialect, stream: &[u8], learns: bool) -> Vec<bool> {
    let mut tokens = Vec::new();
    let mut interpreter = Interpreter::new(dialect);
    let read = |payload: &[u8]| {
        if !learns {
            interpreter = Interpreter::new(dialect);
        }
        let delta = interpreter.read(payload);
        tokens.extend(delta.has_tokens().then_some(delta.visible));
    };
    SseParser::default().feed(stream, read).expect("no event is too large");
    tokens
}

/// The same, taking each line end as the end of what has arrived so far.
fn skimmed(dialect: Dialect, stream: &[u8]) -> Vec<bool> {
    let (mut parser, mut interpreter, mut tokens) = (SseParser::default(), Interpreter::new(dialect), Vec::new());
    let mut rest = stream;
    while !rest.is_empty() {
        if parser.is_between_events()
            && let Some(token) = interpreter.skim(rest)
        {
            tokens.push(token.visible);
            rest = &rest[token.len..];
            continue;
        }
        let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |end| end + 1);
        let read = |payload: &[u8]| {
            let delta = interpreter.read(payload);
            tokens.extend(delta.has_tokens().then_some(delta.visible));
        };
        parser.feed(&rest[..line], read).expect("no event is too large");
        rest = &rest[line..];
    }
    tokens
}

/// Events of the dialects: an interpreter that has learned the shape of earlier events says of each event what one that has
/// learned nothing says, and skimming a stream says what parsing it says.
pub fn events(stream: &[u8]) {
    for dialect in [Dialect::Openai, Dialect::TritonVllm] {
        let plain = parsed(dialect, stream, false);
        assert_eq!(parsed(dialect, stream, true), plain);
        assert_eq!(skimmed(dialect, stream), plain);
    }
}

/// Good inputs to begin with, by target.
pub fn seeds(root: &std::path::Path) -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let mut out: BTreeMap<&'static str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut add = |target, bytes: Vec<u8>| out.entry(target).or_default().push(bytes);
    let files = |dir: &str, end: &str| -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with(end)).collect();
        paths.sort();
        paths.iter().filter_map(|p| std::fs::read(p).ok()).collect()
    };
    for text in files("experiments", ".toml").into_iter().chain(files("tests/data", ".toml")) {
        add("plan", text);
    }
    for text in files("tests/data", ".lock") {
        add("lock", text);
    }
    for method in ["hf", "triton", "nim", "unim", "sim", "external"] {
        files(&format!("templates/{method}"), ".j2").into_iter().for_each(|text| add("template", text));
    }
    for target in ["journal", "unit", "result", "run", "sse", "events"] {
        files(&format!("fuzz/seeds/{target}"), "").into_iter().for_each(|bytes| add(target, bytes));
    }
    out
}
