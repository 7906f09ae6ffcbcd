//! `report`: a run as a table, Markdown, HTML, CSV, JSON lines or JUnit, and its plots.

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use super::args::{Global, JudgeArgs, ReportArgs, ReportFormat, WhichArgs};
use super::failure::Failure;
use super::output::Output;
use super::prepare;
use super::results;
use super::selection;
use crate::report::html::PageOptions;
use crate::report::plots::plots;
use crate::report::{self, Report, View};
use crate::spec::policy::{Cost, Slo};
use crate::spec::predicate::Labels;
use crate::spec::sections::REQUEST_METRICS;
use crate::spec::set::parse_only;
use crate::spec::types::Vocabulary;
use crate::store::Store;
use crate::units;

pub fn command(args: &ReportArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let store = store(&args.which, global)?;
    let mut report = select(&store, &args.run, &args.which, &args.judge)?;
    let format = if output.json { ReportFormat::Json } else { args.format };
    if format == ReportFormat::Html || args.plots.is_some() {
        results::with_details(&store, &mut report);
    }
    if let Some(dir) = &args.plots {
        write_plots(&report, dir, output)?;
        if args.output.is_none() && format == ReportFormat::Table {
            return Ok(0);
        }
    }
    let view = View {
        columns: args.columns.clone(),
        sort: args.sort.clone(),
        group: args.group.clone(),
        samples: args.samples,
    };
    match &args.output {
        Some(path) => {
            let options = PageOptions { root: relative(store.root(), path) };
            let text = render(&report, &view, format, &options)?;
            let mut file = std::io::BufWriter::new(results::create(path)?);
            file.write_all(&text).and_then(|()| file.flush()).map_err(|e| Failure::io("write", path, &e))?;
            output.note(&format!("wrote {}", path.display()));
        }
        None if format == ReportFormat::Table => results::print(&report, &view, output)?,
        None => {
            let text = render(&report, &view, format, &PageOptions::default())?;
            output.write(|out| out.write_all(&text));
        }
    }
    Ok(0)
}

/// The artifact tree that the flags mean.
pub fn store(which: &WhichArgs, global: &Global) -> Result<Store, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    Ok(Store::open(&layered.settings.artifacts, which.simulated))
}

/// A run with the units that the rules keep, judged by what the flags say.
pub fn select(store: &Store, run: &str, which: &WhichArgs, judge: &JudgeArgs) -> Result<Report, Failure> {
    let (slo, cost) = (slo(&judge.slo)?, cost(&judge.gpu_hour_usd)?);
    let record = results::find_run(store, run)?;
    let mut report = results::of_run(store, record);
    filter(&mut report, &which.only)?;
    if let Some(slo) = slo {
        results::judge(store, &mut report, Some(&slo));
    }
    if let Some(cost) = cost {
        report.reprice(&cost);
    }
    Ok(report)
}

fn write_plots(report: &Report, dir: &Path, output: &Output) -> Result<(), Failure> {
    let plots = plots(report);
    if plots.is_empty() {
        return Err(Failure::Nothing("there is nothing to plot: no unit of this run has figures".into()));
    }
    results::create_dir(dir)?;
    for plot in &plots {
        results::write(&dir.join(format!("{}.svg", plot.name)), &plot.file())?;
    }
    output.note(&format!("wrote {} plots to {}", plots.len(), dir.display()));
    Ok(())
}

fn render(report: &Report, view: &View, format: ReportFormat, options: &PageOptions) -> Result<Vec<u8>, Failure> {
    let grid = report::grid(report, view).map_err(|e| Failure::Usage(e.to_string()))?;
    let mut out = Vec::new();
    let written = match format {
        ReportFormat::Table => report::terminal::write(report, &grid, Default::default(), &mut out),
        ReportFormat::Markdown => out.write_all(report::markdown::table(&grid).as_bytes()),
        ReportFormat::Summary => out.write_all(report::markdown::summary(report, &grid).as_bytes()),
        ReportFormat::Html => out.write_all(report::html::page(report, &grid, options).as_bytes()),
        ReportFormat::Junit => out.write_all(report::junit::junit(report).as_bytes()),
        ReportFormat::Csv => report::rows::write_csv(report, &mut out),
        ReportFormat::Json => report::rows::write_json_lines(report, &mut out),
    };
    written.map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(out)
}

