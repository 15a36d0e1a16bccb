//! Frequencies of the rotary position embedding, bit for bit those that the checkpoints were
//! trained and published with.
//!
//! Every published implementation computes them in f32. At position 64,000 the last bit of an f32
//! frequency is worth an angle of 0.002 to 0.004, which moves log-probabilities by a few
//! thousandths: a table that is more exact is further from the model. So each operation is rounded
//! to f32 where the reference implementation (`transformers`) rounds it. (Anything coarser, such
//! as bf16, makes far positions indistinguishable.)

use crate::config::{RopeConfig, RopeScaling, Yarn};
use std::f64::consts::TAU;

/// Radians per position of each rotated pair, fastest first: `theta^(-2i / rotated)`, scaled for
/// long contexts as the model was trained. All values are f32 numbers.
pub fn inverse_frequencies(rope: &RopeConfig) -> Vec<f64> {
    let rotated = rope.rotated_dim as f32;
    (0..rope.rotated_dim / 2)
        .map(|pair| {
            let exponent = f64::from(2.0 * pair as f32 / rotated);
            f64::from(scaled(pair, rope.theta.powf(exponent) as f32, rope))
        })
        .collect()
}

/// The frequency of a pair, after scaling; `radian` are the positions in which it turns by one.
fn scaled(pair: usize, radian: f32, rope: &RopeConfig) -> f32 {
    let frequency = 1.0 / radian;
    match rope.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            let wavelength = TAU as f32 / frequency;
            if wavelength > (original_positions / low_freq_factor) as f32 {
                return frequency / factor as f32;
            }
            if wavelength < (original_positions / high_freq_factor) as f32 {
                return frequency;
            }
            // How many turns the pair makes within the first training length, from 0 at the low
            // bound to 1 at the high one.
            let turns = original_positions as f32 / wavelength;
            let ramp =
                (turns - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
            (1.0 - ramp) * frequency / factor as f32 + ramp * frequency
        }
        RopeScaling::Yarn(ref yarn) => {
            let kept = 1.0 - yarn.ramp(pair, rope.rotated_dim, rope.theta);
            1.0 / (yarn.factor as f32 * radian) * (1.0 - kept) + frequency * kept
        }
    }
}

impl Yarn {
    /// How far a pair of so many rotated columns is on the way from those that are kept, 0, to those that are
    /// slowed down, 1.
    fn ramp(&self, pair: usize, rotated: usize, theta: f64) -> f32 {
        let rotated = rotated as f64;
        // The pair, not a whole one, that turns so often within the first training length.
        let pair_of = |turns: f64| {
            rotated * (self.original_positions / (turns * TAU)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.whole_ends {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(rotated - 1.0));
        if low == high {
            high += 0.001;
        }
        ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::rope::RopeStyle;

    fn rope(theta: f64, rotated_dim: usize, scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta, rotated_dim, style: RopeStyle::HalfSplit, scaling }
    }

    #[test]
    fn frequencies_fall_from_one_by_a_constant_ratio() {
        let f = inverse_frequencies(&rope(10_000.0, 8, RopeScaling::None));
        for (got, want) in f.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((got - want).abs() < 1e-7 * want, "{got} {want}");
        }
        assert_eq!(f.len(), 4);
    }

    #[test]
    fn linear_scaling_divides() {
        let f = inverse_frequencies(&rope(10_000.0, 4, RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(f[0], 0.25);
        assert!((f[1] - 0.0025).abs() < 1e-9);
    }

    /// Llama-3.1's own settings. Bounds of the ramp: wavelengths 2,048 and 8,192 tokens.
    #[test]
    fn llama3_scaling_keeps_fast_pairs_and_stretches_slow_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192.0,
        };
        let plain = inverse_frequencies(&rope(500_000.0, 128, RopeScaling::None));
        let f = inverse_frequencies(&rope(500_000.0, 128, scaling));
        let mut seen = [0, 0, 0];
        for (&was, &is) in plain.iter().zip(&f) {
            let wavelength = TAU / was;
            if wavelength < 2048.0 {
                assert_eq!(is, was);
                seen[0] += 1;
            } else if wavelength > 8192.0 {
                assert_eq!(is, was / 8.0);
                seen[1] += 1;
            } else {
                assert!(is < was && is > was / 8.0);
                seen[2] += 1;
            }
        }
        assert_eq!(seen, [29, 29, 6]);
    }
}
