//! An image from nothing: this build of the program and the shared libraries it loads.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub const BINARY: &str = env!("CARGO_BIN_EXE_llmatrix");

/// Where the image's tag comes from: the same binary has the same tag, and is imported once.
pub fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        let digest = blake3::hash(&fs::read(BINARY).expect("the binary is built")).to_hex();
        let tag = format!("llmatrix-sim:{}", &digest[..16]);
        let mut known = Command::new("docker");
        known.args(["image", "inspect", &tag]).stdout(Stdio::null()).stderr(Stdio::null());
        if !known.status().is_ok_and(|s| s.success()) {
            import(&[], &tag);
            // Those of binaries that were built a while ago.
            let old = ["image", "prune", "-af", "--filter", "label=llmatrix.test", "--filter", "until=24h"];
            let _ = Command::new("docker").args(old).output();
        }
        tag
    })
}

/// Imports the image. `engine` are arguments of `docker` that choose another engine.
pub fn import(engine: &[&str], tag: &str) {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // Some engines make their socket files here.
    fs::create_dir(root.join("tmp")).unwrap();
    fs::copy(BINARY, root.join("llmatrix")).unwrap();
    // Symbols make it four times as large; without the tool it is only slower.
    let _ = Command::new("strip").arg(root.join("llmatrix")).stderr(Stdio::null()).status();
    for library in libraries() {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&library, target).unwrap();
    }
    let mut tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let mut docker = Command::new("docker");
    docker
        .args(engine)
        .args(["import", "-c", "LABEL llmatrix.test=1", "-", tag])
        .stdin(tar.stdout.take().unwrap())
        .stdout(Stdio::null());
    assert!(docker.status().unwrap().success(), "docker import");
    assert!(tar.wait().unwrap().success());
}

/// The paths that the dynamic linker would load, itself included.
fn libraries() -> BTreeSet<String> {
    let output = Command::new("ldd").arg(BINARY).output().expect("ldd");
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/') && Path::new(word).exists());
    paths.map(str::to_string).collect()
}
