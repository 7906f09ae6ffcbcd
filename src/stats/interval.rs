//! Confidence intervals over samples (repeats): what a report says about run-to-run variance.

use super::dist::moments;

/// A mean with its 95 % confidence interval, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub n: u64,
    pub mean: f64,
    /// Sample standard deviation; `None` for one value.
    pub std: Option<f64>,
    /// Half the width of the interval; `None` for one value, which says nothing about variance.
    pub half_width: Option<f64>,
}

impl Interval {
    /// Lower end; `None` for a single value.
    pub fn low(&self) -> Option<f64> {
        self.half_width.map(|h| self.mean - h)
    }

    /// Upper end; `None` for a single value.
    pub fn high(&self) -> Option<f64> {
        self.half_width.map(|h| self.mean + h)
    }
}

/// Student's t interval of independent samples' values; `None` without a value.
pub fn t_interval(values: &[f64]) -> Option<Interval> {
    let (n, mean, std) = moments(values.iter().copied());
    let half_width = std.map(|s| t_quantile(n - 1) * s / (n as f64).sqrt());
    Some(Interval { n, mean: mean?, std, half_width })
}

/// The 97.5 % quantile of Student's t distribution: 95 % lie within plus and minus it. From a table up to 30 degrees of
/// freedom, beyond by the Cornish–Fisher expansion around the normal quantile (Abramowitz and Stegun 26.7.5), whose error
/// there is below 1e-5.
pub fn t_quantile(degrees: u64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004, 2.262_157, 2.228_139,
        2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905, 2.109_816, 2.100_922, 2.093_024, 2.085_963,
        2.079_614, 2.073_873, 2.068_658, 2.063_899, 2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_230, 2.042_272,
    ];
    match degrees {
        0 => f64::INFINITY,
        1..=30 => TABLE[degrees as usize - 1],
        _ => cornish_fisher(1.959_963_985, degrees as f64),
    }
}

/// The 95 % quantile: 95 % lie below it, what a one-sided bound is made with. From a table and the same expansion.
pub fn t_quantile_one_sided(degrees: u64) -> f64 {
    const TABLE: [f64; 30] = [
        6.313_752, 2.919_986, 2.353_363, 2.131_847, 2.015_048, 1.943_180, 1.894_579, 1.859_548, 1.833_113, 1.812_461,
        1.795_885, 1.782_288, 1.770_933, 1.761_310, 1.753_050, 1.745_884, 1.739_607, 1.734_064, 1.729_133, 1.724_718,
        1.720_743, 1.717_144, 1.713_872, 1.710_882, 1.708_141, 1.705_618, 1.703_288, 1.701_131, 1.699_127, 1.697_261,
    ];
    match degrees {
        0 => f64::INFINITY,
        1..=30 => TABLE[degrees as usize - 1],
        _ => cornish_fisher(1.644_853_627, degrees as f64),
    }
}

fn cornish_fisher(z: f64, v: f64) -> f64 {
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / v + g2 / v.powi(2) + g3 / v.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_known_values() {
        let i = t_interval(&[10.0, 12.0, 14.0]).unwrap();
        assert_eq!((i.n, i.mean, i.std), (3, 12.0, Some(2.0)));
        assert!((i.half_width.unwrap() - 4.302_653 * 2.0 / 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(t_interval(&[5.0]).unwrap().half_width, None);
        assert_eq!(t_interval(&[]), None);
    }

    #[test]
    fn quantiles_meet_where_the_table_ends() {
        assert!((t_quantile(31) - 2.039_513).abs() < 1e-5);
        assert!((t_quantile(60) - 2.000_298).abs() < 1e-5);
        assert!((t_quantile(1_000_000) - 1.959_966).abs() < 1e-5);
        assert!((1..200).all(|d| t_quantile(d) > t_quantile(d + 1)));
        assert!((t_quantile_one_sided(31) - 1.695_519).abs() < 1e-5);
        assert!((1..200).all(|d| t_quantile_one_sided(d) > t_quantile_one_sided(d + 1)));
    }
}
