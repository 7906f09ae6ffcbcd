//! The tidy formats: one row per sample and per failed attempt, with the columns of the results CSV.

use std::io::{self, Write};

use super::{Report, ReportUnit};
use crate::store::row::{Measured, Row, RowSource, columns};

/// All rows, unit by unit: its samples, then its failed attempts.
pub fn rows(report: &Report) -> impl Iterator<Item = Row> {
    report.units.iter().flat_map(unit_rows)
}

fn unit_rows(unit: &ReportUnit) -> impl Iterator<Item = Row> {
    let samples = unit.samples.iter().map(Measured::Sample);
    let attempts = unit.attempts.iter().map(Measured::Attempt);
    samples.chain(attempts).map(|measured| {
        let (unit_id, deploy_id) = (Some(unit.unit_id), Some(unit.deploy_id));
        Row::new(&RowSource { unit_id, deploy_id, facts: &unit.facts, measured })
    })
}

/// CSV with one header.
pub fn write_csv(report: &Report, out: impl Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(columns().iter().map(|c| c.name))?;
    for row in rows(report) {
        csv.write_record(row.texts())?;
    }
    csv.flush()
}

/// One JSON object per line, whose keys are the columns.
pub fn write_json_lines(report: &Report, mut out: impl Write) -> io::Result<()> {
    for row in rows(report) {
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn both_formats_have_the_same_rows_and_columns() {
        let (mut csv, mut json) = (Vec::new(), Vec::new());
        write_csv(&report(), &mut csv).unwrap();
        write_json_lines(&report(), &mut json).unwrap();
        let mut reader = csv::Reader::from_reader(&csv[..]);
        let headers = reader.headers().unwrap().clone();
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let objects: Vec<serde_json::Map<String, serde_json::Value>> =
            String::from_utf8(json).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        // 3 of the first unit, the cached and the invalid one, 2 failed attempts.
        assert_eq!((records.len(), objects.len()), (7, 7));
        for (record, object) in records.iter().zip(&objects) {
            assert_eq!(object.len(), headers.len());
            for (header, text) in headers.iter().zip(record) {
                let same = match &object[header] {
                    serde_json::Value::Null => text.is_empty(),
                    serde_json::Value::String(s) => s.replace('\n', " ") == text,
                    // Exactly the same number, however each format writes it.
                    serde_json::Value::Number(n) => text.parse::<f64>().ok() == n.as_f64(),
                    serde_json::Value::Bool(b) => text == if *b { "true" } else { "false" },
                    other => panic!("{other} has no place in a row"),
                };
                assert!(same, "{header}: {text:?} against {}", object[header]);
            }
        }
        assert_eq!(objects[5]["status"], "failed");
        assert_eq!(objects[4]["valid"], false);
    }
}
