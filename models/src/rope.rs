//! Frequencies of the rotary position embedding, in f64: at position 64,000 an f32 frequency would
//! be off by a visible angle.

use crate::config::{RopeConfig, RopeScaling};
use std::f64::consts::TAU;

/// Radians per position of each rotated pair, fastest first: `theta^(-2i / rotated)`, scaled for
/// long contexts as the model was trained.
pub fn inverse_frequencies(rope: &RopeConfig) -> Vec<f64> {
    let rotated = rope.rotated_dim as f64;
    (0..rope.rotated_dim / 2)
        .map(|i| rope.theta.powf(-2.0 * i as f64 / rotated))
        .map(|frequency| scaled(frequency, &rope.scaling))
        .collect()
}

fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            // How many turns the pair makes within the first training length.
            let turns = original_positions * frequency / TAU;
            let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
            let kept = kept.clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / factor
        }
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
            assert!((got - want).abs() < 1e-15 * want.max(1e-2), "{got} {want}");
        }
        assert_eq!(f.len(), 4);
    }

    #[test]
    fn linear_scaling_divides() {
        let f = inverse_frequencies(&rope(10_000.0, 4, RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(f[0], 0.25);
        assert!((f[1] - 0.0025).abs() < 1e-18);
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
        assert_eq!(seen, [29, 28, 7]);
    }
}
