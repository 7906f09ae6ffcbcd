//! Child processes: pinned to a core, and what they used.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::thread::{CpuSet, sched_setaffinity};

/// What a process did.
pub struct Done {
    pub stdout: String,
    /// User and system time, seconds.
    pub cpu_s: f64,
    pub peak_mib: f64,
    /// Monotonic clock just before the process was made.
    pub spawned_ns: u64,
}

/// Makes a process that can only run on `core`.
pub fn spawn(core: usize, command: &mut Command) -> Child {
    std::thread::scope(|scope| {
        // A thread's mask goes to the processes it makes.
        let pinned = scope.spawn(|| {
            let mut mask = CpuSet::new();
            mask.set(core);
            sched_setaffinity(None, &mask).expect("this benchmark needs cores 0 and 1");
            command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
        });
        pinned.join().expect("the process starts")
    })
}

/// Runs a process on core 1 to its end.
pub fn run(command: &mut Command) -> Done {
    let spawned_ns = llmatrix::load::null_server::monotonic_ns();
    let mut child = spawn(1, command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut stdout = String::new();
    child.stdout.take().expect("stdout is a pipe").read_to_string(&mut stdout).expect("its output is text");
    let usage = reap(child);
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Done {
        stdout,
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
        spawned_ns,
    }
}

/// Waits for a child and gives what it used, which the standard library does not tell.
fn reap(child: Child) -> libc::rusage {
    let mut status = 0;
    // SAFETY: a `rusage` is plain numbers, for which zeroes are values; both pointers are to live variables.
    let (usage, pid) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage);
        (usage, pid)
    };
    assert_eq!(pid, child.id() as libc::pid_t, "the child can be waited for");
    usage
}
