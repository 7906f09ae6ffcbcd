//! A gate's findings as test cases: one per cell and metric, failed where it is worse.

use super::{effect, headline, sentence};
use crate::compare::gate::Outcome;
use crate::compare::{Comparison, Finding, Verdict, metric};
use crate::report::junit::{Case, Suite, Verdict as Told};

/// The suite of a comparison.
pub fn suite(comparison: &Comparison) -> Suite {
    let mut cases = Vec::new();
    let mut failed = false;
    for cell in &comparison.cells {
        for finding in &cell.findings {
            let case = case(&cell.name, finding, comparison);
            failed |= case.verdict == Told::Failed;
            cases.push(case);
        }
    }
    if let Some(Outcome::Undecidable { reason }) = &comparison.outcome {
        let first = headline(comparison).unwrap_or_default();
        cases.push(Case {
            name: "the gate can decide".into(),
            class: "gate".into(),
            verdict: Told::Failed,
            kind: "undecidable".into(),
            message: first,
            detail: reason.clone(),
        });
        // What an unstable night shows is no regression.
        if failed {
            cases.iter_mut().filter(|c| c.kind == "regression").for_each(|c| c.verdict = Told::Skipped);
        }
    }
    let name = format!("gate: {} against {}", comparison.b.described, comparison.a.described);
    Suite { name, cases }
}

fn case(cell: &str, finding: &Finding, comparison: &Comparison) -> Case {
    let verdict = match finding.verdict {
        Verdict::Worse => Told::Failed,
        Verdict::Undecided => Told::Skipped,
        Verdict::Better | Verdict::Same => Told::Passed,
    };
    let mut detail = sentence(cell, finding);
    for difference in &comparison.differences {
        detail.push_str(&format!("\ndiffers: {}", difference.text()));
    }
    let message = match finding.verdict {
        Verdict::Undecided => {
            let said = [Some(effect(finding)).filter(|e| !e.is_empty()), finding.reason.clone()];
            format!("undecided: {}", said.into_iter().flatten().collect::<Vec<_>>().join("; "))
        }
        _ => sentence(cell, finding),
    };
    Case {
        name: format!("{cell} {}", metric::title(&finding.metric)),
        class: "gate".into(),
        verdict,
        kind: if finding.verdict == Verdict::Worse { "regression" } else { finding.verdict.as_str() }.into(),
        message,
        detail,
    }
}
