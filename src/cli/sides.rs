//! From a name on a command line to what was measured under it: a run, a git revision, `last`, `last-good`, a baseline, a
//! file of ours or of another tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::failure::Failure;
use super::git;
use crate::compare::{Side, SideCell, SideSample, import};
use crate::digest::UnitId;
use crate::store::record::{RunRecord, UnitResult};
use crate::store::{Store, Stored, sample_dir_name};

/// Nights that `last-good` stands on at most.
pub const NIGHTS: usize = 10;

/// Where names are looked up.
pub struct Sides {
    /// The tree that was asked for, and the other.
    trees: [Store; 2],
}

/// A side, and the newest run that it came from.
pub struct Found {
    pub side: Side,
    pub record: Option<RunRecord>,
}

/// Why a side is not there.
pub enum NotFound {
    /// A baseline that makes itself, and has not yet.
    FirstNight(String),
    /// Nothing has this name.
    Unknown(String),
    /// It is there and cannot be used.
    Broken(Failure),
}

impl NotFound {
    pub fn into_failure(self) -> Failure {
        match self {
            NotFound::FirstNight(text) | NotFound::Unknown(text) => Failure::Nothing(text),
            NotFound::Broken(failure) => failure,
        }
    }
}

impl Sides {
    pub fn new(artifacts: &Path, simulated: bool) -> Sides {
        Sides { trees: [Store::open(artifacts, simulated), Store::open(artifacts, !simulated)] }
    }

    /// Looks in one tree only.
    pub fn of_store(store: &Store) -> Sides {
        Sides { trees: [store.clone(), store.clone()] }
    }

    /// The trees that names are looked up in.
    pub fn stores(&self) -> &[Store] {
        &self.trees
    }

