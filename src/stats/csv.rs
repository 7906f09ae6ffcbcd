//! `requests.csv`: one row per request, failed ones included, in full precision. What is written reads back as the same
//! records.

use std::io::{Read, Write};

use super::{RequestRecord, SampleData, Status};

/// Columns. Times named `_ms` are milliseconds after the start of the sample, those of `ttft_ms` to `queue_delay_ms`
/// differences; `started_at` is UTC.
pub const COLUMNS: &[&str] = &[
    "request",
    "status",
    "http_status",
    "started_at",
    "intended_ms",
    "start_ms",
    "first_token_ms",
    "first_visible_ms",
    "last_token_ms",
    "end_ms",
    "ttft_ms",
    "tpot_ms",
    "e2el_ms",
    "queue_delay_ms",
    "input_tokens_requested",
    "input_tokens",
    "output_tokens_requested",
    "output_tokens",
    "output_tokens_source",
    "cached_input_tokens",
    "token_events",
    "max_gap_ms",
    "error",
];

/// Writes the header and every request.
pub fn write_requests_csv(data: &SampleData, out: impl Write) -> std::io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    for r in &data.requests {
        csv.write_record(row(data.started_wall_ns, r))?;
    }
    csv.flush()
}

/// Why a file of requests cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestsError {
    #[error("it is not the CSV of requests that llmatrix writes: {0}")]
    Csv(#[from] csv::Error),
    #[error("its header has no column `{0}`")]
    Column(&'static str),
    #[error("line {line}: `{column}` cannot be {value:?}")]
    Value { line: u64, column: &'static str, value: String },
}

/// Reads the requests back, in the order of the file. Columns may stand in any order; more than ours are passed over.
pub fn read_requests_csv(from: impl Read) -> Result<Vec<RequestRecord>, RequestsError> {
    let mut reader = csv::Reader::from_reader(from);
    let header = reader.headers()?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        *place = header.iter().position(|h| h == *column).ok_or(RequestsError::Column(column))?;
    }
    let mut out = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        out.push(request(&Fields { record: &record, places: &places })?);
    }
    Ok(out)
}

struct Fields<'a> {
    record: &'a csv::StringRecord,
    /// By position in [`COLUMNS`].
    places: &'a [usize; COLUMNS.len()],
}

impl Fields<'_> {
    fn text(&self, column: &str) -> &str {
        let at = COLUMNS.iter().position(|c| *c == column).expect("a column of ours");
        self.record.get(self.places[at]).unwrap_or_default()
    }

    /// An empty field is `None`.
    fn read<T>(&self, column: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, RequestsError> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        let wrong = || RequestsError::Value { line, column, value: text.to_string() };
        read(text).map(Some).ok_or_else(wrong)
    }

    fn number<T: std::str::FromStr>(&self, column: &'static str) -> Result<Option<T>, RequestsError> {
        self.read(column, |t| t.parse().ok())
    }

    fn ns(&self, column: &'static str) -> Result<Option<u64>, RequestsError> {
        self.read(column, from_ms)
    }
}

fn request(f: &Fields<'_>) -> Result<RequestRecord, RequestsError> {
    let status =
        f.read("status", |t| [Status::Ok, Status::Error, Status::Cancelled].into_iter().find(|s| s.as_str() == t));
    let source = f.text("output_tokens_source");
    let output_tokens = f.number("output_tokens")?;
    Ok(RequestRecord {
        index: f.number("request")?.unwrap_or_default(),
        status: status?.unwrap_or(Status::Error),
        http_status: f.number("http_status")?.unwrap_or_default(),
        intended_ns: f.ns("intended_ms")?.unwrap_or_default(),
        start_ns: f.ns("start_ms")?.unwrap_or_default(),
        first_token_ns: f.ns("first_token_ms")?,
        first_visible_ns: f.ns("first_visible_ms")?,
        last_token_ns: f.ns("last_token_ms")?,
        end_ns: f.ns("end_ms")?.unwrap_or_default(),
        max_gap_us: f.ns("max_gap_ms")?.map_or(0, |ns| u32::try_from(ns / 1000).unwrap_or(u32::MAX)),
        requested_input: f.number("input_tokens_requested")?,
        requested_output: f.number("output_tokens_requested")?.unwrap_or_default(),
        input_tokens: f.number("input_tokens")?,
        // Where events were counted in place of tokens, the server gave no number.
        output_tokens: output_tokens.filter(|_| source == "usage"),
        cached_tokens: f.number("cached_input_tokens")?,
        token_events: f.number("token_events")?.unwrap_or_default(),
        error: f.read("error", |t| Some(t.into()))?,
    })
}

