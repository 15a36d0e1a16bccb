//! On the processor: two passes over a row that stays in the first-level cache.

use crate::host::{Shared, for_each_task, pieces, with_f32, written};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use candle_core::{Result, Tensor};

/// Rows that one task takes.
const ROWS: usize = 16;

pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (t, h) = x.dims2()?;
    let normalise = |out: Shared<f32>, x: &[f32], w: &[f32]| {
        let rows = pieces(t, ROWS);
        for_each_task(t.div_ceil(ROWS), t * h, |task| {
            for row in rows(task) {
                // SAFETY: each row is written by one task only.
                let out = unsafe { out.at(row * h) };
                dispatch(Row { x: &x[row * h..][..h], w, eps: eps as f32, out });
            }
        });
        Ok(())
    };
    // SAFETY: every row is written.
    let out = unsafe {
        written(t * h, |out| {
            with_f32(x, "rms_norm: x", |x| {
                with_f32(weight, "rms_norm: weight", |w| normalise(out, x, w))
            })
        })?
    };
    Tensor::from_vec(out, (t, h), x.device())
}

struct Row<'a> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
    /// As long as `x`.
    out: *mut f32,
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let h = self.x.len();
        let whole = h - h % LANES;
        unsafe {
            let scale = scale::<S>(self.x, self.eps);
            for i in (0..whole).step_by(LANES) {
                let v = S::mul(S::load(self.x.as_ptr().add(i)), S::splat(scale));
                S::store(self.out.add(i), S::mul(v, S::load(self.w.as_ptr().add(i))));
            }
            for i in whole..h {
                self.out.add(i).write(self.x[i] * scale * self.w[i]);
            }
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
