//! Dispatcher logic against a mock stack, under paused time.

mod ahead;
mod mock;
mod sanity;
mod search;

use std::time::Duration;

use mock::{Act, Bench, plan};

use super::*;
use crate::deploy::Failure;
use crate::event::fold::RunState;
use crate::event::{Counts, Event, FailureClass, Outcome, Stage};
use crate::plan::catalog::Catalog;
use crate::store::{Lookup, Store, Stored, journal};

#[tokio::test(start_paused = true)]
async fn every_round_runs_every_unit_once_and_a_deployment_starts_as_often_as_asked() {
    let bench = Bench::new();
    let mut plan = plan(2, 3);
    plan.policy.repeats = 5;
    plan.policy.starts = 2;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { measured: 6, ..Counts::default() });
    assert_eq!(outcome.exit_code, 0);
    let acts = bench.acts();
    assert_eq!(acts.iter().filter(|a| a.starts_with("start ")).count(), 4);
    assert_eq!(acts.iter().filter(|a| a.starts_with("stop ")).count(), 4);
    for deployment in acts.split(|a| a.starts_with("stop ")).filter(|acts| !acts.is_empty()) {
        assert!(deployment[0].starts_with("start "));
        for round in deployment[1..].chunks(3) {
            let mut units: Vec<&str> = round.iter().map(|a| a.split('#').next().unwrap()).collect();
            units.sort_unstable();
            units.dedup();
            assert_eq!(units.len(), 3, "{acts:?}");
        }
    }
    let lengths: Vec<usize> = acts.split(|a| a.starts_with("stop ")).map(<[String]>::len).filter(|n| *n > 0).collect();
    assert_eq!(lengths, [10, 7, 10, 7], "three rounds, then two");
    for unit in &outcome.record.units {
        assert_eq!(unit.samples, [1, 2, 3, 4, 5]);
        assert_eq!(unit.outcome, Some(Outcome::Measured));
    }
    assert_eq!(bench.rows(&outcome).len(), 30);
    assert_eq!(outcome.csv.len(), 2);

    let read = journal::read(&outcome.files.journal()).unwrap();
    assert_eq!(read.stopped, None);
    let state = RunState::of(&read.entries);
    assert_eq!(state.finished, Some((outcome.counts, 0)));
    assert_eq!((state.samples_done, state.samples_planned), (30, 30));
    assert_eq!((state.starts_done, state.starts_planned), (4, 4));
    assert_eq!(bench.events().len(), read.entries.len());

    // The order is seeded: a run of the same plan elsewhere does the same.
    let again = Bench::new();
    again.run(&plan).await;
    assert_eq!(again.acts(), acts);
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_not_measured_again() {
    let bench = Bench::new();
    let mut plan = plan(1, 2);
    plan.policy.repeats = 2;
    bench.run(&plan).await;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { cached: 2, ..Counts::default() });
    assert_eq!(outcome.exit_code, 0);
    assert!(bench.acts_of_last().is_empty());
    assert!(outcome.csv.is_empty(), "nothing was measured");
    assert_eq!(outcome.record.units[0].samples, [1, 2]);

    plan.policy.repeats = 3;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 2);
    assert_eq!(bench.samples_of_last().len(), 2, "one more of each");
    assert_eq!(outcome.record.units[0].samples, [1, 2, 3]);

    plan.policy.force = true;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.record.units[0].samples, [4, 5, 6], "force adds samples and stands on them");

    plan.policy.force = false;
    plan.policy.max_age = Some(Duration::from_secs(3600));
    assert_eq!(bench.run(&plan).await.counts.cached, 2);
    tokio::time::advance(Duration::from_secs(7200)).await;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 2);
    assert_eq!(outcome.record.units[0].samples, [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn infrastructure_failures_are_tried_again_with_pauses_and_kept() {
    let bench = Bench::new();
    let mut plan = plan(1, 2);
    plan.policy.attempts = 3;
    bench.script(1, [Act::fail("reset"), Act::fail("reset")]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (2, 0));
    let rows = bench.rows(&outcome);
    assert_eq!(rows.iter().filter(|r| r["status"] == "failed").count(), 2);
    let mut attempts: Vec<&str> =
        rows.iter().filter(|r| r["concurrency"] == "1").map(|r| r["attempt"].as_str()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["1", "2", "3"]);
    let tries: Vec<f64> = bench.times("sample 1");
    assert_eq!(tries[1] - tries[0], 10.0 + 2.0 + 1.0, "the sample, the wait for a death, the pause");
    assert_eq!(tries[2] - tries[1], 10.0 + 2.0 + 2.0);
}

#[tokio::test(start_paused = true)]
async fn used_up_attempts_fail_the_unit_and_the_next_run_tries_again() {
    let bench = Bench::new();
    let plan = plan(1, 2);
    bench.script(1, [Act::fail("reset"), Act::fail("reset")]);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { measured: 1, failed: 1, ..Counts::default() });
    assert_eq!(outcome.exit_code, 5);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { measured: 1, cached: 1, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_deterministic_failure_is_tried_again_only_when_asked() {
    let bench = Bench::new();
    let mut plan = plan(1, 1);
    bench.script(1, [Act::Fail { cause: "no such api".into(), deterministic: true }]);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.failed, 1);
    assert_eq!(bench.samples_of_last().len(), 1, "once is enough");
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.failed, outcome.exit_code), (1, 5), "never a hit");
    assert!(bench.acts_of_last().is_empty(), "no engine is started for it");
    plan.policy.retry_failed = true;
    assert_eq!(bench.run(&plan).await.counts.measured, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_deployment_blocks_its_units_and_the_next_one_goes_on() {
    let bench = Bench::new();
    let mut plan = plan(2, 2);
    bench.fail_start("d0", [Failure::deterministic(Stage::Start, "bad flag").with_log("traceback")]);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { measured: 2, blocked: 2, ..Counts::default() });
    assert_eq!(outcome.exit_code, 5);
    assert_eq!(outcome.record.units[0].outcome, Some(Outcome::Blocked { cause: "bad flag".into() }));
    let blocked: Vec<_> = bench.rows(&outcome).into_iter().filter(|r| r["status"] == "blocked").collect();
    assert_eq!(blocked.len(), 2);
    assert_eq!((blocked[0]["invalid_reason"].as_str(), blocked[0]["valid"].as_str()), ("bad flag", "false"));
    let unit = &plan.units[0];
    let states = bench.store().states(&[(&plan.deployments[0].directory, unit.id)]);
    let failure = states[0].as_ref().unwrap().last_failure.clone().unwrap();
    assert_eq!((failure.class, failure.stage), (FailureClass::Deterministic, Stage::Start));

    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { cached: 2, blocked: 2, ..Counts::default() });
    assert!(bench.acts_of_last().is_empty());
    plan.policy.retry_failed = true;
    assert_eq!(bench.run(&plan).await.counts.measured, 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_is_tried_again_and_its_failures_are_told() {
    let bench = Bench::new();
    let plan = plan(1, 1);
    bench.fail_start("d0", [Failure::infrastructure(Stage::Pull, "registry is down")]);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 1);
    let failed = bench.events().into_iter().find_map(|e| match e.event {
        Event::DeploymentFailed { attempt, retry, start, .. } => Some((attempt, retry, start)),
        _ => None,
    });
    assert_eq!(failed, Some((1, true, 1)));
}

#[tokio::test(start_paused = true)]
async fn when_every_deployment_lacks_the_host_the_exit_code_says_so() {
    let bench = Bench::new();
    let plan = plan(2, 1);
    for d in ["d0", "d1"] {
        bench.fail_start(d, [Failure::environment(Stage::Create, "no Docker")]);
    }
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.blocked, outcome.exit_code), (2, 7));
    assert_eq!(bench.acts().len(), 2, "no second try");
    bench.fail_start("d0", [Failure::environment(Stage::Create, "no Docker")]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.blocked, outcome.counts.measured, outcome.exit_code), (1, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_dies_fails_at_once_and_is_started_again() {
    let bench = Bench::new();
    let mut plan = plan(1, 2);
    plan.policy.repeats = 2;
    bench.script(1, [Act::Ok, Act::Die]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (2, 0));
    assert_eq!(bench.acts().iter().filter(|a| a.starts_with("start ")).count(), 2);
    let failed = bench.events().into_iter().find_map(|e| match e.event {
        Event::AttemptFailed { stage, cause, sample, .. } => Some((stage, cause, sample)),
        _ => None,
    });
    assert_eq!(failed, Some((Stage::Measure, "the engine died: killed".into(), 2)));
    let starts: Vec<String> = bench.rows(&outcome).into_iter().map(|r| r["engine_start"].clone()).collect();
    assert!(starts.contains(&"1".into()) && starts.contains(&"2".into()));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_dies_in_its_warm_up_is_a_failed_start() {
    let bench = Bench::new();
    let plan = plan(1, 1);
    bench.die_in_warm_up(1);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 1);
    assert_eq!(bench.acts().iter().filter(|a| a.starts_with("start ")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn stages_have_their_time_limits() {
    let bench = Bench::new();
    let mut plan = plan(2, 1);
    plan.policy.attempts = 1;
    plan.policy.measure_timeout = Duration::from_secs(60);
    plan.policy.ready_timeout = Duration::from_secs(300);
    bench.script(1, [Act::Hang]);
    bench.hang_start("d1");
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { failed: 1, blocked: 1, ..Counts::default() });
    let Some(Outcome::Failed { cause, stage, .. }) = &outcome.record.units[0].outcome else { panic!() };
    assert!(cause.contains("after 1m") && *stage == Stage::Measure, "{cause}");
    let Some(Outcome::Blocked { cause }) = &outcome.record.units[1].outcome else { panic!() };
    assert!(cause.contains("not ready after 5m"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn samples_that_do_not_count_are_kept_and_measured_again_next_time() {
    let bench = Bench::new();
    let mut plan = plan(1, 1);
    plan.policy.repeats = 2;
    bench.script(1, [Act::Invalid("requests started late".into())]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.invalid, outcome.exit_code), (1, 5));
    assert_eq!(outcome.record.units[0].samples, [2]);
    assert_eq!(outcome.record.units[0].invalid_samples, [1]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.exit_code), (1, 0));
    assert_eq!(outcome.record.units[0].samples, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_sample_that_the_host_disturbed_is_taken_again() {
    let bench = Bench::new();
    let mut plan = plan(1, 2);
    plan.policy.attempts = 3;
    bench.script(1, [Act::Disturbed("the client was the bottleneck".into()), Act::Sleep(Duration::from_secs(90))]);
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.counts.invalid, outcome.exit_code), (2, 0, 0));
    let unit = outcome.record.units.iter().find(|u| !u.invalid_samples.is_empty()).unwrap();
    assert_eq!((&unit.invalid_samples[..], &unit.samples[..]), (&[1, 2][..], &[3][..]));
    let Stored::Present { result, .. } = bench.store().read_unit(&unit.directory, &unit.unit_id).unwrap() else {
        panic!()
    };
    let reasons: Vec<_> = result.samples.iter().map(|s| s.invalid_reason.as_deref()).collect();
    assert_eq!(
        reasons,
        [Some("the client was the bottleneck"), Some("the machine was suspended for 1m30s during the sample"), None]
    );
    // Where it stays in the way, that is how it ends.
    let bench = Bench::new();
    bench.script(1, (0..9).map(|_| Act::Disturbed("the client was the bottleneck".into())));
    let outcome = bench.run(&plan).await;
    assert_eq!((outcome.counts.measured, outcome.counts.invalid, outcome.exit_code), (1, 1, 5));
    assert_eq!(bench.samples_of_last().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_sample_starts_after_the_budget() {
    let bench = Bench::new();
    let mut plan = plan(2, 3);
    plan.policy.budget = Some(Duration::from_secs(25));
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.exit_code, 8);
    assert_eq!(bench.samples_of_last().len() as u64, outcome.counts.measured);
    assert_eq!(outcome.counts.measured + outcome.counts.not_run, 6);
    assert!(outcome.counts.measured < 3, "warm-up and samples take ten seconds each");
    assert!(!bench.acts().contains(&"start d1".to_string()));
    plan.policy.budget = None;
    assert_eq!(bench.run(&plan).await.exit_code, 0);
}

#[tokio::test(start_paused = true)]
async fn fail_fast_leaves_the_rest_for_another_time() {
    let bench = Bench::new();
    let mut plan = plan(2, 2);
    plan.policy.fail_fast = true;
    bench.fail_start("d0", [Failure::deterministic(Stage::Start, "bad flag")]);
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { blocked: 2, not_run: 2, ..Counts::default() });
    // Blocked units come before incompleteness in the order of exit codes.
    assert_eq!(outcome.exit_code, 5);
    let Some(Outcome::NotRun { reason }) = &outcome.record.units[2].outcome else { panic!() };
    assert!(reason.contains("fail-fast"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_gives_the_sample_up_and_cleans_up() {
    let bench = Bench::new();
    let plan = plan(2, 2);
    let cancel = bench.cancel();
    let interrupting = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(25)).await;
        cancel.interrupt();
    });
    let mut outcome = bench.run(&plan).await;
    interrupting.await.unwrap();
    assert_eq!(outcome.exit_code, 130);
    assert_eq!(outcome.counts, Counts { measured: 1, not_run: 3, ..Counts::default() });
    assert_eq!(bench.acts().last().unwrap(), "stop d0", "{:?}", bench.acts());
    assert!(outcome.record.finished_at.is_some());
    outcome.over.seal().unwrap();
    assert!(!bench.store().is_live(&outcome.record.run).unwrap());
    assert!(bench.leftovers().is_empty(), "{:?}", bench.leftovers());
    let outcome = Bench::run(&bench.fresh_cancel(), &plan).await;
    assert_eq!(outcome.counts, Counts { cached: 1, measured: 3, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_second_interrupt_does_not_wait_for_the_engine() {
    let bench = Bench::new();
    bench.hang_stop();
    let plan = plan(1, 1);
    let cancel = bench.cancel();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(15)).await;
        cancel.interrupt();
        tokio::time::sleep(Duration::from_secs(5)).await;
        cancel.interrupt();
    });
    assert_eq!(bench.run(&plan).await.exit_code, 130);
}

#[tokio::test(start_paused = true)]
async fn a_unit_of_another_run_is_looked_at_again_at_the_end() {
    let bench = Bench::new();
    let plan = plan(1, 3);
    let other = Store::open(bench.store().root(), false);
    let directory = plan.deployments[0].directory.clone();
    let unit = |i: usize| UnitWork::new(&plan, &plan.units[i], jiff::Timestamp::UNIX_EPOCH, "".as_ref()).record;
    let reserve = |i: usize| match other.reserve(&directory, &unit(i)).unwrap() {
        Lookup::Reserved(r) => r,
        Lookup::Taken => panic!(),
    };
    let (mut measured, given_up) = (reserve(0), reserve(1));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let draft = measured.draft().unwrap();
        measured.commit(draft, crate::store::tests::sample(1, "other")).unwrap();
        drop(measured);
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(given_up);
    });
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { cached: 1, measured: 2, ..Counts::default() });
    let taken = bench.events().into_iter().filter(|e| matches!(e.event, Event::UnitTaken { .. })).count();
    assert_eq!(taken, 2, "each is told once");
    assert_eq!(outcome.record.units[0].samples, [1]);
    assert_eq!(bench.acts().iter().filter(|a| a.starts_with("start ")).count(), 2, "{:?}", bench.acts());
}

#[tokio::test(start_paused = true)]
async fn no_engine_is_started_without_a_unit_of_its_own() {
    let bench = Bench::new();
    let plan = plan(1, 1);
    let directory = &plan.deployments[0].directory;
    let record = UnitWork::new(&plan, &plan.units[0], jiff::Timestamp::UNIX_EPOCH, "".as_ref()).record;
    let held = bench.store().reserve(directory, &record).unwrap();
    let cancel = bench.cancel();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        cancel.interrupt();
    });
    let outcome = bench.run(&plan).await;
    assert!(bench.acts().is_empty());
    assert_eq!((outcome.counts.not_run, outcome.exit_code), (1, 130));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn two_experiments_share_a_cell_and_measure_it_once() {
    let bench = Bench::new();
    let mut first = plan(1, 2);
    bench.run(&first).await;
    first.experiment = "another".into();
    let outcome = bench.run(&first).await;
    assert_eq!(outcome.counts.cached, 2);
    assert_eq!(outcome.record.experiment, "another");
    assert_eq!(outcome.record.units[0].facts.experiment, "another");
}

