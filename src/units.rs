//! Quantities with their units, durations and byte sizes as people write them, and words that every layer shares.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// The largest load that meets the SLOs.
    Slo,
    /// The load beyond which more of it buys latency rather than throughput.
    Knee,
}

impl Objective {
    pub const ALL: [Objective; 2] = [Objective::Slo, Objective::Knee];

    /// The word in experiments and results.
    pub fn as_str(self) -> &'static str {
        match self {
            Objective::Slo => "slo",
            Objective::Knee => "knee",
        }
    }
}

/// Why a text is not a duration or a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    #[error("`{0}` is not a duration: write a number with its unit, such as `500ms`, `30s`, `20m` or `1h30m`")]
    Duration(String),
    #[error("`{0}` is not a size: write a number with its unit, such as `512MiB` or `16GiB`")]
    Size(String),
}

/// Reads `500ms`, `1.5s`, `20m`, `1h30m`, `2d`.
///
/// ```
/// use llmatrix::units::{format_duration, parse_duration};
/// let d = parse_duration("90m").unwrap();
/// assert_eq!(format_duration(d), "1h30m");
/// assert!(parse_duration("90").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let bad = || QuantityError::Duration(text.chars().take(40).collect());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(bad()),
        };
        total += number * scale;
        rest = rest[end..].trim_start();
    }
    // A century is far beyond any run; the bound keeps every later sum finite.
    if total > 3.2e9 {
        return Err(bad());
    }
    Ok(Duration::from_nanos((total * 1e9).round() as u64))
}

/// The shortest text that [`parse_duration`] reads back as the same duration: `90s` is `1m30s`.
pub fn format_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if !nanos.is_multiple_of(1_000_000) {
        return format!("{}us", nanos as f64 / 1e3);
    }
    if !nanos.is_multiple_of(1_000_000_000) {
        return format!("{}ms", nanos / 1_000_000);
    }
    let secs = d.as_secs();
    let mut out = String::new();
    for (size, unit) in [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")] {
        let n = match size {
            86400 => secs / 86400,
            3600 => secs % 86400 / 3600,
            60 => secs % 3600 / 60,
            _ => secs % 60,
        };
        if n > 0 {
            out.push_str(&format!("{n}{unit}"));
        }
    }
    out
}

/// Reads `64`, `512MiB`, `16GiB`, `1.5GB` (decimal units are powers of 1000).
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let bad = || QuantityError::Size(text.chars().take(40).collect());
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| bad())?;
    let scale = match text[digits..].trim() {
        "" | "B" | "b" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" | "K" | "k" => 1024.0,
        "MiB" | "M" | "m" => 1048576.0,
        "GiB" | "G" | "g" => 1073741824.0,
        "TiB" | "T" | "t" => 1099511627776.0,
        _ => return Err(bad()),
    };
    Ok((number * scale).round() as u64)
}

/// The text that [`parse_bytes`] reads back as the same size, in the largest unit that divides it: `1536MiB`, `100`.
pub fn format_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match whole {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms, out) in [
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("0.5s", 500, "500ms"),
            ("2d", 172_800_000, "2d"),
            ("60s", 60_000, "1m"),
        ] {
            let d = parse_duration(text).unwrap();
            assert_eq!(d.as_millis(), ms, "{text}");
            assert_eq!(format_duration(d), out);
            assert_eq!(parse_duration(out).unwrap(), d);
        }
        for bad in ["", "5", "s", "5 parsecs", "-3s", "1e9d", "99999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read() {
        assert_eq!(parse_bytes("16GiB").unwrap(), 16 << 30);
        assert_eq!(parse_bytes("1.5kB").unwrap(), 1500);
        assert!(parse_bytes("x").is_err());
        for text in ["96MiB", "1536MiB", "2GiB", "1500", "0"] {
            assert_eq!(format_bytes(parse_bytes(text).unwrap()), text);
        }
    }
}
