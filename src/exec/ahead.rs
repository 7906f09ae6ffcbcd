//! Downloads for a deployment whose turn has not come, while another one is measured. They take as little of the host as
//! they can, a sample that was measured meanwhile says so, and what goes wrong here goes wrong again, and in full, at the
//! deployment's own turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::group::GroupContext;
use super::work::GroupWork;
use crate::digest::DeployId;
use crate::event::Event;
use crate::units::format_duration;

/// Whether something is being downloaded, as samples want to know it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// From a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    begun: u64,
    was_busy: bool,
}

/// A download under way.
struct Busied(Busy);

impl Busy {
    pub fn now(&self) -> Since {
        let ended = self.0.ended.load(Ordering::SeqCst);
        let begun = self.0.begun.load(Ordering::SeqCst);
        Since { begun, was_busy: begun > ended }
    }

    /// Whether there was a download at any time since then.
    pub fn was(&self, since: Since) -> bool {
        since.was_busy || self.0.begun.load(Ordering::SeqCst) > since.begun
    }

    fn begin(&self) -> Busied {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        Busied(self.clone())
    }
}

impl Drop for Busied {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// The downloads of a run. Dropping it gives up those that are under way.
pub struct Ahead {
    context: GroupContext,
    events: UnboundedSender<Event>,
    asked: BTreeSet<DeployId>,
    tasks: JoinSet<()>,
}

impl Ahead {
    pub fn new(context: &GroupContext, events: &UnboundedSender<Event>) -> Ahead {
        Ahead { context: context.clone(), events: events.clone(), asked: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// Begins with what the next group needs, once.
    pub fn look(&mut self, groups: &VecDeque<GroupWork>) {
        let Some(next) = groups.front() else { return };
        if !self.asked.insert(next.deployment.id) || self.context.cancel.is_interrupted() {
            return;
        }
        let (context, events, deployment) = (self.context.clone(), self.events.clone(), next.deployment.clone());
        self.tasks.spawn(async move {
            // What is here already costs nothing, and is not spoken of.
            let something = AtomicBool::new(false);
            let busied = std::sync::Mutex::new(None);
            let heard = |_| {
                something.store(true, Ordering::Relaxed);
                busied.lock().expect("no holder panics").get_or_insert_with(|| context.downloads.begin());
            };
            let watch = Instant::now();
            let result = context.deployer.prefetch(&deployment, &heard).await;
            drop(busied.lock().expect("no holder panics").take());
            let container = &deployment.container;
            let message = match result {
                Ok(()) if !something.load(Ordering::Relaxed) => return,
                Ok(()) => {
                    let took = std::time::Duration::from_secs(watch.elapsed().as_secs());
                    format!("what {container} needs was downloaded ahead, in {}", format_duration(took))
                }
                Err(failure) => format!("nothing could be downloaded ahead for {container}: {failure}"),
            };
            let _ = events.send(Event::Notice { message });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_knows_of_every_download_that_touched_it() {
        let busy = Busy::default();
        let quiet = busy.now();
        assert!(!busy.was(quiet));
        let download = busy.begin();
        assert!(busy.was(quiet), "it began meanwhile");
        let meanwhile = busy.now();
        drop(download);
        assert!(busy.was(meanwhile), "it was under way at the beginning");
        assert!(!busy.was(busy.now()), "it is over");
        drop(busy.begin());
        assert!(busy.was(quiet), "it began and ended in between");
    }
}
