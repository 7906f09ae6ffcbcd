//! Markdown: the table for a pull request, and the summary that a run leaves in its directory.

use std::fmt::{self, Write};

use super::grid::{Grid, Head, Line, Standing};
use super::{Report, answers, searches};
use crate::store::record::{Provenance, RunRecord};

/// The table alone; a table with a heading for each group.
pub fn table(grid: &Grid) -> String {
    let mut out = String::new();
    if grid.groups.is_empty() {
        write_heads(&mut out, grid);
    }
    for (i, group) in grid.groups.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if !group.title.is_empty() {
            out.push_str(&format!("### {}\n\n", cell(&group.title)));
        }
        write_heads(&mut out, grid);
        grid.lines[group.lines.clone()].iter().for_each(|row| write_row(&mut out, grid, row));
    }
    out
}

fn write_heads(out: &mut String, grid: &Grid) {
    let heads = grid.heads.iter().map(|h| match h.unit.as_str() {
        "" => cell(&h.title),
        unit => format!("{} ({unit})", cell(&h.title)),
    });
    line(out, heads);
    line(out, grid.heads.iter().map(|h| if h.numeric { "---:" } else { ":---" }.to_string()));
}

fn write_row(out: &mut String, grid: &Grid, row: &Line) {
    let struck = |h: &Head| row.standing == Standing::Invalid && h.better.is_some();
    let texts = row.cells.iter().zip(&grid.heads).map(|(c, head)| match cell(&c.text) {
        text if struck(head) && !text.is_empty() => format!("~~{text}~~"),
        text => text,
    });
    line(out, texts);
}

fn line(out: &mut String, cells: impl Iterator<Item = String>) {
    out.push('|');
    for cell in cells {
        out.push(' ');
        out.push_str(&cell);
        out.push_str(" |");
    }
    out.push('\n');
}

/// Text that stays inside its cell and means itself.
pub fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '~' | '[' | ']' | '\\' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `summary.md`: the run, its table, what went wrong and where the numbers come from.
pub fn summary(report: &Report, grid: &Grid) -> String {
    let mut out = String::new();
    write_summary(&mut out, report, grid).expect("writing to a string succeeds");
    out
}

fn write_summary(out: &mut String, report: &Report, grid: &Grid) -> fmt::Result {
    writeln!(out, "# {}\n", cell(&report.title))?;
    if let Some(run) = &report.run {
        write_run(out, run)?;
    }
    if let Some(cost) = report.sweep_cost() {
        writeln!(out, "Cost: {cost}.\n")?;
    }
    writeln!(out, "{}", table(grid))?;
    searches::markdown(out, report, cell)?;
    answers::markdown(out, report, cell)?;
    write_failures(out, report)?;
    if let Some(run) = &report.run {
        for warning in &run.warnings {
            writeln!(out, "> {}\n", cell(warning))?;
        }
    }
    if let Some(provenance) = provenance(report) {
        writeln!(out, "## Provenance\n")?;
        for (name, value) in facts(provenance) {
            writeln!(out, "- {name}: {}", cell(&value))?;
        }
    }
    Ok(())
}

fn write_run(out: &mut String, run: &RunRecord) -> fmt::Result {
    if let Some(description) = &run.description {
        writeln!(out, "{}\n", cell(description))?;
    }
    let hardware: Vec<&str> = run.hardware.iter().map(|(class, _)| class.as_str()).collect();
    let simulated = if run.simulated { ", **simulated**" } else { "" };
    writeln!(out, "Run `{}`{simulated}, {}.\n", run.run, when(run))?;
    if !hardware.is_empty() {
        writeln!(out, "Hardware: {}.\n", cell(&hardware.join(", ")))?;
    }
    if let Some(counts) = run.counts {
        writeln!(out, "{}.\n", super::figures::counts(&counts))?;
    }
    Ok(())
}

pub(super) fn when(run: &RunRecord) -> String {
    match &run.finished_at {
        Some(end) if run.died => format!("started {}, killed; completed from its units {end}", run.started_at),
        Some(end) => format!("{} to {end}", run.started_at),
        None => format!("started {}, not finished", run.started_at),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn write_failures(out: &mut String, report: &Report) -> fmt::Result {
    let failed: Vec<_> = report.units.iter().filter_map(|u| Some((u, u.cause()?))).collect();
    if failed.is_empty() && report.unsupported.is_empty() {
        return Ok(());
    }
    writeln!(out, "## What has no numbers\n")?;
    for (unit, cause) in failed {
        writeln!(out, "- **{}** {}: {}", unit.status().replace('_', " "), cell(&unit.name), cell(first_line(cause)))?;
    }
    for unsupported in &report.unsupported {
        let cell_text: Vec<String> = unsupported.cell.iter().map(|(k, v)| format!("{k}={v}")).collect();
        writeln!(out, "- **unsupported** {}: {}", cell(&cell_text.join(" ")), cell(&unsupported.reason))?;
    }
    writeln!(out)
}

/// The provenance that stands for the report: the run's, else that of the newest sample.
pub(super) fn provenance(report: &Report) -> Option<&Provenance> {
    let newest = || {
        let samples = report.units.iter().flat_map(|u| &u.samples);
        samples.max_by_key(|s| &s.started_at).map(|s| &s.provenance)
    };
    report.run.as_ref().map(|r| &r.provenance).or_else(newest)
}

/// Names and values of what is known.
pub(super) fn facts(p: &Provenance) -> Vec<(&'static str, String)> {
    let mut gpus: Vec<String> = p.gpus.iter().map(|g| g.name.clone()).collect();
    gpus.dedup();
    let gpus = (!gpus.is_empty()).then(|| format!("{} × {}", p.gpus.len(), gpus.join(", ")));
    let commit = p.experiment_commit.as_ref().map(|c| match p.experiment_dirty {
        Some(true) => format!("{c}, with uncommitted changes"),
        _ => c.clone(),
    });
    let tool = (!p.tool_version.is_empty()).then(|| match &p.tool_commit {
        Some(commit) => format!("{} ({commit})", p.tool_version),
        None => p.tool_version.clone(),
    });
    let known = [
        ("llmatrix", tool),
        ("experiment commit", commit),
        ("host", p.host.clone()),
        ("kernel", p.kernel.clone()),
        ("CPU", p.cpu.as_ref().map(|c| format!("{c}{}", p.cpus.map(|n| format!(", {n} threads")).unwrap_or_default()))),
        ("GPUs", gpus),
        ("driver", p.driver.clone()),
        ("Docker", p.docker_version.clone()),
        ("network path", p.network_path.clone()),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::super::{View, grid};
    use super::*;

    #[test]
    fn the_summary_of_a_run() {
        let report = report();
        insta::assert_snapshot!("summary", summary(&report, &grid(&report, &View::default()).unwrap()));
    }

    #[test]
    fn text_cannot_leave_its_cell() {
        assert_eq!(cell("a|b\n<i>*x*"), r"a\|b &lt;i>\*x\*");
    }
}
