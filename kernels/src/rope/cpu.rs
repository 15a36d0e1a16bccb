//! On the processor. Plain loops: the compiler vectorises them, and they take under 1 % of a step.

use super::{RopeStyle, RopeTable};
use crate::host::{Shared, for_each_task, pieces, with_f32};
use candle_core::{Result, Tensor};

/// Rows that one task takes.
const ROWS: usize = 16;

pub fn rope(x: &Tensor, positions: &[u32], table: &RopeTable, style: RopeStyle) -> Result<Tensor> {
    let (t, heads, d) = x.dims3()?;
    let half = table.rotated() / 2;
    let mut out = vec![0f32; t * heads * d];
    with_f32(x, "rope: x", |x| {
        with_f32(&table.cos, "rope: cos", |cos| {
            with_f32(&table.sin, "rope: sin", |sin| {
                let shared = Shared::new(&mut out);
                let rows = pieces(t, ROWS);
                for_each_task(t.div_ceil(ROWS), 2 * t * heads * d, |task| {
                    for row in rows(task) {
                        let angle =
                            positions[row] as usize * half..(positions[row] as usize + 1) * half;
                        let (cos, sin) = (&cos[angle.clone()], &sin[angle]);
                        for head in 0..heads {
                            let at = (row * heads + head) * d;
                            // SAFETY: each head of each row is written by one task only.
                            let out = unsafe { std::slice::from_raw_parts_mut(shared.at(at), d) };
                            turn(&x[at..][..d], cos, sin, style, out);
                        }
                    }
                });
                Ok(())
            })
        })
    })?;
    Tensor::from_vec(out, (t, heads, d), x.device())
}

/// One head of one row.
fn turn(x: &[f32], cos: &[f32], sin: &[f32], style: RopeStyle, out: &mut [f32]) {
    let half = cos.len();
    match style {
        RopeStyle::HalfSplit => {
            let (a, b) = x[..2 * half].split_at(half);
            let (out_a, out_b) = out[..2 * half].split_at_mut(half);
            for i in 0..half {
                out_a[i] = a[i] * cos[i] - b[i] * sin[i];
                out_b[i] = b[i] * cos[i] + a[i] * sin[i];
            }
        }
        RopeStyle::Interleaved => {
            let pairs = x[..2 * half].chunks_exact(2).zip(out[..2 * half].chunks_exact_mut(2));
            for (i, (x, out)) in pairs.enumerate() {
                out[0] = x[0] * cos[i] - x[1] * sin[i];
                out[1] = x[1] * cos[i] + x[0] * sin[i];
            }
        }
    }
    out[2 * half..].copy_from_slice(&x[2 * half..]);
}
