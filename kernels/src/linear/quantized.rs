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
//! the order of k, so that a row's bits do not depend on the batch or the instruction set.

use super::blocks::{Block, Format};
use super::dense::store_columns;
use super::{Grid, PANEL, Target};
use crate::host::{Shared, for_each_task, pieces};
use crate::simd::{Kernel, Simd, dispatch};
use candle_core::quantized::QTensor;
use candle_core::{Result, bail};
use rayon::prelude::*;

/// k that share an activation scale.
const SPAN: usize = 32;

#[derive(Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    nibbles: bool,
    /// Groups of a span: 1, or 2 where scales cover 16 k.
    groups: usize,
    zero: i32,
    /// `[panels][K / 32][8 or 4][64]`.
    values: Vec<u8>,
    /// `[panels][K / 32][groups][16]`.
    scales: Vec<f32>,
    /// As `scales`; empty if the type has none.
    mins: Vec<f32>,
}

impl Packed {
    pub fn new(w: &QTensor) -> Result<Self> {
        let (n, k) = w.shape().dims2()?;
        let format = Format::of(w.dtype())?;
        if k % format.len != 0 {
            bail!("linear: K = {k} is no multiple of the {} weights of a block", format.len);
        }
        let groups = SPAN / format.group;
        let panels = n.div_ceil(PANEL);
        let scale_len = k / SPAN * groups * PANEL;
        let value_len = k * PANEL / if format.nibbles { 2 } else { 1 };
        let mut packed = Self {
            n,
            k,
            nibbles: format.nibbles,
            groups,
            zero: format.zero,
            values: vec![0; panels * value_len],
            scales: vec![0.0; panels * scale_len],
            mins: vec![0.0; if format.has_min { panels * scale_len } else { 0 }],
        };
        let data = w.data()?;
        let row_bytes = k / format.len * format.bytes;
        let (scales, mins) = (Shared::new(&mut packed.scales), Shared::new(&mut packed.mins));
        packed.values.par_chunks_mut(value_len.max(1)).enumerate().for_each(|(panel, values)| {
            let mut block = Block::new();
            for row in panel * PANEL..((panel + 1) * PANEL).min(n) {
                let bytes = &data[row * row_bytes..][..row_bytes];
                for (b, bytes) in bytes.chunks_exact(format.bytes).enumerate() {
                    format.unpack(bytes, &mut block);
                    place_values(&format, &block, b, row % PANEL, values);
                    for g in 0..format.len / format.group {
                        let group = b * (format.len / format.group) + g;
                        let at = panel * scale_len + group * PANEL + row % PANEL;
                        // SAFETY: a panel's scales are written by its own task only.
                        unsafe {
                            *scales.at(at) = block.scales[g];
                            if format.has_min {
                                *mins.at(at) = block.mins[g];
                            }
                        }
                    }
                }
            }
        });
        Ok(packed)
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn bytes(&self) -> usize {
        self.values.len() + 4 * (self.scales.len() + self.mins.len())
    }

    pub fn multiply(&self, x: &Activations, target: Target) {
        let grid = Grid::new(x.rows, self.n.div_ceil(PANEL));
        let Target { out, stride, column } = target;
        for_each_task(grid.tasks(), x.rows * self.n * self.k / 32, |task| {
            let (rows, panels) = grid.task(task);
            dispatch(Rectangle { w: self, x, rows, panels, out, stride, column });
        });
    }
}

/// Writes block `b` of column `lane` into a panel's vectors.
fn place_values(format: &Format, block: &Block, b: usize, lane: usize, values: &mut [u8]) {
    for (i, &value) in block.values[..format.len].iter().enumerate() {
        let k = b * format.len + i;
        let (span, g, byte) = (k / SPAN, k % SPAN / 4, k % 4);
        let in_vector = lane * 4 + byte;
        if format.nibbles {
            values[(span * 4 + g % 4) * 64 + in_vector] |= value << (g / 4 * 4);
        } else {
            values[(span * 8 + g) * 64 + in_vector] = value;
        }
    }
}

/// Rows of activations in 8 bits: `x ≈ scale · q`, a scale per 32 columns.
pub struct Activations {
    rows: usize,
    k: usize,
    /// `[rows][K]`.
    values: Vec<i8>,
    /// `[rows][K / 32]`.
    scales: Vec<f32>,
    /// Sums of the values, `[rows][K / 32][SUMS]`.
    sums: Vec<i32>,
    /// The same times the scale.
    scaled_sums: Vec<f32>,
}

/// Sums of a span: first half, second half, both.
const SUMS: usize = 3;

impl Activations {
    /// `x` is `[rows, k]`, `k` a multiple of 32.
    pub fn new(x: &[f32], k: usize) -> Self {
        let rows = x.len() / k;
        let mut values = vec![0i8; x.len()];
        let mut scales = vec![0f32; x.len() / SPAN];
        let mut sums = vec![0i32; x.len() / SPAN * SUMS];
        let mut scaled_sums = vec![0f32; x.len() / SPAN * SUMS];
        let (v, s) = (Shared::new(&mut values), Shared::new(&mut scales));
        let (t, u) = (Shared::new(&mut sums), Shared::new(&mut scaled_sums));
        let pieces = pieces(rows, 8);
        for_each_task(rows.div_ceil(8), x.len(), |task| {
            let spans = pieces(task).start * k / SPAN..pieces(task).end * k / SPAN;
            let (first, len) = (spans.start, spans.len());
            // SAFETY: each row is written by one task only.
            dispatch(unsafe {
                Rounding {
                    x: &x[first * SPAN..][..len * SPAN],
                    values: std::slice::from_raw_parts_mut(v.at(first * SPAN), len * SPAN),
                    scales: std::slice::from_raw_parts_mut(s.at(first), len),
                    sums: std::slice::from_raw_parts_mut(t.at(SUMS * first), SUMS * len),
                    scaled_sums: std::slice::from_raw_parts_mut(u.at(SUMS * first), SUMS * len),
                }
            });
        });
        Self { rows, k, values, scales, sums, scaled_sums }
    }
}

struct Rounding<'a> {
    x: &'a [f32],
    values: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    scaled_sums: &'a mut [f32],
}

