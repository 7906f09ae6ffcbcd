//! Waits until an instant to within the kernel's own precision. The runtime's timer counts milliseconds and rounds up, too
//! coarse where a token's time is the truth that clients are compared with; a timerfd has no such grain.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
pub struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    /// Needs a running runtime.
    pub fn new() -> io::Result<Timer> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: `OwnedFd` gives the one descriptor that it owns, and keeps it open, as long as it lives.
        Ok(Timer(unsafe { tokio::io::unix::AsyncFd::register(fd) }?))
    }

    /// Returns at `deadline`, never before it. Dropping the future is fine.
    pub async fn wait_until(&self, deadline: Instant) {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            // Setting the time also forgets an expiry that nobody read.
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec).expect("a relative time is valid");
            let mut guard = self.0.readable().await.expect("the runtime outlives its tasks");
            let mut count = [0u8; 8];
            // Read or not, there is no further expiry before the time is set again.
            let _ = rustix::io::read(&self.0, &mut count);
            guard.clear_ready();
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub fn new() -> io::Result<Timer> {
        Ok(Timer)
    }

    /// Returns at `deadline` or up to a millisecond after it.
    pub async fn wait_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn it_never_returns_early_and_can_be_dropped_and_set_again() {
        let timer = Timer::new().unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(tokio::time::timeout(Duration::from_millis(2), timer.wait_until(far)).await.is_err());
        for micros in [0, 50, 300, 1500] {
            let deadline = Instant::now() + Duration::from_micros(micros);
            timer.wait_until(deadline).await;
            assert!(Instant::now() >= deadline);
        }
    }
}
