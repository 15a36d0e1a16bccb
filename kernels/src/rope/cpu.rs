//! On the processor. Plain loops: the compiler vectorises them, and they take under 1 % of a step.

use super::{Heads, RopeStyle};
use crate::host::for_each_piece;

/// Rows that one task takes.
const ROWS: usize = 16;

/// Cosines and sines of every position, `[positions, half]` each.
pub struct Tables<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    pub half: usize,
}

/// Rows of `columns`.
pub fn rope(
    x: &mut [f32],
    columns: usize,
    heads: Heads,
    positions: &[u32],
    tables: &Tables,
    style: RopeStyle,
) {
    let operations = 2 * positions.len() * heads.count * heads.size;
    for_each_piece(x, ROWS * columns, operations, |i, rows| {
        for (row, &position) in rows.chunks_exact_mut(columns).zip(&positions[i * ROWS..]) {
            let angles = position as usize * tables.half..(position as usize + 1) * tables.half;
            let (cos, sin) = (&tables.cos[angles.clone()], &tables.sin[angles]);
            for head in row[..heads.count * heads.size].chunks_exact_mut(heads.size) {
                turn(head, cos, sin, style);
            }
        }
    });
}

/// One head of one row.
fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], style: RopeStyle) {
    let half = cos.len();
    match style {
        RopeStyle::HalfSplit => {
            let (first, second) = x[..2 * half].split_at_mut(half);
            for i in 0..half {
                let (a, b) = (first[i], second[i]);
                first[i] = a * cos[i] - b * sin[i];
                second[i] = b * cos[i] + a * sin[i];
            }
        }
        RopeStyle::Interleaved => {
            for (i, pair) in x[..2 * half].chunks_exact_mut(2).enumerate() {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos[i] - b * sin[i];
                pair[1] = b * cos[i] + a * sin[i];
            }
        }
    }
}
