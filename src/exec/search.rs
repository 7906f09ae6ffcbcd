//! Running a search: one probe after the other on an engine that stays up, each an ordinary unit with its samples, judged
//! by what it committed. Nothing of a search is kept but its units and its result: one that was interrupted goes the same
//! way again, over the probes that are there.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::group::{Flow, Group};
use super::work::{UnitWork, search_name};
use crate::deploy::Engine;
use crate::event::Event;
use crate::event::search::{ProbeResult, SearchResult};
use crate::plan::search::{Bisection, Course, Knee};
use crate::plan::{Plan, Search};
use crate::stats::Summary;
use crate::stats::objective::{Evidence, Rule, power, share_within};
use crate::store::record::{SampleRecord, UnitResult};
use crate::store::{Lookup, Stored, sample_dir_name};
use crate::units::Objective;

/// Between two looks at a probe that another run holds.
const LOOK: Duration = Duration::from_millis(500);

/// A search, as plain data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchWork {
    /// What people call it.
    pub name: String,
    pub parameter: String,
    pub until: Objective,
    pub from: f64,
    pub to: f64,
    pub within: f64,
    pub max_probes: u32,
    /// By ascending value.
    pub probes: Vec<ProbeWork>,
}

/// A unit that a search may ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeWork {
    pub value: f64,
    pub unit: UnitWork,
    /// The plan has the unit beside the search: it is measured before, or was there already.
    pub planned: bool,
}

impl SearchWork {
    pub fn new(plan: &Plan, search: &Search, now: Timestamp, base: &Path) -> SearchWork {
        let planned: std::collections::BTreeSet<_> = plan.units.iter().map(|u| u.id).collect();
        let probe = |p: &crate::plan::Probe| ProbeWork {
            value: p.value,
            unit: UnitWork::new(plan, &p.unit, now, base),
            planned: planned.contains(&p.unit.id),
        };
        SearchWork {
            name: search_name(plan, search),
            parameter: search.parameter.clone(),
            until: search.until,
            from: search.from,
            to: search.to,
            within: search.within,
            max_probes: search.max_probes,
            probes: search.probes.iter().map(probe).collect(),
        }
    }

    fn rule(&self) -> Option<Rule> {
        self.probes.first().filter(|_| self.until == Objective::Slo).and_then(|p| Rule::of(&p.unit.slo.0))
    }

    fn result(
        &self,
        deploy_id: crate::digest::DeployId,
        rule: Option<&Rule>,
        unfinished: Option<String>,
    ) -> SearchResult {
        let repeats = self.probes.first().map_or(1, |p| p.unit.policy.repeats);
        let rule = match rule {
            Some(rule) => rule.text(repeats),
            None => "largest power: completed requests per second over seconds of mean end-to-end latency".to_string(),
        };
        SearchResult {
            search: self.name.clone(),
            deploy_id,
            parameter: self.parameter.clone(),
            until: self.until,
            from: self.from,
            to: self.to,
            within: self.within,
            best: None,
            bracket: (None, None),
            rule,
            probes: Vec::new(),
            unfinished,
        }
    }
}

/// The result of a search that cannot be run here.
pub fn not_run(plan: &Plan, search: &Search, reason: String) -> SearchResult {
    let work = SearchWork::new(plan, &Search { probes: Vec::new(), ..search.clone() }, Timestamp::MIN, Path::new(""));
    SearchResult {
        rule: String::new(),
        search: search_name(plan, search),
        ..work.result(plan.deployments[search.deployment].id, None, Some(reason))
    }
}

