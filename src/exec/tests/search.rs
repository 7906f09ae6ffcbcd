//! Searches against the mock stack.

use std::time::Duration;

use super::mock::{Act, Bench, plan, search};
use crate::deploy::Failure;
use crate::event::search::SearchResult;
use crate::event::{Event, Outcome, Stage};
use crate::plan::Plan;
use crate::store::journal;
use crate::units::Objective;

/// Latency is 100 ms up to ten requests in flight, and rises with every further one.
fn ten_at_once(concurrency: u32) -> f64 {
    f64::from(concurrency.min(10)) / 0.1
}

fn searched(until: Objective, to: u32, units: usize) -> Plan {
    let mut all = plan(1, units.max(1));
    all.slo.0.insert("p95_e2el".into(), Duration::from_millis(121));
    all.searches = vec![search(&all, until, to)];
    all.units.truncate(units);
    all
}

fn values(result: &SearchResult) -> Vec<f64> {
    result.probes.iter().map(|p| p.value).collect()
}

#[tokio::test(start_paused = true)]
async fn the_largest_concurrency_within_the_slo_is_found_on_one_engine_start() {
    let bench = Bench::new();
    bench.capacity(ten_at_once);
    let plan = searched(Objective::Slo, 64, 0);
    let outcome = bench.run(&plan).await;
    let [result] = &outcome.record.searches[..] else { panic!() };
    assert_eq!(values(result), [1.0, 2.0, 4.0, 8.0, 16.0, 12.0, 14.0, 13.0]);
    assert_eq!((result.best, result.bracket), (Some(12.0), (Some(12.0), Some(13.0))));
    assert!(result.probes.len() as u32 <= plan.searches[0].max_probes);
    assert_eq!(result.text(), "largest concurrency within the SLOs is 12 (13 fails); 8 probes");
    assert_eq!(result.probes[4].margins[0].bound, Some(160.0));
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(bench.acts().iter().filter(|a| a.starts_with("start ")).count(), 1);
    assert_eq!(outcome.counts.measured, 8);
    assert_eq!(outcome.record.units.len(), 8, "probes are units of the run");
    assert!(outcome.record.units.iter().all(|u| u.probe && u.samples == [1] && u.outcome == Some(Outcome::Measured)));
    assert_eq!(bench.rows(&outcome).len(), 8);
    let entries = journal::read(&outcome.files.journal()).unwrap().entries;
    let state = crate::event::fold::RunState::of(&entries);
    assert_eq!((state.units, state.probes.len(), &state.searches), (8, 8, &outcome.record.searches));

    let again = bench.run(&plan).await;
    assert!(bench.acts_of_last().is_empty(), "no engine is started for probes that are there");
    assert_eq!(again.record.searches, outcome.record.searches);
    assert_eq!((again.counts.cached, again.exit_code), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_and_a_search_share_their_units() {
    let bench = Bench::new();
    bench.capacity(ten_at_once);
    let plan = searched(Objective::Slo, 16, 4);
    let outcome = bench.run(&plan).await;
    assert_eq!(values(&outcome.record.searches[0]), [1.0, 2.0, 4.0, 8.0, 16.0, 12.0, 14.0, 13.0]);
    let samples = bench.samples_of_last();
    assert_eq!(samples.len(), 4 + 5, "{samples:?}");
    assert_eq!(outcome.counts.measured, 9);
    assert_eq!(outcome.record.units.iter().filter(|u| u.probe).count(), 5);
    let finished = bench.events().iter().filter(|e| matches!(e.event, Event::UnitFinished { .. })).count();
    assert_eq!(finished, 9, "every unit ends once");

    // A slower limit on what is there: other probes, no old ones measured again.
    let mut loose = plan.clone();
    loose.slo.0.insert("p95_e2el".into(), Duration::from_millis(145));
    let outcome = bench.run(&loose).await;
    assert_eq!(outcome.record.searches[0].best, Some(14.0));
    assert_eq!(bench.samples_of_last(), ["sample 15#1"]);
}

#[tokio::test(start_paused = true)]
async fn values_that_break_the_engine_do_not_pass_and_do_not_fail_the_run() {
    let bench = Bench::new();
    bench.capacity(|c| f64::from(c) / 0.1);
    let mut plan = searched(Objective::Slo, 8, 0);
    plan.policy.attempts = 1;
    plan.policy.fail_fast = true;
    bench.script(8, [Act::Die]);
    bench.script(6, [Act::Invalid("30 of 100 requests failed".into())]);
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert_eq!(values(result), [1.0, 2.0, 4.0, 8.0, 6.0, 5.0]);
    assert_eq!((result.best, result.bracket.1), (Some(5.0), Some(6.0)));
    assert!(result.probes[3].problem.as_deref().unwrap().contains("the engine died"), "{result:?}");
    assert_eq!(result.probes[4].problem.as_deref(), Some("30 of 100 requests failed"));
    assert_eq!((outcome.counts.measured, outcome.counts.failed, outcome.counts.invalid), (4, 1, 1));
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(bench.acts().iter().filter(|a| a.starts_with("start ")).count(), 2, "a new engine for the rest");
}

#[tokio::test(start_paused = true)]
async fn several_samples_are_judged_by_their_bound() {
    let bench = Bench::new();
    bench.capacity(ten_at_once);
    let mut plan = searched(Objective::Slo, 4, 0);
    plan.policy.repeats = 3;
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert_eq!((result.best, values(result)), (Some(4.0), vec![1.0, 2.0, 4.0]));
    assert!(result.rule.contains("confidence bound of the mean over 3 samples"), "{}", result.rule);
    assert_eq!(result.text(), "concurrency = 4 meets the SLOs, the end of the range; 3 probes");
    assert!(result.probes.iter().all(|p| p.samples == 3));
    assert_eq!(bench.samples_of_last().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn the_knee_is_where_power_is_largest() {
    let bench = Bench::new();
    bench.capacity(|c| 1000.0 * f64::from(c) / (f64::from(c) + 20.0));
    let plan = searched(Objective::Knee, 200, 0);
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert_eq!(result.best, Some(20.0));
    assert_eq!(result.bracket, (Some(19.0), Some(21.0)));
    assert!(result.probes.len() as u32 <= plan.searches[0].max_probes);
    assert_eq!(outcome.exit_code, 0);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_search_says_so_and_goes_on_where_it_was() {
    let bench = Bench::new();
    bench.capacity(ten_at_once);
    let plan = searched(Objective::Slo, 64, 0);
    bench.script(8, [Act::Hang]);
    let cancel = bench.cancel();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        cancel.interrupt();
    });
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert_eq!((values(result), result.best), (vec![1.0, 2.0, 4.0], Some(4.0)));
    assert!(result.unfinished.as_deref().unwrap().contains("interrupted"));
    assert_eq!((outcome.exit_code, outcome.counts.not_run), (130, 1));
    let bench = bench.fresh_cancel();
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.record.searches[0].best, Some(12.0));
    assert_eq!(bench.samples_of_last()[0], "sample 8#1");
}

#[tokio::test(start_paused = true)]
async fn a_search_without_an_engine_is_unfinished() {
    let bench = Bench::new();
    let plan = searched(Objective::Slo, 64, 0);
    bench.fail_start("d0", [Failure::deterministic(Stage::Start, "bad flag")]);
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert!(result.unfinished.as_deref().unwrap().contains("bad flag"), "{result:?}");
    assert_eq!((outcome.counts.blocked, outcome.exit_code), (1, 5));

    // The units of the plan fail before the search begins.
    let bench = Bench::new();
    let plan = searched(Objective::Slo, 64, 2);
    bench.fail_start("d0", [Failure::deterministic(Stage::Start, "bad flag")]);
    let outcome = bench.run(&plan).await;
    assert!(outcome.record.searches[0].unfinished.as_deref().unwrap().contains("bad flag"));
    assert_eq!((outcome.record.searches.len(), outcome.counts.blocked, outcome.exit_code), (1, 2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_search_that_the_budget_cuts_off_is_incomplete() {
    let bench = Bench::new();
    bench.capacity(ten_at_once);
    let mut plan = searched(Objective::Slo, 64, 0);
    plan.policy.budget = Some(Duration::from_secs(25));
    let outcome = bench.run(&plan).await;
    let result = &outcome.record.searches[0];
    assert!(result.unfinished.as_deref().unwrap().contains("budget"), "{result:?}");
    assert_eq!(outcome.exit_code, 8);
}
