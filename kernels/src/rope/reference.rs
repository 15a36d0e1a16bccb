//! The definition, in f64, without a table.

use super::{RopeStyle, angle};

/// `x` is `[positions.len(), heads, d]`.
pub fn rope(
    x: &[f32],
    positions: &[u32],
    inv_freq: &[f64],
    heads: usize,
    d: usize,
    style: RopeStyle,
) -> Vec<f32> {
    let mut out = x.to_vec();
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            let base = (row * heads + head) * d;
            for (i, w) in inv_freq.iter().enumerate() {
                let (a, b) = match style {
                    RopeStyle::HalfSplit => (base + i, base + i + inv_freq.len()),
                    RopeStyle::Interleaved => (base + 2 * i, base + 2 * i + 1),
                };
                let (sin, cos) = angle(position, *w).sin_cos();
                let (va, vb) = (f64::from(x[a]), f64::from(x[b]));
                out[a] = (va * cos - vb * sin) as f32;
                out[b] = (vb * cos + va * sin) as f32;
            }
        }
    }
    out
}