impl Group<'_> {
    /// Runs the searches of the group, one after the other.
    pub(super) async fn searches(&mut self, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        while !self.work.searches.is_empty() {
            let search = self.work.searches.remove(0);
            if self.search(&search, engine).await == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::On
    }

    /// Says of every search that has not begun why it does not.
    pub(super) fn abandon_searches(&mut self) {
        let deploy_id = self.work.deployment.id;
        for search in std::mem::take(&mut self.work.searches) {
            let reason = self.why_stopped();
            let result = search.result(deploy_id, search.rule().as_ref(), Some(reason));
            self.tell(Event::SearchFinished { result });
        }
    }

    fn why_stopped(&self) -> String {
        let failure = self.failure.as_ref().map(|cause| format!("its deployment failed: {cause}"));
        self.stop_reason().or(failure).unwrap_or_else(|| "the run ended before it".into())
    }

    async fn search(&mut self, search: &SearchWork, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let deploy_id = self.work.deployment.id;
        self.tell(Event::SearchStarted {
            search: search.name.clone(),
            deploy_id,
            parameter: search.parameter.clone(),
            from: search.from,
            to: search.to,
            max_probes: search.max_probes,
        });
        let rule = search.rule();
        let values: Vec<f64> = search.probes.iter().map(|p| p.value).collect();
        let mut course = Course::new(search.until, &values);
        let mut result = search.result(deploy_id, rule.as_ref(), None);
        let mut flow = Flow::On;
        while let Some(index) = course.next() {
            let probed = match self.stop_reason() {
                Some(_) => Flow::Stop,
                None => self.provide(&search.name, &search.probes[index], engine).await,
            };
            if probed == Flow::Stop {
                result.unfinished = Some(self.why_stopped());
                flow = Flow::Stop;
                break;
            }
            let probe = self.judge_probe(&search.probes[index], rule.as_ref());
            match &mut course {
                Course::Bisection(bisection) => bisection.note(index, probe.passed),
                Course::Knee(knee) => knee.note(index, probe.power),
            }
            result.probes.push(probe);
        }
        result.best = course.best().map(|i| values[i]);
        result.bracket = bracket(&course, &values);
        self.tell(Event::SearchFinished { result });
        flow
    }

    /// Sees to it that the unit has its samples, as far as it can have them. `Stop` when no more can be measured.
    async fn provide(&mut self, search: &str, probe: &ProbeWork, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let unit_id = probe.unit.record.unit_id;
        let joins = !probe.planned && self.joined.insert(unit_id);
        self.tell(Event::ProbeChosen { search: search.to_string(), unit_id, value: probe.value, joins });
        let directory = self.work.deployment.directory.clone();
        let mut work = probe.unit.clone();
        loop {
            // A unit of the plan, and one that an earlier search has asked for, have had their turn.
            if !joins && !self.context.store.is_taken(&unit_id).unwrap_or(false) {
                return Flow::On;
            }
            if joins {
                match self.context.store.reserve(&directory, &work.record) {
                    Ok(Lookup::Reserved(reservation)) => {
                        self.take(work, reservation, true);
                        return self.measure_probe(unit_id, engine).await;
                    }
                    Ok(Lookup::Taken) => {}
                    Err(e) => {
                        self.cannot_store(&work, &e);
                        return Flow::On;
                    }
                }
            }
            if !std::mem::replace(&mut work.announced_taken, true) {
                self.tell(Event::UnitTaken { unit_id });
            }
            let _ = self.context.cancel.or_interrupted(tokio::time::sleep(LOOK)).await;
            if self.stop_reason().is_some() {
                return Flow::Stop;
            }
        }
    }

    async fn measure_probe(&mut self, unit_id: crate::digest::UnitId, engine: &mut Option<Box<dyn Engine>>) -> Flow {
        let held = self.units.iter().position(|u| u.work.record.unit_id == unit_id && u.reservation.is_some());
        let Some(index) = held else { return Flow::On };
        let mut round = 0;
        while self.units[index].reservation.is_some() {
            round += 1;
            if self.sample(index, round, engine).await == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::On
    }

    /// Judges a probe by what is committed. One that lacks samples that count does not pass.
    fn judge_probe(&self, probe: &ProbeWork, rule: Option<&Rule>) -> ProbeResult {
        let unit_id = probe.unit.record.unit_id;
        let mut out = ProbeResult {
            value: probe.value,
            unit_id,
            samples: 0,
            passed: false,
            margins: Vec::new(),
            power: None,
            problem: None,
        };
        let directory = &self.work.deployment.directory;
        let stored = match self.context.store.read_unit(directory, &unit_id) {
            Ok(Stored::Present { result, .. }) => result,
            Ok(Stored::Absent) => return ProbeResult { problem: Some("it was not measured".into()), ..out },
            Ok(Stored::Damaged(reason)) => return ProbeResult { problem: Some(reason), ..out },
            Err(e) => return ProbeResult { problem: Some(e.to_string()), ..out },
        };
        let run = &self.work.run;
        let used = probe.unit.used(&stored, run);
        let samples: Vec<&SampleRecord> = used.iter().filter_map(|n| stored.sample(*n)).collect();
        out.samples = samples.len() as u32;
        if probe.unit.missing(&stored, run) > 0 {
            return ProbeResult { problem: Some(why_missing(&stored)), ..out };
        }
        match rule {
            Some(rule) => {
                let dir = self.context.store.unit_dir(directory, &unit_id);
                let evidence: Vec<Evidence> = samples.iter().map(|s| evidence(rule, s, &dir)).collect();
                out.margins = rule.judge(&evidence);
                out.passed = out.margins.iter().all(|m| m.met);
            }
            None => {
                out.power = power(&samples.iter().map(|s| &s.summary).collect::<Vec<&Summary>>());
                out.passed = out.power.is_some();
            }
        }
        out
    }
}

fn evidence<'a>(rule: &Rule, sample: &'a SampleRecord, unit_dir: &Path) -> Evidence<'a> {
    let share = match rule {
        Rule::Aggregate(_) => None,
        // The goodput of the summary is that of the limits which held when it was measured.
        Rule::Share(limits) => {
            let path = unit_dir.join(sample_dir_name(sample.sample)).join("requests.csv");
            File::open(path).ok().and_then(|file| share_within(file, limits))
        }
    };
    Evidence { summary: &sample.summary, share }
}

/// The newest thing that went wrong.
fn why_missing(stored: &UnitResult) -> String {
    let attempt = stored.attempts.last().map(|a| (&a.finished_at, a.cause.clone()));
    let sample = stored.samples.iter().rev().find(|s| !s.valid);
    let sample = sample.map(|s| (&s.finished_at, s.invalid_reason.clone().unwrap_or_else(|| "it is invalid".into())));
    let newest = attempt.into_iter().chain(sample).max_by_key(|(at, _)| *at);
    newest.map_or_else(|| "it was not measured".into(), |(_, why)| why)
}

fn bracket(course: &Course, values: &[f64]) -> (Option<f64>, Option<f64>) {
    let value = |i: Option<usize>| i.map(|i| values[i]);
    match course {
        Course::Bisection(bisection) => (value(course.best()), value(Bisection::failed(bisection))),
        Course::Knee(knee) => {
            let (below, above) = Knee::neighbours(knee);
            (value(below), value(above))
        }
    }
}
