//! One HTML page that needs nothing else: table with coloured cells, charts, failures with their logs, provenance.

use std::fmt::{self, Write};

use super::grid::{Cell, Grid, Head, Standing};
use super::{Report, ReportUnit, figures, markdown, plot, searches};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The page.
pub fn page(report: &Report, grid: &Grid) -> String {
    let mut out = String::new();
    write_page(&mut out, report, grid).expect("writing to a string succeeds");
    out
}

fn write_page(out: &mut String, report: &Report, grid: &Grid) -> fmt::Result {
    let title = escape(&report.title);
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(out, "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>")?;
    writeln!(out, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>")?;
    write_heading(out, report)?;
    write_table(out, report, grid)?;
    searches::html(out, report, escape)?;
    write_charts(out, report)?;
    write_failures(out, report)?;
    write_provenance(out, report)?;
    writeln!(out, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")
}

fn write_heading(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "<h1>{}</h1>", escape(&report.title))?;
    let Some(run) = &report.run else { return Ok(()) };
    if let Some(description) = &run.description {
        writeln!(out, "<p class=\"lead\">{}</p>", escape(description))?;
    }
    let simulated = if run.simulated { " <strong class=\"tag\">simulated</strong>" } else { "" };
    writeln!(out, "<p>Run <code>{}</code>{simulated}, {}.</p>", escape(&run.run), escape(&markdown::when(run)))?;
    let hardware: Vec<&str> = run.hardware.iter().map(|(class, _)| class.as_str()).collect();
    if !hardware.is_empty() {
        writeln!(out, "<p>Hardware: {}.</p>", escape(&hardware.join(", ")))?;
    }
    if let Some(counts) = &run.counts {
        writeln!(out, "<p>{}.</p>", escape(&figures::counts(counts)))?;
    }
    for warning in &run.warnings {
        writeln!(out, "<p class=\"warning\">{}</p>", escape(warning))?;
    }
    Ok(())
}

fn write_table(out: &mut String, report: &Report, grid: &Grid) -> fmt::Result {
    writeln!(out, "<h2>Results</h2>\n<div class=\"scroll\">\n<table class=\"sortable\">\n<thead><tr>")?;
    for head in &grid.heads {
        write_head(out, head)?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    let heat: Vec<Vec<Option<f64>>> = (0..grid.heads.len()).map(|i| grid.heat(i)).collect();
    for (row, line) in grid.lines.iter().enumerate() {
        let class = match line.standing {
            Standing::Good => "",
            Standing::Invalid => " class=\"invalid\"",
            Standing::Missing => " class=\"missing\"",
        };
        writeln!(out, "<tr{class} title=\"{}\">", escape(&hover(&report.units[line.unit])))?;
        for ((cell, head), heat) in line.cells.iter().zip(&grid.heads).zip(&heat) {
            write_cell(out, cell, head, heat[row])?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")?;
    let repeated = report.units.iter().any(|u| u.valid_samples() > 1);
    let note = if repeated { " ± is the 95 % confidence interval of the mean over samples." } else { "" };
    writeln!(out, "<p class=\"note\">Each column is coloured from its worst to its best value.{note}</p>")
}

fn hover(unit: &ReportUnit) -> String {
    let cause = unit.cause().and_then(|c| c.lines().next()).map(|c| format!("\n{c}")).unwrap_or_default();
    format!("{}\nunit {}{cause}", unit.name, unit.unit_id.short(16))
}

fn write_head(out: &mut String, head: &Head) -> fmt::Result {
    let class = if head.numeric { " class=\"num\"" } else { "" };
    let unit = if head.unit.is_empty() { String::new() } else { format!("<small>{}</small>", escape(&head.unit)) };
    writeln!(out, "<th{class} title=\"{}\"><button>{}{unit}</button></th>", escape(&head.name), escape(&head.title))
}

fn write_cell(out: &mut String, cell: &Cell, head: &Head, heat: Option<f64>) -> fmt::Result {
    let class = match (head.numeric, head.better) {
        (_, Some(_)) => " class=\"num metric\"",
        (true, None) => " class=\"num\"",
        (false, None) => "",
    };
    let key = cell.number.map(|n| format!(" data-n=\"{n}\"")).unwrap_or_default();
    let style = heat.map(|h| format!(" style=\"--heat:{:.0}%\"", h * 100.0)).unwrap_or_default();
    let heat = if heat.is_some() { " data-heat" } else { "" };
    writeln!(out, "<td{class}{key}{heat}{style}>{}</td>", escape(&cell.text))
}

fn write_charts(out: &mut String, report: &Report) -> fmt::Result {
    let charts = plot::charts(report);
    if charts.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>Throughput against interactivity</h2>")?;
    writeln!(
        out,
        "<p class=\"note\">Each point is a unit, each line one stack under rising load: up is more tokens per second \
         altogether, right is more for each user.</p>\n<div class=\"charts\">"
    )?;
    for chart in charts {
        writeln!(out, "<figure>\n<figcaption>{}</figcaption>\n{}</figure>", escape(&chart.title), chart.svg)?;
    }
    writeln!(out, "</div>")
}

fn write_failures(out: &mut String, report: &Report) -> fmt::Result {
    let failed: Vec<(&ReportUnit, &str)> = report.units.iter().filter_map(|u| Some((u, u.cause()?))).collect();
    if failed.is_empty() && report.unsupported.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>What has no numbers</h2>")?;
    for (unit, cause) in failed {
        let (name, status) = (escape(&unit.name), unit.status().replace('_', " "));
        writeln!(out, "<details>\n<summary><span class=\"tag {status}\">{status}</span> {name}</summary>")?;
        writeln!(out, "<pre>{}</pre>", escape(cause))?;
        if let Some(log) = unit.attempts.last().and_then(|a| a.log_tail.as_deref()) {
            writeln!(out, "<p>End of the engine's log:</p>\n<pre>{}</pre>", escape(log))?;
        }
        writeln!(out, "</details>")?;
    }
    for cell in &report.unsupported {
        let parameters: Vec<String> = cell.cell.iter().map(|(k, v)| format!("{k}={v}")).collect();
        writeln!(out, "<details>\n<summary><span class=\"tag\">unsupported</span> {}</summary>", escape(&cell.reason))?;
        writeln!(out, "<pre>{}</pre>\n</details>", escape(&parameters.join("\n")))?;
    }
    Ok(())
}

fn write_provenance(out: &mut String, report: &Report) -> fmt::Result {
    let Some(provenance) = markdown::provenance(report) else { return Ok(()) };
    writeln!(out, "<h2>Provenance</h2>\n<dl>")?;
    for (name, value) in markdown::facts(provenance) {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    writeln!(out, "</dl>")?;
    for (version, digest, of) in engines(report) {
        writeln!(out, "<p class=\"note\">{}</p>", escape(&format!("{of} {version} {digest}")))?;
    }
    Ok(())
}

/// Engine versions and image digests that were measured, once each.
fn engines(report: &Report) -> Vec<(String, String, String)> {
    let mut seen = std::collections::BTreeSet::new();
    for unit in &report.units {
        for sample in &unit.samples {
            let of = format!("{} {}", unit.facts.method, unit.facts.engine);
            let p = &sample.provenance;
            let digest = p.image_digest.clone().unwrap_or_default();
            seen.insert((of, p.engine_version.clone().unwrap_or_default(), digest));
        }
    }
    seen.into_iter().map(|(of, version, digest)| (version, digest, of)).collect()
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in figures::without_escapes(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::super::{View, grid};
    use super::*;

    #[test]
    fn the_page_of_a_run() {
        let report = report();
        let page = page(&report, &grid(&report, &View::default()).unwrap());
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(foreign), "{foreign}");
        }
        assert!(page.contains("ERROR &lt;torch&gt; OutOfMemoryError &amp; more"));
        let body = page.split("<body>").nth(1).unwrap().split("<script>").next().unwrap();
        insta::assert_snapshot!("html", body);
    }
}
