//! What the kernel's scheduler does with a load thread: who goes first on a core that others want as well, and how long the
//! thread had to wait for one. A stamp is late by such a wait, and nothing else that the thread can look at shows it.

#[cfg(target_os = "linux")]
use std::fs::File;

/// Raises the priority of the calling thread as far as the kernel lets it: to the highest for root, else not at all. A load
/// thread that is woken then runs at once, also where containers keep every core busy. Only the thread that calls, and
/// those that it starts.
pub fn go_first() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
    }
}

/// Lowers the priority of the calling thread: where cores are few, whoever reads tokens goes first.
pub fn yield_to_others() {
    #[cfg(target_os = "linux")]
    {
        // A thread has a priority of its own on Linux. Where it cannot be lowered, nothing is lost.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
    }
}

/// How long the thread that made it has been ready to run and did not: the second figure of the kernel's `schedstat`
/// (Documentation/scheduler/sched-stats.rst). Used on that thread only.
#[derive(Debug)]
pub struct RunDelay {
    #[cfg(target_os = "linux")]
    file: Option<File>,
    last_ns: u64,
}

impl RunDelay {
    /// Where the kernel does not tell, the delay is always 0.
    pub fn of_this_thread() -> RunDelay {
        #[cfg(target_os = "linux")]
        {
            let mut delay = RunDelay { file: File::open("/proc/thread-self/schedstat").ok(), last_ns: 0 };
            delay.grown();
            delay
        }
        #[cfg(not(target_os = "linux"))]
        RunDelay { last_ns: 0 }
    }

    /// Nanoseconds of delay since the last call.
    pub fn grown(&mut self) -> u64 {
        let now = self.read().unwrap_or(self.last_ns);
        now.saturating_sub(std::mem::replace(&mut self.last_ns, now))
    }

    #[cfg(target_os = "linux")]
    fn read(&self) -> Option<u64> {
        use std::os::unix::fs::FileExt;
        let mut text = [0; 64];
        let n = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        second(&text[..n])
    }

    #[cfg(not(target_os = "linux"))]
    fn read(&self) -> Option<u64> {
        None
    }
}

/// The second number of a line.
#[cfg(any(target_os = "linux", test))]
fn second(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_figure_is_the_delay() {
        assert_eq!(second(b"118 87628 1\n"), Some(87628));
        assert_eq!((second(b""), second(b"118"), second(b"1 x 1")), (None, None, None));
    }

    /// Two threads that both want one core: each waits while the other runs.
    #[cfg(target_os = "linux")]
    #[test]
    fn waiting_for_a_core_is_seen() {
        use std::time::{Duration, Instant};
        if second(&std::fs::read("/proc/thread-self/schedstat").unwrap_or_default()).is_none() {
            eprintln!("NOT RUN: this kernel does not tell run delays");
            return;
        }
        let delays = std::thread::scope(|scope| {
            let busy = || {
                let mut one = rustix::thread::CpuSet::new();
                one.set(0);
                let _ = rustix::thread::sched_setaffinity(None, &one);
                let mut delay = RunDelay::of_this_thread();
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(200) {
                    std::hint::spin_loop();
                }
                delay.grown()
            };
            let threads = [scope.spawn(busy), scope.spawn(busy)];
            threads.map(|t| t.join().unwrap())
        });
        assert!(delays.iter().sum::<u64>() > 10_000_000, "{delays:?}");
    }
}
