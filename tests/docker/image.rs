//! The images that stand in for the engines' real ones, made of this build of the program by `tests/images/build.sh`.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub const BINARY: &str = env!("CARGO_BIN_EXE_llmatrix");
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/build.sh");

/// What all of them are made from: the program at `/bin/llmatrix`, and no entrypoint.
pub fn base() -> &'static str {
    static BASE: OnceLock<String> = OnceLock::new();
    BASE.get_or_init(|| format!("llmatrix-sim/base:{}", tag()))
}

/// The image that stands in for a stack's.
pub fn of(method: &str, engine: &str) -> String {
    format!("llmatrix-sim/{method}-{engine}:{}", tag())
}

/// The same binary has the same tag, and is packed once.
pub fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        let mut content = fs::read(BINARY).expect("the binary is built");
        content.extend(fs::read(BUILD).expect("the script is there"));
        let tag = blake3::hash(&content).to_hex()[..16].to_string();
        // The script's last one: when it is there, all are.
        let mut known = Command::new("docker");
        known.args(["image", "inspect", &format!("llmatrix-sim/unim-vllm:{tag}")]);
        if !known.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
            let built =
                Command::new(BUILD).args(["--binary", BINARY, "--tag", &tag]).output().expect("the script runs");
            assert!(built.status.success(), "{BUILD}: {}", String::from_utf8_lossy(&built.stderr));
            // Those of binaries that were built a while ago.
            let mut prune = Command::new("docker");
            prune.args(["image", "prune", "-af", "--filter", "label=llmatrix.test", "--filter", "until=24h"]);
            // A person's own, which have the script's tag, are left alone.
            let _ = prune.args(["--filter", "label!=llmatrix.test=test"]).output();
        }
        tag
    })
}

/// Gives an image to another engine; `engine` are arguments of `docker` that choose it.
pub fn hand_over(engine: &[&str], image: &str) {
    let mut save = Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
    let mut load = Command::new("docker");
    load.args(engine).arg("load").stdin(save.stdout.take().unwrap()).stdout(Stdio::null());
    assert!(load.status().unwrap().success(), "docker load");
    assert!(save.wait().unwrap().success(), "docker save");
}
