//! On the processor: two passes over a row that stays in the first-level cache.

use crate::host::for_each_piece;
use crate::rope::Heads;
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Rows that one task takes.
const ROWS: usize = 16;

/// Rows as long as `w`.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f64, out: &mut [f32]) {
    let piece = ROWS * w.len();
    for_each_piece(out, piece, x.len(), |i, out| {
        let rows = x[i * piece..].chunks_exact(w.len());
        for (x, out) in rows.zip(out.chunks_exact_mut(w.len())) {
            dispatch(Row { x, w, eps: eps as f32, out });
        }
    });
}

struct Row<'a> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
    /// As long as `x`.
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let h = self.x.len();
        let whole = h - h % LANES;
        unsafe {
            let scale = scale::<S>(self.x, self.eps);
            let out = self.out.as_mut_ptr();
            for i in (0..whole).step_by(LANES) {
                let v = S::mul(S::load(self.x.as_ptr().add(i)), S::splat(scale));
                S::store(out.add(i), S::mul(v, S::load(self.w.as_ptr().add(i))));
            }
            for i in whole..h {
                self.out[i] = self.x[i] * scale * self.w[i];
            }
        }
    }
}

/// Heads at the beginning of rows of `columns`, each as long as its part of `w`.
pub fn rms_norm_of_heads(x: &mut [f32], columns: usize, heads: Heads, w: &[f32], eps: f64) {
    let operations = 2 * x.len();
    for_each_piece(x, ROWS * columns, operations, |_, rows| {
        for row in rows.chunks_exact_mut(columns) {
            let numbers = row[..w.len()].chunks_exact_mut(heads.size);
            for (x, w) in numbers.zip(w.chunks_exact(heads.size)) {
                dispatch(InPlace { x, w, eps: eps as f32 });
            }
        }
    });
}

struct InPlace<'a> {
    x: &'a mut [f32],
    w: &'a [f32],
    eps: f32,
}

impl Kernel for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let scale = unsafe { scale::<S>(self.x, self.eps) };
        for (x, w) in self.x.iter_mut().zip(self.w) {
            *x = *x * scale * w;
        }
    }
}

/// What a row is multiplied by before its weights: `1 / sqrt(mean(x²) + eps)`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn scale<S: Simd>(x: &[f32], eps: f32) -> f32 {
    let h = x.len();
    let whole = h - h % LANES;
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let v = S::load(x.as_ptr().add(i));
            squares = S::fma(v, v, squares);
        }
        let mut total = S::sum(squares);
        for &v in &x[whole..] {
            total = v.mul_add(v, total);
        }
        1.0 / (total / h as f32 + eps).sqrt()
    }
}
