//! Many tests at once: Benjamini and Hochberg's control of the false-discovery rate.

/// The largest level at which each test would be rejected (the adjusted p-value), in the order of the tests.
/// Y. Benjamini and Y. Hochberg, *Controlling the false discovery rate*, J. R. Stat. Soc. B 57 (1995): of the tests with
/// an adjusted value up to `q`, at most a share `q` is expected to be rejected wrongly, also when tests depend on each
/// other positively.
pub fn adjusted(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|a, b| p[*b].total_cmp(&p[*a]));
    let n = p.len() as f64;
    let mut out = vec![1.0; p.len()];
    let mut least: f64 = 1.0;
    for (above, index) in order.into_iter().enumerate() {
        let rank = n - above as f64;
        least = least.min(p[index] * n / rank);
        out[index] = least;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_paper() {
        // Benjamini and Hochberg 1995, section 3.2: at 5 % the four smallest of fifteen are rejected.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let q = adjusted(&p);
        assert_eq!(q.iter().filter(|q| **q <= 0.05).count(), 4);
        assert!((q[0] - 0.0015).abs() < 1e-12 && (q[3] - 0.0095 * 15.0 / 4.0).abs() < 1e-12);
        assert!(adjusted(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_the_step_up_rule(p in prop::collection::vec(0.0..1.0f64, 1..40), level in 0.001..0.5f64) {
            let mut sorted = p.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let n = p.len() as f64;
            let last = sorted.iter().enumerate().filter(|(i, x)| **x <= level * (*i as f64 + 1.0) / n).map(|(i, _)| i + 1).max();
            let rejected = adjusted(&p).iter().filter(|q| **q <= level).count();
            prop_assert_eq!(rejected, last.unwrap_or(0));
        }
    }
}