impl Kernel for Rounding<'_> {
    type Output = ();

    /// Plain loops of constant length: the compiler turns them into the vector instructions that
    /// `dispatch` allows.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (i, x) in self.x.chunks_exact(SPAN).enumerate() {
            let largest = x.iter().fold(0f32, |m, v| if v.abs() > m { v.abs() } else { m });
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            self.scales[i] = largest / 127.0;
            let values = &mut self.values[i * SPAN..][..SPAN];
            for (value, x) in values.iter_mut().zip(x) {
                // A NaN becomes 0 here; its row's norm was NaN already.
                *value = (x * inverse).round_ties_even() as i8;
            }
            let half =
                |half: usize| values[16 * half..][..16].iter().map(|&v| i32::from(v)).sum::<i32>();
            let (first, second) = (half(0), half(1));
            let sums = [first, second, first + second];
            self.sums[SUMS * i..][..SUMS].copy_from_slice(&sums);
            self.scaled_sums[SUMS * i..][..SUMS]
                .copy_from_slice(&sums.map(|sum| self.scales[i] * sum as f32));
        }
    }
}

/// Rows of a tile up to which reading weights takes longer than multiplying: the next panels are then
/// fetched ahead. (Panels are a few kilobytes, too short for the processor to see where they lead.)
const FEW: usize = 2;

/// One task: `rows` × `panels` of the product.
struct Rectangle<'a> {
    w: &'a Packed,
    x: &'a Activations,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    out: Shared<f32>,
    stride: usize,
    column: usize,
}

impl Kernel for Rectangle<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: tiles stay inside the rectangle, and rectangles of a grid do not overlap.
        unsafe {
            match (self.w.nibbles, self.w.groups) {
                (true, 1) => self.all::<S, true, 1>(),
                (true, _) => self.all::<S, true, 2>(),
                (false, 1) => self.all::<S, false, 1>(),
                (false, _) => self.all::<S, false, 2>(),
            }
        }
    }
}