#[tokio::test(start_paused = true)]
async fn a_display_that_fails_is_switched_off_and_nothing_else() {
    let bench = Bench::new();
    bench.panic_in_reporter();
    assert_eq!(bench.run(&plan(1, 1)).await.counts.measured, 1);
}

#[tokio::test(start_paused = true)]
async fn a_plan_without_units_selects_nothing_and_the_gate_has_its_codes() {
    let bench = Bench::new();
    assert_eq!(bench.run(&plan(0, 0)).await.exit_code, 4);
    bench.judge(Verdict::Regression);
    let outcome = bench.run(&plan(1, 1)).await;
    assert_eq!((outcome.exit_code, outcome.record.exit_code), (6, Some(6)));
    bench.judge(Verdict::Undecidable);
    assert_eq!(bench.run(&plan(1, 1)).await.exit_code, 9);
}

#[tokio::test(start_paused = true)]
async fn other_hardware_than_is_here_is_unsupported() {
    let bench = Bench::new();
    let mut plan = plan(2, 1);
    plan.deployments[0].spec.container = Some(crate::template::spec::ContainerSpec::default());
    plan.deployments[0].hardware = "h100-sxm-80gb".into();
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts, Counts { unsupported: 1, measured: 1, ..Counts::default() });
    assert_eq!(outcome.exit_code, 0);
    let Some(Outcome::Unsupported { reason }) = &outcome.record.units[0].outcome else { panic!() };
    assert_eq!(reason, "it is planned for h100-sxm-80gb; this host is cpu");
}

