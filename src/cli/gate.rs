//! The regression gate: from names and rules to a verdict, for `compare` and for the end of a run.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex};

use super::failure::Failure;
use super::output::{self, Output};
use super::sides::{Found, NotFound, Sides, of_runs, only, requests, selected};
use crate::compare::gate::Rules;
use crate::compare::pair::{self, Reach};
use crate::compare::{Comparison, Outcome, show};
use crate::exec::{Judge, Verdict};
use crate::spec::policy::Gate;
use crate::store::Store;
use crate::store::run_dir::RunFiles;
use crate::value::Value;

/// What a side is compared with.
#[derive(Clone, Debug)]
pub enum Against {
    /// A run, a baseline, a file.
    Name(String),
    /// Other cells of the same run.
    Coordinates(BTreeMap<String, Value>),
}

/// A comparison to be made.
pub struct Request<'r> {
    pub sides: &'r Sides,
    pub against: Against,
    pub nights: Option<usize>,
    pub rules: &'r Rules,
    pub only: &'r [String],
}

impl Against {
    /// What `[gate]` says, or the runs that were good before.
    pub fn of_section(section: &Gate) -> Against {
        match &section.against {
            Some(Value::Map(table)) => {
                let mut out = BTreeMap::new();
                flatten("", table, &mut out);
                Against::Coordinates(out)
            }
            Some(name) => Against::Name(name.to_string()),
            None => Against::Name("last-good".into()),
        }
    }

    /// Reads `method=hf,engine_args.x=1`.
    pub fn coordinates(text: &str) -> Result<Against, String> {
        let value = |raw: &str| serde_json::from_str::<Value>(raw).unwrap_or_else(|_| Value::str(raw));
        let part = |part: &str| {
            let (name, raw) = part.split_once('=').ok_or_else(|| format!("--against {text}: write KEY=VALUE"))?;
            Ok((name.trim().to_string(), value(raw.trim())))
        };
        text.split(',').map(part).collect::<Result<_, String>>().map(Against::Coordinates)
    }
}

fn flatten(prefix: &str, table: &crate::value::Table, out: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        match value {
            Value::Map(inner) => flatten(&path, inner, out),
            value => drop(out.insert(path, value.clone())),
        }
    }
}

/// Compares what was found with what it is to be compared with.
pub fn compare(request: &Request<'_>, b: Found) -> Result<Comparison, NotFound> {
    let Found { side: mut b, record } = b;
    let broken = NotFound::Broken;
    let (mut a, pairs_within) = match &request.against {
        Against::Coordinates(at) => (b.clone(), Some(at)),
        Against::Name(name) => (request.sides.find(name, record.as_ref(), request.nights)?.side, None),
    };
    only(&mut b, request.only).map_err(broken)?;
    if pairs_within.is_some() {
        a = b.clone();
    }
    if let (Some(x), Some(y)) = (a.simulated, b.simulated)
        && x != y
    {
        let which = |simulated| if simulated { "simulated" } else { "real" };
        return Err(broken(Failure::Usage(format!(
            "{} is {} and {} is {}: simulated numbers are not compared with real ones",
            a.name,
            which(x),
            b.name,
            which(y)
        ))));
    }
    let mut pairs = match pairs_within {
        Some(at) => {
            a.name = at.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
            pair::against(&b.cells, at)
        }
        None => {
            let other_tool = a.tool.is_some() || b.tool.is_some();
            let reach = match (other_tool, request.rules.gate) {
                (true, _) => Reach::Load,
                (false, true) => Reach::Stack,
                (false, false) => Reach::Anything,
            };
            pair::pair(&a.cells, &b.cells, reach)
        }
    };
    // That a has more than what was asked for is not told. A rule may speak of what only b has.
    if let Ok(wanted) = selected(&a, request.only) {
        pairs.only_a.retain(|i| wanted[*i]);
    }
    let stores = request.sides.stores();
    let of_sample = |sample: &crate::compare::SideSample, latency: &str| {
        stores.iter().find_map(|store| requests(store, sample, latency))
    };
    Ok(crate::compare::compare(&a, &b, &pairs, request.rules, &of_sample))
}

/// What a run's gate said, for those who write its files.
#[derive(Clone, Debug, Default)]
pub struct Said(Arc<Mutex<Option<Comparison>>>);

impl Said {
    pub fn take(&self) -> Option<Comparison> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    fn put(&self, comparison: Comparison) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(comparison);
    }
}

/// The judge of a run with `--gate NAME`.
pub fn judge(name: String, section: &Gate, said: Said, output: Output) -> Result<Judge, Failure> {
    let rules = Rules::of_gate(section).map_err(Failure::Usage)?;
    let against = match Against::of_section(section) {
        // `--gate` says which runs; that layers are compared is the experiment's to say.
        at @ Against::Coordinates(_) => at,
        Against::Name(_) => Against::Name(name),
    };
    Ok(Box::new(move |record, store| {
        let sides = Sides::of_store(store);
        let b = Found { side: of_runs(store, &record.run, std::slice::from_ref(record)), record: Some(record.clone()) };
        let request = Request { sides: &sides, against, nights: None, rules: &rules, only: &[] };
        match compare(&request, b) {
            Ok(comparison) => {
                let verdict = match &comparison.outcome {
                    Some(Outcome::Regression) => Verdict::Regression,
                    Some(Outcome::Undecidable { .. }) => Verdict::Undecidable,
                    None | Some(Outcome::Pass) => Verdict::Pass,
                };
                said.put(comparison);
                verdict
            }
            Err(NotFound::FirstNight(text)) => {
                output.note(&format!("gate: {text}"));
                Verdict::None
            }
            Err(other) => {
                output.failure(&other.into_failure());
                Verdict::Undecidable
            }
        }
    }))
}

/// Says at once what would otherwise be said after a night of measuring: that the baseline is not there. One that cannot
/// be read is an error.
pub fn look_ahead(name: &str, store: &Store, output: &Output) -> Result<(), Failure> {
    if matches!(name, "last" | "last-good") {
        return Ok(());
    }
    match Sides::of_store(store).find(name, None, None) {
        Err(NotFound::Broken(failure)) => Err(failure),
        Err(NotFound::Unknown(text) | NotFound::FirstNight(text)) => {
            output.warning(&format!("--gate {name}: the gate will not be able to decide: {text}"));
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// `gate.md` and `gate.json` beside the run's other files.
pub fn write(comparison: &Comparison, files: &RunFiles) -> Result<(), Failure> {
    let markdown = show::markdown::comparison(comparison);
    let json = serde_json::to_string_pretty(comparison).map_err(|e| Failure::Internal(e.to_string()))?;
    super::results::write(&files.gate_markdown(), &markdown)?;
    super::results::write(&files.gate_json(), &json)
}

/// The verdict for a person.
pub fn show(comparison: &Comparison, output: &Output) {
    let mut out = Vec::new();
    let width = io::stderr().is_terminal().then(|| u16::try_from(output::width()).unwrap_or(120));
    let style = crate::report::terminal::Style { width, color: output.color };
    let _ = show::table::write(comparison, style, false, &mut out);
    output.note(&format!("\n{}", String::from_utf8_lossy(&out)));
}
