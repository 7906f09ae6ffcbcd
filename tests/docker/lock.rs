//! Images in the lock file.

use super::image;
use super::workspace::{Workspace, docker};

#[test]
fn a_local_image_is_locked_by_its_id_and_held_to_it() {
    let Some(w) = Workspace::new("lock") else { return };
    let file = w.one_cell(&[], "");
    let file = file.to_str().unwrap();
    // The model is on no hub that a test can reach, so the lock is not complete.
    let locked = w.run(&["lock", "--offline", file]).expect(7);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image::of("hf", "vllm")]);
    let id = id.trim();
    assert!(
        locked.stdout.contains(&format!("+ image {} {id}", image::of("hf", "vllm"))),
        "{}{}",
        locked.stdout,
        locked.stderr
    );
    let path = w.path().join(format!("{}.lock", w.name));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(id), "{text}");
    w.run(&["run", "--json", file]).expect(0);

    // Another image than the locked one is not measured under its name.
    let other = format!("sha256:{}", "0".repeat(64));
    std::fs::write(&path, text.replace(id, &other)).unwrap();
    let done = w.run(&["run", "--json", "--offline", file]).expect(5);
    let cause = done.event("deployment_failed")["cause"].as_str().unwrap().to_string();
    assert!(cause.contains("identity_mismatch") && cause.contains(id) && cause.contains("lock --update"), "{cause}");
    w.assert_clean();
    let moved = w.run(&["lock", "--offline", "--update", file]).expect(7);
    assert!(moved.stdout.contains(&format!("{other} → {id}")), "{}", moved.stdout);
}
