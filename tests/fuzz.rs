//! A bounded run of the fuzz targets on the stable toolchain: good inputs, changed at random, and everything that was ever
//! found. `FUZZ_SECONDS` says how long each target runs, `FUZZ_SEED` where it begins; what fails is written to
//! `target/fuzz-findings/` and belongs into `fuzz/findings/`.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// An input that takes longer is a hang.
const HANG: Duration = Duration::from_secs(20);
/// Changed inputs are kept below this, so that many are tried.
const LONGEST: usize = 64 << 10;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// How long a target runs: half a minute where every change is checked, a moment on a developer's machine.
fn seconds() -> u64 {
    number("FUZZ_SECONDS").unwrap_or(if std::env::var_os("CI").is_some() { 30 } else { 3 })
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(Cell<u64>);

impl Dice {
    fn below(&self, n: usize) -> usize {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn of<'t, T>(&self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }
}

/// What the readers look for, and what numbers break on.
const WORDS: &[&str] = &[
    "[[matrix]]",
    "[defaults]",
    "[[override]]",
    "[run]",
    "[slo]",
    "[matrix.vary.x]",
    "model",
    "engine",
    "tokens",
    "concurrency",
    "from",
    "to",
    "times",
    "step",
    "until",
    "within",
    "set",
    "when",
    "exclude",
    "unset",
    "container.mounts",
    "engine_args.a.b",
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "for i in range(9999)",
    "endfor",
    "if",
    "endif",
    "'a' * 99999999",
    "[0] * 99999999",
    "| toml",
    "| json",
    "merge(",
    "flags(",
    "include",
    "unsupported(",
    "\"",
    "'",
    "\"\"\"",
    "=",
    " = ",
    "\n",
    "\r\n",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "#",
    "0",
    "-1",
    "1e308",
    "-1e-308",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "nan",
    "inf",
    "true",
    "false",
    "null",
    "\u{0}",
    "\u{feff}",
    "é",
    "𝕏",
    "\\u0000",
    "\\ud800",
    "data: ",
    "data:",
    ":",
    "event: x",
    "[DONE]",
    "\"sum\":\"",
    "\"checksum\": \"",
    "\"schema\": 2",
    "\"seq\":",
    "{\"",
    "\":",
    "[[",
    "]]",
    "1979-05-27",
    "0x",
    "_",
];

/// One of the good inputs, changed a few times.
fn changed(seeds: &[Vec<u8>], dice: &Dice) -> Vec<u8> {
    let mut bytes = dice.of(seeds).clone();
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(1 << dice.below(10))).min(bytes.len());
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => _ = bytes.drain(at..end),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let other = dice.of(seeds);
                let from = dice.below(other.len() + 1);
                let part = other[from..(from + dice.below(400)).min(other.len())].to_vec();
                bytes.splice(at..end, part);
            }
            5 => {
                let part = dice.of(WORDS).repeat(1 << dice.below(7));
                bytes.splice(at..at, part.bytes());
            }
            6 => bytes.truncate(at),
            _ => {
                bytes.splice(at..end.min(at + dice.below(12)), dice.of(WORDS).bytes());
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// Runs a target on an input. What it fails with is a finding.
fn try_one(target: targets::Target, bytes: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| target(bytes))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into())
    })
}

/// Name of the threads on which panics are findings.
const TRIED: &str = "fuzz";

/// Panics of tried inputs are told by their finding: a backtrace of each would take longer than anything else.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(TRIED) {
                tell(panic);
            }
        }));
    });
}

fn found(name: &str, bytes: &[u8], why: &str) -> ! {
    let dir = root().join("target/fuzz-findings").join(name);
    fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join(blake3::hash(bytes).to_hex().as_str());
    fs::write(&path, bytes).expect("the finding is written");
    panic!("{name}: {why}\nthe input is in {}", path.display());
}

fn fuzz(name: &'static str) {
    let (_, target) = *targets::TARGETS.iter().find(|(n, _)| *n == name).expect("a target");
    let seeds = targets::seeds(root()).remove(name).unwrap_or_else(|| panic!("{name} has no good inputs"));
    for (i, seed) in seeds.iter().enumerate() {
        try_one(target, seed).unwrap_or_else(|why| panic!("good input {i} of {name}: {why}"));
    }
    quiet();
    // On a thread of its own, so that a hang is seen; with the stack of a program's first thread.
    let (tell, heard) = mpsc::channel::<Vec<u8>>();
    let end = Instant::now() + Duration::from_secs(seconds());
    let work = std::thread::Builder::new().name(TRIED.into()).stack_size(8 << 20).spawn(move || {
        let seed = number("FUZZ_SEED").unwrap_or(1);
        let dice = Dice(Cell::new(blake3::hash(name.as_bytes()).as_bytes()[0].into()));
        dice.0.set(dice.0.get() ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut tried = 0u64;
        while Instant::now() < end {
            let bytes = changed(&seeds, &dice);
            if tell.send(bytes.clone()).is_err() {
                break;
            }
            if let Err(why) = try_one(target, &bytes) {
                return Err((bytes, why));
            }
            tried += 1;
        }
        Ok(tried)
    });
    let work = work.expect("a thread");
    let mut last = Vec::new();
    loop {
        match heard.recv_timeout(HANG) {
            Ok(bytes) => last = bytes,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => found(name, &last, &format!("it takes more than {HANG:?}")),
        }
    }
    match work.join().expect("panics are caught") {
        Ok(tried) => assert!(tried > 0, "{name} tried nothing"),
        Err((bytes, why)) => found(name, &bytes, &why),
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for (name, target) in targets::TARGETS {
        for entry in fs::read_dir(root().join("fuzz/findings").join(name)).into_iter().flatten().flatten() {
            let bytes = fs::read(entry.path()).expect("a finding");
            try_one(target, &bytes).unwrap_or_else(|why| panic!("{}: {why}", entry.path().display()));
        }
    }
}

macro_rules! fuzz {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            fuzz(stringify!($name));
        }
    )*};
}

fuzz! { plan lock journal unit result run template sse events }
