//! What the searches of a run came to: a line each, and a table of their probes.

use std::fmt::{self, Write};

use serde::Serialize;

use super::Report;
use super::figures::figure;
use crate::event::search::{ProbeResult, SearchResult};

/// One line for each search.
pub fn lines(report: &Report) -> impl Iterator<Item = String> {
    all(report).iter().map(|s| format!("{}: {}", s.search, first_line(&s.text())))
}

fn all(report: &Report) -> &[SearchResult] {
    report.run.as_ref().map_or(&[], |run| &run.searches)
}

/// A section with a table of probes for each search. `escape` makes a text safe inside a cell.
pub fn markdown(out: &mut String, report: &Report, escape: fn(&str) -> String) -> fmt::Result {
    if all(report).is_empty() {
        return Ok(());
    }
    writeln!(out, "## Searches\n")?;
    for search in all(report) {
        writeln!(out, "**{}**: {}.\n", escape(&search.search), escape(first_line(&search.text())))?;
        if !search.rule.is_empty() {
            writeln!(out, "{}.\n", escape(&search.rule))?;
        }
        if search.probes.is_empty() {
            continue;
        }
        writeln!(out, "| {} | n | passes | figures |\n| ---: | ---: | :--- | :--- |", escape(&search.parameter))?;
        for probe in ascending(search) {
            let [value, n, passes, figures] = cells(probe);
            writeln!(out, "| {value} | {n} | {passes} | {} |", escape(&figures))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A search for a page.
#[derive(Serialize)]
pub struct Section {
    search: String,
    result: String,
    rule: String,
    parameter: String,
    probes: Vec<Probe>,
}

/// A value that was tried.
#[derive(Serialize)]
struct Probe {
    cells: [String; 4],
    passed: bool,
    /// Where the page has its unit.
    anchor: String,
}

/// All searches, in the order of the run.
pub fn sections(report: &Report) -> Vec<Section> {
    let probe =
        |p: &ProbeResult| Probe { cells: cells(p), passed: p.passed, anchor: format!("u-{}", p.unit_id.short(12)) };
    let section = |search: &SearchResult| Section {
        search: search.search.clone(),
        result: first_line(&search.text()).to_string(),
        rule: search.rule.clone(),
        parameter: search.parameter.clone(),
        probes: ascending(search).into_iter().map(probe).collect(),
    };
    all(report).iter().map(section).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn ascending(search: &SearchResult) -> Vec<&ProbeResult> {
    let mut probes: Vec<&ProbeResult> = search.probes.iter().collect();
    probes.sort_by(|a, b| a.value.total_cmp(&b.value));
    probes
}

/// Value, samples, verdict, and what it was judged by.
fn cells(probe: &ProbeResult) -> [String; 4] {
    let shown = |x: Option<f64>| x.map_or_else(|| "∞".to_string(), figure);
    let mut figures: Vec<String> = probe
        .margins
        .iter()
        .map(|m| match m.metric.as_str() {
            "goodput_share" => format!("{:.1} % good", 100.0 * m.bound.unwrap_or(0.0)),
            metric => format!("{metric} {} of {} ms", shown(m.bound), figure(m.limit)),
        })
        .collect();
    figures.extend(probe.power.map(|p| format!("power {}", figure(p))));
    figures.extend(probe.problem.as_deref().map(|p| first_line(p).to_string()));
    [
        probe.value.to_string(),
        probe.samples.to_string(),
        if probe.passed { "yes" } else { "no" }.into(),
        figures.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{View, grid, markdown, terminal, testing};
    use super::*;
    use crate::stats::objective::Margin;
    use crate::units::Objective;

    fn searched() -> Report {
        let mut report = testing::report();
        let unit_id = report.units[0].unit_id;
        let margin = |bound: Option<f64>| Margin {
            metric: "p95_ttft".into(),
            mean: bound,
            bound,
            limit: 500.0,
            met: bound.is_some_and(|b| b <= 500.0),
        };
        let probe = |value: f64, bound: Option<f64>| ProbeResult {
            value,
            unit_id,
            samples: 3,
            passed: bound.is_some_and(|b| b <= 500.0),
            margins: vec![margin(bound)],
            power: None,
            problem: None,
        };
        let broken = ProbeResult {
            margins: vec![],
            problem: Some("the engine | died\nlog".into()),
            samples: 0,
            ..probe(4.0, None)
        };
        let result = SearchResult {
            search: "m-hf-vllm rate 1…8 until slo".into(),
            deploy_id: report.units[0].deploy_id,
            parameter: "rate".into(),
            until: Objective::Slo,
            from: 1.0,
            to: 8.0,
            within: 0.05,
            best: Some(1.05),
            bracket: (Some(1.05), Some(1.1)),
            rule: "p95_ttft ≤ 500 ms".into(),
            probes: vec![probe(1.0, Some(310.0)), broken, probe(1.1, None), probe(1.05, Some(498.123))],
            unfinished: None,
        };
        report.run.as_mut().unwrap().searches = vec![result];
        report
    }

    #[test]
    fn every_human_format_shows_searches() {
        let report = searched();
        let grid = grid(&report, &View::default()).unwrap();
        let text = markdown::summary(&report, &grid);
        let section = text.split("## Searches\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let expected = "\n**m-hf-vllm rate 1…8 until slo**: largest rate within the SLOs is 1.05 (1.1 fails); 4 probes.\n\n\
            p95\\_ttft ≤ 500 ms.\n\n\
            | rate | n | passes | figures |\n| ---: | ---: | :--- | :--- |\n\
            | 1 | 3 | yes | p95\\_ttft 310 of 500 ms |\n\
            | 1.05 | 3 | yes | p95\\_ttft 498 of 500 ms |\n\
            | 1.1 | 3 | no | p95\\_ttft ∞ of 500 ms |\n\
            | 4 | 0 | no | the engine \\| died |\n";
        assert_eq!(section, expected);
        let mut out = Vec::new();
        terminal::write(&report, &grid, Default::default(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\nsearch m-hf-vllm rate 1…8 until slo: largest rate within the SLOs is 1.05"), "{out}");
        let page = super::super::html::page(&report, &grid, &Default::default());
        assert!(page.contains("<td>p95_ttft 310 of 500 ms</td>"), "{page}");
    }
}
