//! What is downloaded while something else is measured, and what is removed when nothing needs it any more.

use super::mock::{Bench, plan};
use crate::event::Event;
use crate::spec::policy::Evict;

#[tokio::test(start_paused = true)]
async fn the_next_deployment_is_downloaded_while_one_is_measured() {
    let bench = Bench::new();
    bench.download("d1", 15);
    let mut plan = plan(3, 1);
    plan.policy.repeats = 3;
    let outcome = bench.run(&plan).await;
    assert_eq!(outcome.counts.measured, 3);
    let acts = bench.acts();
    let at = |act: &str| acts.iter().position(|a| a == act).unwrap_or_else(|| panic!("{act} in {acts:?}"));
    assert!(at("start d0") < at("fetch d1") && at("fetched d1") < at("stop d0"), "{acts:?}");
    assert_eq!(acts.iter().filter(|a| a.starts_with("fetch ")).count(), 1, "d2 has all that it needs");
    // The download takes 15 s of the 30 s that the three samples take.
    let rows = bench.rows(&outcome);
    let meanwhile: Vec<&str> =
        rows.iter().filter(|r| r["prefetching"] == "true").map(|r| r["sample"].as_str()).collect();
    assert_eq!((rows.len(), meanwhile), (9, vec!["1", "2"]));
    let said = bench.events().into_iter().any(
        |e| matches!(&e.event, Event::Notice { message } if message.contains("d1 needs was downloaded ahead, in 15s")),
    );
    assert!(said);

    let quiet = Bench::new();
    quiet.download("d1", 15);
    plan.policy.prefetch = false;
    quiet.run(&plan).await;
    assert!(quiet.acts().iter().all(|a| !a.starts_with("fetch ")));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_gives_up_what_it_downloads_ahead() {
    let bench = Bench::new();
    bench.download("d1", 1_000_000);
    let plan = plan(2, 1);
    let cancel = bench.cancel();
    let interrupting = async {
        tokio::time::sleep(std::time::Duration::from_secs(12)).await;
        cancel.interrupt();
    };
    let (outcome, ()) = tokio::join!(bench.run(&plan), interrupting);
    assert_eq!(outcome.exit_code, 130);
    assert!(bench.acts().contains(&"fetch d1".to_string()) && !bench.acts().contains(&"fetched d1".to_string()));
}

#[tokio::test(start_paused = true)]
async fn what_no_later_deployment_needs_is_removed_when_that_is_asked_for() {
    let evictions = async |evict: Evict| {
        let bench = Bench::new();
        let mut plan = plan(2, 1);
        plan.policy.evict = evict;
        bench.run(&plan).await;
        bench.acts().into_iter().filter(|a| a.starts_with("evict")).collect::<Vec<_>>()
    };
    assert!(evictions(Evict::No).await.is_empty());
    assert_eq!(evictions(Evict::Own).await, ["evict d0 own before d1", "evict d1 own before "]);
    assert_eq!(evictions(Evict::All).await[1], "evict d1 all before ");
}
