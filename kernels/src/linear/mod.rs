//! The matrix product of a linear layer, `y = x · Wᵀ + b`, with weights packed once at load.
//!
//! On the processor dense weights (f32, bf16, f16) are multiplied by f32 activations, and
//! quantised weights by activations quantised to 8 bits in blocks of 32, as in llama.cpp; widen
//! the weights to f32 where that rounding is not wanted.

mod activations;
mod blocks;
mod dense;
mod portable;
mod quantized;
mod records;
pub mod reference;

use crate::host::{Shared, with_f32, written};
use crate::memory::Arena;
use crate::residual::add;
use crate::rms_norm::rms_norm;
use crate::silu_mul::silu_mul;
use activations::{Activations, Gated, Normed, Stored};
use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Columns of a packed panel.
const PANEL: usize = crate::simd::LANES;

/// Weights `[N, K]`, prepacked for their device; possibly several matrices with the same K stacked,
/// each in its own type.
#[derive(Debug)]
pub struct Linear {
    parts: Vec<Part>,
    bias: Option<Tensor>,
    n: usize,
    k: usize,
}

#[derive(Debug)]
enum Part {
    Dense(dense::Packed),
    Quantized(quantized::Packed),
    Portable(portable::Weights),
}

impl Part {
    fn n(&self) -> usize {
        match self {
            Part::Dense(p) => p.n(),
            Part::Quantized(p) => p.n(),
            Part::Portable(p) => p.n(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Part::Dense(p) => p.bytes(),
            Part::Quantized(p) => p.bytes(),
            Part::Portable(p) => p.bytes(),
        }
    }
}

impl Linear {
    /// From a matrix `[N, K]` in f32, bf16 or f16, kept in that type.
    ///
    /// # Errors
    /// Another rank or type.
    pub fn from_tensor(w: &Tensor) -> Result<Self> {
        Self::from_tensor_in(w, &mut Arena::heap())
    }

    /// [`Linear::from_tensor`], on the processor packed into `arena`.
    ///
    /// # Errors
    /// As there, or no more memory.
    pub fn from_tensor_in(w: &Tensor, arena: &mut Arena) -> Result<Self> {
        let (n, k) = w.dims2()?;
        let part = if w.device().is_cpu() {
            Part::Dense(dense::Packed::new(w, arena)?)
        } else {
            Part::Portable(portable::Weights::dense(w)?)
        };
        Ok(Self { parts: vec![part], bias: None, n, k })
    }

    /// From a quantised matrix `[N, K]`, kept in blocks.
    ///
    /// # Errors
    /// Another rank, a block type that no file stores weights in, or a K that is no multiple of it.
    pub fn from_quantized(w: &QTensor) -> Result<Self> {
        Self::from_quantized_in(w, &mut Arena::heap())
    }

    /// [`Linear::from_quantized`], on the processor packed into `arena`.
    ///
    /// # Errors
    /// As there, or no more memory.
    pub fn from_quantized_in(w: &QTensor, arena: &mut Arena) -> Result<Self> {
        let (n, k) = w.shape().dims2()?;
        let part = if w.device().is_cpu() {
            Part::Quantized(quantized::Packed::new(w, arena)?)
        } else {
            Part::Portable(portable::Weights::quantized(w)?)
        };
        Ok(Self { parts: vec![part], bias: None, n, k })
    }

    /// Stacks matrices: the output columns of the first come first. Types may differ.
    ///
    /// # Errors
    /// No parts, different K, or parts with a bias (add it after merging).
    pub fn merge(matrices: Vec<Linear>) -> Result<Self> {
        let Some(k) = matrices.first().map(|m| m.k) else { bail!("linear: nothing to merge") };
        if let Some(other) = matrices.iter().find(|m| m.k != k || m.bias.is_some()) {
            bail!("linear: can't merge K = {} (or a bias) with K = {k}", other.k);
        }
        let n = matrices.iter().map(|m| m.n).sum();
        Ok(Self { parts: matrices.into_iter().flat_map(|m| m.parts).collect(), bias: None, n, k })
    }

    /// Adds a bias `[N]` (f32).
    ///
    /// # Errors
    /// Another shape.
    pub fn with_bias(mut self, bias: &Tensor) -> Result<Self> {
        if bias.dims() != [self.n] {
            bail!("linear: bias has shape {:?}, wanted [{}]", bias.dims(), self.n);
        }
        self.bias = Some(bias.contiguous()?);
        Ok(self)
    }

