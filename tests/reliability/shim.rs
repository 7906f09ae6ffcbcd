//! The shim of `shim.c`: built once with the C compiler that links every Rust program, and put before a command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What goes wrong, and when: changes of the tree are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process is killed before a change; a write is done by half.
    Kill { at: u64 },
    /// So many changes fail with an error number.
    Fail { at: u64, errno: i32, count: u64 },
    /// From a change on, the wall clock is off by so many seconds.
    Clock { at: u64, seconds: i64 },
}

/// Puts the shim before a command; changes below `root` count.
pub fn before(command: &mut Command, root: &Path) {
    command.env("LD_PRELOAD", library()).env("SHIM_ROOT", root);
}

/// Has every change written down.
pub fn with_log(command: &mut Command, log: &Path) {
    command.env("SHIM_LOG", log);
}

/// Has something go wrong.
pub fn with_trouble(command: &mut Command, trouble: Trouble) {
    match trouble {
        Trouble::Kill { at } => command.env("SHIM_KILL", at.to_string()),
        Trouble::Fail { at, errno, count } => command.env("SHIM_FAIL", format!("{at}:{errno}:{count}")),
        Trouble::Clock { at, seconds } => command.env("SHIM_CLOCK", format!("{at}:{seconds}")),
    };
}

fn library() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reliability/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).arg("-ldl");
        assert!(cc.status().expect("`cc`, which links Rust programs too").success(), "the shim does not compile");
        (dir, path)
    });
    path
}
