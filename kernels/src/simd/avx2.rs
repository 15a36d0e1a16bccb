//! AVX2 with FMA and F16C: a logical vector is two registers. AVX-VNNI, where it is present, adds one
//! instruction for what [`Simd::dot4`] is.

use super::{Kernel, Simd};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// What is the same with and without AVX-VNNI; `D` multiplies bytes.
#[derive(Clone, Copy)]
pub struct Avx2<D: Bytes>(PhantomData<D>);

/// How bytes are multiplied, and sums of four products added to eight lanes.
///
/// # Safety
/// As [`Simd`].
pub unsafe trait Bytes: Copy {
    /// As [`Simd::dot4`].
    unsafe fn dot(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
    /// As [`Simd::dot4_small`].
    unsafe fn dot_small(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// Multiplies of AVX2 itself.
#[derive(Clone, Copy)]
pub struct Widening;
/// `vpdpbusd` of AVX-VNNI.
#[derive(Clone, Copy)]
pub struct Vnni;

pub fn present() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// # Safety
/// [`present`] must be true.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Avx2<Widening>>() }
}

pub fn has_vnni() -> bool {
    present() && is_x86_feature_detected!("avxvnni")
}

/// # Safety
/// [`has_vnni`] must be true.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Avx2<Vnni>>() }
}

type V = [__m256; 2];

#[inline(always)]
unsafe fn bf16_half(p: *const u16) -> __m256 {
    unsafe {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

#[inline(always)]
unsafe fn where_above_half(v: __m256, a: __m256, b: __m256) -> __m256 {
    unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b), v) }
}

#[inline(always)]
unsafe fn exp2_half(n: __m256) -> __m256 {
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

/// Adds eight lanes: 8 → 4 → 2 → 1, halves to each other.
#[inline(always)]
pub unsafe fn sum_half(v: __m256) -> f32 {
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The largest of eight lanes.
#[inline(always)]
pub unsafe fn largest_half(v: __m256) -> f32 {
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

// SAFETY: callers come through `run`.
unsafe impl Bytes for Widening {
    /// `maddubs` would saturate (255 × 127 × 2 > 32767), so bytes are widened to 16 bits first:
    /// even and odd bytes apart, which `madd` adds up again.
    #[inline(always)]
    unsafe fn dot(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let low = _mm256_set1_epi16(0xff);
            let even_w = _mm256_and_si256(w, low);
            let odd_w = _mm256_srli_epi16::<8>(w);
            let even_x = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
            let odd_x = _mm256_srai_epi16::<8>(x);
            let even = _mm256_madd_epi16(even_w, even_x);
            let odd = _mm256_madd_epi16(odd_w, odd_x);
            _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
        }
    }
    #[inline(always)]
    unsafe fn dot_small(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

// SAFETY: callers come through `run_vnni`.
unsafe impl Bytes for Vnni {
    #[inline(always)]
    unsafe fn dot(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(acc, w, x) }
    }
    #[inline(always)]
    unsafe fn dot_small(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { Self::dot(acc, w, x) }
    }
}

// SAFETY: callers come through `run`, which is compiled for these instructions; pointers are read
// and written for exactly the elements that the trait names.
unsafe impl<D: Bytes> Simd for Avx2<D> {
    type V = V;
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    const REGISTERS: usize = 8;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> V {
        unsafe { [bf16_half(p), bf16_half(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> V {
        unsafe {
            let low = _mm_loadu_si128(p.cast());
            let high = _mm_loadu_si128(p.add(8).cast());
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> V {
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn where_above(v: V, a: V, b: V) -> V {
        unsafe { [where_above_half(v[0], a[0], b[0]), where_above_half(v[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }
    #[inline(always)]
    unsafe fn scale2(v: V, n: V) -> V {
        unsafe { Self::mul(v, [exp2_half(n[0]), exp2_half(n[1])]) }
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        unsafe { sum_half(_mm256_add_ps(v[0], v[1])) }
    }
    #[inline(always)]
    unsafe fn largest(v: V) -> f32 {
        unsafe { largest_half(_mm256_max_ps(v[0], v[1])) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: V) {
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            // The pack works on each half of the registers: put the quarters in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let low = _mm256_castsi256_si128(words);
            let bytes = _mm_packs_epi16(low, _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: Self::I) -> Self::I {
        unsafe {
            let bits = _mm_cvtsi32_si128(BITS as i32);
            [_mm256_sll_epi32(a[0], bits), _mm256_sll_epi32(a[1], bits)]
        }
    }
    #[inline(always)]
    unsafe fn dot4(acc: Self::I, w: Self::B, x: i32) -> Self::I {
        unsafe {
            let x = _mm256_set1_epi32(x);
            [D::dot(acc[0], w[0], x), D::dot(acc[1], w[1], x)]
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(acc: Self::I, w: Self::B, x: i32) -> Self::I {
        unsafe {
            let x = _mm256_set1_epi32(x);
            [D::dot_small(acc[0], w[0], x), D::dot_small(acc[1], w[1], x)]
        }
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> V {
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn nibbles(b: Self::B) -> (Self::B, Self::B) {
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let low = [_mm256_and_si256(b[0], mask), _mm256_and_si256(b[1], mask)];
            let high0 = _mm256_and_si256(_mm256_srli_epi16::<4>(b[0]), mask);
            let high1 = _mm256_and_si256(_mm256_srli_epi16::<4>(b[1]), mask);
            (low, [high0, high1])
        }
    }
}