/// Milliseconds with at most six decimals as nanoseconds, exactly.
fn from_ms(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if part.len() > 6 || !digits(part) || !digits(whole) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(part)
}

fn row(started_wall_ns: i64, r: &RequestRecord) -> [String; COLUMNS.len()] {
    let source = if r.output_tokens.is_some() { "usage" } else { "events" };
    [
        r.index.to_string(),
        r.status.as_str().into(),
        if r.http_status > 0 { r.http_status.to_string() } else { String::new() },
        wall(started_wall_ns.saturating_add_unsigned(r.start_ns)),
        ms(r.intended_ns),
        ms(r.start_ns),
        optional(r.first_token_ns, ms),
        optional(r.first_visible_ns, ms),
        optional(r.last_token_ns, ms),
        ms(r.end_ns),
        optional(r.ttft_ns(), ms),
        optional(r.tpot_ns(), |ns| format!("{}", ns / 1e6)),
        optional(r.e2el_ns(), ms),
        ms(r.queue_delay_ns()),
        optional(r.requested_input, |n| n.to_string()),
        optional(r.input_tokens, |n| n.to_string()),
        r.requested_output.to_string(),
        r.output().to_string(),
        source.into(),
        optional(r.cached_tokens, |n| n.to_string()),
        r.token_events.to_string(),
        if r.token_events > 1 { ms(1000 * u64::from(r.max_gap_us)) } else { String::new() },
        r.error.as_deref().unwrap_or_default().into(),
    ]
}

fn optional<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map(text).unwrap_or_default()
}

/// Nanoseconds as milliseconds, exactly.
fn ms(ns: u64) -> String {
    let text = format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn wall(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{request, sample};
    use super::super::{LoadShape, Status};
    use super::*;

    #[test]
    fn one_row_per_request_with_every_digit() {
        let failed = RequestRecord {
            status: Status::Error,
            http_status: 0,
            first_token_ns: None,
            first_visible_ns: None,
            last_token_ns: None,
            output_tokens: None,
            token_events: 0,
            error: Some("reset, by \"peer\"".into()),
            ..request(1, 2_000_000, 0, 1_000_000, 8)
        };
        let data = sample(
            LoadShape::Closed { concurrency: 1 },
            vec![request(0, 1_234_567, 10_000_001, 70_000_008, 8), failed],
        );
        let mut out = Vec::new();
        write_requests_csv(&data, &mut out).unwrap();
        let mut rows = csv::Reader::from_reader(out.as_slice());
        let header = rows.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        let get = |row: usize, name: &str| rows[row][header.iter().position(|h| h == name).unwrap()].to_string();
        assert_eq!(rows.len(), 2);
        assert_eq!(get(0, "start_ms"), "1.234567");
        assert_eq!(get(0, "ttft_ms"), "10.000001");
        assert_eq!(get(0, "e2el_ms"), "70.000008");
        assert_eq!(get(0, "tpot_ms").parse::<f64>().unwrap(), 60.000007 / 7.0);
        assert!(get(0, "started_at").starts_with("2026-11-18T"), "{}", get(0, "started_at"));
        assert_eq!(
            (get(1, "status"), get(1, "ttft_ms"), get(1, "http_status")),
            ("error".into(), "".into(), "".into())
        );
        assert_eq!(get(1, "error"), "reset, by \"peer\"");
        assert_eq!(read_requests_csv(out.as_slice()).unwrap(), data.requests);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let read = |text: &str| read_requests_csv(text.as_bytes()).unwrap_err().to_string();
        assert!(read("a,b\n").contains("no column `request`"));
        let line = COLUMNS.iter().map(|c| if *c == "start_ms" { "1e3" } else { "" }).collect::<Vec<_>>().join(",");
        let message = read(&format!("{}\n{line}\n", COLUMNS.join(",")));
        assert!(message.contains("line 2") && message.contains("`start_ms`"), "{message}");
        assert_eq!((from_ms("1.234567"), from_ms("0"), from_ms("1.2345678")), (Some(1_234_567), Some(0), None));
    }
}
