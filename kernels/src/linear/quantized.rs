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
use super::dense::store_columns;
use super::{Grid, PANEL, Target};
use crate::host::{Shared, for_each_task};
use crate::memory::{Arena, Numbers, Plain};
use crate::simd::{Element, F16, F32, Kernel, Simd, dispatch};
use candle_core::quantized::QTensor;
use candle_core::{Result, bail};
use half::f16;
use rayon::prelude::*;

#[derive(Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    nibbles: bool,
    /// Groups of a span: 1, or 2 where scales cover 16 k.
    groups: usize,
    zero: i32,
    /// Always 4. The compiler does not know it and so leaves the innermost loop a loop: unrolled, it
    /// would be reordered into long chains of dependent products with most operands on the stack.
    quads: usize,
    /// `[panels][K / 32][8 or 4][64]`.
    values: Numbers<u8>,
    factors: AnyFactors,
}

/// What integers are scaled by.
#[derive(Debug)]
struct Factors<T: Plain> {
    /// `[panels][K / 32][groups][16]`.
    scales: Numbers<T>,
    /// As `scales`; empty if the type has none.
    mins: Numbers<T>,
}

#[derive(Debug)]
enum AnyFactors {
    F32(Factors<f32>),
    /// Bits.
    F16(Factors<u16>),
}

impl AnyFactors {
    /// In f16 if that loses nothing: files hold the factors of the older types so, and reading
    /// weights is what decoding one sequence waits for.
    fn new(scales: Vec<f32>, mins: Vec<f32>, arena: &mut Arena) -> Result<Self> {
        let exact = |x: &f32| f16::from_f32(*x).to_f32().to_bits() == x.to_bits();
        if !scales.par_iter().chain(&mins).all(exact) {
            let (scales, mins) = (arena.copy(scales)?, arena.copy(mins)?);
            return Ok(Self::F32(Factors { scales, mins }));
        }
        let scales = arena.copy(F16::narrow(&scales))?;
        let mins = arena.copy(F16::narrow(&mins))?;
        Ok(Self::F16(Factors { scales, mins }))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(f) => 4 * (f.scales.len() + f.mins.len()),
            Self::F16(f) => 2 * (f.scales.len() + f.mins.len()),
        }
    }
}

