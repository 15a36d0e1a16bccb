//! What the tests of all operations share.

use crate::matrix::Matrix;
use candle_core::{Device, Tensor};

/// Reproducible values in `-magnitude ..= magnitude`.
pub fn noise(len: usize, seed: u64, magnitude: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * magnitude
        })
        .collect()
}

/// Rows of `columns`.
pub fn matrix(values: Vec<f32>, columns: usize) -> Matrix {
    let shape = (values.len() / columns, columns);
    Matrix::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Largest difference, as a share of the largest wanted magnitude, is at most `tolerance`; no NaN.
#[track_caller]
pub fn assert_close(got: &Matrix, want: &[f32], tolerance: f32) {
    assert_slices_close(&got.view().read().unwrap(), want, tolerance);
}

/// As [`assert_close`].
#[track_caller]
pub fn assert_tensor_close(got: &Tensor, want: &[f32], tolerance: f32) {
    let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
    assert_slices_close(&got, want, tolerance);
}

/// As [`assert_close`].
#[track_caller]
pub fn assert_slices_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs() / scale;
        assert!(error <= tolerance, "at {i}: got {g}, want {w}, error {error:e} > {tolerance:e}");
    }
}
