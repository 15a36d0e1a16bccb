//! Sixteen lanes of f32 (and of i32) on whatever vector unit the machine has.
//!
//! The logical width is the same on every instruction set, and so are the order of operations and
//! the rounding of each (fused multiply-add everywhere). A kernel written over [`Simd`] therefore
//! gives the same bits on AVX-512, AVX2, NEON and plain scalar code.
//!
//! Use: implement [`Kernel`] for a struct of arguments and call [`dispatch`]. `run` and everything
//! that it calls down to the intrinsics must be `#[inline(always)]`, or the vector instructions
//! end up behind function calls.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(test, not(target_arch = "aarch64")))]
mod scalar;

pub use element::{Bf16, Element, F16, F32};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// The operations that kernels are made of.
///
/// # Safety
/// Every method may be called only where the instruction set is present, which [`dispatch`]
/// checks, and every pointer must be valid for the 16 elements (or the bytes named) that it reads
/// or writes; no alignment is needed.
pub unsafe trait Simd: Copy {
    /// Sixteen f32.
    type V: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixty-four bytes.
    type B: Copy;
    /// Logical vectors that fit the register file: bounds the size of register tiles.
    const REGISTERS: usize;
    /// What [`Simd::dot4`] takes from its unsigned bytes: 128 where they are multiplied as signed
    /// ones.
    const OFFSET: i32;

    /// Asks for the cache line of `p` ahead of its use; any address is allowed.
    unsafe fn prefetch(p: *const u8);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Widens sixteen bf16 given as bits.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Widens sixteen f16 given as bits.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Sixteen bytes as numbers.
    unsafe fn load_i8(p: *const i8) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a > b ? a : b` per lane.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? a : b` per lane.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `v` where `a > b`, else 0.
    unsafe fn where_above(v: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Adds the lanes in a fixed tree: 16 → 8 → 4 → 2 → 1, halves added to each other.
    unsafe fn sum(v: Self::V) -> f32;
    /// The largest lane.
    unsafe fn largest(v: Self::V) -> f32;
    /// Nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `v * 2^n` for integral `n` in -126 ..= 127.
    unsafe fn scale2(v: Self::V, n: Self::V) -> Self::V;

    /// Stores integral lanes in -128 ..= 127 as bytes; what NaN becomes is left open.
    unsafe fn store_i8(p: *mut i8, v: Self::V);

    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn shift_left<const BITS: u32>(a: Self::I) -> Self::I;
    /// Lane `i` gains the dot product of bytes `4 i .. 4 i + 4` of `w` (unsigned), less
    /// [`Simd::OFFSET`], with the four bytes of `x` (signed). Exact: no saturation.
    unsafe fn dot4(acc: Self::I, w: Self::B, x: i32) -> Self::I;
    /// The same for `w` below 16, and without the offset.
    unsafe fn dot4_small(acc: Self::I, w: Self::B, x: i32) -> Self::I;
    unsafe fn to_f32(a: Self::I) -> Self::V;
    unsafe fn load_bytes(p: *const u8) -> Self::B;
    /// The low and the high nibble of each byte.
    unsafe fn nibbles(b: Self::B) -> (Self::B, Self::B);
}

/// Arguments of a computation that is generic over the instruction set.
pub trait Kernel {
    type Output;
    /// # Safety
    /// Called only where `S`'s instruction set is present. Must be `#[inline(always)]`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs a kernel on the best instruction set of this machine.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::present() {
            // SAFETY: the features that `run` is compiled for were just detected.
            return unsafe { avx512::run(kernel) };
        }
        if avx2::has_vnni() {
            // SAFETY: as above.
            return unsafe { avx2::run_vnni(kernel) };
        }
        if avx2::present() {
            // SAFETY: as above.
            return unsafe { avx2::run(kernel) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the features that each `run` is compiled for were just detected.
    unsafe {
        if neon::has_mixed_dot_product() {
            return neon::run_mixed_dot_product(kernel);
        }
        if neon::has_dot_product() {
            return neon::run_dot_product(kernel);
        }
        neon::run(kernel)
    }
    #[cfg(not(target_arch = "aarch64"))]
    // SAFETY: plain Rust runs everywhere.
    unsafe {
        kernel.run::<scalar::Scalar>()
    }
}

/// Name of the instruction set that operations use.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::present() {
            return "AVX-512 (F, BW, VL, VNNI)";
        }
        if avx2::has_vnni() {
            return "AVX2 + FMA + F16C + VNNI";
        }
        if avx2::present() {
            return "AVX2 + FMA + F16C";
        }
    }
    #[cfg(target_arch = "aarch64")]
    return match (neon::has_mixed_dot_product(), neon::has_dot_product()) {
        (true, _) => "NEON + dotprod + i8mm",
        (_, true) => "NEON + dotprod",
        _ => "NEON",
    };
    #[cfg(not(target_arch = "aarch64"))]
    "scalar"
}

