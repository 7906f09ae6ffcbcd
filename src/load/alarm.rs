//! Waking at a moment, to some tens of microseconds. The runtime's own timer counts in milliseconds and rounds up, which
//! would make every scheduled request late by half a millisecond; a timer of the kernel does not.

use std::time::Instant;

/// A timer that is set again and again. Belongs to the runtime it first rings in.
#[derive(Default)]
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: linux::State,
}

impl Alarm {
    /// Sleeps until `due`, never less.
    pub async fn at(&mut self, due: Instant) {
        #[cfg(target_os = "linux")]
        self.timer.sleep_until(due).await;
        while Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    #[derive(Default)]
    pub enum State {
        #[default]
        Unset,
        Ready(AsyncFd<OwnedFd>),
        /// The kernel gave none (descriptors are out): the caller falls back.
        Unavailable,
    }

    impl State {
        /// Returns at or after `due`, or at once when there is no timer.
        pub async fn sleep_until(&mut self, due: Instant) {
            if due <= Instant::now() {
                return;
            }
            if matches!(self, State::Unset) {
                *self = create().map_or(State::Unavailable, State::Ready);
            }
            let State::Ready(timer) = self else { return };
            if ring(timer, due).await.is_err() {
                *self = State::Unavailable;
            }
        }
    }

    fn create() -> std::io::Result<AsyncFd<OwnedFd>> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` is open and the same descriptor as long as it lives, and nothing takes it out again.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }

    async fn ring(timer: &AsyncFd<OwnedFd>, due: Instant) -> std::io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        // Zero would disarm it.
        let (tv_sec, tv_nsec) = (left.as_secs() as i64, i64::from(left.subsec_nanos()).max(1));
        let once =
            Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec, tv_nsec } };
        timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = timer.readable().await?;
            let mut rings = [0; 8];
            if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut rings)?)) {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_never_rings_early_and_can_be_set_again() {
        let mut alarm = Alarm::default();
        for micros in [0, 1, 300, 1700, 5000] {
            let due = Instant::now() + Duration::from_micros(micros);
            alarm.at(due).await;
            assert!(Instant::now() >= due);
        }
        alarm.at(Instant::now() - Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn a_sleep_that_was_given_up_does_not_end_the_next_one() {
        let mut alarm = Alarm::default();
        let soon = Instant::now() + Duration::from_millis(10);
        let _ = alarm.at(soon).now_or_never();
        std::thread::sleep(Duration::from_millis(11));
        let due = Instant::now() + Duration::from_millis(5);
        alarm.at(due).await;
        assert!(Instant::now() >= due);
    }
}
