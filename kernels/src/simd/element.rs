//! Types that numbers are stored in; arithmetic is always f32.

use super::Simd;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// How a stored number becomes f32 and back.
pub trait Element: std::fmt::Debug + Send + Sync + 'static {
    type Stored: crate::memory::Plain + std::fmt::Debug + Send + Sync + 'static;

    /// Widens sixteen numbers.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self::Stored) -> S::V;

    /// Rounds to nearest, as many as `to` holds.
    fn narrow(from: &[f32], to: &mut [Self::Stored]);
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

    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(&from[..to.len()]);
    }
}

impl Element for Bf16 {
    type Stored = u16;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_bf16(p) }
    }

    fn narrow(from: &[f32], to: &mut [u16]) {
        let from = &from[..to.len()];
        to.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(from);
    }
}

impl Element for F16 {
    type Stored = u16;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_f16(p) }
    }

    fn narrow(from: &[f32], to: &mut [u16]) {
        let from = &from[..to.len()];
        to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(from);
    }
}
