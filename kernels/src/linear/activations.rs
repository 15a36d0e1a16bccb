//! Activations rounded to 8 bits, and what they are made from on the way.
//!
//! A few columns of a transformer's activations are many times larger than the rest (Dettmers et al.
//! 2022, arXiv 2208.07339, section 3), and the spans that hold them carry most of the rounding error.
//! Those spans, about one in twelve, get a second term of 8 bits for what the first left over.
//!
//! The operations before a product (norm, gate) are done while its rows are rounded, so that their
//! results are never written out and read again, and no threads are started for them.

use crate::host::{Shared, for_each_task, pieces};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{rms_norm, silu_mul};
use std::ops::Range;

/// k that share an activation scale.
pub const SPAN: usize = 32;

/// Rows that stand together in [`Activations`], and of the largest tile.
pub const GROUP: usize = 6;

/// Sums of a span: first half, second half, both.
pub const SUMS: usize = 3;

/// A span is fine if its scale is so many times the mean scale of its row.
pub const OUTLIER: f32 = 2.0;

/// Steps of a fine value within one step of a coarse one: a power of two, so that a row that is not
/// fine gets the same bits whether or not others of its group are.
pub const FINE_STEPS: i32 = 1 << FINE_BITS;
pub const FINE_BITS: u32 = 7;

/// Rows of activations in 8 bits: `x ≈ scale · q`, a scale per [`SPAN`] columns, and in fine spans
/// `x ≈ scale · (q + fine / 128)`.
///
/// [`GROUP`] rows stand side by side, span by span, so that a tile of them finds all that it needs
/// at fixed distances from one place. Rows that are missing in the last group hold numbers of earlier
/// uses, and so may the arrays behind their ends: memory is kept from one use to the next.
///
/// ```text
/// group 0                                                     group 1
/// [span 0: row 0, row 1 .. row 5] [span 1: row 0 .. row 5] …  [span 0: row 6 .. row 11] …
/// ```
#[derive(Debug, Default)]
pub struct Activations {
    pub rows: usize,
    /// `[groups][K / 32][GROUP][32]`.
    pub values: Vec<i8>,
    /// `[groups][K / 32][GROUP]`.
    pub scales: Vec<f32>,
    /// Sums of the values, `[groups][K / 32][SUMS][GROUP]`.
    pub sums: Vec<i32>,
    /// Sums of all that the values stand for, in the same order.
    pub scaled_sums: Vec<f32>,
    /// Whether a row of the group is fine in the span, `[groups][K / 32]`.
    pub is_fine: Vec<bool>,
    /// As `values`, in fine spans only; 0 where a row is not fine.
    pub fine: Vec<i8>,
    /// Sums of `fine`, as `sums`.
    pub fine_sums: Vec<i32>,
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
    pub fn round(&mut self, source: impl Rows, rows: usize, k: usize) {
        let spans = k / SPAN;
        let all = rows.div_ceil(GROUP) * spans;
        self.rows = rows;
        let places = Places {
            values: room(&mut self.values, all * GROUP * SPAN),
            scales: room(&mut self.scales, all * GROUP),
            sums: room(&mut self.sums, all * GROUP * SUMS),
            scaled_sums: room(&mut self.scaled_sums, all * GROUP * SUMS),
            is_fine: room(&mut self.is_fine, all),
            fine: room(&mut self.fine, all * GROUP * SPAN),
            fine_sums: room(&mut self.fine_sums, all * GROUP * SUMS),
        };
        let pieces = pieces(rows, GROUP);
        for_each_task(rows.div_ceil(GROUP), rows * k, |group| {
            dispatch(Rounding { source, rows: pieces(group), group, spans, places });
        });
    }
}

/// Makes it `len` elements long, unless it is longer.
fn room<T: Copy + Default>(array: &mut Vec<T>, len: usize) -> Shared<T> {
    if array.len() < len {
        array.resize(len, T::default());
    }
    Shared::new(array)
}

/// Where [`Rounding`] writes: the arrays of [`Activations`].
#[derive(Clone, Copy)]
struct Places {
    values: Shared<i8>,
    scales: Shared<f32>,
    sums: Shared<i32>,
    scaled_sums: Shared<f32>,
    is_fine: Shared<bool>,
    fine: Shared<i8>,
    fine_sums: Shared<i32>,
}

/// Rounds one group of rows.
struct Rounding<R: Rows> {
    source: R,
    rows: Range<usize>,
    group: usize,
    spans: usize,
    places: Places,
}

impl<R: Rows> Kernel for Rounding<R> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut prepared = [0.0; GROUP];
        let mut limits = [f32::INFINITY; GROUP];
        // SAFETY: the rows have so many spans, and their places are written by their task only.
        unsafe {
            for (r, row) in self.rows.clone().enumerate() {
                prepared[r] = self.source.prepare::<S>(row);
                limits[r] = OUTLIER * self.coarse::<S>(row, prepared[r]);
            }
            for span in 0..self.spans {
                self.fine::<S>(span, &prepared, &limits);
            }
        }
    }
}

