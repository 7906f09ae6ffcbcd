//! `report`: a run as a table, Markdown, HTML, CSV, JSON lines or JUnit.

use std::io::Write;

use super::args::{Global, ReportArgs, ReportFormat};
use super::failure::Failure;
use super::output::Output;
use super::prepare;
use super::results;
use crate::report::{self, Report, View};
use crate::spec::predicate::{Labels, Op, Subject};
use crate::spec::set::parse_only;
use crate::spec::types::Vocabulary;
use crate::store::Store;
use crate::value::Value;

pub fn command(args: &ReportArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(std::path::Path::new("."), global)?;
    let store = Store::open(&layered.settings.artifacts, args.simulated);
    let record = results::find_run(&store, &args.run)?;
    let mut report = results::of_run(&store, record);
    filter(&mut report, &args.only)?;
    let view = View { columns: args.columns.clone(), sort: args.sort.clone(), samples: args.samples };
    let format = if output.json { ReportFormat::Json } else { args.format };
    match &args.output {
        Some(path) => {
            let mut file = std::io::BufWriter::new(results::create(path)?);
            let text = render(&report, &view, format)?;
            file.write_all(&text).and_then(|()| file.flush()).map_err(|e| Failure::io("write", path, &e))?;
            output.note(&format!("wrote {}", path.display()));
        }
        None if format == ReportFormat::Table => results::print(&report, &view, output)?,
        None => {
            let text = render(&report, &view, format)?;
            output.write(|out| out.write_all(&text));
        }
    }
    Ok(0)
}

fn render(report: &Report, view: &View, format: ReportFormat) -> Result<Vec<u8>, Failure> {
    let grid = report::grid(report, view).map_err(|e| Failure::Usage(e.to_string()))?;
    let mut out = Vec::new();
    let written = match format {
        ReportFormat::Table => report::terminal::write(report, &grid, Default::default(), &mut out),
        ReportFormat::Markdown => out.write_all(report::markdown::table(&grid).as_bytes()),
        ReportFormat::Html => out.write_all(report::html::page(report, &grid).as_bytes()),
        ReportFormat::Junit => out.write_all(report::junit::junit(report).as_bytes()),
        ReportFormat::Csv => report::rows::write_csv(report, &mut out),
        ReportFormat::Json => report::rows::write_json_lines(report, &mut out),
    };
    written.map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(out)
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
        let value = |subject: &Subject| match subject {
            Subject::Param(p) => unit.facts.cell.get(&**p).cloned().or_else(|| crate::plan::identity::default_of(p)),
            Subject::Label(l) => unit.facts.labels.iter().find(|(a, _)| a.as_str() == &**l).map(|(_, v)| Value::str(v)),
        };
        rules.iter().any(|rule| {
            rule.clauses.iter().all(|c| {
                let cell = value(&c.subject);
                let mut each = c.values.iter().filter_map(|(t, _)| t.fixed()).map(|v| c.op.holds(cell.as_ref(), v));
                if c.op == Op::Ne { each.all(|b| b) } else { each.any(|b| b) }
            })
        })
    });
    if report.units.is_empty() {
        return Err(Failure::Nothing("--only selects no unit of this run".into()));
    }
    Ok(())
}
