//! Dense weights on the processor.
//!
//! Weights are packed into panels of 16 output columns, `[N / 16][K][16]`, so that one vector load
//! gives the 16 columns' weights of one k. A register tile of `MR` rows × `NV` panels runs down
//! all of K:
//!
//! ```text
//!            panel 0   panel 1              for each k:
//! x row 0    acc 0,0   acc 0,1                  w0, w1 = load          (widened from bf16 / f16)
//! x row 1    acc 1,0   acc 1,1                  acc[r][v] += x[r][k] · w[v]
//! ```
//!
//! Each output is one chain of fused multiply-adds in the order of k, whatever `MR` and `NV` are:
//! that is what makes the product independent of the batch.

use super::{Grid, PANEL, Target};
use crate::host::{for_each_task, with_numbers};
use crate::memory::{Arena, Numbers, Plain};
use crate::simd::{Bf16, Element, F16, F32, Kernel, Simd, dispatch};
use candle_core::{DType, Device, Result, Tensor, WithDType, bail};
use half::{bf16, f16};

#[derive(Debug)]
pub struct Packed {
    panels: Panels,
    n: usize,
    k: usize,
}

#[derive(Debug)]
enum Panels {
    F32(Numbers<f32>),
    /// Bits.
    Bf16(Numbers<u16>),
    /// Bits.
    F16(Numbers<u16>),
}

impl Packed {
    pub fn new(w: &Tensor, arena: &mut Arena) -> Result<Self> {
        let (n, k) = w.dims2()?;
        let w = w.to_device(&Device::Cpu)?.contiguous()?;
        let panels = match w.dtype() {
            DType::F32 => Panels::F32(packed(&w, arena, |number: f32| number)?),
            DType::BF16 => Panels::Bf16(packed(&w, arena, bf16::to_bits)?),
            DType::F16 => Panels::F16(packed(&w, arena, f16::to_bits)?),
            other => bail!("linear: weights of type {other:?}; f32, bf16 and f16 can be read"),
        };
        Ok(Self { panels, n, k })
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(p) => p.len() * 4,
            Panels::Bf16(p) | Panels::F16(p) => p.len() * 2,
        }
    }

    /// `x` is `[m, k]`.
    pub fn multiply(&self, x: &[f32], target: Target) {
        match &self.panels {
            Panels::F32(p) => self.with::<F32>(p, x, target),
            Panels::Bf16(p) => self.with::<Bf16>(p, x, target),
            Panels::F16(p) => self.with::<F16>(p, x, target),
        }
    }

    fn with<E: Element>(&self, panels: &[E::Stored], x: &[f32], target: Target) {
        let (k, n) = (self.k, self.n);
        let m = x.len() / k;
        let grid = Grid::new(m, n.div_ceil(PANEL), 8);
        for_each_task(grid.tasks(), 2 * m * n * k / 16, |task| {
            let (rows, columns) = grid.task(task);
            dispatch(Rectangle::<E> { panels, x, k, n, rows, columns, target });
        });
    }
}

/// Row-major `[n, k]` to `[ceil(n / 16)][k][16]`; missing rows are zero. Large matrices must not lie in memory once more
/// on the way.
fn packed<T: WithDType, P: Plain>(
    w: &Tensor,
    arena: &mut Arena,
    stored: impl Fn(T) -> P,
) -> Result<Numbers<P>> {
    let (n, k) = w.dims2()?;
    let mut packed = arena.zeroed(n.div_ceil(PANEL) * PANEL * k)?;
    with_numbers(w, "linear: weights", |numbers: &[T]| {
        for (row, values) in numbers.chunks_exact(k).enumerate() {
            let base = row / PANEL * PANEL * k + row % PANEL;
            for (i, &value) in values.iter().enumerate() {
                packed[base + i * PANEL] = stored(value);
            }
        }
        Ok(packed)
    })
}

/// One task: `rows` × `columns` (panels) of the product.
struct Rectangle<'a, E: Element> {
    panels: &'a [E::Stored],
    x: &'a [f32],
    k: usize,
    n: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    target: Target<'a>,
}

impl<E: Element> Kernel for Rectangle<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut panel = self.columns.start;
        while panel < self.columns.end {
            let left = self.columns.end - panel;
            // SAFETY: tiles stay inside the rectangle, and rectangles of a grid do not overlap.
            unsafe {
                if S::REGISTERS >= 32 && left >= 3 {
                    self.rows_of::<S, 8, 3>(panel);
                    panel += 3;
                } else if left >= 2 && S::REGISTERS >= 32 {
                    self.rows_of::<S, 8, 2>(panel);
                    panel += 2;
                } else {
                    self.rows_of::<S, 4, 1>(panel);
                    panel += 1;
                }
            }
        }
    }
}

impl<E: Element> Rectangle<'_, E> {
    /// All rows of the rectangle, `MR` at a time, times `NV` panels.
    #[inline(always)]
    unsafe fn rows_of<S: Simd, const MR: usize, const NV: usize>(&self, panel: usize) {
        let mut row = self.rows.start;
        unsafe {
            while row + MR <= self.rows.end {
                self.tile::<S, MR, NV>(row, panel);
                row += MR;
            }
            while row + 2 <= self.rows.end {
                self.tile::<S, 2, NV>(row, panel);
                row += 2;
            }
            if row < self.rows.end {
                self.tile::<S, 1, NV>(row, panel);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(&self, row: usize, panel: usize) {
        let k = self.k;
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            let w = self.panels.as_ptr().add(panel * PANEL * k);
            let x = self.x.as_ptr().add(row * k);
            for i in 0..k {
                let mut column = [S::splat(0.0); NV];
                for v in 0..NV {
                    column[v] = E::load::<S>(w.add((v * k + i) * PANEL));
                }
                for r in 0..MR {
                    let x = S::splat(*x.add(r * k + i));
                    for v in 0..NV {
                        acc[r][v] = S::fma(x, column[v], acc[r][v]);
                    }
                }
            }
            for r in 0..MR {
                for v in 0..NV {
                    let first = (panel + v) * PANEL;
                    self.target.store::<S>(row + r, (first, self.n - first), acc[r][v]);
                }
            }
        }
    }
}