/// The artifact tree as a link from beside `file`; `None` where either has no absolute path.
fn relative(root: &Path, file: &Path) -> Option<String> {
    let root = std::path::absolute(root).ok()?;
    let from = std::path::absolute(file).ok()?;
    let from = from.parent()?;
    let plain =
        |p: &Path| p.components().filter(|c| *c != Component::CurDir).map(|c| c.as_os_str().to_owned()).collect();
    let (root, from): (Vec<_>, Vec<_>) = (plain(&root), plain(from));
    let shared = root.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| "..".into());
    let path: PathBuf = up.chain(root[shared..].iter().cloned()).collect();
    let text = path.to_str()?;
    Some(if text.is_empty() { ".".into() } else { text.replace('%', "%25").replace('#', "%23").replace('?', "%3F") })
}

/// `--slo ttft=300ms`; `None` when there is none.
fn slo(texts: &[String]) -> Result<Option<Slo>, Failure> {
    let mut slo = Slo::default();
    for text in texts {
        let wrong = |why: String| Failure::Usage(format!("--slo {text}: {why}"));
        let (metric, limit) = text.split_once('=').ok_or_else(|| wrong("write it as ttft=300ms".into()))?;
        if !REQUEST_METRICS.contains(&metric) {
            return Err(wrong(format!("the metrics of a request are {}", REQUEST_METRICS.join(", "))));
        }
        let limit = units::parse_duration(limit).map_err(|e| wrong(e.to_string()))?;
        slo.0.insert(metric.to_string(), limit);
    }
    Ok((!texts.is_empty()).then_some(slo))
}

/// `--gpu-hour-usd h100=2.49`; `None` when there is none.
fn cost(texts: &[String]) -> Result<Option<Cost>, Failure> {
    let mut cost = Cost::default();
    for text in texts {
        let wrong =
            || Failure::Usage(format!("--gpu-hour-usd {text}: write it as h100=2.49, with a price of at least 0"));
        let (class, usd) = text.split_once('=').ok_or_else(wrong)?;
        let usd: f64 = usd.parse().ok().filter(|u: &f64| u.is_finite() && *u >= 0.0).ok_or_else(wrong)?;
        cost.gpu_hour_usd.insert(class.to_string(), usd);
    }
    Ok((!texts.is_empty()).then_some(cost))
}

/// `--only`, over the cells as they were measured.
fn filter(report: &mut Report, only: &[String]) -> Result<(), Failure> {
    if only.is_empty() {
        return Ok(());
    }
    let labels: Labels = report.units.iter().flat_map(|u| &u.facts.labels).map(|(a, _)| a.as_str().into()).collect();
    let words = |get: fn(&crate::store::record::UnitFacts) -> &String| {
        report.units.iter().map(|u| get(&u.facts).clone()).collect::<Vec<_>>()
    };
    let words = Vocabulary { methods: words(|f| &f.method), engines: words(|f| &f.engine) };
    let rules: Vec<_> = only
        .iter()
        .map(|o| parse_only(o, &labels, &words).map_err(|e| Failure::Usage(e.to_string())))
        .collect::<Result<_, _>>()?;
    report.filter(|unit| {
        let labels = unit.facts.labels.iter().map(|(a, l)| (a.as_str(), l.as_str())).collect();
        rules.iter().any(|rule| selection::holds(rule, &unit.facts.cell, &labels))
    });
    if report.units.is_empty() {
        return Err(Failure::Nothing("--only selects no unit of this run".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_tree() {
        let link = |root: &str, file: &str| relative(Path::new(root), Path::new(file)).unwrap();
        assert_eq!(link("/w/artifacts", "/w/report.html"), "artifacts");
        assert_eq!(link("/w/artifacts", "/w/out/a/report.html"), "../../artifacts");
        assert_eq!(link("/w/artifacts", "/w/artifacts/runs/x/report.html"), "../..");
        assert_eq!(link("/w/artifacts", "/w/artifacts/report.html"), ".");
        assert_eq!(link("/w/a #1", "/w/r.html"), "a %231");
    }

    #[test]
    fn limits_and_prices_of_the_command_line() {
        let text = |t: &str| vec![t.to_string()];
        assert!(slo(&[]).unwrap().is_none());
        assert!(slo(&text("ttft=300ms")).unwrap().unwrap().judges_requests());
        for odd in ["ttft", "ttft=soon", "p95_ttft=1s"] {
            assert!(slo(&text(odd)).is_err(), "{odd}");
        }
        assert_eq!(cost(&text("h100=2.5")).unwrap().unwrap().hour("h100-pcie", 1), Some(2.5));
        assert!(cost(&text("h100=-1")).is_err() && cost(&text("h100")).is_err());
    }
}
