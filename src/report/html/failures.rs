//! What has no numbers: units by cause, with what the cause means for another try, and cells that no stack honours.

use serde::Serialize;

use super::Detail;
use crate::event::{FailureClass, Outcome};
use crate::report::{Report, ReportUnit};

#[derive(Serialize)]
pub struct Failures {
    causes: Vec<Cause>,
    unsupported: Vec<Unsupported>,
}

/// Units that ended for one cause.
#[derive(Serialize)]
struct Cause {
    /// `failed`, `blocked`, `invalid`, `not run`.
    status: String,
    class: String,
    /// First line, and all of it where there is more.
    line: String,
    text: Option<String>,
    /// Where it happened.
    stage: Option<&'static str>,
    /// What that says about trying again.
    advice: &'static str,
    units: Vec<Named>,
    log: Option<String>,
}

#[derive(Serialize)]
struct Named {
    name: String,
    anchor: String,
}

#[derive(Serialize)]
struct Unsupported {
    reason: String,
    cells: Vec<String>,
}

pub fn failures(report: &Report, detail: Detail) -> Failures {
    let mut causes: Vec<Cause> = Vec::new();
    for unit in &report.units {
        let Some(text) = unit.cause() else { continue };
        let status = unit.status().replace('_', " ");
        let named = Named { name: unit.name.clone(), anchor: unit.anchor() };
        let line = text.lines().next().unwrap_or_default().to_string();
        // Causes that differ in their numbers only are one.
        match causes.iter_mut().find(|c| c.status == status && without_numbers(&c.line) == without_numbers(&line)) {
            Some(cause) => cause.units.push(named),
            None => causes.push(cause(unit, status, line, text, named, detail)),
        }
    }
    let mut unsupported: Vec<Unsupported> = Vec::new();
    for cell in &report.unsupported {
        let text = cell.cell.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        match unsupported.iter_mut().find(|u| u.reason == cell.reason) {
            Some(same) => same.cells.push(text),
            None => unsupported.push(Unsupported { reason: cell.reason.clone(), cells: vec![text] }),
        }
    }
    Failures { causes, unsupported }
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn cause(unit: &ReportUnit, status: String, line: String, text: &str, named: Named, detail: Detail) -> Cause {
    let attempt = unit.attempts.last();
    let log = attempt.and_then(|a| a.log_tail.clone()).filter(|_| detail == Detail::Full);
    Cause {
        class: status.replace(' ', "-"),
        advice: advice(unit),
        stage: attempt.map(|a| a.stage.as_str()).filter(|_| matches!(unit.status(), "failed" | "blocked")),
        text: (text.trim() != line).then(|| text.to_string()),
        status,
        line,
        units: vec![named],
        log,
    }
}

fn advice(unit: &ReportUnit) -> &'static str {
    let class = match &unit.outcome {
        Some(Outcome::Failed { class, .. }) => Some(*class),
        _ => unit.attempts.last().map(|a| a.class),
    };
    match (unit.status(), class) {
        ("failed" | "blocked", Some(FailureClass::Deterministic)) => {
            "The same inputs fail the same way: it is not tried again unless with --retry-failed."
        }
        ("failed" | "blocked", _) => "Not the cell's fault, as far as can be told: the next run tries it again.",
        ("invalid", _) => "It was measured and does not count: the next run measures it again.",
        ("not_run", _) => "The next run goes on with it.",
        _ => "",
    }
}
