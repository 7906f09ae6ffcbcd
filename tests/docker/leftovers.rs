//! Ends that are not in good order.

use std::process::Command;

use super::workspace::{Stranger, Workspace, docker, finish, wait_until};

/// Long enough that a test can act in the middle.
const SLOW: &[&str] = &["--ttft", "300ms", "--itl", "300ms"];

fn signal(child: &std::process::Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether a sample of the workspace's only unit has begun.
fn measuring(w: &Workspace) -> bool {
    let runs = std::fs::read_dir(w.path().join("artifacts/runs")).into_iter().flatten();
    let journals = runs.filter_map(|r| std::fs::read_to_string(r.ok()?.path().join("journal.jsonl")).ok());
    journals.last().is_some_and(|j| j.contains("sample_started"))
}

#[test]
fn a_run_that_is_killed_is_cleaned_up_by_the_next() {
    let Some(w) = Workspace::new("kill") else { return };
    let file = w.one_cell(SLOW, "");
    let file = file.to_str().unwrap();
    let name = w.container("hf", "vllm");
    let stranger = Stranger::create(&format!("{name}-of-somebody"));
    let mut child = w.command(&["run", "--json", file]).spawn().unwrap();
    wait_until("a sample has begun", || measuring(&w));
    assert_eq!(w.containers(), std::slice::from_ref(&name));
    // A run that lives is left alone.
    assert!(!w.run(&["clean", "--json"]).expect(0).stdout.contains(&name));
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_eq!(w.containers(), std::slice::from_ref(&name));

    let dry = w.run(&["clean", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains(&format!("would remove container {name}")), "{}", dry.stdout);
    assert_eq!(w.containers(), std::slice::from_ref(&name));
    let ps = w.run(&["ps", "--json"]).expect(0).json();
    let found = ps[0].as_array().unwrap().iter().find(|c| c["name"] == name.as_str()).unwrap().clone();
    assert_eq!(found["kept_by"], "nobody");

    // Another experiment's run removes it; its own then goes on.
    let done = w.run(&["run", "--json", file]).expect(0);
    assert!(done.stdout.contains(&format!("removed what dead runs left behind: {name}")), "{}", done.stdout);
    assert_eq!(done.event("run_finished")["measured"], 1);
    assert!(stranger.is_there());
    w.assert_clean();
}

#[test]
fn clean_removes_what_a_killed_run_left() {
    let Some(w) = Workspace::new("clean") else { return };
    let file = w.one_cell(SLOW, "");
    let mut child = w.command(&["run", "--json", file.to_str().unwrap()]).spawn().unwrap();
    wait_until("a sample has begun", || measuring(&w));
    signal(&child, "-KILL");
    child.wait().unwrap();
    let stranger = Stranger::create(&format!("{}-of-somebody", w.name));
    w.run(&["clean"]).expect(0);
    assert!(stranger.is_there());
    w.assert_clean();
}

#[test]
fn an_interrupted_run_stops_its_container() {
    let Some(w) = Workspace::new("interrupt") else { return };
    let file = w.one_cell(SLOW, "");
    let child = w.command(&["run", "--json", file.to_str().unwrap()]).spawn().unwrap();
    wait_until("a sample has begun", || measuring(&w));
    signal(&child, "-INT");
    finish(child).expect(130);
    w.assert_clean();
}

#[test]
fn a_second_interrupt_does_not_wait_and_leaves_nothing() {
    let Some(w) = Workspace::new("twice") else { return };
    let file = w.one_cell(SLOW, "");
    let child = w.command(&["run", "--json", file.to_str().unwrap()]).spawn().unwrap();
    wait_until("a sample has begun", || measuring(&w));
    // A container that does not run cannot end by itself within its grace.
    docker(&["pause", &w.container("hf", "vllm")]);
    signal(&child, "-INT");
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(&child, "-INT");
    let start = std::time::Instant::now();
    finish(child).expect(130);
    assert!(start.elapsed().as_secs() < 25, "it waited for the grace");
    w.assert_clean();
}
