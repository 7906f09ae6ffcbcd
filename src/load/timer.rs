//! Waking a poll at a moment, to some tens of microseconds. The poll's own timeout counts in milliseconds and rounds up,
//! which would make every scheduled request late by half a millisecond; a timer of the kernel does not.

use std::time::{Duration, Instant};

use mio::{Registry, Token};

/// A timer that makes a poll return. Where there is none (another system, descriptors are out) [`Timer::sleep`] gives
/// the time that the poll has to wait itself.
pub struct Timer {
    #[cfg(target_os = "linux")]
    fd: Option<std::os::fd::OwnedFd>,
    set_to: Option<Instant>,
}

impl Timer {
    pub fn new(registry: &Registry, token: Token) -> Timer {
        let _ = (registry, token);
        Timer {
            #[cfg(target_os = "linux")]
            fd: linux::create(registry, token).ok(),
            set_to: None,
        }
    }

    /// The poll returns at `due`, or does at once where that is over. Gives how long the poll must wait at most for that;
    /// `None` where the timer sees to it.
    pub fn sleep(&mut self, due: Instant) -> Option<Duration> {
        #[cfg(target_os = "linux")]
        if self.set_to == Some(due) {
            return None;
        }
        let left = due.saturating_duration_since(Instant::now());
        #[cfg(target_os = "linux")]
        if let Some(fd) = &self.fd
            && !left.is_zero()
        {
            if linux::set(fd, left).is_ok() {
                self.set_to = Some(due);
                return None;
            }
            self.fd = None;
        }
        self.set_to = None;
        Some(left)
    }

    /// The poll returned at the moment that was set, or for the want of anything else.
    pub fn rang(&mut self) {
        self.set_to = None;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Result;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };

    /// Nobody reads it: the poll is edge-triggered, and each ring is an edge.
    pub fn create(registry: &Registry, token: Token) -> Result<OwnedFd> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(fd)
    }

    pub fn set(fd: &OwnedFd, left: Duration) -> Result<()> {
        // Zero would disarm it.
        let (tv_sec, tv_nsec) = (left.as_secs() as i64, i64::from(left.subsec_nanos()).max(1));
        let once =
            Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec, tv_nsec } };
        timerfd_settime(fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn a_poll_wakes_at_the_moment_and_not_before() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut timer = Timer::new(poll.registry(), Token(7));
        for micros in [0, 1, 300, 1700, 5000] {
            let due = Instant::now() + Duration::from_micros(micros);
            loop {
                if Instant::now() >= due {
                    break;
                }
                let timeout = timer.sleep(due);
                poll.poll(&mut events, timeout).unwrap();
                timer.rang();
            }
            assert!(Instant::now() >= due);
        }
    }

    #[test]
    fn a_later_moment_replaces_an_earlier_one() {
        let poll = Poll::new().unwrap();
        let mut timer = Timer::new(poll.registry(), Token(0));
        let now = Instant::now();
        assert_eq!(timer.sleep(now), Some(Duration::ZERO));
        timer.sleep(now + Duration::from_millis(1));
        timer.sleep(now + Duration::from_secs(9));
        assert_eq!(timer.set_to, cfg!(target_os = "linux").then_some(now + Duration::from_secs(9)));
    }
}
