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
mod scalar;

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

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Widens sixteen bf16 given as bits.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Widens sixteen f16 given as bits.
    unsafe fn load_f16(p: *const u16) -> Self::V;
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
    /// 1 where `a > b`, else 0.
    unsafe fn above(a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `2^n` for integral lanes in -126 ..= 127.
    unsafe fn exp2_int(n: Self::V) -> Self::V;

    unsafe fn splat_i(x: i32) -> Self::I;
    /// Lane `i` gains the dot product of bytes `4 i .. 4 i + 4` of `w` (unsigned) with the four
    /// bytes of `x` (signed). Exact: no saturation.
    unsafe fn dot4(acc: Self::I, w: Self::B, x: i32) -> Self::I;
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
        if avx2::present() {
            // SAFETY: as above.
            return unsafe { avx2::run(kernel) };
        }
    }
    // SAFETY: plain Rust runs everywhere.
    unsafe { kernel.run::<scalar::Scalar>() }
}

/// Name of the instruction set that [`dispatch`] uses.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::present() {
            return "AVX-512 (F, BW, VL, VNNI)";
        }
        if avx2::present() {
            return "AVX2 + FMA + F16C";
        }
    }
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
        let y = S::mul(y, S::exp2_int(n));
        // Lanes at the lower clamp become exactly zero: 1 where x > LOW, else 0.
        S::mul(y, S::above(x, S::splat(LOW)))
    }
}

/// Adds the lanes in a fixed tree: 16 → 8 → 4 → 2 → 1, halves added to each other.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn sum<S: Simd>(v: S::V) -> f32 {
    let mut lanes = [0f32; LANES];
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    fold(lanes, |a, b| a + b)
}

/// The largest lane.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn largest<S: Simd>(v: S::V) -> f32 {
    let mut lanes = [0f32; LANES];
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    fold(lanes, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}
