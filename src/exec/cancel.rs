//! How a run is told to end early: by a person, by its budget, by its first failure.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Interrupts. The first ends the run in good order: the sample in flight is given up, engines are stopped, files are
/// closed. The second stops waiting for engines.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Cancel {
    /// One more interrupt.
    pub fn interrupt(&self) {
        if self.soft.is_cancelled() {
            self.hard.cancel();
        }
        self.soft.cancel();
    }

    pub fn is_interrupted(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves at the first interrupt.
    pub async fn interrupted(&self) {
        self.soft.cancelled().await;
    }

    /// Resolves at the second.
    pub async fn forced(&self) {
        self.hard.cancelled().await;
    }

    /// Resolves with the future's value, or with `None` at the first interrupt.
    pub async fn or_interrupted<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.interrupted() => None,
            value = future => Some(value),
        }
    }
}

/// Why no new sample starts, shared by the groups of a run.
#[derive(Clone, Debug)]
pub struct Halt {
    reason: Arc<OnceLock<String>>,
    deadline: Option<(Instant, String)>,
}

impl Halt {
    /// With the budget of the run, from now on.
    pub fn new(budget: Option<std::time::Duration>) -> Halt {
        let text = |b| format!("the budget of {} is used up", crate::units::format_duration(b));
        let deadline = budget.and_then(|b| Some((Instant::now().checked_add(b)?, text(b))));
        Halt { reason: Arc::default(), deadline }
    }

    /// Lets nothing new start. The first reason stands.
    pub fn set(&self, reason: String) {
        let _ = self.reason.set(reason);
    }

    /// Why nothing new may start, if so.
    pub fn reason(&self) -> Option<String> {
        let late = self.deadline.as_ref().filter(|(at, _)| Instant::now() >= *at);
        self.reason.get().cloned().or_else(|| late.map(|(_, text)| text.clone()))
    }
}
