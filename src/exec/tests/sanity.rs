//! Engines that answer a fixed question with sense, with nonsense, or not at all.

use super::mock::{Bench, plan};
use crate::event::{Counts, Event, FailureClass, Outcome, Stage};
use crate::plan::{Plan, Status};
use crate::spec::policy::SanityCheck;
use crate::stats::Sense;

fn notices(bench: &Bench) -> Vec<String> {
    let text = |e: crate::event::Entry| match e.event {
        Event::Notice { message } => Some(message),
        _ => None,
    };
    bench.events().into_iter().filter_map(text).collect()
}

fn compared(bench: &Bench, plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.compare(&bench.store(), "2026-11-25T00:00:00Z".parse().unwrap());
    plan
}

#[tokio::test(start_paused = true)]
async fn what_makes_sense_is_kept_with_every_sample() {
    let bench = Bench::new();
    bench.answer(" Wednesday, Thursday");
    let mut plan = plan(1, 2);
    plan.policy.repeats = 2;
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (2, 0));
    let rows = bench.rows(&outcome);
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|r| r["sanity"] == "ok" && r["sanity_text"] == " Wednesday, Thursday"), "{rows:?}");
    assert!(notices(&bench).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nonsense_makes_the_units_invalid_and_the_next_run_asks_again() {
    let bench = Bench::new();
    bench.answer(&"!".repeat(24));
    let mut plan = plan(1, 2);
    plan.policy.attempts = 3;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { invalid: 2, ..Counts::default() });
    assert_eq!(outcome.exit_code, 5);
    assert_eq!(bench.acts(), ["start d0", "stop d0"], "one start, no sample, no second try");
    for unit in &outcome.record.units {
        let Some(Outcome::Invalid { reason }) = &unit.outcome else { panic!("{:?}", unit.outcome) };
        assert!(reason.contains("over and over") && reason.contains("sanity"), "{reason}");
    }
    let rows = bench.rows(&outcome);
    assert!(rows.iter().all(|r| r["status"] == "invalid" && r["failure_stage"] == "sanity"), "{rows:?}");
    let failed = bench.events().into_iter().find_map(|e| match e.event {
        Event::DeploymentFailed { stage, class, retry, .. } => Some((stage, class, retry)),
        _ => None,
    });
    assert_eq!(failed, Some((Stage::Sanity, FailureClass::Invalid, false)));
    assert!(compared(&bench, &plan).units.iter().all(|u| u.status == Status::Invalid));

    bench.answer(" Wednesday");
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn nonsense_can_be_measured_knowingly() {
    let bench = Bench::new();
    bench.answer("");
    let mut plan = plan(1, 1);
    plan.policy.sanity = SanityCheck::Warn;
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (1, 0));
    assert_eq!(bench.rows(&outcome)[0]["sanity"], Sense::Empty.as_str());
    let said = notices(&bench);
    assert!(said.len() == 1 && said[0].contains("d0 makes no sense"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_said_and_nothing_more() {
    let bench = Bench::new();
    let mut plan = plan(1, 1);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, bench.rows(&outcome)[0]["sanity"].as_str()), (1, ""));
    assert!(notices(&bench)[0].contains("gave no answer to the fixed question: reset"));

    let bench = Bench::new();
    plan.policy.sanity = SanityCheck::Off;
    bench.run(&plan).await;
    assert!(notices(&bench).is_empty(), "it is not asked");
}