impl Packed {
    pub fn new(w: &QTensor, arena: &mut Arena) -> Result<Self> {
        let (n, k) = w.shape().dims2()?;
        let format = Format::of(w.dtype())?;
        if k % format.len != 0 {
            bail!("linear: K = {k} is no multiple of the {} weights of a block", format.len);
        }
        let groups = SPAN / format.group;
        let panels = n.div_ceil(PANEL);
        let scale_len = k / SPAN * groups * PANEL;
        let value_len = k * PANEL / if format.nibbles { 2 } else { 1 };
        let mut values = arena.zeroed(panels * value_len)?;
        let mut scales = vec![0.0; panels * scale_len];
        let mut mins = vec![0.0; if format.has_min { panels * scale_len } else { 0 }];
        let data = w.data()?;
        let row_bytes = k / format.len * format.bytes;
        let (all_scales, all_mins) = (Shared::new(&mut scales), Shared::new(&mut mins));
        values.par_chunks_mut(value_len.max(1)).enumerate().for_each(|(panel, values)| {
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
                            *all_scales.at(at) = block.scales[g];
                            if format.has_min {
                                *all_mins.at(at) = block.mins[g];
                            }
                        }
                    }
                }
            }
        });
        let Format { nibbles, zero, .. } = format;
        let factors = AnyFactors::new(scales, mins, arena)?;
        Ok(Self { n, k, nibbles, groups, zero, quads: 4, values, factors })
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn bytes(&self) -> usize {
        self.values.len() + self.factors.bytes()
    }

    pub fn multiply(&self, x: &Activations, target: Target) {
        match &self.factors {
            AnyFactors::F32(factors) => self.with::<F32>(factors, x, target),
            AnyFactors::F16(factors) => self.with::<F16>(factors, x, target),
        }
    }

    fn with<E: Element>(&self, factors: &Factors<E::Stored>, x: &Activations, target: Target) {
        let grid = Grid::new(x.rows, self.n.div_ceil(PANEL), GROUP);
        for_each_task(grid.tasks(), x.rows * self.n * self.k / 4, |task| {
            let (rows, panels) = grid.task(task);
            dispatch(Rectangle::<E> { w: self, factors, x, rows, panels, target });
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

/// Rows of a tile up to which reading weights takes longer than multiplying: the next panels are then
/// fetched ahead. (Panels are a few kilobytes, too short for the processor to see where they lead.)
const FEW: usize = 2;

/// One task: `rows` × `panels` of the product.
struct Rectangle<'a, E: Element> {
    w: &'a Packed,
    factors: &'a Factors<E::Stored>,
    x: &'a Activations,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    target: Target,
}

/// Which products are added up at a time: `x` is the span of the rows' group in [`Activations`].
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    panel: usize,
    span: usize,
    group: usize,
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn dot<S: Simd, const NIBBLES: bool>(acc: S::I, w: S::B, x: i32) -> S::I {
    unsafe { if NIBBLES { S::dot4_small(acc, w, x) } else { S::dot4(acc, w, x) } }
}

impl<E: Element> Kernel for Rectangle<'_, E> {
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

impl<E: Element> Rectangle<'_, E> {
    #[inline(always)]
    unsafe fn all<S: Simd, const NIBBLES: bool, const GROUPS: usize>(&self) {
        let mut panel = self.panels.start;
        unsafe {
            while S::REGISTERS >= 32 && panel + 2 <= self.panels.end {
                self.rows_of::<S, NIBBLES, GROUPS, 2>(panel);
                panel += 2;
            }
            while panel < self.panels.end {
                self.rows_of::<S, NIBBLES, GROUPS, 1>(panel);
                panel += 1;
            }
        }
    }

    /// All rows of the rectangle times `NV` panels.
    #[inline(always)]
    unsafe fn rows_of<S: Simd, const NIBBLES: bool, const GROUPS: usize, const NV: usize>(
        &self,
        panel: usize,
    ) {
        for row in self.rows.clone().step_by(GROUP) {
            // Rows of zeros fill a tile up.
            unsafe {
                match self.rows.end - row {
                    1 => self.tile::<S, NIBBLES, GROUPS, 1, NV>(row, panel),
                    2 => self.tile::<S, NIBBLES, GROUPS, 2, NV>(row, panel),
                    3 | 4 => self.tile::<S, NIBBLES, GROUPS, 4, NV>(row, panel),
                    _ => self.tile::<S, NIBBLES, GROUPS, GROUP, NV>(row, panel),
                }
            }
        }
    }

    /// Up to `MR` rows × `NV` panels, over all of K.
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
                let x = row / GROUP * spans + span;
                let fine = *self.x.is_fine.as_ptr().add(x);
                for group in 0..GROUPS {
                    let at = Place { x, panel, span, group };
                    let mut sums = [[S::splat_i(0); NV]; MR];
                    let Activations { values, sums: totals, .. } = self.x;
                    self.dots::<S, NIBBLES, GROUPS, MR, NV>(values, totals, at, &mut sums);
                    if !fine {
                        self.scale::<S, GROUPS, false, MR, NV>(at, &sums, &mut acc);
                        continue;
                    }
                    for sum in sums.as_flattened_mut() {
                        *sum = S::shift_left::<FINE_BITS>(*sum);
                    }
                    let Activations { fine, fine_sums, .. } = self.x;
                    self.dots::<S, NIBBLES, GROUPS, MR, NV>(fine, fine_sums, at, &mut sums);
                    self.scale::<S, GROUPS, true, MR, NV>(at, &sums, &mut acc);
                }
            }
            let Target { out, stride, column, onto } = self.target;
            for r in 0..MR.min(self.rows.end - row) {
                for v in 0..NV {
                    let first = (panel + v) * PANEL;
                    let to = out.at((row + r) * stride + column + first);
                    store_columns::<S>(to, acc[r][v], self.w.n - first, onto);
                }
            }
        }
    }

    /// Adds the integer products of one group and `values`, of which `totals` are the sums, to `sums`.
    #[inline(always)]
    unsafe fn dots<
        S: Simd,
        const NIBBLES: bool,
        const GROUPS: usize,
        const MR: usize,
        const NV: usize,
    >(
        &self,
        values: &[i8],
        totals: &[i32],
        Place { x, panel, span, group }: Place,
        sums: &mut [[S::I; NV]; MR],
    ) {
        let vectors = if NIBBLES { 4 } else { 8 };
        let spans = self.w.k / SPAN;
        unsafe {
            // Small values are multiplied as they are.
            let zero = self.w.zero - if NIBBLES { 0 } else { S::OFFSET };
            if zero != 0 {
                let which = if GROUPS == 1 { SUMS - 1 } else { group };
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
            let mut w = [std::ptr::null::<u8>(); NV];
            for v in 0..NV {
                w[v] = self.w.values.as_ptr().add(((panel + v) * spans + span) * vectors * 64);
                if MR <= FEW {
                    // The same place of the panels after these.
                    let ahead = w[v].wrapping_add(NV * spans * vectors * 64);
                    for j in 0..vectors {
                        S::prefetch(ahead.wrapping_add(j * 64));
                    }
                }
            }
            for j in 0..self.w.quads {
                // Vector j of this group's half of the span, and its partner four further on.
                let first = if GROUPS == 1 { j } else { 4 * group + j };
                let (mut low, mut high) = ([S::load_bytes(w[0]); NV], [S::load_bytes(w[0]); NV]);
                for v in 0..NV {
                    (low[v], high[v]) = if NIBBLES {
                        let (low, high) = S::nibbles(S::load_bytes(w[v].add(j * 64)));
                        if GROUPS == 2 && group == 1 { (high, high) } else { (low, high) }
                    } else {
                        let low = S::load_bytes(w[v].add(first * 64));
                        let high =
                            if GROUPS == 1 { S::load_bytes(w[v].add((j + 4) * 64)) } else { low };
                        (low, high)
                    };
                }
                for r in 0..MR {
                    for v in 0..NV {
                        sums[r][v] = dot::<S, NIBBLES>(sums[r][v], low[v], x(r, first));
                    }
                    for v in 0..NV {
                        if GROUPS == 1 {
                            sums[r][v] = dot::<S, NIBBLES>(sums[r][v], high[v], x(r, j + 4));
                        }
                    }
                }
            }
        }
    }

    /// Adds one group's scaled sums, and its minimum times the activations' sum, to `acc`.
    #[inline(always)]
    unsafe fn scale<
        S: Simd,
        const GROUPS: usize,
        const FINE: bool,
        const MR: usize,
        const NV: usize,
    >(
        &self,
        Place { x, panel, span, group }: Place,
        sums: &[[S::I; NV]; MR],
        acc: &mut [[S::V; NV]; MR],
    ) {
        let spans = self.w.k / SPAN;
        let which = if GROUPS == 1 { SUMS - 1 } else { group };
        unsafe {
            let x_scales = self.x.scales.as_ptr().add(x * GROUP);
            let x_sums = self.x.scaled_sums.as_ptr().add((x * SUMS + which) * GROUP);
            for v in 0..NV {
                let at = (((panel + v) * spans + span) * GROUPS + group) * PANEL;
                let Factors { scales, mins } = self.factors;
                let scale = E::load::<S>(scales.as_ptr().add(at));
                if MR <= FEW {
                    let ahead = at + NV * spans * GROUPS * PANEL;
                    S::prefetch(scales.as_ptr().wrapping_add(ahead).cast());
                    S::prefetch(mins.as_ptr().wrapping_add(ahead).cast());
                }
                for r in 0..MR {
                    let factor = S::mul(scale, S::splat(*x_scales.add(r)));
                    let mut sum = S::to_f32(sums[r][v]);
                    if FINE {
                        sum = S::mul(sum, S::splat(1.0 / FINE_STEPS as f32));
                    }
                    acc[r][v] = S::fma(sum, factor, acc[r][v]);
                }
                if !mins.is_empty() {
                    let min = E::load::<S>(mins.as_ptr().add(at));
                    for r in 0..MR {
                        acc[r][v] = S::fma(min, S::splat(*x_sums.add(r)), acc[r][v]);
                    }
                }
            }
        }
    }
}
