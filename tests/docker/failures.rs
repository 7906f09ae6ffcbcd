//! What can go wrong with a container, and what is said about it.

use super::workspace::{Done, Stranger, Workspace, docker, wait_until};

fn run(w: &Workspace, file: &std::path::Path) -> Done {
    w.run(&["run", "--json", file.to_str().unwrap()])
}

/// Asserts how the only start failed; gives the cause.
fn failed_start(done: &Done, stage: &str, class: &str) -> String {
    let failed = done.event("deployment_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&stage.into(), &class.into()), "{failed}");
    failed["cause"].as_str().unwrap().to_string()
}

#[test]
fn an_image_that_cannot_be_had() {
    let Some(w) = Workspace::new("noimage") else { return };
    // Nothing listens there.
    let file = w.one_cell(&[], "[[override]]\nset = { image = \"127.0.0.1:1/nobody/nothing:1\" }\n");
    let done = run(&w, &file).expect(5);
    let cause = failed_start(&done, "pull", "infrastructure");
    assert!(cause.contains("cannot pull the image 127.0.0.1:1/nobody/nothing:1"), "{cause}");
    w.assert_clean();
    let done = w.run(&["run", "--json", "--offline", file.to_str().unwrap()]).expect(5);
    let cause = failed_start(&done, "pull", "infrastructure");
    assert!(cause.contains("this run is offline"), "{cause}");
}

#[test]
fn a_flag_that_the_engine_does_not_know() {
    let Some(w) = Workspace::new("badflag") else { return };
    let file = w.one_cell(&["--no-such-flag", "1"], "");
    let done = run(&w, &file).expect(5);
    let cause = failed_start(&done, "start", "deterministic");
    assert!(cause.contains("exit code 2") && cause.contains("check `engine_args`"), "{cause}");
    let log = done.event("deployment_failed")["log_tail"].as_str().unwrap().to_string();
    assert!(log.contains("no_such_flag"), "{log}");
    w.assert_clean();
    // It would only fail again.
    let again = run(&w, &file).expect(5);
    assert!(again.json().iter().all(|e| e["event"] != "deployment_starting"), "{}", again.stdout);
}

#[test]
fn a_program_that_the_image_does_not_have() {
    let Some(w) = Workspace::new("noprogram") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { container.entrypoint = [\"/usr/bin/vllm\"] }\n");
    let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
    assert!(cause.contains("container.entrypoint"), "{cause}");
    w.assert_clean();
}

#[test]
fn a_model_that_does_not_fit() {
    let Some(w) = Workspace::new("oom") else { return };
    let file = w.one_cell(&["--crash-at-start", "oom"], "");
    let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
    assert!(cause.contains("exit code 1") && cause.contains("raise `tensor_parallel`"), "{cause}");
    assert!(cause.contains("CUDA out of memory"), "{cause}");
    w.assert_clean();
}

#[test]
fn an_engine_that_is_never_ready() {
    let Some(w) = Workspace::new("never") else { return };
    let file = w.one_cell(&["--never-ready"], "");
    let done = w.run(&["run", "--json", "--ready-timeout", "3s", file.to_str().unwrap()]).expect(5);
    let cause = failed_start(&done, "ready", "infrastructure");
    assert!(cause.contains("is not ready after 3s"), "{cause}");
    let log = done.event("deployment_failed")["log_tail"].as_str().expect("the log goes with it").to_string();
    assert!(!log.trim().is_empty());
    w.assert_clean();
}

#[test]
fn a_name_that_a_stranger_has() {
    let Some(w) = Workspace::new("stranger") else { return };
    let stranger = Stranger::create(&w.container("hf", "vllm"));
    let file = w.one_cell(&[], "");
    let done = run(&w, &file).expect(5);
    let cause = failed_start(&done, "create", "infrastructure");
    assert!(cause.contains("a container that is not ours is called"), "{cause}");
    assert!(stranger.is_there());
    w.assert_clean();
    drop(stranger);
    run(&w, &file).expect(0);
}

#[test]
fn an_engine_that_dies_while_it_is_measured() {
    let Some(w) = Workspace::new("crash") else { return };
    // The probe and the warm-up are requests too.
    let file = w.one_cell(&["--crash-after", "8"], "");
    let done = run(&w, &file).expect(5);
    let failed = done.event("attempt_failed");
    assert_eq!((&failed["stage"], &failed["class"]), (&"measure".into(), &"infrastructure".into()), "{failed}");
    let cause = failed["cause"].as_str().unwrap();
    assert!(cause.contains("exit code 1"), "{cause}");
    w.assert_clean();
}

#[test]
fn a_container_that_somebody_kills_while_it_is_measured() {
    let Some(w) = Workspace::new("killed") else { return };
    let file = w.one_cell(&["--ttft", "200ms", "--itl", "200ms"], "");
    let name = w.container("hf", "vllm");
    let child = w.command(&["run", "--json", file.to_str().unwrap()]).spawn().unwrap();
    wait_until("the container runs", || docker(&["ps", "--format", "{{.Names}}"]).lines().any(|n| n == name));
    // Readiness takes a moment; the kill is to hit the measurement, or at the earliest the start.
    std::thread::sleep(std::time::Duration::from_secs(3));
    docker(&["kill", &name]);
    let done = super::workspace::finish(child).expect(5);
    assert!(done.stdout.contains("exit code 137 (SIGKILL)"), "{}", done.stdout);
    w.assert_clean();
}

#[test]
fn hardware_that_is_not_here() {
    let Some(w) = Workspace::new("nogpu") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { hardware = \"h100-sxm-80gb\" }\n");
    let done = run(&w, &file).expect(7);
    assert!(done.stdout.contains("it is planned for h100-sxm-80gb"), "{}", done.stdout);
    w.assert_clean();
}

#[test]
fn no_container_engine() {
    let Some(w) = Workspace::new("noengine") else { return };
    let file = w.one_cell(&[], "");
    let file = file.to_str().unwrap();
    let mut command = w.command(&["run", "--json", file]);
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let done = super::workspace::finish(command.spawn().unwrap()).expect(7);
    let cause = failed_start(&done, "create", "infrastructure");
    assert!(cause.contains("no container engine answers at unix:///nowhere/docker.sock"), "{cause}");
    // What needs no container does not ask for one.
    for args in [&["plan", file][..], &["validate", file], &["run", "--simulate", file], &["report"]] {
        let mut command = w.command(args);
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        super::workspace::finish(command.spawn().unwrap()).expect(0);
    }
}

#[test]
fn a_variable_that_is_not_set() {
    let Some(w) = Workspace::new("novariable") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { env.API_KEY = \"${NOT_SET_ANYWHERE}\" }\n");
    let cause = failed_start(&run(&w, &file).expect(5), "create", "deterministic");
    assert!(cause.contains("`env.API_KEY` takes `${NOT_SET_ANYWHERE}`"), "{cause}");
    w.assert_clean();
}