    /// What is known under a name. `before` is the run that it is to be compared with: `last` and `last-good` are older
    /// runs of its experiment. A run's side has `nights` good runs up to it.
    pub fn find(&self, name: &str, before: Option<&RunRecord>, nights: Option<usize>) -> Result<Found, NotFound> {
        if is_path(name) {
            return file(Path::new(name), name).map_err(NotFound::Broken);
        }
        let mut problem = None;
        for store in &self.trees {
            match Self::in_tree(store, name, before, nights) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(e @ NotFound::Broken(_)) => return Err(e),
                Err(e) => problem = problem.or(Some(e)),
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        if Path::new(name).exists() {
            return file(Path::new(name), name).map_err(NotFound::Broken);
        }
        match self.at_revision(name, nights)? {
            Some(found) => Ok(found),
            None => Err(NotFound::Unknown(self.unknown(name))),
        }
    }

    fn in_tree(
        store: &Store,
        name: &str,
        before: Option<&RunRecord>,
        nights: Option<usize>,
    ) -> Result<Option<Found>, NotFound> {
        match name {
            "last" | "last-good" => return relative(store, name, before, nights),
            _ => {}
        }
        if let Some(path) = store.baseline_path(name).filter(|p| p.is_file()) {
            return file(&path, name).map(Some).map_err(NotFound::Broken);
        }
        let runs = store.runs();
        let exact = runs.iter().find(|r| *r == name);
        let of = |r: &&String| r.starts_with(name) || r.split_once('-').is_some_and(|(_, e)| e == name);
        let Some(run) = exact.or_else(|| runs.iter().rev().find(of)) else { return Ok(None) };
        let record = read(store, run)?;
        let mut records = match nights {
            Some(n) if n > 1 => good(store, Some(&record), n - 1)?,
            _ => Vec::new(),
        };
        records.push(record);
        Ok(Some(of_records(store, name, records)))
    }

    /// The newest run of the commit that a git revision is.
    fn at_revision(&self, name: &str, nights: Option<usize>) -> Result<Option<Found>, NotFound> {
        let Some(commit) = git::commit(Path::new("."), name) else { return Ok(None) };
        for store in &self.trees {
            for run in store.runs().iter().rev() {
                let Ok(record) = store.read_run(run) else { continue };
                if record.provenance.experiment_commit.as_deref() == Some(commit.as_str()) {
                    return Self::in_tree(store, run, None, nights)
                        .map(|found| found.map(|f| Found { side: Side { name: name.to_string(), ..f.side }, ..f }));
                }
            }
        }
        Err(NotFound::Unknown(format!("`{name}` is commit {commit}, and no run was measured at it")))
    }

    fn unknown(&self, name: &str) -> String {
        let mut known: Vec<String> = self.trees.iter().flat_map(|t| t.runs().into_iter().rev().take(3)).collect();
        known.extend(self.trees.iter().flat_map(Store::baselines));
        known.dedup();
        let known = if known.is_empty() {
            format!("; there is no run and no baseline under {}", self.trees[0].root().display())
        } else {
            format!("; there are{}", known.iter().map(|k| format!("\n  {k}")).collect::<String>())
        };
        format!("no run, baseline, file or git revision is called `{name}`{known}")
    }

    /// The last runs of an experiment, or of that of the newest run, as one side.
    pub fn history(&self, name: Option<&str>, nights: usize) -> Result<Found, NotFound> {
        if let Some(path) = name.filter(|n| is_path(n) || Path::new(n).is_file()) {
            return file(Path::new(path), path).map_err(NotFound::Broken);
        }
        for store in &self.trees {
            if let Some(path) = name.and_then(|n| store.baseline_path(n)).filter(|p| p.is_file()) {
                return file(&path, name.unwrap_or_default()).map_err(NotFound::Broken);
            }
            let runs = store.runs();
            let experiment = |run: &String| run.split_once('-').map(|(_, e)| e.to_string());
            let wanted = match name {
                Some("last") | None => runs.last().and_then(experiment),
                Some(name) => {
                    let is = |r: &&String| *r == name || experiment(r).as_deref() == Some(name);
                    runs.iter().rev().find(is).and_then(experiment)
                }
            };
            let Some(wanted) = wanted else { continue };
            let mine: Vec<&String> = runs.iter().filter(|r| experiment(r).as_ref() == Some(&wanted)).collect();
            let from = mine.len().saturating_sub(nights);
            let records = mine[from..].iter().map(|r| read(store, r)).collect::<Result<Vec<_>, _>>()?;
            return Ok(of_records(store, &wanted, records));
        }
        Err(NotFound::Unknown(self.unknown(name.unwrap_or("last"))))
    }
}

/// Whether a name can only be a path.
fn is_path(name: &str) -> bool {
    let endings = [".json", ".jsonl", ".csv"];
    name.contains('/') || endings.iter().any(|e| name.ends_with(e))
}

/// A file, or every file of a directory, read as repeats of each other.
fn file(path: &Path, name: &str) -> Result<Found, Failure> {
    let mut paths = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| Failure::io("read", path, &e))?;
        paths = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()).collect();
        paths.retain(|p| is_path(&p.file_name().unwrap_or_default().to_string_lossy()));
        paths.sort();
    }
    let mut whole: Option<Side> = None;
    for path in &paths {
        let text = fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::Usage(format!("there is no file {}", path.display())),
            _ => Failure::io("read", path, &e),
        })?;
        let side =
            import::read(&text, name).map_err(|e| Failure::Usage(format!("cannot compare {}: {e}", path.display())))?;
        match &mut whole {
            None => whole = Some(side),
            Some(whole) => whole.join(side),
        }
    }
    let side = whole.ok_or_else(|| Failure::Nothing(format!("{} holds no JSON or CSV file", path.display())))?;
    Ok(Found { side, record: None })
}

/// `last` and `last-good`.
fn relative(
    store: &Store,
    name: &str,
    before: Option<&RunRecord>,
    nights: Option<usize>,
) -> Result<Option<Found>, NotFound> {
    if name == "last-good" {
        let records = good(store, before, nights.unwrap_or(NIGHTS))?;
        if records.is_empty() {
            let of = before.map(|b| format!(" of {}", b.experiment)).unwrap_or_default();
            return Err(NotFound::FirstNight(format!(
                "there is no earlier run{of} that ended well, so nothing is compared"
            )));
        }
        return Ok(Some(of_records(store, name, records)));
    }
    for run in store.runs().iter().rev() {
        if before.is_some_and(|b| run >= &b.run) {
            continue;
        }
        let Ok(record) = store.read_run(run) else { continue };
        if before.is_none_or(|b| b.experiment == record.experiment) && record.finished_at.is_some() {
            let mut records = match nights {
                Some(n) if n > 1 => good(store, Some(&record), n - 1)?,
                _ => Vec::new(),
            };
            records.push(record);
            return Ok(Some(of_records(store, name, records)));
        }
    }
    match before {
        Some(b) => {
            Err(NotFound::FirstNight(format!("there is no earlier run of {}, so nothing is compared", b.experiment)))
        }
        None => Ok(None),
    }
}