impl Rectangle<'_> {
    #[inline(always)]
    unsafe fn all<S: Simd, const NIBBLES: bool, const GROUPS: usize>(&self) {
        let mut panel = self.panels.start;
        unsafe {
            while S::REGISTERS >= 32 && panel + 2 <= self.panels.end {
                self.rows_of::<S, NIBBLES, GROUPS, 6, 2>(panel);
                panel += 2;
            }
            while panel < self.panels.end {
                self.rows_of::<S, NIBBLES, GROUPS, 4, 1>(panel);
                panel += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn rows_of<
        S: Simd,
        const NIBBLES: bool,
        const GROUPS: usize,
        const MR: usize,
        const NV: usize,
    >(
        &self,
        panel: usize,
    ) {
        let mut row = self.rows.start;
        unsafe {
            while row + MR <= self.rows.end {
                self.tile::<S, NIBBLES, GROUPS, MR, NV>(row, panel);
                row += MR;
            }
            while row + 2 <= self.rows.end {
                self.tile::<S, NIBBLES, GROUPS, 2, NV>(row, panel);
                row += 2;
            }
            if row < self.rows.end {
                self.tile::<S, NIBBLES, GROUPS, 1, NV>(row, panel);
            }
        }
    }

    /// `MR` rows × `NV` panels, over all of K.
    #[inline(always)]
    unsafe fn tile<
        S: Simd,
        const NIBBLES: bool,
        const GROUPS: usize,
        const MR: usize,
        const NV: usize,
    >(
        &self,
        row: usize,
        panel: usize,
    ) {
        let spans = self.w.k / SPAN;
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            for span in 0..spans {
                for group in 0..GROUPS {
                    let mut sums = [[S::splat_i(0); NV]; MR];
                    if self.w.zero != 0 {
                        for r in 0..MR {
                            let at = self.sum_at::<GROUPS>(row + r, span, group);
                            let total = *self.x.sums.as_ptr().add(at);
                            sums[r] = [S::splat_i(-self.w.zero * total); NV];
                        }
                    }
                    self.dots::<S, NIBBLES, GROUPS, MR, NV>(row, panel, span, group, &mut sums);
                    self.scale::<S, GROUPS, MR, NV>(row, panel, span, group, &sums, &mut acc);
                }
            }
            for r in 0..MR {
                for v in 0..NV {
                    let first = (panel + v) * PANEL;
                    let to = self.out.at((row + r) * self.stride + self.column + first);
                    store_columns::<S>(to, acc[r][v], self.w.n - first);
                }
            }
        }
    }

    /// Where the sum of the activations of one group stands.
    #[inline(always)]
    fn sum_at<const GROUPS: usize>(&self, row: usize, span: usize, group: usize) -> usize {
        let which = if GROUPS == 1 { SUMS - 1 } else { group };
        (row * (self.x.k / SPAN) + span) * SUMS + which
    }

    /// Adds the integer products of one group to `sums`.
    #[inline(always)]
    unsafe fn dots<
        S: Simd,
        const NIBBLES: bool,
        const GROUPS: usize,
        const MR: usize,
        const NV: usize,
    >(
        &self,
        row: usize,
        panel: usize,
        span: usize,
        group: usize,
        sums: &mut [[S::I; NV]; MR],
    ) {
        let vectors = if NIBBLES { 4 } else { 8 };
        let spans = self.w.k / SPAN;
        unsafe {
            for v in 0..NV {
                let w = self.w.values.as_ptr().add(((panel + v) * spans + span) * vectors * 64);
                if MR <= FEW {
                    // The same place of the panels after these.
                    let ahead = w.wrapping_add(NV * spans * vectors * 64);
                    for j in 0..vectors {
                        S::prefetch(ahead.wrapping_add(j * 64));
                    }
                }
                for j in 0..4 {
                    // Vector j of this group's half of the span, and its partner four further on.
                    let (low, high) = if NIBBLES {
                        S::nibbles(S::load_bytes(w.add(j * 64)))
                    } else {
                        let at = if GROUPS == 1 { j } else { 4 * group + j };
                        let low = S::load_bytes(w.add(at * 64));
                        (low, if GROUPS == 1 { S::load_bytes(w.add((at + 4) * 64)) } else { low })
                    };
                    for r in 0..MR {
                        let x = self.x.values.as_ptr().add((row + r) * self.x.k + span * SPAN);
                        let at = |g: usize| x.add(4 * g).cast::<i32>().read_unaligned();
                        if GROUPS == 1 {
                            sums[r][v] = S::dot4(sums[r][v], low, at(j));
                            sums[r][v] = S::dot4(sums[r][v], high, at(j + 4));
                        } else {
                            let w = if NIBBLES && group == 1 { high } else { low };
                            sums[r][v] = S::dot4(sums[r][v], w, at(4 * group + j));
                        }
                    }
                }
            }
        }
    }

    /// Adds one group's scaled sums, and its minimum times the activations' sum, to `acc`.
    #[inline(always)]
    unsafe fn scale<S: Simd, const GROUPS: usize, const MR: usize, const NV: usize>(
        &self,
        row: usize,
        panel: usize,
        span: usize,
        group: usize,
        sums: &[[S::I; NV]; MR],
        acc: &mut [[S::V; NV]; MR],
    ) {
        let spans = self.w.k / SPAN;
        unsafe {
            for v in 0..NV {
                let at = (((panel + v) * spans + span) * GROUPS + group) * PANEL;
                let scale = S::load(self.w.scales.as_ptr().add(at));
                if MR <= FEW {
                    let ahead = at + NV * spans * GROUPS * PANEL;
                    S::prefetch(self.w.scales.as_ptr().wrapping_add(ahead).cast());
                    S::prefetch(self.w.mins.as_ptr().wrapping_add(ahead).cast());
                }
                for r in 0..MR {
                    let x_scale = *self.x.scales.as_ptr().add((row + r) * spans + span);
                    let factor = S::mul(scale, S::splat(x_scale));
                    acc[r][v] = S::fma(S::to_f32(sums[r][v]), factor, acc[r][v]);
                    if !self.w.mins.is_empty() {
                        let min = S::load(self.w.mins.as_ptr().add(at));
                        let at = self.sum_at::<GROUPS>(row + r, span, group);
                        let total = *self.x.scaled_sums.as_ptr().add(at);
                        acc[r][v] = S::fma(min, S::splat(total), acc[r][v]);
                    }
                }
            }
        }
    }
}
