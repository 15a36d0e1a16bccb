//! NEON: a logical vector is four registers.
//!
//! Every aarch64 processor has NEON; the instructions that add up products of bytes came later, so
//! there are three of these sets that differ in [`Bytes`] alone. Those instructions, and widening
//! of f16, are written in assembly: their intrinsics are newer than the compilers that we support.

use super::{Kernel, Simd};
use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected;
use std::marker::PhantomData;

/// What is the same for all sets; `D` multiplies bytes.
#[derive(Clone, Copy)]
pub struct Neon<D: Bytes>(PhantomData<D>);

/// How bytes are multiplied, and sums of four products added to four lanes.
///
/// # Safety
/// As [`Simd`].
pub unsafe trait Bytes: Copy {
    /// As [`Simd::OFFSET`].
    const OFFSET: i32;
    /// Unsigned `w` less [`Bytes::OFFSET`].
    unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t;
    /// `w` below 16.
    unsafe fn dot_small(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Multiplies of NEON itself.
#[derive(Clone, Copy)]
pub struct Widening;
/// `sdot`.
#[derive(Clone, Copy)]
pub struct DotProduct;
/// `usdot`.
#[derive(Clone, Copy)]
pub struct MixedDotProduct;

pub fn has_dot_product() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

pub fn has_mixed_dot_product() -> bool {
    has_dot_product() && is_aarch64_feature_detected!("i8mm")
}

/// # Safety
/// None: every aarch64 processor that Rust's standard library runs on has NEON.
#[target_feature(enable = "neon")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Neon<Widening>>() }
}

/// # Safety
/// [`has_dot_product`] must be true.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn run_dot_product<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Neon<DotProduct>>() }
}

/// # Safety
/// [`has_mixed_dot_product`] must be true.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub unsafe fn run_mixed_dot_product<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Neon<MixedDotProduct>>() }
}

/// Unsigned bytes less 128, as signed ones: a flip of the top bit.
#[inline(always)]
unsafe fn less_128(w: uint8x16_t) -> int8x16_t {
    unsafe { vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80))) }
}

// SAFETY: callers come through `run`.
unsafe impl Bytes for Widening {
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            let w = less_128(w);
            // Sums of two products may need 17 bits: they are added up in 32.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(w, x));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
    #[inline(always)]
    unsafe fn dot_small(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            let w = vreinterpretq_s8_u8(w);
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, x)))
        }
    }
}

#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: callers come through `run_dot_product`.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

// SAFETY: callers come through `run_dot_product`.
unsafe impl Bytes for DotProduct {
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe { sdot(acc, less_128(w), x) }
    }
    #[inline(always)]
    unsafe fn dot_small(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe { sdot(acc, vreinterpretq_s8_u8(w), x) }
    }
}

// SAFETY: callers come through `run_mixed_dot_product`.
unsafe impl Bytes for MixedDotProduct {
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn dot(mut acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            asm!(
                "usdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
                acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
    #[inline(always)]
    unsafe fn dot_small(acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe { Self::dot(acc, w, x) }
    }
}

type V = [float32x4_t; 4];

#[inline(always)]
unsafe fn widen_f16(p: *const u16) -> float32x4_t {
    let wide: float32x4_t;
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {narrow:v}.4h",
            wide = lateout(vreg) wide, narrow = in(vreg) vld1_u16(p),
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

#[inline(always)]
unsafe fn widen_bf16(p: *const u16) -> float32x4_t {
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
}

/// `vmaxq_f32` orders zeros and hands NaN on, which the other sets do not.
#[inline(always)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

#[inline(always)]
unsafe fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

#[inline(always)]
unsafe fn where_above_quarter(v: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    unsafe { vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(a, b), vreinterpretq_u32_f32(v))) }
}

#[inline(always)]
unsafe fn exp2_quarter(n: float32x4_t) -> float32x4_t {
    unsafe {
        let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    }
}

/// Calls a function of quarters for all four; what stands after a semicolon is the same for each.
/// (Closures, as in `map`, would not be compiled for the instruction set.)
macro_rules! quarters {
    ($f:path: $($v:ident),+ $(; $same:expr)?) => {
        [
            $f($($v[0]),+ $(, $same)?),
            $f($($v[1]),+ $(, $same)?),
            $f($($v[2]),+ $(, $same)?),
            $f($($v[3]),+ $(, $same)?),
        ]
    };
}

// SAFETY: callers come through one of the `run`s, which are compiled for these instructions;
// pointers are read and written for exactly the elements that the trait names.
unsafe impl<D: Bytes> Simd for Neon<D> {
    type V = V;
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 4];
    const REGISTERS: usize = 8;
    const OFFSET: i32 = D::OFFSET;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags));
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> V {
        unsafe {
            [widen_bf16(p), widen_bf16(p.add(4)), widen_bf16(p.add(8)), widen_bf16(p.add(12))]
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> V {
        unsafe { [widen_f16(p), widen_f16(p.add(4)), widen_f16(p.add(8)), widen_f16(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> V {
        unsafe {
            let bytes = vld1q_s8(p);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let whole = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            quarters!(vcvtq_f32_s32: whole)
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        unsafe { quarters!(vaddq_f32: a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        unsafe { quarters!(vsubq_f32: a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        unsafe { quarters!(vmulq_f32: a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        unsafe { quarters!(vdivq_f32: a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        unsafe { quarters!(larger: a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        unsafe { quarters!(smaller: a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        unsafe { quarters!(vfmaq_f32: c, a, b) }
    }
    #[inline(always)]
    unsafe fn where_above(v: V, a: V, b: V) -> V {
        unsafe { quarters!(where_above_quarter: v, a, b) }
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        unsafe { quarters!(vrndnq_f32: a) }
    }
    #[inline(always)]
    unsafe fn scale2(v: V, n: V) -> V {
        unsafe { Self::mul(v, quarters!(exp2_quarter: n)) }
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    unsafe fn largest(v: V) -> f32 {
        unsafe {
            let four = larger(larger(v[0], v[2]), larger(v[1], v[3]));
            let (low, high) = (vget_low_f32(four), vget_high_f32(four));
            let two = vbsl_f32(vcgt_f32(low, high), low, high);
            let (a, b) = (vget_lane_f32::<0>(two), vget_lane_f32::<1>(two));
            if a > b { a } else { b }
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: V) {
        unsafe {
            let whole = quarters!(vcvtnq_s32_f32: v);
            let low = vcombine_s16(vqmovn_s32(whole[0]), vqmovn_s32(whole[1]));
            let high = vcombine_s16(vqmovn_s32(whole[2]), vqmovn_s32(whole[3]));
            vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { quarters!(vaddq_s32: a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: Self::I) -> Self::I {
        unsafe {
            let bits = vdupq_n_s32(BITS as i32);
            quarters!(vshlq_s32: a; bits)
        }
    }
    #[inline(always)]
    unsafe fn dot4(acc: Self::I, w: Self::B, x: i32) -> Self::I {
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            quarters!(D::dot: acc, w; x)
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(acc: Self::I, w: Self::B, x: i32) -> Self::I {
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            quarters!(D::dot_small: acc, w; x)
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> V {
        unsafe { quarters!(vcvtq_f32_s32: a) }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        unsafe { [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))] }
    }
    #[inline(always)]
    unsafe fn nibbles(b: Self::B) -> (Self::B, Self::B) {
        unsafe {
            let mask = vdupq_n_u8(15);
            (quarters!(vandq_u8: b; mask), quarters!(vshrq_n_u8::<4>: b))
        }
    }
}
