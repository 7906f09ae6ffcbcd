//! JUnit XML: one test case per unit, so that a CI system lists what a run measured and what went wrong; and suites of
//! others, such as a gate's.

use std::fmt::{self, Write};

use super::figures::without_escapes;
use super::{Report, ReportUnit};

/// A suite beside the units' own, such as a gate's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    pub name: String,
    pub cases: Vec<Case>,
}

/// One of its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub class: String,
    pub verdict: Verdict,
    /// Kind of failure.
    pub kind: String,
    /// One line.
    pub message: String,
    pub detail: String,
}

/// The document of a run. Invalid and failed units are failures; blocked, unsupported and unmeasured ones are skipped,
/// and so are invalid and failed probes of a search.
pub fn junit(report: &Report) -> String {
    with_suites(report, &[])
}

/// The document of a run and of more that is to be said about it.
pub fn with_suites(report: &Report, more: &[Suite]) -> String {
    let mut out = String::new();
    write_run(&mut out, report, more).expect("writing to a string succeeds");
    out
}

/// A document of suites alone.
pub fn document(suites: &[Suite]) -> String {
    let mut out = String::new();
    let name = suites.first().map(|s| s.name.as_str()).unwrap_or_default();
    let numbers = Numbers::default().and(suites);
    write_head(&mut out, name, &numbers)
        .and_then(|()| suites.iter().try_for_each(|s| write_suite(&mut out, s)))
        .and_then(|()| writeln!(out, "</testsuites>"))
        .expect("writing to a string succeeds");
    out
}

/// What a suite or all of them count.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    tests: usize,
    failures: usize,
    skipped: usize,
    seconds: f64,
}

impl Numbers {
    fn of_run(report: &Report) -> Numbers {
        let count = |wanted| report.units.iter().filter(|u| verdict(u) == wanted).count();
        Numbers {
            tests: report.units.len() + report.unsupported.len(),
            failures: count(Verdict::Failed),
            skipped: count(Verdict::Skipped) + report.unsupported.len(),
            seconds: report.units.iter().fold(0.0, |sum, u| sum + seconds(u)),
        }
    }

    fn and(mut self, suites: &[Suite]) -> Numbers {
        for case in suites.iter().flat_map(|s| &s.cases) {
            self.tests += 1;
            self.failures += usize::from(case.verdict == Verdict::Failed);
            self.skipped += usize::from(case.verdict == Verdict::Skipped);
        }
        self
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbers { tests, failures, skipped, seconds } = self;
        write!(f, r#"tests="{tests}" failures="{failures}" skipped="{skipped}" time="{seconds:.3}""#)
    }
}

fn write_head(out: &mut String, name: &str, numbers: &Numbers) -> fmt::Result {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, r#"<testsuites name="{}" {numbers}>"#, escape(name))
}

fn write_run(out: &mut String, report: &Report, more: &[Suite]) -> fmt::Result {
    let own = Numbers::of_run(report);
    write_head(out, &report.title, &own.and(more))?;
    let stamp = report.run.as_ref().map(|r| format!(r#" timestamp="{}""#, escape(&r.started_at))).unwrap_or_default();
    writeln!(out, r#"  <testsuite name="{}" {own} errors="0"{stamp}>"#, escape(&report.title))?;
    report.units.iter().try_for_each(|unit| write_case(out, unit))?;
    for cell in &report.unsupported {
        let parameters: Vec<String> = cell.cell.iter().map(|(k, v)| format!("{k}={v}")).collect();
        writeln!(out, r#"    <testcase name="{}" classname="unsupported">"#, escape(&parameters.join(" ")))?;
        writeln!(out, r#"      <skipped message="{}"/>"#, escape(&cell.reason))?;
        writeln!(out, "    </testcase>")?;
    }
    writeln!(out, "  </testsuite>")?;
    more.iter().try_for_each(|suite| write_suite(out, suite))?;
    writeln!(out, "</testsuites>")
}

fn write_suite(out: &mut String, suite: &Suite) -> fmt::Result {
    let numbers = Numbers::default().and(std::slice::from_ref(suite));
    writeln!(out, r#"  <testsuite name="{}" {numbers} errors="0">"#, escape(&suite.name))?;
    for case in &suite.cases {
        let Case { name, class, verdict, kind, message, detail } = case;
        write!(out, r#"    <testcase name="{}" classname="{}""#, escape(name), escape(class))?;
        match verdict {
            Verdict::Passed => {
                writeln!(out, "/>")?;
                continue;
            }
            Verdict::Skipped => writeln!(out, ">\n      <skipped message=\"{}\"/>", escape(message))?,
            Verdict::Failed => {
                let (kind, message) = (escape(kind), escape(message));
                writeln!(out, ">\n      <failure type=\"{kind}\" message=\"{message}\">")?;
                writeln!(out, "{}</failure>", escape(detail))?;
            }
        }
        writeln!(out, "    </testcase>")?;
    }
    writeln!(out, "  </testsuite>")
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
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
