//! Quantised weights on the processor, times activations quantised to 8 bits.
//!
//! Values are packed so that one 64-byte vector holds, for 16 output columns, four consecutive k;
//! `dot4` multiplies it by four activations and adds the products up, column by column. A span of
//! 32 k takes eight such vectors, or four where values fit a nibble:
//!
//! ```text
//! vector g of a span, bytes        column 0        column 1          …  column 15
//!                                k0 k1 k2 k3     k0 k1 k2 k3            k0 k1 k2 k3   (k = 4 g + i)
//! nibbles: low halves of vector g hold g, high halves g + 4, for g = 0..4
//! ```
//!
//! Sums of a group (16 or 32 k) are exact integers; only their scaled total is added in f32, in
//! the order of k, so that a row's bits do not depend on the batch or the instruction set. In a fine
//! span the sums are multiplied by 128, before the products of the fine values are added, and
//! divided by it as f32: exact for the rows of the tile that are not fine (their sums are below 2^24).

use super::activations::{Activations, FINE_BITS, FINE_STEPS, GROUP, SPAN, SUMS};
use super::blocks::{Block, Format};
use super::records::{Kind, Known, LINE, Layout};
use super::{Grid, PANEL, Target};
use crate::host::for_each_task;
use crate::memory::{Arena, Numbers};
use crate::simd::{Kernel, Simd, dispatch};
use candle_core::quantized::QTensor;
use candle_core::{Result, bail};
use rayon::prelude::*;

#[derive(Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    format: Format,
    /// Always 4. The compiler does not know it and so leaves the innermost loop a loop: unrolled, it
    /// would be reordered into long chains of dependent products with most operands on the stack.
    quads: usize,
    layout: Layout,
    /// Panels, one behind the other.
    bytes: Numbers<u8>,
}

impl Packed {
    pub fn new(w: &QTensor, arena: &mut Arena) -> Result<Self> {
        let (n, k) = w.shape().dims2()?;
        let format = Format::of(w.dtype())?;
        if k % format.len != 0 {
            bail!("linear: K = {k} is no multiple of the {} weights of a block", format.len);
        }
        let layout = Layout::new(&format, k);
        let mut bytes = arena.zeroed(n.div_ceil(PANEL) * layout.panel)?;
        let data = w.data()?;
        let row_bytes = k / format.len * format.bytes;
        bytes.par_chunks_mut(layout.panel.max(1)).enumerate().for_each(|(panel, to)| {
            let mut block = Block::new();
            for row in panel * PANEL..((panel + 1) * PANEL).min(n) {
                let blocks = data[row * row_bytes..][..row_bytes].chunks_exact(format.bytes);
                for (number, bytes) in blocks.enumerate() {
                    format.unpack(bytes, &mut block);
                    layout.write(&format, &block, number, row % PANEL, to);
                }
            }
        });
        Ok(Self { n, k, format, layout, quads: 4, bytes })
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn multiply(&self, x: &Activations, target: Target) {
        let grid = Grid::new(x.rows, self.n.div_ceil(PANEL), GROUP);
        for_each_task(grid.tasks(), x.rows * self.n * self.k / 4, |task| {
            let (rows, panels) = grid.task(task);
            dispatch(Rectangle { w: self, x, rows, panels, target });
        });
    }
}

/// Rows of a tile up to which reading weights takes longer than multiplying. Panels are then read one
/// after the other, which is one stream a thread, and fetched ahead.
const FEW: usize = 2;

/// Bytes that weights are fetched ahead of their use.
const AHEAD: usize = 1024;

/// One task: `rows` × `panels` of the product.
struct Rectangle<'a> {
    w: &'a Packed,
    x: &'a Activations,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    target: Target<'a>,
}

/// Which products are added up at a time: `x` is the span of the rows' group in [`Activations`].
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    /// Start of the record of the first panel.
    record: *const u8,
    /// Within the record.
    span: usize,
    group: usize,
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn dot<S: Simd, K: Kind>(acc: S::I, w: S::B, x: i32) -> S::I {
    unsafe { if K::NIBBLES { S::dot4_small(acc, w, x) } else { S::dot4(acc, w, x) } }
}

