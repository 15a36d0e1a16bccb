//! Types that numbers are stored in; arithmetic is always f32.

use super::Simd;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// How a stored number becomes f32 and back.
pub trait Element: std::fmt::Debug + Send + Sync + 'static {
    type Stored: crate::memory::Plain + std::fmt::Debug + Send + Sync + 'static;

    /// Widens sixteen numbers.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self::Stored) -> S::V;

    /// Rounds to nearest.
    fn narrow(x: &[f32]) -> Vec<Self::Stored>;
}

/// Stored as they are.
#[derive(Debug)]
pub struct F32;
/// Stored as the bits of a bf16.
#[derive(Debug)]
pub struct Bf16;
/// Stored as the bits of an f16.
#[derive(Debug)]
pub struct F16;

impl Element for F32 {
    type Stored = f32;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        unsafe { S::load(p) }
    }

    fn narrow(x: &[f32]) -> Vec<f32> {
        x.to_vec()
    }
}

impl Element for Bf16 {
    type Stored = u16;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_bf16(p) }
    }

    fn narrow(x: &[f32]) -> Vec<u16> {
        x.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()
    }
}

impl Element for F16 {
    type Stored = u16;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_f16(p) }
    }

    fn narrow(x: &[f32]) -> Vec<u16> {
        let mut narrow = vec![f16::ZERO; x.len()];
        narrow.convert_from_f32_slice(x);
        narrow.into_iter().map(f16::to_bits).collect()
    }
}
