//! The functions that tests of hypotheses are made of: tails and quantiles of Student's t and of the normal distribution.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
pub use statrs::function::gamma::ln_gamma;

/// From so many degrees of freedom on, Student's t is taken for the normal distribution.
const NORMAL_FROM: f64 = 1e6;

/// `P(T > t)` of Student's t; infinite degrees of freedom are the normal distribution.
pub fn t_above(t: f64, degrees: f64) -> f64 {
    if degrees >= NORMAL_FROM { normal().sf(t) } else { student(degrees).sf(t) }
}

/// The value below which a share `p` of Student's t lies.
pub fn t_at(p: f64, degrees: f64) -> f64 {
    if degrees >= NORMAL_FROM { normal().inverse_cdf(p) } else { student(degrees).inverse_cdf(p) }
}

/// The value below which a share `p` of the standard normal distribution lies.
pub fn normal_at(p: f64) -> f64 {
    normal().inverse_cdf(p)
}

fn normal() -> Normal {
    Normal::new(0.0, 1.0).expect("the standard normal distribution exists")
}

fn student(degrees: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees.max(f64::MIN_POSITIVE)).expect("positive degrees of freedom")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, within: f64) -> bool {
        (a / b - 1.0).abs() < within
    }

    #[test]
    fn tails_agree_with_published_tables() {
        assert!(close(t_above(2.776_445, 4.0), 0.025, 1e-6));
        assert!(close(t_above(1.644_853_627, f64::INFINITY), 0.05, 1e-7));
        assert!(close(t_above(8.610_302, 4.0), 0.0005, 1e-5));
        assert!(close(t_at(0.975, 4.0), 2.776_445, 1e-6) && close(normal_at(0.975), 1.959_963_985, 1e-7));
        // Far out a difference from 1 would have nothing left.
        assert!(close(t_above(10.0, f64::INFINITY), 7.619_853e-24, 1e-5));
    }
}
