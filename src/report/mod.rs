//! Units and a run read into something people and other programs look at: tables for the terminal, Markdown, HTML, CSV,
//! JSON lines, JUnit. Works on records that were loaded before; writes to the writers it is handed and to nothing else.
//!
//! A [`Report`] is the material. A [`View`] chooses columns and order; [`grid()`] turns both into one table of texts and
//! numbers that every human format draws.

mod answers;
mod axes;
mod cells;
mod column;
pub mod duckdb;
pub mod figures;
pub mod formats;
pub mod grid;
pub mod html;
pub mod junit;
pub mod markdown;
pub mod parquet;
pub mod plots;
pub mod rows;
mod searches;
pub mod spread;
pub mod starts;
pub mod sweep;
pub mod terminal;
#[cfg(test)]
pub(crate) mod testing;

use crate::digest::{DeployId, UnitId};
use crate::event::{Outcome, without_name};
use crate::spec::policy::{Cost, Slo};
use crate::store::record::{AttemptRecord, RunRecord, RunUnsupported, SampleRecord, UnitFacts, UnitResult};

pub use figures::{counts, figure};
pub use grid::{Grid, grid};
pub use spread::Spread;
pub use starts::EngineStart;

/// What a report is made from.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading: the experiment's name.
    pub title: String,
    /// The run, when the report is about one.
    pub run: Option<RunRecord>,
    pub units: Vec<ReportUnit>,
    pub unsupported: Vec<RunUnsupported>,
    /// Engine starts of the run, where its journal was read.
    pub starts: Vec<EngineStart>,
    /// How long its deployments were held, likewise.
    pub held: sweep::Held,
    /// What could not be read, in sentences.
    pub notes: Vec<String>,
}

/// A unit with the samples and failures that the report stands on.
#[derive(Clone, Debug)]
pub struct ReportUnit {
    pub unit_id: UnitId,
    pub deploy_id: DeployId,
    /// `{model}_{method}_{engine}`.
    pub directory: String,
    /// What people call it.
    pub name: String,
    pub facts: UnitFacts,
    /// By number; valid and invalid ones.
    pub samples: Vec<SampleRecord>,
    /// Oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Only a search asked for it.
    pub probe: bool,
    /// How it ended in the run; `None` outside of one, and where the run died first.
    pub outcome: Option<Outcome>,
    /// The limits that goodput is judged by.
    pub slo: Slo,
    /// The requests of the samples that count, where they were read.
    pub spread: Option<Spread>,
}

/// Which columns, in which order of rows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Columns of the results row, dotted parameters, labelled axes, `status` or `samples`. Empty: the usual ones.
    pub columns: Vec<String>,
    /// The same names, first is strongest; a leading `-` reverses. Empty: as planned.
    pub sort: Vec<String>,
    /// Names by whose values the rows are put into groups; these are no columns then.
    pub group: Vec<String>,
    /// One row per sample instead of the mean over a unit's samples.
    pub samples: bool,
}

/// Why a view cannot be shown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ViewError {
    #[error("there is no column `{name}`{}. Columns are those of the results CSV, parameters such as `engine_args.x`, \
             labelled axes, `status` and `samples`", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownColumn { name: String, suggestion: Option<String> },
}

impl Report {
    /// The report of a run: the samples that its record names, and the failures that it had. `result` gives a unit's
    /// `result.json`, `None` where it is gone.
    pub fn of_run(run: RunRecord, mut result: impl FnMut(&str, UnitId) -> Option<UnitResult>) -> Report {
        let units = run.units.iter().map(|unit| {
            let stored = result(&unit.directory, unit.unit_id);
            let (mut samples, mut attempts) = stored.map(|r| (r.samples, r.attempts)).unwrap_or_default();
            samples.retain(|s| unit.samples.contains(&s.sample) || unit.invalid_samples.contains(&s.sample));
            attempts.retain(|a| a.run == run.run);
            ReportUnit {
                unit_id: unit.unit_id,
                deploy_id: unit.deploy_id,
                directory: unit.directory.clone(),
                name: unit.name.clone(),
                facts: unit.facts.clone(),
                samples,
                attempts,
                probe: unit.probe,
                outcome: unit.outcome.clone(),
                slo: unit.slo.clone().unwrap_or_else(|| run.slo.clone()),
                spread: None,
            }
        });
        let units = units.collect();
        let mut report =
            Report { title: run.experiment.clone(), units, unsupported: run.unsupported.clone(), ..Report::default() };
        // A cached sample was priced by the run that measured it.
        report.reprice(&run.cost);
        report.run = Some(run);
        report
    }