impl<R: Rows> Rounding<R> {
    /// The two halves of a span.
    ///
    /// # Safety
    /// As [`Rows::load`].
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, row: usize, span: usize, prepared: f32) -> [S::V; 2] {
        unsafe {
            [
                self.source.load::<S>(row, span * SPAN, prepared),
                self.source.load::<S>(row, span * SPAN + LANES, prepared),
            ]
        }
    }

    /// Rounds all spans of a row, and gives the mean of their scales.
    ///
    /// # Safety
    /// As above; no other thread may write this group.
    #[inline(always)]
    unsafe fn coarse<S: Simd>(&self, row: usize, prepared: f32) -> f32 {
        let mut total = 0.0;
        for span in 0..self.spans {
            // SAFETY: as asked for.
            unsafe {
                let halves = self.load::<S>(row, span, prepared);
                let at = self.group * self.spans + span;
                total += self.places.write_coarse::<S>(at, row % GROUP, halves);
            }
        }
        total / self.spans as f32
    }

    /// Makes a span fine in the rows whose scales there are above their limits, if there are any.
    ///
    /// # Safety
    /// As above, after [`Rounding::coarse`] of all rows.
    #[inline(always)]
    unsafe fn fine<S: Simd>(&self, span: usize, prepared: &[f32; GROUP], limits: &[f32; GROUP]) {
        let at = self.group * self.spans + span;
        // SAFETY: as asked for.
        unsafe {
            let is_fine = |r: usize| *self.places.scales.at(at * GROUP + r) > limits[r];
            let any = (0..GROUP).any(is_fine);
            *self.places.is_fine.at(at) = any;
            if !any {
                return;
            }
            self.places.fine.at(at * GROUP * SPAN).write_bytes(0, GROUP * SPAN);
            self.places.fine_sums.at(at * GROUP * SUMS).write_bytes(0, GROUP * SUMS);
            for (r, row) in self.rows.clone().enumerate() {
                if is_fine(r) {
                    let halves = self.load::<S>(row, span, prepared[r]);
                    self.places.write_fine::<S>(at, r, halves);
                }
            }
        }
    }
}

/// A span in units of its scale, and the largest absolute value that the scale comes from.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn in_steps<S: Simd>([a, b]: [S::V; 2]) -> ([S::V; 2], f32) {
    unsafe {
        let zero = S::splat(0.0);
        let (size_a, size_b) = (S::max(a, S::sub(zero, a)), S::max(b, S::sub(zero, b)));
        let largest = S::largest(S::max(size_a, size_b));
        let inverse = S::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
        ([S::mul(a, inverse), S::mul(b, inverse)], largest)
    }
}

// (Closures, as in `map`, would not be compiled for the instruction set.)
impl Places {
    /// Rounds span `at` of a group's row, and gives its scale.
    ///
    /// # Safety
    /// As [`Simd`]; the span must be there, and no other thread may write this row of it.
    #[inline(always)]
    unsafe fn write_coarse<S: Simd>(self, at: usize, row: usize, halves: [S::V; 2]) -> f32 {
        unsafe {
            let ([a, b], largest) = in_steps::<S>(halves);
            let (first, second) = self.values.write::<S>(at, row, [S::round(a), S::round(b)]);
            // Sums of integers below 2^24: exact. They are NaN if any number was not finite,
            // and the scale hands that on, since bytes can't.
            let scale = largest / 127.0 + 0.0 * (first + second);
            *self.scales.at(at * GROUP + row) = scale;
            for (i, sum) in [first, second, first + second].into_iter().enumerate() {
                let at = (at * SUMS + i) * GROUP + row;
                *self.sums.at(at) = sum as i32;
                *self.scaled_sums.at(at) = scale * sum;
            }
            scale
        }
    }

    /// Rounds once more what [`Places::write_coarse`] left over.
    ///
    /// # Safety
    /// As there, and after it.
    #[inline(always)]
    unsafe fn write_fine<S: Simd>(self, at: usize, row: usize, halves: [S::V; 2]) {
        unsafe {
            let ([a, b], _) = in_steps::<S>(halves);
            let steps = S::splat(FINE_STEPS as f32);
            let a = S::round(S::mul(S::sub(a, S::round(a)), steps));
            let b = S::round(S::mul(S::sub(b, S::round(b)), steps));
            let (first, second) = self.fine.write::<S>(at, row, [a, b]);
            let fraction = *self.scales.at(at * GROUP + row) / FINE_STEPS as f32;
            for (i, sum) in [first, second, first + second].into_iter().enumerate() {
                let at = (at * SUMS + i) * GROUP + row;
                *self.fine_sums.at(at) = sum as i32;
                *self.scaled_sums.at(at) += fraction * sum;
            }
        }
    }
}

impl Shared<i8> {
    /// Stores the integers of row `row` of span `at`, and gives the sums of the two halves.
    ///
    /// # Safety
    /// As [`Simd::store_i8`]; the span must be there.
    #[inline(always)]
    unsafe fn write<S: Simd>(self, at: usize, row: usize, [a, b]: [S::V; 2]) -> (f32, f32) {
        unsafe {
            let values = self.at((at * GROUP + row) * SPAN);
            S::store_i8(values, a);
            S::store_i8(values.add(LANES), b);
            (S::sum(a), S::sum(b))
        }
    }
}
