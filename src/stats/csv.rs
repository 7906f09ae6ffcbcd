//! `requests.csv`: one row per request, failed ones included, in full precision.

use std::io::Write;

use super::{RequestRecord, SampleData};

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
    }
}
