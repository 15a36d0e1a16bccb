//! What the tests share.

#[path = "../../src/testing.rs"]
mod testing;

use half::bf16;
use kernels::gpu::{Buffer, Element, Gpu, Stream};
pub use testing::{assert_slices_close as assert_close, noise};

/// The first GPU and a stream on it.
pub fn stream() -> Stream {
    Stream::new(&Gpu::open(0).expect("a GPU")).unwrap()
}

/// Whether large cases run in reasonable time.
pub fn is_fast(stream: &Stream) -> bool {
    !stream.gpu().properties().unwrap().emulated
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

/// Rounding of one number to bf16, as a share of it.
pub const BF16: f32 = 1.0 / 256.0;
