//! `export`: the results of a run for other tools.

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::args::{ExportArgs, ExportFormat, Global};
use super::failure::Failure;
use super::output::Output;
use super::{report as selection, results};
use crate::report::formats::Subject;
use crate::report::formats::aiperf::AiPerf;
use crate::report::formats::vllm::VllmBench;
use crate::report::{self, Report, ReportUnit};
use crate::stats::RequestRecord;
use crate::store::Store;
use crate::store::record::SampleRecord;

pub fn command(args: &ExportArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let store = selection::store(&args.which, global)?;
    let Some(format) = args.format else {
        output.text(&report::duckdb::sql(&store.root().display().to_string()));
        return Ok(0);
    };
    if args.details && format != ExportFormat::VllmBench {
        return Err(Failure::Usage(
            "--details goes with --format vllm-bench; the other formats have no place for it".into(),
        ));
    }
    let report = selection::select(&store, &args.run, &args.which, &args.judge)?;
    report.notes.iter().for_each(|note| output.warning(note));
    match format {
        ExportFormat::Csv => rows(args, output, |out| report::rows::write_csv(&report, out)),
        ExportFormat::Json => rows(args, output, |out| report::rows::write_json_lines(&report, out)),
        ExportFormat::Parquet => parquet(&report, args, output),
        ExportFormat::VllmBench => samples(&store, &report, args, output, |subject, requests| {
            json(&VllmBench::of(subject, requests.filter(|_| args.details)))
        }),
        ExportFormat::Aiperf => {
            samples(&store, &report, args, output, |subject, requests| json(&AiPerf::of(subject, requests)))
        }
    }?;
    Ok(0)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("results have string keys and no failing serializers");
    text.push(b'\n');
    text
}

/// All rows into one file, or to stdout.
fn rows(
    args: &ExportArgs,
    output: &Output,
    write: impl Fn(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let Some(path) = &args.output else {
        output.write(|out| write(out));
        return Ok(());
    };
    let mut file = BufWriter::new(results::create(path)?);
    write(&mut file).and_then(|()| file.flush()).map_err(|e| Failure::io("write", path, &e))?;
    output.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn parquet(report: &Report, args: &ExportArgs, output: &Output) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    report::parquet::write(report, &mut bytes).map_err(|e| Failure::Internal(e.to_string()))?;
    match &args.output {
        None if std::io::IsTerminal::is_terminal(&std::io::stdout()) => {
            Err(Failure::Usage("Parquet is nothing for a terminal; give --output FILE".into()))
        }
        None => {
            output.write(|out| out.write_all(&bytes));
            Ok(())
        }
        Some(path) => {
            let mut file = results::create(path)?;
            file.write_all(&bytes).map_err(|e| Failure::io("write", path, &e))?;
            output.note(&format!("wrote {}", path.display()));
            Ok(())
        }
    }
}

/// A file per sample, because that is what the format is. One sample may go to one file, or to stdout.
fn samples(
    store: &Store,
    report: &Report,
    args: &ExportArgs,
    output: &Output,
    make: impl Fn(&Subject<'_>, Option<&[RequestRecord]>) -> Vec<u8>,
) -> Result<(), Failure> {
    let all: Vec<(&ReportUnit, &SampleRecord)> =
        report.units.iter().flat_map(|u| u.samples.iter().map(move |s| (u, s))).collect();
    let text = |unit: &ReportUnit, sample: &SampleRecord| {
        let requests = results::requests_of(store, unit, sample.sample);
        let subject = Subject { unit_id: unit.unit_id, deploy_id: unit.deploy_id, facts: &unit.facts, sample };
        make(&subject, requests.as_deref())
    };
    match (all.as_slice(), &args.output) {
        ([], _) => Err(Failure::Nothing("no unit of this run has a sample to export".into())),
        ([(unit, sample)], None) => {
            let text = text(unit, sample);
            output.write(|out| out.write_all(&text));
            Ok(())
        }
        ([(unit, sample)], Some(path)) if is_json(path) => write(path, &text(unit, sample), output),
        (several, Some(dir)) if !is_json(dir) => {
            results::create_dir(dir)?;
            for (unit, sample) in several {
                write_quietly(&dir.join(name(unit, sample)), &text(unit, sample))?;
            }
            output.note(&format!("wrote {} files to {}", several.len(), dir.display()));
            Ok(())
        }
        (several, _) => {
            let n = several.len();
            Err(Failure::Usage(format!(
                "this format has one file per sample, and there are {n} samples: give a directory with --output, or keep \
                 one unit with --only"
            )))
        }
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

fn write(path: &Path, text: &[u8], output: &Output) -> Result<(), Failure> {
    write_quietly(path, text)?;
    output.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn write_quietly(path: &Path, text: &[u8]) -> Result<(), Failure> {
    results::create(path)?.write_all(text).map_err(|e| Failure::io("write", path, &e))
}

/// `{model}_{method}_{engine}-{unit_id:8}-{sample}.json`.
fn name(unit: &ReportUnit, sample: &SampleRecord) -> String {
    format!("{}-{}-{}.json", unit.directory, unit.unit_id.short(8), sample.sample)
}