/// The newest runs that ended well, at most so many, oldest first: before a run and of its experiment, or of the newest
/// good run's.
fn good(store: &Store, before: Option<&RunRecord>, most: usize) -> Result<Vec<RunRecord>, NotFound> {
    let mut out: Vec<RunRecord> = Vec::new();
    for run in store.runs().iter().rev() {
        if out.len() == most {
            break;
        }
        if before.is_some_and(|b| run >= &b.run) {
            continue;
        }
        // One damaged record of the past must not end tonight's gate.
        let Ok(record) = store.read_run(run) else { continue };
        let experiment = before.map(|b| &b.experiment).or_else(|| out.first().map(|r| &r.experiment));
        if experiment.is_none_or(|e| *e == record.experiment) && ended_well(&record) {
            out.push(record);
        }
    }
    out.reverse();
    Ok(out)
}

/// Measured to its end, or as far as its budget went, and not found to be worse than what was there before.
fn ended_well(run: &RunRecord) -> bool {
    let measured = run.units.iter().any(|u| !u.samples.is_empty());
    run.finished_at.is_some() && !run.died && measured && matches!(run.exit_code, Some(0 | 5 | 8))
}

fn read(store: &Store, run: &str) -> Result<RunRecord, NotFound> {
    store.read_run(run).map_err(|e| NotFound::Broken(Failure::Environment(e.to_string())))
}

fn of_records(store: &Store, name: &str, mut records: Vec<RunRecord>) -> Found {
    let side = of_runs(store, name, &records);
    Found { side, record: records.pop() }
}

/// The side of runs of one tree.
pub fn of_runs(store: &Store, name: &str, records: &[RunRecord]) -> Side {
    Side::of_runs(name, records, |directory, unit| result(store, directory, unit))
}

fn result(store: &Store, directory: &str, unit: UnitId) -> Option<UnitResult> {
    match store.read_unit(directory, &unit) {
        Ok(Stored::Present { result, .. }) => Some(*result),
        _ => None,
    }
}

/// A latency of every request of a sample, in the order of their start; `None` where the file is gone.
pub fn requests(store: &Store, sample: &SideSample, latency: &str) -> Option<Vec<f64>> {
    let (directory, unit, number) = sample.requests.as_ref()?;
    let path = store.unit_dir(directory, unit).join(sample_dir_name(*number)).join("requests.csv");
    let mut reader = csv::Reader::from_path(path).ok()?;
    let headers = reader.headers().ok()?.clone();
    let place = |name: &str| headers.iter().position(|h| h == name);
    let (start, value) = (place("start_ms")?, place(&format!("{latency}_ms"))?);
    let mut rows: Vec<(f64, f64)> = Vec::new();
    for record in reader.records() {
        let record = record.ok()?;
        let at = |i: usize| record.get(i)?.parse::<f64>().ok();
        // Failed requests have no latency.
        rows.extend(at(start).zip(at(value)));
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    Some(rows.into_iter().map(|(_, v)| v).collect())
}

/// Keeps the cells of a side that rules of `--only` accept.
pub fn only(side: &mut Side, only: &[String]) -> Result<(), Failure> {
    let mut wanted = selected(side, only)?.into_iter();
    side.retain(|_| wanted.next().unwrap_or(true));
    Ok(())
}

/// Which cells of a side the rules accept.
pub fn selected(side: &Side, only: &[String]) -> Result<Vec<bool>, Failure> {
    use crate::spec::set::parse_only;
    use crate::spec::types::Vocabulary;
    if only.is_empty() {
        return Ok(vec![true; side.cells.len()]);
    }
    let labels = side.cells.iter().flat_map(|c| &c.labels).map(|(a, _)| a.as_str().into()).collect();
    let words = |name: &str| side.cells.iter().filter_map(|c| c.cell.get(name)).map(ToString::to_string).collect();
    let words = Vocabulary { methods: words("method"), engines: words("engine") };
    let rules: Vec<_> = only
        .iter()
        .map(|o| parse_only(o, &labels, &words).map_err(|e| Failure::Usage(e.to_string())))
        .collect::<Result<_, _>>()?;
    let holds = |cell: &SideCell| {
        let labels: BTreeMap<&str, &str> = cell.labels.iter().map(|(a, l)| (a.as_str(), l.as_str())).collect();
        rules.iter().any(|rule| super::selection::holds(rule, &cell.cell, &labels))
    };
    Ok(side.cells.iter().map(holds).collect())
}
