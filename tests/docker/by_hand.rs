//! One deployment by hand: start, status, logs, ps, stop.

use super::image;
use super::workspace::{Workspace, docker, finish};

fn start_arguments(w: &Workspace, name: Option<&str>) -> Vec<String> {
    let mut args: Vec<String> =
        ["start", "--json", "--method", "hf", "--engine", "vllm", "--model"].map(String::from).into();
    args.push(w.model());
    for set in
        [format!("image={}", image::of("hf", "vllm")), "gpus=0".to_string(), "env.EXTRA=${MY_SECRET}".to_string()]
    {
        args.extend(["--set".to_string(), set]);
    }
    if let Some(name) = name {
        args.extend(["--name".to_string(), name.to_string()]);
    }
    args
}

#[test]
fn a_container_is_started_shown_and_stopped_by_hand() {
    let Some(w) = Workspace::new("hand") else { return };
    let args = start_arguments(&w, None);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = w.command(&args);
    command.env("HF_TOKEN", "hf_not_to_be_seen").env("MY_SECRET", "very_much_hidden");
    let started = finish(command.spawn().unwrap()).expect(0);
    let name = w.container("hf", "vllm");
    let _remove = Removal(name.clone());
    let left = &started.json()[0];
    assert_eq!(left["container"], name.as_str());
    let url = left["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");

    // The engine has the secrets, and nothing that is printed does.
    let environment = docker(&["inspect", "--format", "{{.Config.Env}}", &name]);
    assert!(environment.contains("HF_TOKEN=hf_not_to_be_seen") && environment.contains("EXTRA=very_much_hidden"));
    let mut printed = started.stdout.clone() + &started.stderr;
    let status = w.run(&["status", "--json", "--container-name", &name]).expect(0);
    let shown = &status.json()[0];
    assert_eq!((&shown["state"], &shown["kept_by"]), (&"running".into(), &"hand".into()), "{shown}");
    assert_eq!(shown["url"], url);
    printed += &status.stdout;
    for args in [&["status", "--container-name", &name][..], &["ps"], &["ps", "--json"], &["logs", &name]] {
        let done = w.run(args).expect(0);
        assert!(!done.stdout.trim().is_empty(), "{args:?}");
        printed += &done.stdout;
    }
    for secret in ["hf_not_to_be_seen", "very_much_hidden"] {
        assert!(!printed.contains(secret), "{printed}");
    }

    // It is measured like any server.
    let measured = ["measure", "--json", "--endpoint", url, "--engine", "vllm", "--requests", "5"];
    w.run(&measured).expect(0);
    // Nobody but a person stops it, and its name is taken for good.
    assert!(!w.run(&["clean", "--json"]).expect(0).stdout.contains(&name));
    let file = w.one_cell(&[], "");
    let run = w.run(&["run", "--json", file.to_str().unwrap()]).expect(0);
    assert!(run.stdout.contains(&format!("{name}-")), "the run's own has the suffix: {}", run.stdout);
    assert!(docker(&["ps", "--format", "{{.Names}}"]).lines().any(|n| n == name));

    w.run(&["stop", &name]).expect(0);
    w.run(&["status", "--container-name", &name]).expect(4);
    assert!(!docker(&["ps", "-a", "--format", "{{.Names}}"]).lines().any(|n| n == name));
    w.assert_clean();
}

#[test]
fn a_name_can_be_chosen_and_a_failed_start_leaves_nothing() {
    let Some(w) = Workspace::new("named") else { return };
    let name = format!("trial-{}", w.name);
    let mut args = start_arguments(&w, Some(&name));
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = w.command(&words);
    command.env("MY_SECRET", "x");
    let _remove = Removal(name.clone());
    let started = finish(command.spawn().unwrap()).expect(0);
    assert_eq!(started.json()[0]["container"], name.as_str());
    w.run(&["stop", &name]).expect(0);

    args.extend(["--set".to_string(), "env.LLMATRIX_SIM=--crash-at-start gated".to_string()]);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = w.command(&words);
    command.env("MY_SECRET", "x");
    let failed = finish(command.spawn().unwrap()).expect(7);
    assert!(failed.stderr.contains("licence"), "{}", failed.stderr);
    w.assert_clean();
}

#[test]
fn strangers_are_not_ours_to_show_or_stop() {
    let Some(w) = Workspace::new("notours") else { return };
    let stranger = super::workspace::Stranger::create(&format!("{}-stranger", w.name));
    for command in [&["stop", &stranger.0][..], &["logs", &stranger.0], &["status", "--container-name", &stranger.0]] {
        let done = w.run(command).expect(2);
        assert!(done.stderr.contains("is not ours"), "{}", done.stderr);
    }
    assert!(stranger.is_there());
    w.run(&["stop", "there-is-no-such-container"]).expect(4);
}

/// Removes a container when the test ends, however it ends.
struct Removal(String);

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}
