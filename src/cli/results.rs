//! Reading runs back and showing them: what `run` prints at its end and what `report` prints at any time.

use std::fs;
use std::io;
use std::path::Path;

use super::failure::Failure;
use super::output::{self, Output};
use crate::report::{self, Report, View, terminal};
use crate::store::record::RunRecord;
use crate::store::run_dir::RunFiles;
use crate::store::{Store, Stored};

/// The report of a run: its record, and the units that it names.
pub fn of_run(store: &Store, record: RunRecord) -> Report {
    Report::of_run(record, |directory, unit| match store.read_unit(directory, &unit) {
        Ok(Stored::Present { result, .. }) => Some(*result),
        _ => None,
    })
}

/// `summary.md`, `report.html` and `junit.xml` of a run.
pub fn write_run_files(report: &Report, files: &RunFiles) -> Result<(), Failure> {
    let grid = report::grid(report, &View::default()).map_err(|e| Failure::Internal(e.to_string()))?;
    write(&files.summary(), &report::markdown::summary(report, &grid))?;
    write(&files.report(), &report::html::page(report, &grid))?;
    write(&files.junit(), &report::junit::junit(report))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir).and_then(|mut temp| {
        io::Write::write_all(&mut temp, text.as_bytes())?;
        temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        temp.persist(path).map(drop).map_err(|e| e.error)
    });
    written.map_err(|e| Failure::io("write", path, &e))
}

/// The table on stdout.
pub fn print(report: &Report, view: &View, output: &Output) -> Result<(), Failure> {
    let grid = report::grid(report, view).map_err(|e| Failure::Usage(e.to_string()))?;
    let width = io::IsTerminal::is_terminal(&io::stdout()).then(|| u16::try_from(output::width()).unwrap_or(120));
    let style = terminal::Style { width, color: output.color_out };
    output.write(|out| terminal::write(report, &grid, style, out));
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
