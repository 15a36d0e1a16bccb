//! Activations rounded to 8 bits, and what they are made from on the way.
//!
//! The operations before a product (norm, gate) are done while its rows are rounded, so that their
//! results are never written out and read again, and no threads are started for them.

use crate::host::{Shared, for_each_task, pieces};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{rms_norm, silu_mul};

/// k that share an activation scale.
pub const SPAN: usize = 32;

/// Rows that stand together in [`Activations`], and of the largest tile.
pub const GROUP: usize = 6;

/// Sums of a span: first half, second half, both.
pub const SUMS: usize = 3;

/// Rows of activations in 8 bits: `x ≈ scale · q`, a scale per [`SPAN`] columns.
///
/// [`GROUP`] rows stand side by side, span by span, so that a tile of them finds all that it needs
/// at fixed distances from one place. Rows that are missing in the last group are zero.
///
/// ```text
/// group 0                                                     group 1
/// [span 0: row 0, row 1 .. row 5] [span 1: row 0 .. row 5] …  [span 0: row 6 .. row 11] …
/// ```
pub struct Activations {
    pub rows: usize,
    /// `[groups][K / 32][GROUP][32]`.
    pub values: Vec<i8>,
    /// `[groups][K / 32][GROUP]`.
    pub scales: Vec<f32>,
    /// Sums of the values, `[groups][K / 32][SUMS][GROUP]`.
    pub sums: Vec<i32>,
    /// The same times the scale.
    pub scaled_sums: Vec<f32>,
}

/// Rows that are made, sixteen columns at a time, while they are rounded.
pub trait Rows: Copy + Send + Sync {
    /// What is worked out once for a row, if anything is.
    ///
    /// # Safety
    /// As [`Simd`]; `row` must be one of the rows.
    #[inline(always)]
    unsafe fn prepare<S: Simd>(self, _row: usize) -> f32 {
        1.0
    }

    /// Columns `i..i + 16` of a row.
    ///
    /// # Safety
    /// As above; the columns must be there.
    unsafe fn load<S: Simd>(self, row: usize, i: usize, prepared: f32) -> S::V;
}

/// Rows of `k` as they lie in memory.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    pub x: &'a [f32],
    pub k: usize,
}

impl Rows for Stored<'_> {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, row: usize, i: usize, _: f32) -> S::V {
        unsafe { S::load(self.x.as_ptr().add(row * self.k + i)) }
    }
}

/// [`rms_norm::rms_norm`] of rows as long as `weight`.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub eps: f32,
}

impl Rows for Normed<'_> {
    #[inline(always)]
    unsafe fn prepare<S: Simd>(self, row: usize) -> f32 {
        let k = self.weight.len();
        unsafe { rms_norm::cpu::scale::<S>(&self.x[row * k..][..k], self.eps) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, row: usize, i: usize, scale: f32) -> S::V {
        unsafe {
            let x = S::load(self.x.as_ptr().add(row * self.weight.len() + i));
            S::mul(S::mul(x, S::splat(scale)), S::load(self.weight.as_ptr().add(i)))
        }
    }
}

/// [`silu_mul::silu_mul`] of rows of `2 k`.
#[derive(Clone, Copy)]
pub struct Gated<'a> {
    pub gate_up: &'a [f32],
    pub k: usize,
}

impl Rows for Gated<'_> {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, row: usize, i: usize, _: f32) -> S::V {
        unsafe {
            let gate = self.gate_up.as_ptr().add(row * 2 * self.k + i);
            silu_mul::cpu::lanes::<S>(gate, gate.add(self.k))
        }
    }
}

impl Activations {
    /// Rounds `rows` rows of `k` columns, a multiple of 32.
    pub fn new(source: impl Rows, rows: usize, k: usize) -> Self {
        let spans = k / SPAN;
        let all = rows.div_ceil(GROUP) * spans;
        let mut values = vec![0i8; all * GROUP * SPAN];
        let mut scales = vec![0f32; all * GROUP];
        let mut sums = vec![0i32; all * GROUP * SUMS];
        let mut scaled_sums = vec![0f32; all * GROUP * SUMS];
        let places = Places {
            values: Shared::new(&mut values),
            scales: Shared::new(&mut scales),
            sums: Shared::new(&mut sums),
            scaled_sums: Shared::new(&mut scaled_sums),
        };
        let pieces = pieces(rows, GROUP);
        for_each_task(rows.div_ceil(GROUP), rows * k, |task| {
            for row in pieces(task) {
                dispatch(Rounding { source, row, spans, places });
            }
        });
        Self { rows, values, scales, sums, scaled_sums }
    }
}

/// Where [`Rounding`] writes: the arrays of [`Activations`].
#[derive(Clone, Copy)]
struct Places {
    values: Shared<i8>,
    scales: Shared<f32>,
    sums: Shared<i32>,
    scaled_sums: Shared<f32>,
}

/// Rounds one row.
struct Rounding<R: Rows> {
    source: R,
    row: usize,
    spans: usize,
    places: Places,
}

impl<R: Rows> Kernel for Rounding<R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (group, row) = (self.row / GROUP, self.row % GROUP);
        // SAFETY: the row has so many spans, and its places are written by its task only.
        unsafe {
            let prepared = self.source.prepare::<S>(self.row);
            for span in 0..self.spans {
                let at = group * self.spans + span;
                let a = self.source.load::<S>(self.row, span * SPAN, prepared);
                let b = self.source.load::<S>(self.row, span * SPAN + LANES, prepared);
                self.places.write::<S>(at, row, a, b);
            }
        }
    }
}

impl Places {
    /// Rounds the two halves of span `at` of a group's row.
    ///
    /// # Safety
    /// As [`Simd`]; the span must be there, and no other thread may write this row of it.
    #[inline(always)]
    unsafe fn write<S: Simd>(self, at: usize, row: usize, a: S::V, b: S::V) {
        // (Closures, as in `map`, would not be compiled for the instruction set.)
        unsafe {
            let zero = S::splat(0.0);
            let (size_a, size_b) = (S::max(a, S::sub(zero, a)), S::max(b, S::sub(zero, b)));
            let largest = S::largest(S::max(size_a, size_b));
            let inverse = S::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let (a, b) = (S::round(S::mul(a, inverse)), S::round(S::mul(b, inverse)));
            let values = self.values.at((at * GROUP + row) * SPAN);
            S::store_i8(values, a);
            S::store_i8(values.add(LANES), b);
            // Sums of integers below 2^24: exact. They are NaN if any number was not finite,
            // and the scale hands that on, since bytes can't.
            let (first, second) = (S::sum(a), S::sum(b));
            let scale = largest / 127.0 + 0.0 * (first + second);
            *self.scales.at(at * GROUP + row) = scale;
            for (i, sum) in [first, second, first + second].into_iter().enumerate() {
                let at = (at * SUMS + i) * GROUP + row;
                *self.sums.at(at) = sum as i32;
                *self.scaled_sums.at(at) = scale * sum;
            }
        }
    }
}
