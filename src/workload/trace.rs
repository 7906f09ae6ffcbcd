//! Traces: when requests arrived and how long they were, recorded somewhere. Bytes in, rows out; the prompts are made.
//!
//! | format | row |
//! |---|---|
//! | `trace` | one JSON object a line: `timestamp` (milliseconds), `input_length`, `output_length`, and `hash_ids` where blocks of 512 tokens are shared (the Mooncake traces) |
//! | `azure` | CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` (the Azure LLM inference traces) |

use serde::Deserialize;

use super::dataset::DatasetError;

/// Tokens of a block that `hash_ids` names.
pub const BLOCK: u32 = 512;

/// One recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Nanoseconds after the first one.
    pub at_ns: u64,
    pub input: u32,
    pub output: u32,
    /// Names of the blocks that the prompt begins with; equal names are equal content.
    pub blocks: Box<[u64]>,
}

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Reads a `trace`, in the order of time.
pub fn jsonl(path: &str, bytes: &[u8]) -> Result<Vec<Arrived>, DatasetError> {
    let mut rows = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let fail = |message: String| bad(path, i, message);
        let line: Line = serde_json::from_slice(line)
            .map_err(|e| fail(format!("not {{timestamp, input_length, output_length}}: {e}")))?;
        if !(line.timestamp.is_finite() && line.timestamp >= 0.0) {
            return Err(fail("`timestamp` must be milliseconds, 0 or more".into()));
        }
        rows.push((
            (line.timestamp * 1e6).round() as i128,
            (line.input_length, line.output_length),
            line.hash_ids.into_boxed_slice(),
        ));
    }
    in_order(path, rows)
}

/// Reads an `azure` trace, in the order of time.
pub fn azure(path: &str, bytes: &[u8]) -> Result<Vec<Arrived>, DatasetError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let headers = reader.headers().map_err(|e| bad(path, 0, e.to_string()))?.clone();
    let column = |name: &str| {
        let at = headers.iter().position(|h| h.trim_start_matches('\u{feff}') == name);
        at.ok_or_else(|| bad(path, 0, format!("there is no column `{name}`")))
    };
    let columns = [column("TIMESTAMP")?, column("ContextTokens")?, column("GeneratedTokens")?];
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let fail = |message: String| bad(path, i + 1, message);
        let record = record.map_err(|e| fail(e.to_string()))?;
        let [time, input, output] = columns.map(|c| record.get(c).unwrap_or_default());
        let count = |text: &str| text.parse::<u32>().map_err(|_| fail(format!("`{text}` is not a count of tokens")));
        let at = nanoseconds(time).ok_or_else(|| fail(format!("`{time}` is not a time")))?;
        rows.push((at, (count(input)?, count(output)?), Box::default()));
    }
    in_order(path, rows)
}

/// `2023-11-16 18:15:46.6805900`, with or without an offset, as nanoseconds since some moment.
fn nanoseconds(text: &str) -> Option<i128> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_nanosecond());
    }
    let local: jiff::civil::DateTime = text.parse().ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(local).ok().map(|t| t.as_nanosecond())
}

fn bad(path: &str, line: usize, message: String) -> DatasetError {
    DatasetError::Row { path: path.to_string(), place: format!("line {}", line + 1), message }
}

/// Nanoseconds since some moment, input and output, blocks.
type Recorded = (i128, (u32, u32), Box<[u64]>);

fn in_order(path: &str, mut rows: Vec<Recorded>) -> Result<Vec<Arrived>, DatasetError> {
    rows.sort_by_key(|(at, ..)| *at);
    let first = rows.first().ok_or_else(|| DatasetError::Empty(path.to_string()))?.0;
    let arrived = |(at, (input, output), blocks): Recorded| Arrived {
        at_ns: u64::try_from(at - first).unwrap_or(u64::MAX),
        // A request without any is not one that can be sent.
        input: input.max(1),
        output: output.max(1),
        blocks,
    };
    Ok(rows.into_iter().map(arrived).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mooncake_rows() {
        let text = b"{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n\n{\"timestamp\": 27000.5, \"input_length\": 0, \"output_length\": 1}\r\n";
        let rows = jsonl("t.jsonl", text).unwrap();
        assert_eq!(rows[0], Arrived { at_ns: 0, input: 1, output: 1, blocks: Box::default() });
        assert_eq!(rows[1], Arrived { at_ns: 481_500_000, input: 6955, output: 52, blocks: [46, 47].into() });
    }

    #[test]
    fn azure_rows() {
        let text = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n";
        let rows = azure("t.csv", text).unwrap();
        assert_eq!((rows[0].at_ns, rows[0].input, rows[0].output), (0, 374, 44));
        assert_eq!((rows[1].at_ns, rows[1].output), (4_314_579_000, 109));
        let text = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n";
        assert_eq!(azure("t.csv", text).unwrap()[1].at_ns, 7_405_000);
    }

    #[test]
    fn a_bad_row_is_named() {
        for (text, expected) in [
            (&b"{\"timestamp\": 1}"[..], "line 1: not {timestamp"),
            (b"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}\nx", "line 2"),
            (b"{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", "0 or more"),
            (b"", "no prompts"),
        ] {
            let e = jsonl("t.jsonl", text).unwrap_err().to_string();
            assert!(e.contains(expected) && e.contains("t.jsonl"), "{e}");
        }
        for (text, expected) in [
            (&b"a,b\n1,2\n"[..], "no column `TIMESTAMP`"),
            (b"TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n", "line 2: `noon` is not a time"),
            (b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,-2\n", "`-2` is not a count"),
        ] {
            let e = azure("t.csv", text).unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
    }
}
