//! The operations between the matrix products, row by row in plain Rust.
//!
//! Loops have no branches and keep several partial sums, so that the compiler can vectorise them;
//! the order of every sum depends on the length of the row alone. There is no fused
//! multiply-add: results have the same bits on every machine.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Partial sums of a row.
const LANES: usize = 8;

/// `e^x` for `-87 <= x <= 88`, relative error below 2e-7; `e^-87` below. Range reduction by ln 2
/// in two parts (Cody & Waite 1980) and the Taylor polynomial of degree 7 on |r| ≤ ln 2 / 2.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOW: f32 = -87.0;
    // Adding it rounds to an integer, which then stands in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < LOW { LOW } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The Gaussian error linear unit `x · Φ(x)` (Hendrycks & Gimpel 2016), exact, not the tanh form:
/// `max(x, 0) - |x| · erfc(|x| / √2) / 2`, with erfc after Abramowitz & Stegun 7.1.26 (absolute
/// error below 1.5e-7).
pub(super) fn gelu(x: &mut [f32]) {
    for x in x {
        *x = gelu_of(*x);
    }
}

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    const P: f32 = 0.327_591_1;
    const A: [f32; 4] = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let size = x.abs();
    let z = size * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + P * z);
    let mut p = 1.061_405_4;
    for a in A {
        p = p * t + a;
    }
    let erfc = p * t * exp(-z * z);
    let positive = if x > 0.0 { x } else { 0.0 };
    positive - 0.5 * size * erfc
}

/// Softmax of each row of `width` scores.
pub(super) fn softmax(scores: &mut [f32], width: usize) {
    for row in scores.chunks_exact_mut(width) {
        let largest = largest(row);
        for x in row.iter_mut() {
            *x = exp(*x - largest);
        }
        let scale = 1.0 / sum(row);
        for x in row.iter_mut() {
            *x *= scale;
        }
    }
}

/// Layer normalisation (Ba, Kiros & Hinton 2016) of each row:
/// `(x - mean) / sqrt(variance + eps) · weight + bias`.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
}

impl LayerNorm {
    /// Rows as wide as the weight.
    pub fn apply(&self, x: &mut [f32]) {
        let width = self.weight.len();
        for row in x.chunks_exact_mut(width) {
            let mean = sum(row) / width as f32;
            row.iter_mut().for_each(|x| *x -= mean);
            let squares: f32 = lanes(row, 0.0, |total, x| total + x * x).iter().sum();
            let variance = squares / width as f32;
            let scale = 1.0 / (variance + self.eps).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
                *x = *x * scale * weight + bias;
            }
        }
    }
}

/// To length 1; a vector of zeros stays.
pub(super) fn normalise(x: &mut [f32]) {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    let scale = 1.0 / squares.sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
}

fn sum(x: &[f32]) -> f32 {
    lanes(x, 0.0, |total, x| total + x).iter().sum()
}

fn largest(x: &[f32]) -> f32 {
    let larger = |a, b| if b > a { b } else { a };
    lanes(x, f32::NEG_INFINITY, larger).into_iter().fold(f32::NEG_INFINITY, larger)
}

/// Folds every eighth element into each lane.
#[inline(always)]
fn lanes(x: &[f32], start: f32, step: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, x);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `from..to` in steps of `step`.
    fn range(from: f64, to: f64, step: f64) -> impl Iterator<Item = f32> {
        (0..((to - from) / step) as usize).map(move |i| (from + i as f64 * step) as f32)
    }

    /// Φ(x) by Simpson's rule over the density, from 0.
    fn normal_distribution(x: f64) -> f64 {
        const STEPS: usize = 2000;
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let h = x / STEPS as f64;
        let weight = |i: usize| match i {
            0 | STEPS => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let inner: f64 = (0..=STEPS).map(|i| weight(i) * density(i as f64 * h)).sum();
        0.5 + inner * h / 3.0
    }

    #[test]
    fn exp_is_close_over_its_whole_range() {
        for x in range(-87.0, 88.0, 0.0037) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2e-7, "e^{x}: off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_the_exact_form() {
        for x in range(-9.0, 9.0, 0.0113) {
            let want = f64::from(x) * normal_distribution(f64::from(x));
            let error = (f64::from(gelu_of(x)) - want).abs();
            // The tanh form is off by up to 5e-4.
            assert!(error < 5e-7, "gelu({x}): off by {error:e}");
        }
        assert_eq!((gelu_of(0.0), gelu_of(30.0)), (0.0, 30.0));
        assert!(gelu_of(-30.0).abs() < 1e-30);
    }

    #[test]
    fn softmax_rows_equal_the_definition() {
        for width in [1, 7, 8, 40] {
            let scores: Vec<f32> = (0..2 * width).map(|i| (i * 37 % 23) as f32 - 90.0).collect();
            let mut got = scores.clone();
            softmax(&mut got, width);
            for (got, scores) in got.chunks(width).zip(scores.chunks(width)) {
                let total: f64 = scores.iter().map(|&x| f64::from(x).exp()).sum();
                for (&got, &score) in got.iter().zip(scores) {
                    let want = f64::from(score).exp() / total;
                    assert!((f64::from(got) - want).abs() < 3e-7, "{got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn layer_norm_rows_equal_the_definition() {
        let width = 21;
        let weight: Vec<f32> = (0..width).map(|i| 1.0 + i as f32 / 10.0).collect();
        let bias: Vec<f32> = (0..width).map(|i| i as f32 - 4.0).collect();
        let x: Vec<f32> = (0..2 * width).map(|i| (i * i % 17) as f32 + 100.0).collect();
        let norm = LayerNorm { weight, bias, eps: 0.5 };
        let mut got = x.clone();
        norm.apply(&mut got);
        for (got, x) in got.chunks(width).zip(x.chunks(width)) {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let squares: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let deviation = (squares / width as f64 + 0.5).sqrt();
            for i in 0..width {
                let normed = (f64::from(x[i]) - mean) / deviation;
                let want = normed * f64::from(norm.weight[i]) + f64::from(norm.bias[i]);
                assert!((f64::from(got[i]) - want).abs() < 1e-5, "{}, not {want}", got[i]);
            }
        }
    }

    #[test]
    fn vectors_get_length_one_and_zeros_stay() {
        let mut vector = [3.0, 0.0, -4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, 0.0, -0.8]);
        let mut zeros = [0.0; 3];
        normalise(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
