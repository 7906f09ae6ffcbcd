//! JUnit XML: one test case per unit, so that a CI system lists what a run measured and what went wrong.

use std::fmt::{self, Write};

use super::figures::without_escapes;
use super::{Report, ReportUnit};

/// The document. Invalid and failed units are failures; blocked, unsupported and unmeasured ones are skipped, and so are
/// invalid and failed probes of a search.
pub fn junit(report: &Report) -> String {
    let mut out = String::new();
    write_suite(&mut out, report).expect("writing to a string succeeds");
    out
}

fn write_suite(out: &mut String, report: &Report) -> fmt::Result {
    let failed = report.units.iter().filter(|u| verdict(u) == Verdict::Failed).count();
    let skipped = report.units.iter().filter(|u| verdict(u) == Verdict::Skipped).count() + report.unsupported.len();
    let tests = report.units.len() + report.unsupported.len();
    let seconds = report.units.iter().fold(0.0, |sum, u| sum + seconds(u));
    let name = escape(&report.title);
    let numbers = format!(r#"tests="{tests}" failures="{failed}" skipped="{skipped}" time="{seconds:.3}""#);
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, r#"<testsuites name="{name}" {numbers}>"#)?;
    let stamp = report.run.as_ref().map(|r| format!(r#" timestamp="{}""#, escape(&r.started_at))).unwrap_or_default();
    writeln!(out, r#"  <testsuite name="{name}" {numbers} errors="0"{stamp}>"#)?;
    report.units.iter().try_for_each(|unit| write_case(out, unit))?;
    for cell in &report.unsupported {
        let parameters: Vec<String> = cell.cell.iter().map(|(k, v)| format!("{k}={v}")).collect();
        writeln!(out, r#"    <testcase name="{}" classname="unsupported">"#, escape(&parameters.join(" ")))?;
        writeln!(out, r#"      <skipped message="{}"/>"#, escape(&cell.reason))?;
        writeln!(out, "    </testcase>")?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

fn verdict(unit: &ReportUnit) -> Verdict {
    match unit.status() {
        "measured" | "cached" => Verdict::Passed,
        // That a value is too much for the engine is what a search looks for.
        "invalid" | "failed" if !unit.probe => Verdict::Failed,
        _ => Verdict::Skipped,
    }
}

fn write_case(out: &mut String, unit: &ReportUnit) -> fmt::Result {
    let (name, class) = (escape(&unit.name), escape(&unit.directory));
    write!(out, r#"    <testcase name="{name}" classname="{class}" time="{:.3}""#, seconds(unit))?;
    let cause = unit.cause().unwrap_or(unit.status());
    let first = escape(cause.lines().next().unwrap_or_default());
    match verdict(unit) {
        Verdict::Passed => return writeln!(out, "/>"),
        Verdict::Skipped => writeln!(out, ">\n      <skipped message=\"{}: {first}\"/>", unit.status())?,
        Verdict::Failed => {
            let log = unit.attempts.last().and_then(|a| a.log_tail.as_deref()).unwrap_or_default();
            let detail = if log.is_empty() { cause.to_string() } else { format!("{cause}\n\n{log}") };
            writeln!(out, ">\n      <failure type=\"{}\" message=\"{first}\">", unit.status())?;
            writeln!(out, "{}</failure>", escape(&detail))?;
        }
    }
    writeln!(out, "    </testcase>")
}

/// Time spent on the samples that the report stands on.
fn seconds(unit: &ReportUnit) -> f64 {
    unit.samples.iter().fold(0.0, |sum, s| sum + s.seconds)
}

/// Text for XML 1.0, which has no way to write most control characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in without_escapes(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn every_unit_is_a_case() {
        insta::assert_snapshot!("junit", junit(&report()));
    }
}
