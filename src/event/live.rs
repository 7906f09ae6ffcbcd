//! What is going on right now, between two events: read by displays a few times a second, written by the executor.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::clock::Stopwatch;
use crate::digest::UnitId;
use crate::stats::Progress;

/// A sample that is being measured.
#[derive(Clone, Debug)]
pub struct LiveUnit {
    pub unit_id: UnitId,
    /// The same name as in its `sample_started` event.
    pub name: Arc<str>,
    pub sample: u32,
    /// Moved by the load generator; read it at any time.
    pub progress: Arc<Progress>,
    pub since: Stopwatch,
}

/// The samples in flight. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct LiveUnits(Arc<Mutex<Vec<LiveUnit>>>);

/// Takes its unit off the list when dropped.
#[derive(Debug)]
pub struct LiveGuard {
    list: LiveUnits,
    progress: Arc<Progress>,
}

impl LiveUnits {
    /// Puts a unit on the list for as long as the guard lives.
    pub fn enter(&self, unit: LiveUnit) -> LiveGuard {
        let progress = unit.progress.clone();
        self.list().push(unit);
        LiveGuard { list: self.clone(), progress }
    }

    /// The samples in flight, oldest first.
    pub fn snapshot(&self) -> Vec<LiveUnit> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<LiveUnit>> {
        // A list of plain values is whole even if a holder panicked.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.list.list().retain(|unit| !Arc::ptr_eq(&unit.progress, &self.progress));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn a_unit_is_listed_while_its_guard_lives() {
        let live = LiveUnits::default();
        let unit = |name: &str| LiveUnit {
            unit_id: UnitId::of(&Value::str(name)),
            name: name.into(),
            sample: 1,
            progress: Arc::default(),
            since: Stopwatch::start(),
        };
        let a = live.enter(unit("a"));
        let b = live.enter(unit("b"));
        drop(a);
        assert_eq!(live.snapshot().iter().map(|u| &*u.name).collect::<Vec<_>>(), ["b"]);
        drop(b);
        assert!(live.snapshot().is_empty());
    }
}
