//! What positions came to so far: weighted sums of values, relative to the largest score.

use super::fill;
use crate::simd::{Kernel, LANES, Simd, exp};

/// A softmax over some positions, by row.
#[derive(Debug, Default)]
pub struct Sums {
    /// Weighted sums of values, `[rows][D]`.
    pub o: Vec<f32>,
    /// The largest score, relative to which weights are.
    pub largest: Vec<f32>,
    /// Sums of weights; 0 where a row sees none of the positions.
    pub total: Vec<f32>,
}

impl Sums {
    /// Makes it the sums over no positions.
    pub fn clear(&mut self, rows: usize, d: usize) {
        fill(&mut self.o, rows * d, 0.0);
        fill(&mut self.largest, rows, f32::NEG_INFINITY);
        fill(&mut self.total, rows, 0.0);
    }

    /// Makes the sums of a row relative to a larger score.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub unsafe fn raise<S: Simd>(&mut self, row: usize, largest: f32, d: usize) {
        // SAFETY: a row has `d` sums, a multiple of the lanes.
        unsafe {
            let keep = S::largest(exp::<S>(S::splat(self.largest[row] - largest)));
            self.largest[row] = largest;
            self.total[row] *= keep;
            let o = self.o.as_mut_ptr().add(row * d);
            for i in (0..d).step_by(LANES) {
                S::store(o.add(i), S::mul(S::load(o.add(i)), S::splat(keep)));
            }
        }
    }

    /// Adds what later positions came to.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    pub unsafe fn add<S: Simd>(&mut self, later: &Self, d: usize) {
        // (Not: above 0. What is not a number must stay one.)
        for row in (0..self.total.len()).filter(|&row| later.total[row] != 0.0) {
            if self.total[row] == 0.0 {
                self.o[row * d..][..d].copy_from_slice(&later.o[row * d..][..d]);
                (self.largest[row], self.total[row]) = (later.largest[row], later.total[row]);
                continue;
            }
            let (ours, theirs) = (self.largest[row], later.largest[row]);
            let largest = if theirs > ours { theirs } else { ours };
            // SAFETY: both have `d` sums for each row, a multiple of the lanes.
            unsafe {
                // (No closure: it would not be compiled for the instruction set.)
                let keep = S::largest(exp::<S>(S::splat(ours - largest)));
                let take = S::largest(exp::<S>(S::splat(theirs - largest)));
                let (o, other) = (self.o.as_mut_ptr().add(row * d), later.o.as_ptr().add(row * d));
                for i in (0..d).step_by(LANES) {
                    let kept = S::mul(S::load(o.add(i)), S::splat(keep));
                    S::store(o.add(i), S::fma(S::load(other.add(i)), S::splat(take), kept));
                }
                self.total[row] = self.total[row] * keep + later.total[row] * take;
            }
            self.largest[row] = largest;
        }
    }
}

/// Adds what consecutive segments came to up, in the first of them.
pub struct AddUp<'a> {
    pub parts: &'a mut [Sums],
    pub d: usize,
}

impl Kernel for AddUp<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Some((all, later)) = self.parts.split_first_mut() else { return };
        for later in later {
            // SAFETY: all are sums of the same rows.
            unsafe { all.add::<S>(later, self.d) };
        }
    }
}
