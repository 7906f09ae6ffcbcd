//! What was deleted or changed by hand: said, set aside, and no more lost than that.

use super::*;
use crate::store::gc::GcRequest;

/// Files that say themselves what is wrong with them: `unit.json` is made again, a result takes its samples with it.
#[test]
fn damaged_files_are_set_aside_with_the_reason_and_numbers_are_not_used_again() {
    let other = unit_record(2);
    let with = |unit: Value, deploy: Value| to_json(&UnitRecord { unit, deploy, ..unit_record(1) });
    let damages: Vec<(&str, Vec<u8>, &str)> = vec![
        ("result.json", b"{\"schema\": 1".to_vec(), "result.json cannot be read"),
        ("unit.json", b"nonsense".to_vec(), "unit.json cannot be read"),
        ("unit.json", to_json(&other), "unit.json is of unit"),
        ("unit.json", with(document(7), document(-1)), "does not have the unit's id"),
        ("unit.json", with(document(1), document(7)), "does not have the deployment's id"),
        ("result.json", to_json(&UnitResult::empty(other.unit_id, other.deploy_id)), "result.json belongs to unit"),
    ];
    for (file, bytes, reason) in damages {
        let (_tmp, store) = store();
        let record = unit_record(1);
        let mut r = reserve(&store, &record);
        commit(&mut r, "a");
        commit(&mut r, "a");
        drop(r);
        let dir = store.unit_dir(STACK, &record.unit_id);
        fs::write(dir.join(file), &bytes).unwrap();
        let state = store.states(&[(STACK, record.unit_id)]).remove(0).unwrap();
        assert!(state.damaged.as_deref().unwrap().contains(reason), "{:?}", state.damaged);
        let lost = file == "result.json";
        assert_eq!(state.valid_samples.len(), if lost { 0 } else { 2 });
        let mut r = reserve(&store, &record);
        assert!(r.set_aside().unwrap().contains(reason), "{:?}", r.set_aside());
        assert_eq!(fs::read(dir.join(format!("damaged-1-{file}"))).unwrap(), bytes);
        assert_eq!(dir.join("damaged-1-sample-2/requests.csv").is_file(), lost);
        assert_eq!(r.result().samples.len(), state.valid_samples.len());
        // It is said once, and everything is whole again.
        let state = store.states(&[(STACK, record.unit_id)]).remove(0).unwrap();
        assert_eq!((state.damaged, state.valid_samples.len()), (None, r.result().samples.len()));
        commit(&mut r, "b");
        assert_eq!(r.result().last_sample(), 3);
        drop(r);
        assert_eq!(reserve(&store, &record).set_aside(), None);
        // Numbers stay used when what was set aside is thrown away.
        let request = GcRequest { damaged: true, ..Default::default() };
        store.collect_garbage(&request, false).unwrap();
        assert!(names(&dir).iter().all(|n| !n.starts_with("damaged")));
        assert_eq!(reserve(&store, &record).next_sample(), 4);
    }
}

/// Writes a file later than it was written before: within one tick of the clock the same size passes for the same file.
fn altered(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}

#[test]
fn a_damaged_sample_is_set_aside_alone() {
    type Damage = fn(&Path);
    let damages: &[(Damage, &str)] = &[
        (|dir| fs::remove_file(dir.join("requests.csv")).unwrap(), "sample-2/requests.csv is missing"),
        (|dir| fs::write(dir.join("requests.csv"), "id\n").unwrap(), "sample-2/requests.csv has 3 bytes where 5"),
        (|dir| altered(&dir.join("requests.csv"), "id\n2\n"), "does not have the content"),
        (|dir| fs::remove_dir_all(dir).unwrap(), "sample-2/requests.csv is missing"),
    ];
    for (damage, reason) in damages {
        let (_tmp, store) = store();
        let record = unit_record(1);
        let mut r = reserve(&store, &record);
        (0..3).for_each(|_| commit(&mut r, "a"));
        drop(r);
        let dir = store.unit_dir(STACK, &record.unit_id);
        damage(&dir.join("sample-2"));
        let state = store.states(&[(STACK, record.unit_id)]).remove(0).unwrap();
        assert!(state.damaged.as_deref().unwrap().contains(reason), "{:?}", state.damaged);
        assert_eq!(state.valid_samples.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 3]);
        let problems = store.verify().unwrap().problems;
        assert!(problems.iter().any(|p| p.problem.contains(reason)), "{problems:?}");

        let r = reserve(&store, &record);
        assert!(r.set_aside().unwrap().contains(reason));
        assert_eq!(r.result().samples.iter().map(|s| s.sample).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(r.next_sample(), 4);
        let kept = fs::read_to_string(dir.join("damaged-1-sample-2.json")).unwrap();
        assert!(kept.contains(reason) && kept.contains("\"sample\": 2"), "{kept}");
        drop(r);
        assert_eq!(reserve(&store, &record).set_aside(), None);
        assert_eq!(store.verify().unwrap().problems, []);
    }
}

