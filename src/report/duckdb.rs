//! SQL that makes an artifact tree a DuckDB database, in place: views over the files, nothing copied.

use crate::stats::csv;
use crate::store::row::{Kind, columns};

/// Views `results` (a row per sample and failed attempt), `requests` (a row per request, with its unit and sample) and
/// `runs`. `root` is the artifact tree; a path that is relative is so to where DuckDB is started.
pub fn sql(root: &str) -> String {
    let root = root.trim_end_matches('/').replace('\'', "''");
    format!(
        "-- Views over the results under {root}, read in place. A file that is added later is seen by the next query.\n\
         --   llmatrix export --duckdb-sql > results.sql && duckdb -init results.sql\n\
         --   SELECT engine, concurrency, avg(p50_ttft_ms) FROM results WHERE valid GROUP BY ALL ORDER BY ALL;\n\n\
         CREATE OR REPLACE VIEW results AS\nSELECT * FROM read_csv('{root}/*/benchmark_*.csv', union_by_name = true, types = {{\n{}\n}});\n\n\
         CREATE OR REPLACE VIEW requests AS\n\
         SELECT regexp_extract(filename, 'units/([0-9a-f]+)/', 1) AS unit,\n       \
         CAST(regexp_extract(filename, 'sample-([0-9]+)/', 1) AS INTEGER) AS sample,\n       \
         * EXCLUDE (filename)\n\
         FROM read_csv('{root}/*/units/*/sample-*/requests.csv', union_by_name = true, filename = true, types = {{\n{}\n}});\n\n\
         CREATE OR REPLACE VIEW runs AS\n\
         SELECT run, experiment, tags, simulated, started_at, finished_at, exit_code, counts\n\
         FROM read_json('{root}/runs/*/plan.json', union_by_name = true, maximum_object_size = 268435456);\n",
        entries(columns().iter().map(|c| (c.name, kind(c.kind())))),
        entries(csv::COLUMNS.iter().map(|name| (*name, request_kind(name)))),
    )
}

fn entries<'a>(types: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    types.map(|(name, kind)| format!("  '{name}': '{kind}'")).collect::<Vec<_>>().join(",\n")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "BOOLEAN",
        Kind::Count => "BIGINT",
        Kind::Number => "DOUBLE",
        Kind::Time => "TIMESTAMPTZ",
        Kind::Text => "VARCHAR",
    }
}

/// Types of the columns of `requests.csv`: an empty one must not become text.
fn request_kind(name: &str) -> &'static str {
    match name {
        "started_at" => "TIMESTAMPTZ",
        "status" | "output_tokens_source" | "error" => "VARCHAR",
        name if name.ends_with("_ms") => "DOUBLE",
        _ => "BIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_type_and_a_path_stays_in_its_quotes() {
        let sql = sql("it's/artifacts/");
        assert!(sql.contains("'it''s/artifacts/*/benchmark_*.csv'"), "{sql}");
        for line in
            ["  'valid': 'BOOLEAN'", "  'p99_ttft_ms': 'DOUBLE'", "  'n_ok': 'BIGINT'", "  'max_gap_ms': 'DOUBLE'"]
        {
            assert!(sql.contains(line), "{line}");
        }
    }
}
