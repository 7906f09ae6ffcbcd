//! How an engine came up, for the record: what its log told, under names that all engines share.

use crate::deploy::{Milestone, Startup};
use crate::store::record::{MilestoneRecord, StartRecord};

/// Of an engine that took so many seconds to prepare and so many to its first token.
pub fn record(startup: Startup, prepare_s: f64, ready_s: f64) -> StartRecord {
    let Startup { milestones, warm_caches } = startup;
    let number = |name: &str| number(&milestones, name);
    StartRecord {
        prepare_s: Some(prepare_s),
        ready_s: Some(ready_s),
        weights_s: number("weights_loaded"),
        compile_s: number("compiled"),
        graphs_s: number("graphs_captured"),
        kv_cache_tokens: number("kv_cache").map(|n| n as u64),
        weights_gib: number("model_loaded"),
        warm_caches,
        milestones: milestones
            .into_iter()
            .map(|Milestone { name, value, seconds }| MilestoneRecord { name, value, seconds })
            .collect(),
    }
}

/// The value of a milestone, the largest where several processes tell theirs.
fn number(milestones: &[Milestone], name: &str) -> Option<f64> {
    let values = milestones.iter().filter(|m| m.name == name).filter_map(|m| m.value.replace(',', "").parse().ok());
    values.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milestones_become_figures() {
        let milestone = |name: &str, value: &str| Milestone { name: name.into(), value: value.into(), seconds: 1.5 };
        let milestones = vec![
            milestone("weights_loaded", "12.5"),
            milestone("weights_loaded", "13.25"),
            milestone("kv_cache", "1,234,560"),
            milestone("serving", ""),
        ];
        let record = record(Startup { milestones, warm_caches: Some(false) }, 3.0, 90.0);
        assert_eq!((record.weights_s, record.kv_cache_tokens), (Some(13.25), Some(1_234_560)));
        assert_eq!((record.graphs_s, record.weights_gib), (None, None), "what was not told is not known");
        assert_eq!((record.prepare_s, record.ready_s, record.warm_caches), (Some(3.0), Some(90.0), Some(false)));
        assert_eq!(record.milestones.len(), 4);
    }
}