#[test]
fn a_result_that_is_gone_leaves_its_samples_aside() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    commit(&mut reserve(&store, &record), "a");
    let dir = store.unit_dir(STACK, &record.unit_id);
    fs::remove_file(dir.join("result.json")).unwrap();
    let r = reserve(&store, &record);
    assert_eq!(r.set_aside(), Some("sample-1 has no record in result.json"));
    assert!(dir.join("damaged-1-sample-1/requests.csv").is_file());
    assert_eq!(r.next_sample(), 2);
}

#[test]
fn a_unit_file_that_is_gone_is_made_again_and_hand_made_gaps_are_kept() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    let mut r = reserve(&store, &record);
    commit(&mut r, "a");
    commit(&mut r, "a");
    drop(r);
    let dir = store.unit_dir(STACK, &record.unit_id);
    fs::remove_file(dir.join("unit.json")).unwrap();
    let r = reserve(&store, &record);
    assert_eq!(r.set_aside(), Some("unit.json is missing"));
    assert_eq!(r.result().samples.len(), 2);
    drop(r);
    assert!(matches!(store.read_unit(STACK, &record.unit_id).unwrap(), Stored::Present { .. }));

    // Two samples that no record knows: no crash leaves that.
    fs::create_dir(dir.join("sample-5")).unwrap();
    fs::create_dir(dir.join("sample-6")).unwrap();
    assert_eq!(reserve(&store, &record).next_sample(), 7);
    assert!(dir.join("damaged-1-sample-5").exists() && dir.join("damaged-2-sample-6").exists());
}

/// Files of schema 1 had no checksum: a result of theirs needs its `unit.json`.
#[test]
fn an_older_tree_is_read_and_continued() {
    let (_tmp, store) = store();
    let record = unit_record(1);
    let mut r = reserve(&store, &record);
    commit(&mut r, "a");
    let old = UnitResult { schema: 1, ..r.result().clone() };
    drop(r);
    let dir = store.unit_dir(STACK, &record.unit_id);
    fs::write(dir.join("result.json"), serde_json::to_vec(&old).unwrap()).unwrap();
    fs::write(dir.join("unit.json"), serde_json::to_vec(&UnitRecord { schema: 1, ..record.clone() }).unwrap()).unwrap();
    let mut r = reserve(&store, &record);
    assert_eq!((r.set_aside(), r.result().samples.len()), (None, 1));
    commit(&mut r, "b");
    assert_eq!(r.result().schema, SCHEMA);
    drop(r);
    fs::write(dir.join("result.json"), serde_json::to_vec(&old).unwrap()).unwrap();
    fs::remove_file(dir.join("unit.json")).unwrap();
    let r = reserve(&store, &record);
    assert_eq!((r.set_aside(), r.result().samples.len()), (Some("unit.json is missing"), 0));
    assert!(dir.join("damaged-1-sample-1").exists() && dir.join("damaged-1-result.json").exists());
}

/// A run of one unit with one sample that has come to its end.
fn finished_run(store: &Store, second: u32) -> RunRecord {
    let now: Timestamp = format!("2026-11-24T06:15:{second:02}Z").parse().unwrap();
    let units = [unit_record(1)];
    let (mut dir, mut plan) =
        store.create_run("e", now, &[STACK.to_string()], |run, t| run_record(run, t, &units)).unwrap();
    dir.journal().unwrap();
    let mut r = reserve(store, &units[0]);
    commit(&mut r, &plan.run);
    dir.complete_csv(&plan.units[0], r.result(), &plan.run).unwrap();
    plan.finished_at = Some("2026-11-24T06:16:00.000Z".into());
    let mut over = dir.finish(&plan).unwrap();
    fs::write(over.files().summary(), "# summary").unwrap();
    over.seal().unwrap();
    plan
}

#[test]
fn files_of_an_earlier_run_are_looked_at_and_results_made_again() {
    let (_tmp, store) = store();
    let plan = finished_run(&store, 0);
    assert_eq!(store.recover().unwrap(), []);
    assert_eq!(store.inspect_runs().unwrap(), Vec::<String>::new());
    let csv = store.csv_path(STACK, &plan.timestamp);
    let whole = fs::read_to_string(&csv).unwrap();
    let files = store.run_files(&plan.run);

    altered(&csv, &whole.replace("12.5", "99.5"));
    altered(&files.summary(), "# summarY");
    fs::remove_file(files.journal()).unwrap();
    assert_eq!(store.verify().unwrap().problems.len(), 3);
    let said = store.inspect_runs().unwrap();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said.iter().any(|s| s.contains("benchmark_") && s.contains("made again from the units")), "{said:#?}");
    assert!(said.iter().any(|s| s.contains("journal.jsonl is missing: the run cannot be replayed")), "{said:#?}");
    assert!(said.iter().any(|s| s.contains("summary.md") && s.contains("set aside")), "{said:#?}");
    assert_eq!(fs::read_to_string(&csv).unwrap(), whole);
    assert!(names(files.dir()).contains(&"damaged-1-summary.md".to_string()));
    assert_eq!(store.inspect_runs().unwrap(), Vec::<String>::new(), "it is said once");
    assert_eq!(store.verify().unwrap().problems, []);

    fs::write(files.plan(), "{}").unwrap();
    let said = store.inspect_runs().unwrap();
    assert!(said.len() == 1 && said[0].contains("cannot be reported any more"), "{said:#?}");
    assert_eq!(store.runs(), Vec::<String>::new());
    assert_eq!(store.inspect_runs().unwrap(), Vec::<String>::new());
    assert_eq!(store.recover().unwrap(), []);
}