    /// `x` `[M, K]` (f32) to `[M, N]` (f32).
    ///
    /// # Errors
    /// Shapes, types or devices that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.multiply(Input::Rows(x), None)
    }

    /// The product of `input`, added to `residual` `[M, N]` (f32) if there is one. On the processor,
    /// with quantised weights, it is one operation; its bits are those of the operations one by one.
    ///
    /// # Errors
    /// Shapes, types or devices that do not fit.
    pub fn multiply(&self, input: Input, residual: Option<&Tensor>) -> Result<Tensor> {
        let (m, k) = input.dims()?;
        if k != self.k {
            bail!("linear: x has {k} columns, the weights {}", self.k);
        }
        if let Some(residual) = residual
            && residual.dims() != [m, self.n]
        {
            bail!("linear: the residual is {:?}, wanted [{m}, {}]", residual.dims(), self.n);
        }
        if self.is_quantized() && m > 0 && input.device().is_cpu() {
            return self.fused(input, m, residual);
        }
        let y = self.unfused(&input.tensor()?)?;
        match residual {
            Some(residual) => add(residual, &y),
            None => Ok(y),
        }
    }

    fn unfused(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() && !self.parts.iter().any(|p| matches!(p, Part::Portable(_))) {
            return self.forward_cpu(x);
        }
        let y = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Portable(w) => w.forward(x),
                _ => bail!("linear: x lies on another device than the weights"),
            })
            .collect::<Result<Vec<_>>>()?;
        let y = if y.len() == 1 { y[0].clone() } else { Tensor::cat(&y, 1)? };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn forward_cpu(&self, x: &Tensor) -> Result<Tensor> {
        let (m, k) = x.dims2()?;
        if m == 0 {
            return Tensor::zeros((m, self.n), DType::F32, x.device());
        }
        let multiply = |out: Shared<f32>, x: &[f32]| {
            let quantized = self.parts.iter().any(|p| matches!(p, Part::Quantized(_)));
            let activations = quantized.then(|| Activations::new(Stored { x, k }, m, k));
            let mut column = 0;
            for part in &self.parts {
                let target = Target { out, stride: self.n, column, onto: false };
                match (part, &activations) {
                    (Part::Dense(w), _) => w.multiply(x, target),
                    (Part::Quantized(w), Some(x)) => w.multiply(x, target),
                    _ => bail!("linear: a portable part among packed ones"),
                }
                column += part.n();
            }
            Ok(())
        };
        // SAFETY: the parts stand side by side and each writes all rows of its columns.
        let mut out =
            unsafe { written(m * self.n, |out| with_f32(x, "linear: x", |x| multiply(out, x)))? };
        self.add_bias(&mut out)?;
        Tensor::from_vec(out, (m, self.n), x.device())
    }

    /// The product with quantised parts only, on the processor.
    fn fused(&self, input: Input, m: usize, residual: Option<&Tensor>) -> Result<Tensor> {
        let x = input.rounded(m, self.k)?;
        // What the bias is added to must be the bare product.
        let base = residual.filter(|_| self.bias.is_none());
        let mut out = match base {
            Some(base) => with_f32(base, "linear: residual", |base| Ok(base.to_vec()))?,
            None => {
                let products = |out| {
                    self.products(&x, out, false);
                    Ok(())
                };
                // SAFETY: the parts stand side by side and each writes all rows of its columns.
                unsafe { written(m * self.n, products)? }
            }
        };
        if base.is_some() {
            self.products(&x, Shared::new(&mut out), true);
        }
        self.add_bias(&mut out)?;
        let y = Tensor::from_vec(out, (m, self.n), input.device())?;
        match residual {
            Some(residual) if base.is_none() => add(residual, &y),
            _ => Ok(y),
        }
    }

    fn products(&self, x: &Activations, out: Shared<f32>, onto: bool) {
        let mut column = 0;
        for part in &self.parts {
            if let Part::Quantized(w) = part {
                w.multiply(x, Target { out, stride: self.n, column, onto });
            }
            column += part.n();
        }
    }

    fn add_bias(&self, out: &mut [f32]) -> Result<()> {
        let Some(bias) = &self.bias else { return Ok(()) };
        with_f32(bias, "linear: bias", |bias| {
            for row in out.chunks_exact_mut(self.n) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            Ok(())
        })
    }

    /// Output columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether all weights are quantised and lie on the processor, where activations are too.
    pub fn is_quantized(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Quantized(_)))
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }
}

