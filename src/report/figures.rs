//! Numbers as people read them.

use crate::event::Counts;

/// How the units of a run ended: every count that is not zero, measured ones always.
pub fn counts(counts: &Counts) -> String {
    let Counts { cached, measured, invalid, failed, blocked, unsupported, not_run } = *counts;
    let mut parts = vec![format!("{measured} measured")];
    let others = [
        (cached, "cached"),
        (invalid, "invalid"),
        (failed, "failed"),
        (blocked, "blocked"),
        (unsupported, "unsupported"),
        (not_run, "not run"),
    ];
    parts.extend(others.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
    parts.join(", ")
}

/// Text without the escape sequences by which logs are coloured.
pub fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if chars.next_if_eq(&'[').is_some() {
            // Parameters up to the letter that ends the sequence.
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        }
    }
    out
}

/// Three significant digits, thousands whole: `0.456`, `7.13`, `83.2`, `1413`.
pub fn figure(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_string(),
        a if a >= 99.95 => format!("{x:.0}"),
        a if a >= 9.995 => format!("{x:.1}"),
        a if a >= 0.9995 => format!("{x:.2}"),
        a if a >= 0.0005 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}

/// A mean and half the width of its interval, with as many decimals as the mean has.
pub fn with_interval(mean: f64, half_width: Option<f64>) -> String {
    let text = figure(mean);
    let Some(half) = half_width.filter(|h| h.is_finite()) else { return text };
    let decimals = match text.split_once('.') {
        _ if text.contains('e') => return format!("{text} ± {half:.1e}"),
        Some((_, decimals)) => decimals.len(),
        None => 0,
    };
    format!("{text} ± {half:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_leave_no_trace() {
        assert_eq!(without_escapes("a\u{1b}[1;31mred\u{1b}[0m b[1]\u{1b}[2"), "ared b[1]");
    }

    #[test]
    fn three_digits() {
        for (x, text) in [
            (0.0, "0"),
            (0.4561, "0.456"),
            (7.126, "7.13"),
            (9.996, "10.0"),
            (83.21, "83.2"),
            (99.96, "100"),
            (1412.6, "1413"),
            (0.000_012, "1.2e-5"),
        ] {
            assert_eq!(figure(x), text);
        }
        assert_eq!(with_interval(83.21, Some(1.44)), "83.2 ± 1.4");
        assert_eq!(with_interval(1412.6, Some(30.2)), "1413 ± 30");
        assert_eq!(with_interval(83.21, None), "83.2");
    }
}
