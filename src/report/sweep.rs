//! What a run itself came to: how long its deployments were held, from the start of each engine to its end, and what that
//! cost.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Report;
use crate::digest::DeployId;
use crate::event::{Entry, Event};

/// Seconds by deployment.
pub type Held = BTreeMap<DeployId, f64>;

/// The price of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepCost {
    /// Of deployments whose class has a price.
    pub usd: f64,
    /// Of all deployments.
    pub hours: f64,
    /// The deployments of some class have no price.
    pub partial: bool,
}

/// How long each deployment was held, by the journal. One that was never let go of was held until the journal ends.
pub fn held(entries: &[Entry]) -> Held {
    let mut open: BTreeMap<DeployId, Timestamp> = BTreeMap::new();
    let mut held = Held::new();
    let mut last = None;
    for entry in entries {
        let Ok(at) = entry.at.parse::<Timestamp>() else { continue };
        last = Some(at);
        match &entry.event {
            Event::DeploymentStarting { deploy_id, .. } => _ = open.insert(*deploy_id, at),
            // What it waited for before is not its own: devices that others had, images.
            Event::DeploymentReady { deploy_id, seconds, .. } => {
                if let Some(from) = open.get_mut(deploy_id) {
                    *from = (*from).max(at - SignedDuration::from_secs_f64(*seconds));
                }
            }
            Event::DeploymentStopped { deploy_id, .. } | Event::DeploymentFailed { deploy_id, .. } => {
                close(&mut held, &mut open, deploy_id, at);
            }
            _ => {}
        }
    }
    let rest: Vec<DeployId> = open.keys().copied().collect();
    rest.iter().zip(last.into_iter().cycle()).for_each(|(id, at)| close(&mut held, &mut open, id, at));
    held
}

fn close(held: &mut Held, open: &mut BTreeMap<DeployId, Timestamp>, id: &DeployId, at: Timestamp) {
    if let Some(from) = open.remove(id) {
        *held.entry(*id).or_default() += at.duration_since(from).as_secs_f64().max(0.0);
    }
}

impl Report {
    /// `None` where the run has no prices, or started nothing.
    pub fn sweep_cost(&self) -> Option<SweepCost> {
        let run = self.run.as_ref()?;
        let cost = &run.cost;
        if cost.is_empty() || self.held.is_empty() {
            return None;
        }
        let mut sweep = SweepCost { usd: 0.0, hours: 0.0, partial: false };
        for (id, seconds) in &self.held {
            let facts = run.units.iter().find(|u| u.deploy_id == *id).map(|u| &u.facts);
            let hour = facts.and_then(|f| cost.hour(&f.hardware, f.gpus));
            sweep.hours += seconds / 3600.0;
            sweep.usd += hour.unwrap_or(0.0) * seconds / 3600.0;
            sweep.partial |= hour.is_none();
        }
        Some(sweep)
    }
}

impl std::fmt::Display for SweepCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SweepCost { usd, hours, partial } = self;
        write!(f, "${usd:.2} for {hours:.2} hours of engines, from the start of each to its end")?;
        if *partial { write!(f, "; those of some hardware have no price") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn entry(seq: u64, at: &str, event: Event) -> Entry {
        Entry { seq, at: format!("2026-11-24T{at}.000Z"), event }
    }

    #[test]
    fn deployments_are_held_from_their_start_to_their_end() {
        let (a, b) = (DeployId::of(&Value::str("a")), DeployId::of(&Value::str("b")));
        let starting = |deploy_id| Event::DeploymentStarting { deploy_id, container: "c".into(), start: 1, units: 1 };
        let stopped = |deploy_id| Event::DeploymentStopped { deploy_id, start: 1 };
        let entries = [
            entry(0, "10:00:00", starting(a)),
            entry(1, "10:30:00", stopped(a)),
            entry(2, "10:30:00", starting(a)),
            entry(3, "10:45:00", stopped(a)),
            // Ten minutes for its devices, five until its first token.
            entry(4, "10:45:00", starting(b)),
            entry(
                5,
                "11:00:00",
                Event::DeploymentReady { deploy_id: b, start: 1, seconds: 300.0, engine_version: None },
            ),
            // Killed.
            entry(6, "11:00:30", Event::Notice { message: "m".into() }),
        ];
        assert_eq!(held(&entries), Held::from([(a, 2700.0), (b, 330.0)]));
        assert!(held(&[]).is_empty());
    }
}