/// What a product multiplies.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// `[M, K]` (f32).
    Rows(&'a Tensor),
    /// [`rms_norm`] of `x` `[M, K]` with `weight` `[K]`.
    Normed { x: &'a Tensor, weight: &'a Tensor, eps: f64 },
    /// [`silu_mul`] of `[M, 2 K]`.
    Gated(&'a Tensor),
}

impl Input<'_> {
    fn stored(&self) -> &Tensor {
        match self {
            Input::Rows(x) | Input::Gated(x) | Input::Normed { x, .. } => x,
        }
    }

    fn device(&self) -> &Device {
        self.stored().device()
    }

    /// M and K.
    fn dims(&self) -> Result<(usize, usize)> {
        let (m, columns) = self.stored().dims2()?;
        match self {
            Input::Gated(_) if columns % 2 != 0 => {
                bail!("linear: {columns} columns can't be halved into gate and up")
            }
            Input::Gated(_) => Ok((m, columns / 2)),
            Input::Normed { weight, .. } if weight.dims() != [columns] => {
                bail!("linear: {columns} columns, but a norm of {:?}", weight.dims())
            }
            _ => Ok((m, columns)),
        }
    }

    /// `[M, K]`, by the operations that stand for it.
    fn tensor(self) -> Result<Tensor> {
        match self {
            Input::Rows(x) => Ok(x.clone()),
            Input::Normed { x, weight, eps } => rms_norm(x, weight, eps),
            Input::Gated(gate_up) => silu_mul(gate_up),
        }
    }

    /// The same in 8 bits, in one pass.
    fn rounded(&self, m: usize, k: usize) -> Result<Activations> {
        with_f32(self.stored(), "linear: x", |x| match self {
            Input::Rows(_) => Ok(Activations::new(Stored { x, k }, m, k)),
            Input::Gated(_) => Ok(Activations::new(Gated { gate_up: x, k }, m, k)),
            Input::Normed { weight, eps, .. } => with_f32(weight, "linear: norm", |weight| {
                Ok(Activations::new(Normed { x, weight, eps: *eps as f32 }, m, k))
            }),
        })
    }
}

/// Where a part writes: columns from `column` on, of rows `stride` apart.
#[derive(Clone, Copy)]
struct Target {
    out: Shared<f32>,
    stride: usize,
    column: usize,
    /// Products are added to what is there.
    onto: bool,
}

/// How a product is cut into tasks: rows × panels, each task a rectangle of the output.
///
/// Bits do not depend on it, so it may follow the number of threads.
struct Grid {
    rows: usize,
    panels: usize,
    row_step: usize,
    panel_step: usize,
}

impl Grid {
    /// Rows whose activations stay in the second-level cache.
    const ROWS: usize = 64;

    /// Rows up to which reading the weights takes longer than multiplying.
    const FEW: usize = 4;

    /// A task has a multiple of `tile` rows, but for the last.
    fn new(rows: usize, panels: usize, tile: usize) -> Self {
        let row_step = rows.clamp(1, Self::ROWS).next_multiple_of(tile);
        // Few rows wait for weights: then even tasks count for more than many.
        let few = rows <= Self::FEW;
        let (tasks_of_thread, tiles, most) = if few { (2, 2, panels) } else { (4, 6, 18) };
        let wanted_tasks = tasks_of_thread * rayon::current_num_threads();
        let columns_of_tasks = wanted_tasks.div_ceil(rows.div_ceil(row_step));
        // Whole register tiles of two or of three panels.
        let panel_step = panels.div_ceil(columns_of_tasks).next_multiple_of(tiles);
        let panel_step = panel_step.clamp(tiles, most.max(tiles));
        Self { rows, panels, row_step, panel_step }
    }

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.row_step) * self.panels.div_ceil(self.panel_step)
    }

    /// Rows and panels of task `i`. Neighbouring tasks share their panels.
    fn task(&self, i: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let row_tasks = self.rows.div_ceil(self.row_step);
        let (row, panel) = (i % row_tasks * self.row_step, i / row_tasks * self.panel_step);
        (
            row..(row + self.row_step).min(self.rows),
            panel..(panel + self.panel_step).min(self.panels),
        )
    }
}

#[cfg(test)]
mod tests;
