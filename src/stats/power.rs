//! How many repeats would decide: the size of an experiment from its noise and the effect that matters.

use super::special::normal_at;

/// The share of cases in which the experiment is to come to an answer.
pub const POWER: f64 = 0.8;
/// More than this is no answer a person can act on.
pub const MOST: u64 = 1000;

/// Replicates per side after which a change of `effect` (log scale) is found with [`POWER`] at the one-sided level
/// `level`, and its absence is shown with the same power by a 95 % interval inside `±effect`. `noise` is the standard
/// deviation between replicates on the log scale. `None` above [`MOST`], and where nothing can be said.
pub fn replicates(noise: f64, effect: f64, level: f64) -> Option<u64> {
    let usable = noise.is_finite() && noise >= 0.0 && effect.is_finite() && effect > 0.0 && level > 0.0 && level < 1.0;
    if !usable {
        return None;
    }
    let find = normal_at(1.0 - level) + normal_at(POWER);
    // Both ends of the interval must stay inside, so each may fail in half of the cases left.
    let exclude = normal_at(0.975) + normal_at((1.0 + POWER) / 2.0);
    let n = 2.0 * (noise / effect * find.max(exclude)).powi(2);
    (n <= MOST as f64).then_some((n.ceil() as u64).max(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sizes() {
        // Two groups, one standard deviation apart, 2.5 % one-sided: 15.7 by the normal approximation for power alone;
        // here the interval asks for more.
        assert_eq!(replicates(1.0, 1.0, 0.025), Some(22));
        // At a strict level the finding needs more than the exclusion: 2 (3.09 + 0.84)² = 30.9.
        assert_eq!(replicates(1.0, 1.0, 0.001), Some(31));
        assert_eq!(replicates(0.0001, 1.0, 0.01), Some(2));
        assert_eq!(replicates(1.0, 0.01, 0.01), None);
        assert_eq!(replicates(1.0, 0.0, 0.01), None);
        assert_eq!(replicates(f64::NAN, 1.0, 0.01), None);
    }
}
