//! What the units of a deployment ask of the KV cache.

use super::super::{Plan, Unit};
use super::ask::Ask;

/// Over all units of a deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    /// Tokens of the longest prompt and answer.
    pub longest: Option<u64>,
    /// The load that keeps the most tokens.
    pub largest: Option<Peak>,
}

/// Requests at the same time, over all copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    pub requests: u64,
    /// Tokens of each: prompt and answer.
    pub tokens: u64,
    /// Of these, tokens that the requests of a group share, and the groups.
    pub shared: u64,
    pub groups: u64,
}

/// Fills in the loads of those that ask. Of a search only the smallest value counts: it ends by itself.
pub(super) fn add(plan: &Plan, asks: &mut [Option<Ask>]) {
    let probes = plan.searches.iter().filter_map(|s| s.probes.first()).map(|p| &p.unit);
    for unit in plan.units.iter().chain(probes) {
        let Some(Some(ask)) = asks.get_mut(unit.deployment) else { continue };
        let Some(peak) = peak(plan, unit) else { continue };
        ask.load.longest = ask.load.longest.max(Some(peak.tokens));
        let kept = |p: &Peak| ask.kept(*p);
        if peak.requests > 0 && ask.load.largest.as_ref().map(kept).is_none_or(|most| kept(&peak) > most) {
            ask.load.largest = Some(peak);
        }
    }
}

/// Mean lengths, or the longest of a range. `None` where a data set decides. An open loop without a cap has no number of
/// requests: 0.
fn peak(plan: &Plan, unit: &Unit) -> Option<Peak> {
    let workload = plan.workload(unit);
    let lengths = &workload.tokens;
    let input = lengths.input_range.map(|(_, most)| most).max(lengths.input)?;
    let turn = u64::from(input) + u64::from(lengths.output?);
    Some(Peak {
        requests: u64::from(workload.concurrency.unwrap_or(0)),
        tokens: turn * u64::from(lengths.turns.max(1)),
        shared: u64::from(lengths.shared_prefix.min(input)),
        groups: u64::from(lengths.prefix_groups),
    })
}

impl Ask {
    /// Sequences of a load that one copy holds at the same time.
    pub fn sequences(&self, peak: Peak) -> u64 {
        let (_, copies) = self.groups();
        let each = peak.requests.div_ceil(copies);
        self.max_num_seqs.map_or(each, |most| each.min(most))
    }

    /// Tokens of a load that one copy keeps at the same time; shared ones once where prefixes are reused.
    pub fn kept(&self, peak: Peak) -> u64 {
        let sequences = self.sequences(peak);
        if !self.prefix_caching || peak.shared == 0 {
            return sequences.saturating_mul(peak.tokens);
        }
        let groups = peak.groups.min(sequences);
        sequences.saturating_mul(peak.tokens - peak.shared).saturating_add(groups.saturating_mul(peak.shared))
    }
}
