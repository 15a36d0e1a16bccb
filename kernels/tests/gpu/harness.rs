//! What the tests share.

use half::bf16;
use kernels::gpu::{Buffer, Element, Gpu, Stream};

/// The first GPU and a stream on it.
pub fn stream() -> Stream {
    Stream::new(&Gpu::open(0).expect("a GPU")).unwrap()
}

/// Whether large cases run in reasonable time.
pub fn is_fast(stream: &Stream) -> bool {
    !stream.gpu().properties().unwrap().emulated
}

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

/// [`noise`] rounded to bf16, as such and widened again.
pub fn noise_bf16(len: usize, seed: u64, magnitude: f32) -> (Vec<bf16>, Vec<f32>) {
    let narrow: Vec<bf16> = noise(len, seed, magnitude).into_iter().map(bf16::from_f32).collect();
    let wide = widen(&narrow);
    (narrow, wide)
}

pub fn widen(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.to_f32()).collect()
}

/// A buffer for results whose every bit is set: NaN in all types.
pub fn poisoned<T: Element>(stream: &Stream, len: usize) -> Buffer<T> {
    let buffer = stream.gpu().alloc(len).unwrap();
    stream.fill(&buffer, 0xFF).unwrap();
    buffer
}

/// Largest difference, as a share of the largest wanted magnitude, is at most `tolerance`; no NaN.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs() / scale;
        assert!(error <= tolerance, "at {i}: got {g}, want {w}, error {error:e} > {tolerance:e}");
    }
}

/// Rounding of one number to bf16, as a share of it.
pub const BF16: f32 = 1.0 / 256.0;