impl Kernel for Rectangle<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: tiles stay inside the rectangle, and rectangles of a grid do not overlap.
        unsafe {
            let Format { nibbles, group, .. } = self.w.format;
            match (nibbles, self.w.format.is_nested(), group) {
                (true, false, _) => self.all::<S, Known<true, false, 1>>(),
                (true, true, SPAN) => self.all::<S, Known<true, true, 1>>(),
                (true, true, _) => self.all::<S, Known<true, true, 2>>(),
                (false, false, _) => self.all::<S, Known<false, false, 1>>(),
                (false, true, SPAN) => self.all::<S, Known<false, true, 1>>(),
                (false, true, _) => self.all::<S, Known<false, true, 2>>(),
            }
        }
    }
}

impl Rectangle<'_> {
    #[inline(always)]
    unsafe fn all<S: Simd, K: Kind>(&self) {
        let wide = S::REGISTERS >= 32 && self.rows.len() > FEW;
        let mut panel = self.panels.start;
        unsafe {
            while wide && panel + 2 <= self.panels.end {
                self.rows_of::<S, K, 2>(panel);
                panel += 2;
            }
            while panel < self.panels.end {
                self.rows_of::<S, K, 1>(panel);
                panel += 1;
            }
        }
    }

    /// All rows of the rectangle times `NV` panels.
    #[inline(always)]
    unsafe fn rows_of<S: Simd, K: Kind, const NV: usize>(&self, panel: usize) {
        for row in self.rows.clone().step_by(GROUP) {
            // Rows of zeros fill a tile up.
            unsafe {
                match self.rows.end - row {
                    1 => self.tile::<S, K, 1, NV>(row, panel),
                    2 => self.tile::<S, K, 2, NV>(row, panel),
                    3 | 4 => self.tile::<S, K, 4, NV>(row, panel),
                    _ => self.tile::<S, K, GROUP, NV>(row, panel),
                }
            }
        }
    }

    /// Up to `MR` rows × `NV` panels, over all of K.
    #[inline(always)]
    unsafe fn tile<S: Simd, K: Kind, const MR: usize, const NV: usize>(
        &self,
        row: usize,
        panel: usize,
    ) {
        let spans = self.w.k / SPAN;
        let panels = self.w.bytes.as_ptr().wrapping_add(panel * self.w.layout.panel);
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            for span in 0..spans {
                let x = row / GROUP * spans + span;
                let record = panels.add(span / K::SPANS * self.w.layout.record);
                let span = span % K::SPANS;
                if MR <= FEW {
                    self.fetch_ahead::<S, K, NV>(record, span);
                }
                let fine = *self.x.is_fine.as_ptr().add(x);
                for group in 0..K::GROUPS {
                    let at = Place { x, record, span, group };
                    let mut sums = [[S::splat_i(0); NV]; MR];
                    let Activations { values, sums: totals, .. } = self.x;
                    self.dots::<S, K, MR, NV>(values, totals, at, &mut sums);
                    if !fine {
                        self.scale::<S, K, false, MR, NV>(at, &sums, &mut acc);
                        continue;
                    }
                    for sum in sums.as_flattened_mut() {
                        *sum = S::shift_left::<FINE_BITS>(*sum);
                    }
                    let Activations { fine, fine_sums, .. } = self.x;
                    self.dots::<S, K, MR, NV>(fine, fine_sums, at, &mut sums);
                    self.scale::<S, K, true, MR, NV>(at, &sums, &mut acc);
                }
            }
            for r in 0..MR.min(self.rows.end - row) {
                for v in 0..NV {
                    let first = (panel + v) * PANEL;
                    self.target.store::<S>(row + r, (first, self.w.n - first), acc[r][v]);
                }
            }
        }
    }

    /// Asks for what is read a little later: the lines of a span and its share of the factors.
    #[inline(always)]
    unsafe fn fetch_ahead<S: Simd, K: Kind, const NV: usize>(
        &self,
        record: *const u8,
        span: usize,
    ) {
        let lines = K::VECTORS + 1;
        for v in 0..NV {
            let ahead = AHEAD + v * self.w.layout.panel + span * lines * LINE;
            for line in 0..lines {
                unsafe { S::prefetch(record.wrapping_add(ahead + line * LINE)) };
            }
        }
    }

    /// Adds the integer products of one group and `values`, of which `totals` are the sums, to `sums`.
    #[inline(always)]
    unsafe fn dots<S: Simd, K: Kind, const MR: usize, const NV: usize>(
        &self,
        values: &[i8],
        totals: &[i32],
        Place { x, record, span, group }: Place,
        sums: &mut [[S::I; NV]; MR],
    ) {
        unsafe {
            // Small values are multiplied as they are.
            let zero = self.w.format.zero - if K::NIBBLES { 0 } else { S::OFFSET };
            if zero != 0 {
                let which = if K::GROUPS == 1 { SUMS - 1 } else { group };
                let totals = totals.as_ptr().add((x * SUMS + which) * GROUP);
                for r in 0..MR {
                    let zeros = S::splat_i(-zero * *totals.add(r));
                    for v in 0..NV {
                        sums[r][v] = S::add_i(sums[r][v], zeros);
                    }
                }
            }
            let x = values.as_ptr().add(x * GROUP * SPAN);
            let x = |r: usize, g: usize| x.add(r * SPAN + 4 * g).cast::<i32>().read_unaligned();
            let w = record.add(self.w.layout.values + span * K::VECTORS * LINE);
            let w = |v: usize, j: usize| S::load_bytes(w.add(v * self.w.layout.panel + j * LINE));
            for j in 0..self.w.quads {
                // Vector j of this group's half of the span, and its partner four further on.
                let first = if K::GROUPS == 1 { j } else { 4 * group + j };
                let (mut low, mut high) =
                    ([S::load_bytes(record); NV], [S::load_bytes(record); NV]);
                for v in 0..NV {
                    (low[v], high[v]) = if K::NIBBLES {
                        let (low, high) = S::nibbles(w(v, j));
                        if K::GROUPS == 2 && group == 1 { (high, high) } else { (low, high) }
                    } else {
                        let low = w(v, first);
                        (low, if K::GROUPS == 1 { w(v, j + 4) } else { low })
                    };
                }
                for r in 0..MR {
                    for v in 0..NV {
                        sums[r][v] = dot::<S, K>(sums[r][v], low[v], x(r, first));
                    }
                    for v in 0..NV {
                        if K::GROUPS == 1 {
                            sums[r][v] = dot::<S, K>(sums[r][v], high[v], x(r, j + 4));
                        }
                    }
                }
            }
        }
    }

    /// Adds one group's scaled sums, and its minimum times the activations' sum, to `acc`.
    #[inline(always)]
    unsafe fn scale<S: Simd, K: Kind, const FINE: bool, const MR: usize, const NV: usize>(
        &self,
        Place { x, record, span, group }: Place,
        sums: &[[S::I; NV]; MR],
        acc: &mut [[S::V; NV]; MR],
    ) {
        let which = if K::GROUPS == 1 { SUMS - 1 } else { group };
        let layout = &self.w.layout;
        unsafe {
            let x_scales = self.x.scales.as_ptr().add(x * GROUP);
            let x_sums = self.x.scaled_sums.as_ptr().add((x * SUMS + which) * GROUP);
            for v in 0..NV {
                let record = record.add(v * layout.panel);
                let scale = layout.scale::<S, K>(record, (span, group));
                for r in 0..MR {
                    let factor = S::mul(scale, S::splat(*x_scales.add(r)));
                    let mut sum = S::to_f32(sums[r][v]);
                    if FINE {
                        sum = S::mul(sum, S::splat(1.0 / FINE_STEPS as f32));
                    }
                    acc[r][v] = S::fma(sum, factor, acc[r][v]);
                }
                if self.w.format.has_min {
                    let min = layout.min::<S, K>(record, (span, group));
                    for r in 0..MR {
                        acc[r][v] = S::fma(min, S::splat(*x_sums.add(r)), acc[r][v]);
                    }
                }
            }
        }
    }
}
