//! Random numbers that are a pure function of what they are for. Every use has a name of its own, so that one more use
//! changes no other numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A generator for one purpose; the parts tell its uses apart.
pub fn generator(purpose: &str, parts: &[&[u8]]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("llmatrix workload v1");
    for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Uniform in (0, 1].
pub fn unit(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform in `0..n`; `n` is far below 2⁶⁴, so that the bias of the product is out of reach of any measurement.
pub fn below(rng: &mut impl Rng, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// As [`below`], from half as many random bits.
pub fn below_u32(rng: &mut impl Rng, n: u32) -> u32 {
    ((u64::from(rng.next_u32()) * u64::from(n)) >> 32) as u32
}

/// Standard normal (Box–Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * unit(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(rng)).cos()
}

/// Exponential with mean 1.
pub fn exponential(rng: &mut impl Rng) -> f64 {
    -unit(rng).ln()
}

/// Gamma with shape `k > 0` and mean 1 (Marsaglia and Tsang, 2000; below 1 by the boost of their section 6).
pub fn gamma(rng: &mut impl Rng, k: f64) -> f64 {
    if k < 1.0 {
        let boosted = gamma(rng, k + 1.0) * (k + 1.0);
        return boosted * unit(rng).powf(1.0 / k) / k;
    }
    let d = k - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v / k;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draw: impl Fn(&mut ChaCha8Rng) -> f64) -> (f64, f64) {
        let mut rng = generator("test", &[]);
        let n = 40_000;
        let xs: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
        let mean = xs.iter().sum::<f64>() / f64::from(n);
        (mean, xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n))
    }

    #[test]
    fn distributions_have_their_moments() {
        for (k, (mean, var)) in [0.5, 1.0, 4.0].map(|k| (k, moments(|r| gamma(r, k)))) {
            assert!((mean - 1.0).abs() < 0.03 && (var * k - 1.0).abs() < 0.08, "gamma {k}: {mean} {var}");
        }
        let (mean, var) = moments(exponential);
        assert!((mean - 1.0).abs() < 0.02 && (var - 1.0).abs() < 0.05);
        let (mean, var) = moments(normal);
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03);
    }

    #[test]
    fn parts_are_told_apart() {
        let first = |p: &str, parts: &[&[u8]]| generator(p, parts).next_u64();
        assert_ne!(first("a", &[b"bc"]), first("a", &[b"b", b"c"]));
        assert_ne!(first("a", &[]), first("b", &[]));
        assert_eq!(first("a", &[b"x"]), first("a", &[b"x"]));
    }
}
