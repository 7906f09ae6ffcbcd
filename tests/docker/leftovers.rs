//! Ends that are not in good order.

use std::process::Command;

use super::workspace::{Stranger, Workspace, docker, finish, wait_until};

/// Long enough that a test can act in the middle.
const SLOW: &[&str] = &["--ttft", "300ms", "--itl", "300ms"];

fn signal(child: &std::process::Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether the journal of the workspace's last run has this in it.
fn told(w: &Workspace, what: &str) -> bool {
    let runs = std::fs::read_dir(w.path().join("artifacts/runs")).into_iter().flatten();
    // Their names are times.
    let last = runs.filter_map(|r| Some(r.ok()?.path())).max();
    last.and_then(|run| std::fs::read_to_string(run.join("journal.jsonl")).ok()).is_some_and(|j| j.contains(what))
}

/// Whether a sample of the workspace's only unit has begun.
fn measuring(w: &Workspace) -> bool {
    told(w, "sample_started")
}

/// A run that is killed once something holds.
fn killed(w: &Workspace, file: &str, when: &str, holds: impl FnMut() -> bool) {
    let mut child = w.command(&["run", "--json", file]).spawn().unwrap();
    wait_until(when, holds);
    signal(&child, "-KILL");
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_while_it_starts_leaves_nothing_for_good() {
    let Some(w) = Workspace::new("start") else { return };
    let stranger = Stranger::create(&format!("{}-of-somebody", w.name));
    let name = w.container("hf", "vllm");
    // Loading takes longer than the test: the start is cut off wherever it is.
    let slow = w.one_cell(&["--load-time", "10m"], "");
    let slow = slow.to_str().unwrap();
    // As soon as there is a container, started or not.
    killed(&w, slow, "the container is there", || w.containers().contains(&name));
    w.run(&["clean"]).expect(0);
    w.assert_clean();
    // While its log is followed and its health path asked.
    killed(&w, slow, "the engine loads", || told(&w, "\"stage\":\"start\"") && w.containers().contains(&name));
    assert_eq!(w.containers(), std::slice::from_ref(&name));
    let file = w.one_cell(&[], "");
    let done = w.run(&["run", "--json", file.to_str().unwrap()]).expect(0);
    assert!(done.stdout.contains(&format!("removed what dead runs left behind: {name}")), "{}", done.stdout);
    assert!(stranger.is_there());
    w.assert_clean();
}

#[test]
fn a_run_that_is_killed_is_cleaned_up_by_the_next() {
    let Some(w) = Workspace::new("kill") else { return };
    let file = w.one_cell(SLOW, "sanity = \"off\"\n");
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
    let file = w.one_cell(SLOW, "sanity = \"off\"\n");
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
    let file = w.one_cell(SLOW, "sanity = \"off\"\n");
    let child = w.command(&["run", "--json", file.to_str().unwrap()]).spawn().unwrap();
    wait_until("a sample has begun", || measuring(&w));
    signal(&child, "-INT");
    finish(child).expect(130);
    w.assert_clean();
}

#[test]
fn a_second_interrupt_does_not_wait_and_leaves_nothing() {
    let Some(w) = Workspace::new("twice") else { return };
    let file = w.one_cell(SLOW, "sanity = \"off\"\n");
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