#[test]
fn a_kill_while_summaries_are_written_anew_is_no_damage() {
    let (_tmp, store) = store();
    let plan = finished_run(&store, 0);
    let files = store.run_files(&plan.run);
    let over = store.take_again(&plan.run).unwrap().unwrap();
    assert!(store.take_again(&plan.run).unwrap().is_none(), "one at a time");
    altered(&files.summary(), "# another");
    assert_eq!(store.inspect_runs().unwrap(), Vec::<String>::new(), "it is not looked at meanwhile");
    // Killed: the lock is released and its file stays.
    let lock = fs::read(store.run_lock_path(&plan.run)).unwrap();
    drop(over);
    altered(&files.summary(), "# a third");
    fs::write(store.run_lock_path(&plan.run), lock).unwrap();
    assert_eq!(store.recover().unwrap(), []);
    assert_eq!(store.inspect_runs().unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(files.summary()).unwrap(), "# a third");
    assert!(!store.run_lock_path(&plan.run).exists());
}

#[test]
fn a_run_whose_lock_was_removed_is_completed_all_the_same() {
    let (_tmp, store) = store();
    let now: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
    let units = [unit_record(1)];
    let (dir, plan) = store.create_run("e", now, &[STACK.to_string()], |r, t| run_record(r, t, &units)).unwrap();
    commit(&mut reserve(&store, &units[0]), &plan.run);
    drop(dir);
    fs::remove_dir_all(store.locks_dir()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.len(), recovered[0].samples, recovered[0].rows_added), (1, 1, 1));
    assert_eq!(store.recover().unwrap(), []);
}

#[test]
fn a_dead_run_without_its_plan_is_set_aside_with_what_it_has() {
    let (_tmp, store) = store();
    let now: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
    let units = [unit_record(1)];
    let (dir, plan) = store.create_run("e", now, &[STACK.to_string()], |r, t| run_record(r, t, &units)).unwrap();
    dir.journal().unwrap();
    commit(&mut reserve(&store, &units[0]), &plan.run);
    drop(dir);
    fs::remove_file(store.run_files(&plan.run).plan()).unwrap();
    let recovered = store.recover().unwrap();
    assert!(recovered[0].problem.as_ref().unwrap().contains("plan.json is missing"), "{recovered:?}");
    assert!(store.runs_dir().join(format!("damaged-1-{}", plan.run)).join("journal.jsonl").exists());
    assert_eq!(store.recover().unwrap(), []);
    assert_eq!(store.states(&[(STACK, units[0].unit_id)])[0].as_ref().unwrap().valid_samples.len(), 1);
}

/// A tree that somebody prepared: what is written through a link would be written elsewhere.
#[test]
fn links_in_the_tree_are_refused() {
    use std::os::unix::fs::symlink;
    let (tmp, store) = store();
    let elsewhere = tmp.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let record = unit_record(1);
    let refused = |what: &str| {
        let e = store.reserve(STACK, &record).unwrap_err().to_string();
        assert!(e.contains("is a symbolic link"), "{what}: {e}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{what}");
    };
    fs::create_dir_all(store.root()).unwrap();
    symlink(&elsewhere, store.stack_dir(STACK)).unwrap();
    refused("the stack");
    fs::remove_file(store.stack_dir(STACK)).unwrap();
    let dir = store.unit_dir(STACK, &record.unit_id);
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    refused("the unit");
    fs::remove_file(&dir).unwrap();
    fs::remove_dir_all(store.locks_dir()).unwrap();
    symlink(&elsewhere, store.locks_dir()).unwrap();
    refused("the locks");
    fs::remove_file(store.locks_dir()).unwrap();
    symlink(&elsewhere, store.runs_dir()).unwrap();
    let now: Timestamp = "2026-11-24T06:15:00Z".parse().unwrap();
    let e = store.create_run("e", now, &[], |r, t| run_record(r, t, &[])).unwrap_err().to_string();
    assert!(e.contains("is a symbolic link") && fs::read_dir(&elsewhere).unwrap().count() == 0, "{e}");

    // A file that is a link is replaced, not followed.
    fs::remove_file(store.runs_dir()).unwrap();
    let mut r = reserve(&store, &record);
    commit(&mut r, "a");
    let precious = tmp.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    for name in [".tmp-result.json", "result.json"] {
        let _ = fs::remove_file(dir.join(name));
        symlink(&precious, dir.join(name)).unwrap();
    }
    commit(&mut r, "a");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!fs::symlink_metadata(dir.join("result.json")).unwrap().is_symlink());
}

#[test]
fn nothing_is_writable_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let (_tmp, store) = store();
    finished_run(&store, 0);
    let mut dirs = vec![store.root().to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o002, 0, "{} has mode {mode:o}", path.display());
            if path.is_dir() {
                dirs.push(path);
            }
        }
    }
}
