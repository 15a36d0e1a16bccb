//! What the tests of all operations share.

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

/// Largest difference, as a share of the largest wanted magnitude, is at most `tolerance`; no NaN.
#[track_caller]
pub fn assert_slices_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs() / scale;
        assert!(error <= tolerance, "at {i}: got {g}, want {w}, error {error:e} > {tolerance:e}");
    }
}
