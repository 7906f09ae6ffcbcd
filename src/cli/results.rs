//! Reading runs back and showing them: what `run` prints at its end and what `report` and `export` make at any time.

use std::fs;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::failure::Failure;
use super::output::{self, Output};
use crate::compare::{Comparison, show};
use crate::report::html::PageOptions;
use crate::report::{self, Report, ReportUnit, Spread, View, terminal};
use crate::spec::policy::Slo;
use crate::stats::{self, RequestRecord};
use crate::store::record::{RunRecord, SampleRecord};
use crate::store::run_dir::RunFiles;
use crate::store::{Store, Stored, journal, sample_dir_name};

/// The report of a run: its record, and the units that it names. Cached samples are judged by the run's own limits and
/// prices, not by those of the run that measured them.
pub fn of_run(store: &Store, record: RunRecord) -> Report {
    let mut report = Report::of_run(record, |directory, unit| match store.read_unit(directory, &unit) {
        Ok(Stored::Present { result, .. }) => Some(*result),
        _ => None,
    });
    judge(store, &mut report, None);
    report
}

/// Counts goodput anew from the requests: of all samples by `slo`, or, without it, of those that another run measured
/// by the limits of this one.
pub fn judge(store: &Store, report: &mut Report, slo: Option<&Slo>) {
    let run = report.run.as_ref().map(|r| r.run.clone());
    let missing: usize = report
        .units
        .par_iter_mut()
        .map(|unit| {
            if let Some(slo) = slo {
                unit.slo = slo.clone();
            }
            let limits = unit.slo.clone();
            let dir = store.unit_dir(&unit.directory, &unit.unit_id);
            let others = unit.samples.iter_mut().filter(|s| slo.is_some() || Some(&s.run) != run.as_ref());
            others.map(|s| usize::from(!recount(&dir, s, &limits))).sum::<usize>()
        })
        .sum();
    if missing > 0 {
        report.notes.push(format!(
            "goodput of {missing} samples could not be counted by these limits and is left out: their requests.csv cannot be read"
        ));
    }
}

/// `false` when the requests cannot be read.
fn recount(unit: &Path, sample: &mut SampleRecord, slo: &Slo) -> bool {
    sample.summary.request_goodput = None;
    if !slo.judges_requests() {
        return true;
    }
    let Some(requests) = requests(unit, sample.sample) else { return false };
    sample.summary.request_goodput = stats::goodput(&requests, &slo.0);
    true
}

/// The requests of a sample.
fn requests(unit: &Path, sample: u32) -> Option<Vec<RequestRecord>> {
    let file = fs::File::open(unit.join(sample_dir_name(sample)).join("requests.csv")).ok()?;
    stats::read_requests_csv(io::BufReader::new(file)).ok()
}

/// The requests of a sample of a unit.
pub fn requests_of(store: &Store, unit: &ReportUnit, sample: u32) -> Option<Vec<RequestRecord>> {
    requests(&store.unit_dir(&unit.directory, &unit.unit_id), sample)
}

/// Adds what pages and plots show beyond the records: distributions over requests, engine starts.
pub fn with_details(store: &Store, report: &mut Report) {
    report.units.par_iter_mut().for_each(|unit| {
        let dir = store.unit_dir(&unit.directory, &unit.unit_id);
        let numbers: Vec<u32> = unit.samples.iter().filter(|s| s.valid).map(|s| s.sample).collect();
        let mut spread = Spread::default();
        let read = numbers.iter().filter_map(|n| requests(&dir, *n)).inspect(|r| spread.add(r)).count();
        unit.spread = (read > 0).then_some(spread);
    });
    if let Some(run) = &report.run
        && let Ok(journal) = journal::read(&store.run_files(&run.run).journal())
    {
        report.starts = report::starts::engine_starts(&journal.entries);
        report.held = report::sweep::held(&journal.entries);
    }
}

/// `summary.md`, `report.html` and `junit.xml` of a run, with what its gate said.
pub fn write_run_files(
    store: &Store,
    report: &mut Report,
    files: &RunFiles,
    gate: Option<&Comparison>,
) -> Result<(), Failure> {
    with_details(store, report);
    let grid = report::grid(report, &View::default()).map_err(|e| Failure::Internal(e.to_string()))?;
    let mut summary = report::markdown::summary(report, &grid);
    if let Some(gate) = gate {
        summary.push_str(&format!("\n{}", show::markdown::comparison(gate)));
    }
    write(&files.summary(), &summary)?;
    // From `runs/NAME/` up to the tree.
    let options = PageOptions { root: Some("../..".into()) };
    write(&files.report(), &report::html::page(report, &grid, &options))?;
    let suites: Vec<_> = gate.map(show::junit::suite).into_iter().collect();
    write(&files.junit(), &report::junit::with_suites(report, &suites))
}

/// Replaces a file by one that is whole, also after a power failure.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir).and_then(|mut temp| {
        io::Write::write_all(&mut temp, text.as_bytes())?;
        temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        temp.as_file().sync_all()?;
        fs::rename(temp.path(), path)?;
        // There is nothing left to remove under its old name.
        let _ = temp.into_temp_path().keep();
        fs::File::open(dir)?.sync_all()
    });
    written.map_err(|e| Failure::io("write", path, &e))
}

/// The table on stdout.
pub fn print(report: &Report, view: &View, output: &Output) -> Result<(), Failure> {
    let grid = report::grid(report, view).map_err(|e| Failure::Usage(e.to_string()))?;
    let width = io::IsTerminal::is_terminal(&io::stdout()).then(|| u16::try_from(output::width()).unwrap_or(120));
    let style = terminal::Style { width, color: output.color_out };
    output.write(|out| terminal::write(report, &grid, style, out));
    report.notes.iter().for_each(|note| output.warning(note));
    Ok(())
}

/// A run by its name, the beginning of it, its experiment (the newest run), or `last`.
pub fn find_run(store: &Store, name: &str) -> Result<RunRecord, Failure> {
    let runs = store.runs();
    let wanted = match name {
        "last" => runs.last(),
        name => {
            let exact = runs.iter().find(|r| *r == name);
            exact.or_else(|| {
                runs.iter().rev().find(|r| r.starts_with(name) || r.split_once('-').is_some_and(|(_, e)| e == name))
            })
        }
    };
    let Some(run) = wanted else {
        let known = runs.iter().rev().take(5).map(|r| format!("\n  {r}")).collect::<String>();
        let known =
            if known.is_empty() { "; there is no run yet".to_string() } else { format!("; the newest are{known}") };
        return Err(Failure::Nothing(format!("no run is called `{name}` under {}{known}", store.runs_dir().display())));
    };
    store.read_run(run).map_err(|e| Failure::Environment(e.to_string()))
}

/// A file named by a flag; never overwritten silently elsewhere, so it is created or replaced knowingly here.
pub fn create(path: &Path) -> Result<fs::File, Failure> {
    fs::File::create(path).map_err(|e| Failure::io("write", path, &e))
}

/// A directory named by a flag, made where it is not there.
pub fn create_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|e| Failure::io("create the directory", path, &e))
}
