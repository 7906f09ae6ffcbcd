//! Files under `artifacts/` that somebody deleted, cut or changed: the next run says which, measures again what is lost and
//! nothing else, and keeps what was damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tree::{Bench, Samples, files};
use crate::{Dice, scale, tell};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Delete,
    Cut,
    Flip,
}

impl Damage {
    const ANY: [Damage; 3] = [Damage::Delete, Damage::Cut, Damage::Flip];

    /// Gives the damaged bytes, where there are any.
    fn inflict(self, path: &Path, dice: &mut Dice) -> Option<Vec<u8>> {
        let mut bytes = fs::read(path).expect("the file is there");
        match self {
            Damage::Delete => {
                fs::remove_file(path).expect("it is removed");
                return None;
            }
            Damage::Cut => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            Damage::Flip => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        fs::write(path, &bytes).expect("it is written");
        Some(bytes)
    }
}

/// A copy with the files' times, as an unhurried person or a backup makes it.
fn restore(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp").success());
}

/// Units whose committed samples are not what they were.
fn changed(before: &Samples, now: &Samples) -> BTreeSet<String> {
    before.iter().filter(|(key, sample)| now.get(*key) != Some(sample)).map(|((unit, _), _)| unit.clone()).collect()
}

#[test]
fn whatever_file_is_damaged_is_found_and_only_what_is_lost_is_measured_again() {
    let bench = Bench::new(1, 2, 300, "attempts = 5");
    bench.complete();
    let whole = bench.path().join("whole");
    restore(&bench.artifacts(), &whole);
    let before = bench.samples();
    let mut dice = Dice::new(6);
    let all = scale("POINTS", 0) > 0;
    let mut cases = 0;
    for (i, file) in files(&whole).iter().enumerate() {
        let name = file.strip_prefix(&whole).expect("below");
        let empty = fs::metadata(file).expect("it is there").len() == 0;
        // Locks hold nothing: who has one is the kernel's to say.
        if name.starts_with(".locks") || empty {
            continue;
        }
        for damage in Damage::ANY.into_iter().enumerate().filter(|(k, _)| all || i % 3 == *k).map(|(_, d)| d) {
            restore(&whole, &bench.artifacts());
            let bytes = damage.inflict(&bench.artifacts().join(name), &mut dice);
            one(&bench, name, damage, bytes, &before);
            cases += 1;
        }
    }
    tell(&format!("{cases} damaged files: each was named, only what was lost was measured again"));
}

fn one(bench: &Bench, name: &Path, damage: Damage, bytes: Option<Vec<u8>>, before: &Samples) {
    let context = format!("{damage:?} {}", name.display());
    let verified = bench.command(&["validate"]).output().expect("the binary runs");
    assert_eq!(verified.status.code(), Some(5), "{context}: {}", String::from_utf8_lossy(&verified.stdout));

    let said = bench.complete();
    let base = name.file_name().expect("a name").to_string_lossy();
    assert!(said.contains(&*base), "{context} is not said:\n{said}");
    // The damaged file is kept, with what it holds.
    if let Some(bytes) = bytes {
        let kept = files(&bench.artifacts());
        let aside =
            |p: &&std::path::PathBuf| p.components().any(|c| c.as_os_str().to_string_lossy().starts_with("damaged-"));
        assert!(kept.iter().filter(aside).any(|p| fs::read(p).unwrap() == bytes), "{context} was not kept:\n{said}");
    }
    // Of the units, at most the damaged one was measured again, and it has what it needs.
    let now = bench.samples();
    let lost = changed(before, &now);
    let is_sample = name.components().any(|c| c.as_os_str().to_string_lossy().starts_with("sample-"));
    let is_result = base == "result.json";
    assert_eq!(lost.len(), usize::from(is_sample || is_result), "{context}: {lost:?}\n{said}");
    let gone = before.keys().filter(|key| !now.contains_key(*key)).count();
    assert_eq!(gone, if is_result { 2 } else { usize::from(is_sample) }, "{context}\n{said}");
    assert_eq!(now.len(), before.len(), "{context}");
    if lost.is_empty() {
        assert!(said.contains("every unit is cached"), "{context}\n{said}");
    }
    // It is said once.
    let again = bench.complete();
    assert!(!again.contains(&format!("{base} ")), "{context} is said twice:\n{again}");
    let verified = bench.command(&["validate", "--json"]).output().expect("the binary runs");
    assert_eq!(verified.status.code(), Some(0), "{context}: {}", String::from_utf8_lossy(&verified.stdout));
}