/// `e^x` per lane; relative error below 2e-7 on -87 ..= 88, 0 below about -87.3 (and for -inf),
/// never subnormal, and `e^88` above 88. Range reduction by ln 2 in two parts and a polynomial of degree 6 for `2^f`
/// on |f| ≤ 1/2 (the scheme of Cephes `expf`).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    const LOW: f32 = -87.336_54;
    unsafe {
        let clamped = S::min(S::max(x, S::splat(LOW)), S::splat(88.0));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), clamped);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let y = S::add(S::fma(S::mul(p, r), r, r), S::splat(1.0));
        // Lanes at the lower clamp become exactly zero.
        S::where_above(S::scale2(y, n), x, S::splat(LOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    /// The bits of every operation on some lanes.
    struct Everything<'a> {
        a: &'a [f32],
        b: &'a [f32],
        bytes: &'a [u8; 64],
    }

    impl Kernel for Everything<'_> {
        type Output = Vec<u32>;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> Vec<u32> {
            unsafe {
                let (a, b) = (S::load(self.a.as_ptr()), S::load(self.b.as_ptr()));
                let packed: [u16; LANES] =
                    std::array::from_fn(|i| self.a[i].to_bits() as u16 & 0xbfff);
                let bytes = S::load_bytes(self.bytes.as_ptr());
                let (low, high) = S::nibbles(bytes);
                let dot = |w, x: [i8; 4]| {
                    let offset = S::OFFSET * x.iter().map(|&x| i32::from(x)).sum::<i32>();
                    S::dot4(S::splat_i(offset - 7), w, i32::from_le_bytes(x.map(|x| x as u8)))
                };
                let dot_small = |w| S::dot4_small(S::splat_i(9), w, i32::from_le_bytes([127; 4]));
                let sums = dot(bytes, [1, -1, 0, 2]);
                let vectors = [
                    S::add(a, b),
                    S::sub(a, b),
                    S::mul(a, b),
                    S::div(a, b),
                    S::max(a, b),
                    S::min(a, b),
                    S::where_above(b, a, b),
                    S::fma(a, b, a),
                    S::round(a),
                    S::scale2(b, S::round(a)),
                    S::load_bf16(packed.as_ptr()),
                    S::load_f16(packed.as_ptr()),
                    S::load_i8(self.bytes.as_ptr().cast()),
                    S::to_f32(dot(bytes, [127, -127, 3, -56])),
                    S::to_f32(dot(bytes, [127; 4])),
                    S::to_f32(dot(bytes, [-128; 4])),
                    S::to_f32(dot_small(low)),
                    S::to_f32(dot_small(high)),
                    S::to_f32(S::add_i(sums, S::splat_i(-77))),
                    S::to_f32(S::shift_left::<7>(sums)),
                    exp::<S>(a),
                    exp::<S>(S::splat(f32::NEG_INFINITY)),
                    exp::<S>(S::splat(200.0)),
                ];
                let mut bits = Vec::new();
                for v in vectors {
                    let mut lanes = [0f32; LANES];
                    S::store(lanes.as_mut_ptr(), v);
                    bits.extend(lanes.map(f32::to_bits));
                }
                bits.push(S::sum(a).to_bits());
                bits.push(S::largest(b).to_bits());
                let mut bytes = [0i8; LANES];
                S::store_i8(bytes.as_mut_ptr(), S::round(a));
                bits.extend(bytes.map(|x| x as u32));
                bits
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for seed in 0..200 {
            let (a, b) = (noise(LANES, seed, 50.0), noise(LANES, seed + 1000, 3.0));
            let bytes = std::array::from_fn(|i| (i * 37 + seed as usize * 11) as u8);
            let everything = || Everything { a: &a, b: &b, bytes: &bytes };
            // SAFETY: plain Rust runs everywhere; the others where they are present.
            let want = unsafe { everything().run::<scalar::Scalar>() };
            assert_eq!(dispatch(everything()), want, "best set, seed {seed}");
            #[cfg(target_arch = "x86_64")]
            if avx2::present() {
                assert_eq!(unsafe { avx2::run(everything()) }, want, "AVX2, seed {seed}");
            }
            #[cfg(target_arch = "aarch64")]
            unsafe {
                assert_eq!(neon::run(everything()), want, "NEON, seed {seed}");
                if neon::has_dot_product() {
                    let got = neon::run_dot_product(everything());
                    assert_eq!(got, want, "NEON with dotprod, seed {seed}");
                }
            }
        }
    }

    struct Exp([f32; LANES]);

    impl Kernel for Exp {
        type Output = [f32; LANES];

        #[inline(always)]
        unsafe fn run<S: Simd>(mut self) -> [f32; LANES] {
            unsafe {
                let y = exp::<S>(S::load(self.0.as_ptr()));
                S::store(self.0.as_mut_ptr(), y);
            }
            self.0
        }
    }

    #[test]
    fn exp_is_close_over_its_whole_range() {
        for step in 0..2000 {
            let x: [f32; LANES] =
                std::array::from_fn(|i| -87.0 + (step * LANES + i) as f32 * 0.00546);
            for (got, x) in dispatch(Exp(x)).into_iter().zip(x) {
                let want = f64::from(x).exp();
                let error = (f64::from(got) - want).abs() / want;
                assert!(error < 2e-7, "e^{x}: {got}, off by {error:e}");
            }
        }
        assert_eq!(dispatch(Exp([-88.0; LANES])), [0.0; LANES]);
        assert_eq!(dispatch(Exp([f32::NEG_INFINITY; LANES])), [0.0; LANES]);
    }
}
