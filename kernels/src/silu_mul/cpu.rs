//! On the processor.

use crate::host::for_each_piece;
use crate::simd::{Kernel, LANES, Simd, dispatch, exp};

/// Rows that one task takes.
const ROWS: usize = 8;

/// Rows of `2 f` columns to rows of `f`.
pub fn silu_mul(gate_up: &[f32], f: usize, out: &mut [f32]) {
    let operations = 16 * out.len();
    for_each_piece(out, ROWS * f, operations, |i, out| {
        let rows = gate_up[i * ROWS * 2 * f..].chunks_exact(2 * f);
        for (row, out) in rows.zip(out.chunks_exact_mut(f)) {
            let (gate, up) = row.split_at(f);
            dispatch(Row { gate, up, out });
        }
    });
}

struct Row<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    /// As long as `gate`.
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let f = self.gate.len();
        let whole = f - f % LANES;
        unsafe {
            let out = self.out.as_mut_ptr();
            for i in (0..whole).step_by(LANES) {
                let y = lanes::<S>(self.gate.as_ptr().add(i), self.up.as_ptr().add(i));
                S::store(out.add(i), y);
            }
            if whole < f {
                let mut tail = [[0f32; LANES]; 3];
                tail[0][..f - whole].copy_from_slice(&self.gate[whole..]);
                tail[1][..f - whole].copy_from_slice(&self.up[whole..]);
                let y = lanes::<S>(tail[0].as_ptr(), tail[1].as_ptr());
                S::store(tail[2].as_mut_ptr(), y);
                self.out[whole..].copy_from_slice(&tail[2][..f - whole]);
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
