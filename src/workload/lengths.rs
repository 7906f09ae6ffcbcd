//! How long each request's prompt and answer are. A seed gives every sample and every unit the same lengths, so that a
//! difference between two of them is not a difference of draws.

use super::TokenLengths;
use super::seeded::{below, generator, normal};

/// Lengths of one request, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    pub input: u32,
    /// `None` where the data set tells it.
    pub output: Option<u32>,
}

/// Draws the lengths of request `index`. Normal lengths are cut at 1 token, and inputs at one more than the shared
/// prefix, so that no two requests are the same.
pub fn draw(lengths: &TokenLengths, seed: u64, phase: &str, index: u64) -> Lengths {
    let mut rng = generator("lengths", &[&seed.to_le_bytes(), phase.as_bytes(), &index.to_le_bytes()]);
    let z_input = normal(&mut rng);
    let z_output = normal(&mut rng);
    let input = match (lengths.input_range, lengths.input) {
        (Some((from, to)), _) => from + below(&mut rng, u64::from(to.saturating_sub(from)) + 1) as u32,
        (None, Some(mean)) => around(mean, lengths.input_stddev, z_input),
        (None, None) => 1,
    };
    let least = lengths.shared_prefix.saturating_add(u32::from(lengths.shared_prefix > 0));
    Lengths {
        input: input.max(least).max(1),
        output: lengths.output.map(|mean| around(mean, lengths.output_stddev, z_output)),
    }
}

fn around(mean: u32, stddev: f64, z: f64) -> u32 {
    (f64::from(mean) + stddev * z).round().clamp(1.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> TokenLengths {
        TokenLengths {
            input: Some(100),
            output: Some(50),
            input_stddev: 0.0,
            output_stddev: 0.0,
            input_range: None,
            shared_prefix: 0,
            prefix_groups: 1,
            turns: 1,
        }
    }

    #[test]
    fn fixed_normal_and_uniform() {
        assert_eq!(draw(&lengths(), 1, "m", 5), Lengths { input: 100, output: Some(50) });
        let spread = TokenLengths { input_stddev: 10.0, output_stddev: 5.0, ..lengths() };
        let drawn: Vec<Lengths> = (0..4000).map(|i| draw(&spread, 1, "m", i)).collect();
        let mean = drawn.iter().map(|l| f64::from(l.input)).sum::<f64>() / 4000.0;
        let std = (drawn.iter().map(|l| (f64::from(l.input) - mean).powi(2)).sum::<f64>() / 4000.0).sqrt();
        assert!((mean - 100.0).abs() < 1.0 && (std - 10.0).abs() < 0.6, "{mean} {std}");
        let range = TokenLengths { input_range: Some((10, 12)), input: None, ..lengths() };
        let seen: std::collections::BTreeSet<u32> = (0..200).map(|i| draw(&range, 1, "m", i).input).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn lengths_never_fall_below_one_or_the_prefix() {
        let wild = TokenLengths { input_stddev: 1e4, output_stddev: 1e4, shared_prefix: 64, ..lengths() };
        for i in 0..500 {
            let l = draw(&wild, 1, "m", i);
            assert!(l.input >= 65 && l.output.unwrap() >= 1);
        }
    }
}
