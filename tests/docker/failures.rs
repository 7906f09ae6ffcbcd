//! What can go wrong with a container, and what is said about it: as soon as it shows, not when a time limit is over.

use std::net::TcpListener;

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
    let file = w.one_cell(&[], "[[override]]\nset = { engine_args.no_such_flag = 1 }\n");
    let done = run(&w, &file).expect(5);
    let cause = failed_start(&done, "start", "deterministic");
    assert!(cause.contains("exit code 2") && cause.contains("does not know `--no-such-flag 1`"), "{cause}");
    let log = done.event("deployment_failed")["log_tail"].as_str().unwrap().to_string();
    assert!(log.contains("unrecognized arguments: --no-such-flag 1"), "{log}");
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
fn a_model_path_that_is_wrong() {
    let Some(w) = Workspace::new("nomodel") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { model = \"./models/none\" }\n");
    let cause = failed_start(&run(&w, &file).expect(5), "create", "deterministic");
    assert!(cause.contains("the model is `./models/none`") && cause.contains("No such file"), "{cause}");
    w.assert_clean();

    // A directory that is no model: each engine finds out by itself.
    std::fs::create_dir_all(w.path().join("models/empty")).unwrap();
    std::fs::write(w.path().join("models/empty/README"), "nothing").unwrap();
    for (method, engine) in [("hf", "vllm"), ("hf", "sglang"), ("hf", "trtllm"), ("triton", "vllm"), ("unim", "vllm")] {
        let extra = "[[override]]\nset = { model = \"./models/empty\" }\n";
        let file = w.one_cell_of(method, engine, &[], extra);
        let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
        assert!(cause.contains("a local directory needs a `config.json`"), "{method} {engine}: {cause}");
        w.assert_clean();
    }
    // One that the hub does not have.
    let file = w.one_cell(&["--crash-at-start", "model"], "");
    let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
    assert!(cause.contains("here is no such model or revision"), "{cause}");
    w.assert_clean();
}

#[test]
fn too_little_shared_memory() {
    let Some(w) = Workspace::new("shm") else { return };
    for (method, engine) in [("hf", "vllm"), ("hf", "sglang"), ("triton", "python")] {
        let file = w.one_cell_of(method, engine, &[], "[[override]]\nset = { container.shm_size = \"64MiB\" }\n");
        let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
        assert!(cause.contains("/dev/shm is too small: raise `container.shm_size`"), "{method} {engine}: {cause}");
        w.assert_clean();
    }
}

#[test]
fn too_little_memory() {
    let Some(w) = Workspace::new("memory") else { return };
    let limit = "[[override]]\nset = { container.memory = \"96MiB\" }\n";
    let file = w.one_cell(&["--host-memory", "512MiB"], limit);
    let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
    assert!(cause.contains("exit code 137") && cause.contains("memory limit, 96MiB, was reached"), "{cause}");
    assert!(cause.contains("raise `container.memory`"), "{cause}");
    w.assert_clean();
    // Enough is enough.
    let file = w.one_cell(&["--host-memory", "32MiB"], &limit.replace("96MiB", "1GiB"));
    run(&w, &file).expect(0);
    w.assert_clean();
}

#[test]
fn a_port_that_is_taken() {
    let Some(w) = Workspace::new("port") else { return };
    // Two servers of one container.
    let command = "[\"tritonserver\", \"--model-repository=/models\", \"--metrics-port=8000\"]";
    let extra = format!("[[override]]\nset = {{ container.command = {command} }}\n");
    let file = w.one_cell_of("triton", "vllm", &[], &extra);
    let cause = failed_start(&run(&w, &file).expect(5), "start", "deterministic");
    assert!(cause.contains("servers in the container are to listen on 0.0.0.0:8000"), "{cause}");
    w.assert_clean();
    // A port of the host is no conflict: the container gets a free one. Where it is taken already, so much the better.
    let _taken = TcpListener::bind("127.0.0.1:8000");
    run(&w, &w.one_cell(&[], "")).expect(0);
    w.assert_clean();
}

#[test]
fn a_nim_that_lacks_what_it_needs() {
    let Some(w) = Workspace::new("nim") else { return };
    let set = |set: &str| format!("[[override]]\nset = {{ {set} }}\n");
    let failed = |file: &std::path::Path| failed_start(&run(&w, file).expect(5), "start", "deterministic");
    let profile = set("env.NIM_MODEL_PROFILE = \"vllm-bf16-tp1\"");
    let cause = failed(&w.one_cell_of("nim", "vllm", &[], &profile));
    assert!(cause.contains("no profile for these GPUs"), "{cause}");
    // The first generation gets its model from NVIDIA, and only with a key.
    let image = super::image::of("unim", "vllm");
    let first = format!("{}:1.15-{}", image.split(':').next().unwrap(), w.name);
    docker(&["tag", &image, &first]);
    let file = w.one_cell_of("unim", "vllm", &["--nim-generation", "1"], "");
    let text = std::fs::read_to_string(&file).unwrap().replace(&image, &first);
    std::fs::write(&file, text).unwrap();
    let cause = failed(&file);
    assert!(cause.contains("set NGC_API_KEY in the environment"), "{cause}");
    w.assert_clean();
    let mut command = w.command(&["run", "--json", "--retry-failed", file.to_str().unwrap()]);
    command.env("NGC_API_KEY", "a-key");
    super::workspace::finish(command.spawn().unwrap()).expect(0);
    docker(&["image", "rm", &first]);
    w.assert_clean();
}

#[test]
fn a_gpu_where_there_is_none() {
    let Some(w) = Workspace::new("gpu") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { gpus = 64 }\n");
    let done = run(&w, &file).expect(7);
    let cause = failed_start(&done, "create", "infrastructure");
    assert!(cause.contains("it needs 64 GPUs, and this host has "), "{cause}");
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
    assert!(cause.contains("is not ready after 3s: "), "{cause}");
    assert!(cause.contains("/health") && cause.contains("onnection refused"), "what was seen last: {cause}");
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
    let file = w.one_cell(&["--crash-after", "10"], "");
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
fn a_variable_that_is_not_set() {
    let Some(w) = Workspace::new("novariable") else { return };
    let file = w.one_cell(&[], "[[override]]\nset = { env.API_KEY = \"${NOT_SET_ANYWHERE}\" }\n");
    let cause = failed_start(&run(&w, &file).expect(5), "create", "deterministic");
    assert!(cause.contains("`env.API_KEY` takes `${NOT_SET_ANYWHERE}`"), "{cause}");
    w.assert_clean();
}
