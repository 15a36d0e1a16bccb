//! On the processor.

use crate::host::{Shared, for_each_task, pieces, with_f32, written};
use crate::simd::{Kernel, LANES, Simd, dispatch, exp};
use candle_core::{Result, Tensor};

/// Rows that one task takes.
const ROWS: usize = 8;

pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    let (t, columns) = gate_up.dims2()?;
    let f = columns / 2;
    let multiply = |out: Shared<f32>, x: &[f32]| {
        let rows = pieces(t, ROWS);
        for_each_task(t.div_ceil(ROWS), 16 * t * f, |task| {
            for row in rows(task) {
                // SAFETY: each row is written by one task only.
                let out = unsafe { out.at(row * f) };
                let (gate, up) = x[row * columns..][..columns].split_at(f);
                dispatch(Row { gate, up, out });
            }
        });
        Ok(())
    };
    // SAFETY: every row is written.
    let out = unsafe {
        written(t * f, |out| with_f32(gate_up, "silu_mul: gate_up", |x| multiply(out, x)))?
    };
    Tensor::from_vec(out, (t, f), gate_up.device())
}

struct Row<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    /// As long as `gate`.
    out: *mut f32,
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let f = self.gate.len();
        let whole = f - f % LANES;
        unsafe {
            for i in (0..whole).step_by(LANES) {
                let y = lanes::<S>(self.gate.as_ptr().add(i), self.up.as_ptr().add(i));
                S::store(self.out.add(i), y);
            }
            if whole < f {
                let mut tail = [[0f32; LANES]; 3];
                tail[0][..f - whole].copy_from_slice(&self.gate[whole..]);
                tail[1][..f - whole].copy_from_slice(&self.up[whole..]);
                let y = lanes::<S>(tail[0].as_ptr(), tail[1].as_ptr());
                S::store(tail[2].as_mut_ptr(), y);
                std::ptr::copy_nonoverlapping(tail[2].as_ptr(), self.out.add(whole), f - whole);
            }
        }
    }
}

/// `silu(gate) · up`, sixteen of them.
///
/// # Safety
/// As [`Simd`]; both pointers reach 16 elements.
#[inline(always)]
pub unsafe fn lanes<S: Simd>(gate: *const f32, up: *const f32) -> S::V {
    unsafe {
        let gate = S::load(gate);
        let decay = exp::<S>(S::sub(S::splat(0.0), gate));
        S::mul(S::div(gate, S::add(decay, S::splat(1.0))), S::load(up))
    }
}
