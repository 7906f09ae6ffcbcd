//! Whose a container is: the process that made it, named so that any later process on any host can tell whether it lives.

use std::collections::HashMap;
use std::fs;

use serde::{Deserialize, Serialize};

use super::labels;

/// A process, for ever: ids are used again, so its start and its boot go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub pid: u32,
    /// Clock ticks from the boot to the start of the process; 0 where the system does not tell.
    pub started: u64,
    pub boot_id: String,
    pub host: String,
    /// Ids in another namespace mean other processes.
    pub pid_namespace: String,
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    Dead,
    /// On another host, or in another container on this one.
    Unknown,
}

impl Owner {
    /// This process.
    pub fn this() -> Owner {
        let pid = std::process::id();
        Owner {
            pid,
            started: started(pid).unwrap_or(0),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            host: line("/proc/sys/kernel/hostname"),
            pid_namespace: fs::read_link("/proc/self/ns/pid").map(|p| p.display().to_string()).unwrap_or_default(),
        }
    }

    /// Whether the owner lives, as far as `here` (this process) can tell.
    pub fn life(&self, here: &Owner) -> Life {
        if self.boot_id != here.boot_id {
            // A boot of this host that is over, or another host.
            return if self.host == here.host { Life::Dead } else { Life::Unknown };
        }
        if self.pid_namespace != here.pid_namespace {
            return Life::Unknown;
        }
        let lives = match (started(self.pid), self.started) {
            (Some(now), then) => then == 0 || now == then,
            (None, 0) => rustix::process::Pid::from_raw(self.pid.cast_signed())
                .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)),
            (None, _) => false,
        };
        if lives { Life::Alive } else { Life::Dead }
    }

    pub fn write(&self, labels: &mut HashMap<String, String>) {
        let Owner { pid, started, boot_id, host, pid_namespace } = self;
        labels.insert(labels::OWNER_PID.into(), pid.to_string());
        labels.insert(labels::OWNER_STARTED.into(), started.to_string());
        labels.insert(labels::BOOT_ID.into(), boot_id.clone());
        labels.insert(labels::HOST.into(), host.clone());
        labels.insert(labels::PID_NAMESPACE.into(), pid_namespace.clone());
    }

    pub fn read(labels: &HashMap<String, String>) -> Option<Owner> {
        let text = |key: &str| labels.get(key).cloned();
        Some(Owner {
            pid: text(labels::OWNER_PID)?.parse().ok()?,
            started: text(labels::OWNER_STARTED)?.parse().ok()?,
            boot_id: text(labels::BOOT_ID)?,
            host: text(labels::HOST)?,
            pid_namespace: text(labels::PID_NAMESPACE)?,
        })
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default()
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 may hold spaces and parentheses, so fields count from its end. A
/// process that has ended and is not yet reaped does not count.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_its_like_do_not() {
        let here = Owner::this();
        assert_eq!(here.life(&here), Life::Alive);
        let life = |change: &dyn Fn(&mut Owner)| {
            let mut other = here.clone();
            change(&mut other);
            other.life(&here)
        };
        // The same id, given to another process since.
        assert_eq!(life(&|o| o.started += 1), Life::Dead);
        // Above the largest id that Linux gives.
        assert_eq!(life(&|o| o.pid = 5_000_000), Life::Dead);
        assert_eq!(life(&|o| o.boot_id = "before".into()), Life::Dead);
        assert_eq!(life(&|o| (o.boot_id, o.host) = ("x".into(), "elsewhere".into())), Life::Unknown);
        assert_eq!(life(&|o| o.pid_namespace = "pid:[1]".into()), Life::Unknown);
    }

    #[test]
    fn labels_name_the_owner() {
        let mut written = HashMap::new();
        Owner::this().write(&mut written);
        assert_eq!(Owner::read(&written), Some(Owner::this()));
        written.remove(labels::BOOT_ID);
        assert_eq!(Owner::read(&written), None);
    }
}
