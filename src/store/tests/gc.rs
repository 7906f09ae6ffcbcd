//! What is thrown away, and what never is.

use super::*;
use crate::store::gc::GcRequest;

/// A run at a second of its own that measured these units and has ended.
fn run(store: &Store, experiment: &str, second: u32, units: &[UnitRecord]) -> RunRecord {
    run_that_ended(store, experiment, second, units, None)
}

fn run_that_ended(
    store: &Store,
    experiment: &str,
    second: u32,
    units: &[UnitRecord],
    exit_code: Option<i32>,
) -> RunRecord {
    let now: Timestamp = format!("2026-11-24T06:15:{second:02}Z").parse().unwrap();
    let (mut dir, mut plan) = store
        .create_run(experiment, now, &[STACK.to_string()], |run, t| RunRecord {
            experiment: experiment.into(),
            ..run_record(run, t, units)
        })
        .unwrap();
    for (i, unit) in units.iter().enumerate() {
        let mut r = reserve(store, unit);
        commit(&mut r, &plan.run);
        dir.complete_csv(&plan.units[i], r.result(), &plan.run).unwrap();
    }
    plan.finished_at = Some("2026-11-24T06:16:00.000Z".into());
    plan.exit_code = exit_code;
    dir.finish(&plan).unwrap().seal().unwrap();
    plan
}

#[test]
fn old_runs_and_what_only_they_refer_to_go() {
    let (_tmp, store) = store();
    let [a, b, c] = [unit_record(1), unit_record(2), unit_record(3)];
    let first = run(&store, "e", 0, &[a.clone(), b.clone()]);
    let second = run(&store, "e", 1, std::slice::from_ref(&b));
    let other = run(&store, "other", 2, std::slice::from_ref(&c));
    let request = GcRequest { keep_last: Some(1), unreferenced: true, ..Default::default() };

    let would = store.collect_garbage(&request, true).unwrap();
    assert_eq!(would.runs, std::slice::from_ref(&first.run));
    assert_eq!(would.units, [store.unit_dir(STACK, &a.unit_id)]);
    assert_eq!(would.files, [store.csv_path(STACK, &first.timestamp)]);
    assert_eq!(store.runs().len(), 3, "it was only asked about");

    let done = store.collect_garbage(&request, false).unwrap();
    assert_eq!((&done.runs, &done.units, done.bytes), (&would.runs, &would.units, would.bytes));
    assert_eq!(store.runs(), [second.run, other.run]);
    let there: Vec<bool> = [&a, &b, &c].iter().map(|u| store.unit_dir(STACK, &u.unit_id).exists()).collect();
    assert_eq!(there, [false, true, true]);
    assert_eq!(store.verify().unwrap().problems, []);
    assert!(names(&store.locks_dir()).iter().all(|n| !n.starts_with("run-")));
}

#[test]
fn the_last_good_run_stays_behind_worse_ones() {
    let (_tmp, store) = store();
    let unit = [unit_record(1)];
    let ended = |second, code| run_that_ended(&store, "e", second, &unit, code);
    let [first, good, ..] = [ended(0, Some(0)), ended(1, Some(0)), ended(2, Some(6)), ended(3, Some(5))];
    let request = GcRequest { keep_last: Some(1), ..Default::default() };
    let gone = store.collect_garbage(&request, false).unwrap().runs;
    assert_eq!(gone.len(), 2);
    assert!(gone.contains(&first.run) && !gone.contains(&good.run), "{gone:?}");
}

#[test]
fn what_a_live_run_holds_stays_and_an_unreadable_run_keeps_every_unit() {
    let (_tmp, store) = store();
    let [a, b] = [unit_record(1), unit_record(2)];
    let first = run(&store, "e", 0, std::slice::from_ref(&a));
    run(&store, "e", 1, &[]);
    let held = reserve(&store, &a);
    let request = GcRequest { keep_last: Some(1), unreferenced: true, ..Default::default() };
    let done = store.collect_garbage(&request, false).unwrap();
    assert_eq!(done.runs, [first.run]);
    assert!(done.units.is_empty() && done.kept[0].1.contains("live"), "{done:?}");
    drop(held);

    let broken = run(&store, "broken", 2, std::slice::from_ref(&b));
    fs::write(store.run_files(&broken.run).plan(), "{").unwrap();
    let done = store.collect_garbage(&request, false).unwrap();
    assert!(done.units.is_empty() && done.kept[0].1.contains("cannot be read"), "{done:?}");
    assert!(store.unit_dir(STACK, &a.unit_id).exists());
}

#[test]
fn a_removal_that_was_cut_short_is_finished() {
    let (_tmp, store) = store();
    let a = unit_record(1);
    run(&store, "e", 0, std::slice::from_ref(&a));
    let dir = store.unit_dir(STACK, &a.unit_id);
    fs::rename(&dir, dir.with_file_name(".tmp-gc-x")).unwrap();
    store.recover().unwrap();
    assert_eq!(names(dir.parent().unwrap()), Vec::<String>::new());
}