    /// Keeps the units that `wanted` accepts.
    pub fn filter(&mut self, wanted: impl FnMut(&ReportUnit) -> bool) {
        self.units.retain(wanted);
    }

    /// Prices every sample anew: window × the price of an hour of its deployment. A class without a price has no cost.
    pub fn reprice(&mut self, cost: &Cost) {
        if let Some(run) = &mut self.run {
            run.cost = cost.clone();
        }
        for unit in &mut self.units {
            let hour = cost.hour(&unit.facts.hardware, unit.facts.gpus);
            for sample in &mut unit.samples {
                sample.cost_usd = hour.map(|usd| usd * sample.summary.duration_s / 3600.0);
            }
        }
    }
}

impl ReportUnit {
    /// The samples that count; where none does, those that do not.
    pub fn shown_samples(&self) -> Vec<&SampleRecord> {
        let valid: Vec<&SampleRecord> = self.samples.iter().filter(|s| s.valid).collect();
        if valid.is_empty() { self.samples.iter().collect() } else { valid }
    }

    pub fn valid_samples(&self) -> usize {
        self.samples.iter().filter(|s| s.valid).count()
    }

    /// One word: the outcome, or what the samples and failures say where there is none.
    pub fn status(&self) -> &'static str {
        match &self.outcome {
            Some(outcome) => outcome.as_str(),
            None if self.valid_samples() > 0 => "measured",
            None if !self.samples.is_empty() => "invalid",
            None if self.attempts.last().is_some_and(|a| a.blocked) => "blocked",
            None if !self.attempts.is_empty() => "failed",
            None => "not_run",
        }
    }

    /// Why it has no numbers that count, in full. The unit's name begins with its container's, so that is not in it again.
    pub fn cause(&self) -> Option<&str> {
        let container = self.name.split(' ').next().unwrap_or_default();
        self.whole_cause().map(|cause| without_name(cause, container))
    }

    fn whole_cause(&self) -> Option<&str> {
        match &self.outcome {
            Some(Outcome::Cached | Outcome::Measured) => None,
            Some(
                Outcome::Invalid { reason: cause }
                | Outcome::Unsupported { reason: cause }
                | Outcome::NotRun { reason: cause }
                | Outcome::Failed { cause, .. }
                | Outcome::Blocked { cause },
            ) => Some(cause),
            None if self.valid_samples() > 0 => None,
            None => {
                let sample = self.samples.last().and_then(|s| s.invalid_reason.as_deref());
                sample.or(self.attempts.last().map(|a| a.cause.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_report_of_a_run_has_the_samples_that_it_names() {
        let report = testing::report();
        let numbers = |i: usize| report.units[i].samples.iter().map(|s| s.sample).collect::<Vec<_>>();
        assert_eq!(numbers(0), [2, 3, 4], "sample 1 is of another run's plan");
        assert_eq!(
            report.units.iter().map(ReportUnit::status).collect::<Vec<_>>(),
            ["measured", "cached", "invalid", "failed", "blocked"]
        );
        assert_eq!(report.units[3].cause(), Some("CUDA out of memory\nsee the log"));
    }

    #[test]
    fn the_longest_fitting_price_counts() {
        let gpu_hour_usd = BTreeMap::from([("h100".into(), 2.0), ("h100-sxm".into(), 3.0)]);
        let cost = Cost { gpu_hour_usd, ..Cost::default() };
        let mut report = testing::report();
        report.reprice(&cost);
        let sample = &report.units[0].samples[0];
        assert_eq!(sample.cost_usd, Some(3.0 * sample.summary.duration_s / 3600.0));
    }
}
