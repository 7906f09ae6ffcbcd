//! JSON files that carry a checksum of their own: the last key of each is the BLAKE3 of everything before it, so that a
//! changed digit is seen as well as a missing brace. Files of schema 1 had none and are read without.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::StoreError;
use super::record::SCHEMA;

/// Between the rest of a file and its checksum.
const SUM: &str = ",\n  \"checksum\": \"";
const END: &str = "\"\n}\n";
const SUM_DIGITS: usize = 32;
/// The first schema whose files have a checksum.
pub(super) const SEALED: u32 = 2;

/// A file type that carries its schema number.
pub trait Versioned: DeserializeOwned {
    fn schema(&self) -> u32;
}

/// The bytes of a file. `value` is a struct with at least one field.
pub(super) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("records have string keys and no failing serializers");
    let sum = sum(&bytes);
    bytes.truncate(bytes.len() - "\n}".len());
    bytes.extend_from_slice(SUM.as_bytes());
    bytes.extend_from_slice(sum.as_bytes());
    bytes.extend_from_slice(END.as_bytes());
    bytes
}

fn sum(bytes: &[u8]) -> String {
    crate::digest::Digest::of_bytes(bytes).short(SUM_DIGITS)
}

/// Reads a versioned file. `Ok(None)` when it is not there; `Ok(Some(Err(reason)))` when it is not what it should be; an
/// error when the file system fails or a newer tool wrote it, which is no damage.
pub(super) fn read_json<T: Versioned>(path: &Path) -> Result<Option<Result<T, String>>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A part of the path, or the file, is something else.
        Err(e) if matches!(e.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory) => {
            return Ok(Some(Err(e.to_string())));
        }
        Err(e) => return Err(StoreError::io("read", path)(e)),
    };
    match parse(&bytes) {
        Ok(value) => Ok(Some(Ok(value))),
        Err(Unread::Newer(found)) => Err(StoreError::Newer { path: path.to_path_buf(), found, known: SCHEMA }),
        Err(Unread::Damaged(reason)) => Ok(Some(Err(reason))),
    }
}

/// Why bytes are not a file of this tool.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Newer(u32),
    Damaged(String),
}

/// Reads the bytes of a versioned file.
pub(super) fn parse<T: Versioned>(bytes: &[u8]) -> Result<T, Unread> {
    let sealed = checked(bytes);
    let parsed = serde_json::from_slice::<T>(bytes);
    // A later schema need not parse as this one, nor be sealed as this one is.
    let schema = match &parsed {
        Ok(value) => Some(value.schema()),
        Err(_) => serde_json::from_slice::<Head>(bytes).ok().map(|head| head.schema),
    };
    match (schema, sealed, parsed) {
        // With its checksum in order it is what was written, and that was by a newer tool; without one it may be anything.
        (Some(schema), Seal::Whole | Seal::None, _) if schema > SCHEMA => Err(Unread::Newer(schema)),
        (_, Seal::Broken, _) => Err(Unread::Damaged("its checksum is not that of its contents".into())),
        (Some(schema), Seal::None, Ok(_)) if schema >= SEALED => {
            Err(Unread::Damaged("it has no checksum at its end".into()))
        }
        (_, _, Ok(value)) => Ok(value),
        (_, _, Err(e)) => Err(Unread::Damaged(e.to_string())),
    }
}

enum Seal {
    Whole,
    Broken,
    None,
}

fn checked(bytes: &[u8]) -> Seal {
    let Some(body) = bytes.strip_suffix(END.as_bytes()) else { return Seal::None };
    let Some(at) = body.len().checked_sub(SUM_DIGITS + SUM.len()) else { return Seal::None };
    let Some(given) = body[at..].strip_prefix(SUM.as_bytes()) else { return Seal::None };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&body[..at]).update(b"\n}");
    let sum = crate::digest::Digest::from_hash(hasher.finalize()).short(SUM_DIGITS);
    if sum.as_bytes() == given { Seal::Whole } else { Seal::Broken }
}

#[derive(serde::Deserialize)]
struct Head {
    schema: u32,
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        schema: u32,
        text: String,
        n: f64,
    }

    impl Versioned for File {
        fn schema(&self) -> u32 {
            self.schema
        }
    }

    fn file() -> File {
        File { schema: SCHEMA, text: "\"checksum\": \"".into(), n: 0.1 }
    }

    #[test]
    fn a_file_reads_back_and_is_plain_json() {
        let bytes = to_json(&file());
        assert_eq!(parse::<File>(&bytes), Ok(file()));
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["checksum"].as_str().unwrap().len(), SUM_DIGITS);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_seen() {
        let bytes = to_json(&file());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(parse::<File>(&other).is_err(), "byte {at}, bit {bit}");
            }
            assert!(parse::<File>(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn older_files_have_no_checksum_and_newer_ones_are_no_damage() {
        let old = br#"{"schema": 1, "text": "a", "n": 1}"#;
        assert_eq!(parse::<File>(old), Ok(File { schema: 1, text: "a".into(), n: 1.0 }));
        assert_eq!(parse::<File>(br#"{"schema": 99, "other": 1}"#), Err(Unread::Newer(99)));
        assert!(matches!(parse::<File>(br#"{"schema": 2, "text": "a", "n": 1}"#), Err(Unread::Damaged(_))));
    }
}