#[tokio::test(start_paused = true)]
async fn groups_run_side_by_side_when_asked() {
    let bench = Bench::new();
    let mut plan = plan(3, 1);
    plan.policy.parallel = 3;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 3);
    assert!(bench.acts()[..3].iter().all(|a| a.starts_with("start ")), "{:?}", bench.acts());
}

#[tokio::test(start_paused = true)]
async fn a_worklist_is_data() {
    let bench = Bench::new();
    let plan = plan(1, 2);
    let unit = |i| UnitWork::new(&plan, &plan.units[i], jiff::Timestamp::UNIX_EPOCH, "/x".as_ref());
    let work = GroupWork {
        run: "r".into(),
        simulated: false,
        deployment: plan.deployments[0].clone(),
        units: vec![unit(0), unit(1)],
        searches: Vec::new(),
        provenance: Default::default(),
        usd_per_hour: Some(2.0),
        starts_before: 0,
    };
    let text = serde_json::to_string(&work).unwrap();
    let read: GroupWork = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    assert!(run_group(read, &bench.context(), &sender).await.is_none());
    let mut finished = 0;
    while let Ok(event) = events.try_recv() {
        finished += u32::from(matches!(event, Event::UnitFinished { outcome: Outcome::Measured, .. }));
    }
    assert_eq!(finished, 2);
}
