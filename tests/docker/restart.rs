//! A container engine that is restarted in the middle of a run.

use std::io::Write;
use std::process::Stdio;

use super::gpus::OwnEngine;
use super::image;
use super::workspace::{Workspace, finish, wait_until};

#[test]
fn a_container_engine_that_is_restarted_during_a_run() {
    let Some(w) = Workspace::new("restart") else { return };
    let Some(mut engine) = OwnEngine::start() else {
        // Around the test harness, which would swallow it.
        let mut err = std::io::stderr().lock();
        writeln!(err, "\n!!! the test of a restarted engine DID NOT RUN: it needs root, `dockerd` and `ip` !!!\n")
            .unwrap();
        return;
    };
    image::hand_over(&["-H", &engine.host()], &image::of("hf", "vllm"));
    let file = w.one_cell(&["--ttft", "50ms", "--itl", "50ms"], "");
    let text = std::fs::read_to_string(&file).unwrap().replace("attempts = 1", "attempts = 4");
    std::fs::write(&file, text).unwrap();
    let mut run = w.command(&["run", "--json", file.to_str().unwrap()]);
    let child = run.env("DOCKER_HOST", engine.host()).stderr(Stdio::inherit()).spawn().unwrap();
    wait_until("a sample has begun", || {
        let runs = std::fs::read_dir(w.path().join("artifacts/runs")).into_iter().flatten();
        let journals = runs.filter_map(|r| std::fs::read_to_string(r.ok()?.path().join("journal.jsonl")).ok());
        journals.last().is_some_and(|j| j.contains("sample_started"))
    });
    engine.restart();
    let done = finish(child).expect(0);
    // The engine died with its container engine; that is said, and the sample is taken on another one.
    let failed = done.event("attempt_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&"measure".into(), &"infrastructure".into()), "{failed}");
    assert_eq!(done.event("run_finished")["measured"], 1, "{}", done.stdout);
    assert_eq!(engine.docker(&["ps", "-aq"]), "", "nothing is left on the engine that came back");
}
