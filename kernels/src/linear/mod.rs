//! The matrix product of a linear layer, `y = x · Wᵀ + b`, with weights packed once at load.
//!
//! On the processor dense weights (f32, bf16, f16) are multiplied by f32 activations, and
//! quantised weights by activations quantised to 8 bits in blocks of 32, as in llama.cpp; widen
//! the weights to f32 where that rounding is not wanted.

mod activations;
pub(crate) mod blocks;
mod dense;
mod portable;
mod quantized;
mod records;
pub mod reference;

use crate::host::{Shared, has_own, with_f32};
use crate::matrix::{Changed, Matrix, Seen, View};
use crate::memory::Arena;
use crate::rms_norm::{self, rms_norm};
use crate::silu_mul::{self, silu_mul};
use crate::simd::Simd;
use activations::{Activations, Gated, Normed, Stored};
use candle_core::quantized::QTensor;
use candle_core::{Result, Tensor, bail};

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
        let part = if has_own(w.device()) {
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
        let part = if has_own(&w.device()) {
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
        let mut y = Matrix::default();
        View::of(x, "linear: x", |x| {
            self.multiply(Input::Rows(x), &mut Workspace::default(), &mut y)
        })?;
        y.to_tensor()
    }

    /// The product of `input`, `[M, N]`. On the processor, with quantised weights, it is one
    /// operation with what makes the input; its bits are those of the operations one by one.
    ///
    /// # Errors
    /// Shapes, types or devices that do not fit.
    pub fn multiply(&self, input: Input, work: &mut Workspace, out: &mut Matrix) -> Result<()> {
        let rows = self.rows(&input)?;
        match &input.stored().numbers {
            Seen::Host(x) => self.packed(&input, x, work, (out.host(rows, self.n), false)),
            Seen::Device(_) => out.put(self.portable(input)?),
        }
    }

    /// Adds the product of `input` to `sum` `[M, N]`, otherwise as [`Linear::multiply`].
    ///
    /// # Errors
    /// As there.
    pub fn add_product(&self, input: Input, work: &mut Workspace, sum: &mut Matrix) -> Result<()> {
        let wanted = (self.rows(&input)?, self.n);
        if sum.dims() != wanted {
            bail!("linear: the sum is {:?}, wanted {wanted:?}", sum.dims());
        }
        match (&input.stored().numbers, sum.change()) {
            (Seen::Host(x), Changed::Host(sum)) => self.packed(&input, x, work, (sum, true)),
            (Seen::Device(_), Changed::Device(sum)) => {
                *sum = (&*sum + self.portable(input)?)?;
                Ok(())
            }
            _ => bail!("linear: the sum lies on another device than x"),
        }
    }

    /// M.
    fn rows(&self, input: &Input) -> Result<usize> {
        let (m, k) = input.dims()?;
        if k != self.k {
            bail!("linear: x has {k} columns, the weights {}", self.k);
        }
        Ok(m)
    }

    /// On the processor: `x` is what `input` is made of; to numbers `[M, N]`, or added to them.
    fn packed(
        &self,
        input: &Input,
        x: &[f32],
        work: &mut Workspace,
        (out, onto): (&mut [f32], bool),
    ) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let Workspace { rounded, rows } = work;
        let dense = self.parts.iter().any(|part| matches!(part, Part::Dense(_)));
        let quantized = self.parts.iter().any(|part| matches!(part, Part::Quantized(_)));
        let k = self.k;
        let x = if dense { input.numbers(x, rows)? } else { x };
        match quantized {
            true if dense => rounded.round(Stored { x, k }, x.len() / k, k),
            true => input.round(x, k, rounded)?,
            false => (),
        }
        let out = Shared::new(out);
        let multiply = |bias: Option<&[f32]>| {
            let mut column = 0;
            for part in &self.parts {
                let target = Target { out, stride: self.n, column, bias, onto };
                match part {
                    Part::Dense(w) => w.multiply(x, target),
                    Part::Quantized(w) => w.multiply(rounded, target),
                    Part::Portable(_) => bail!("linear: the weights lie on another device than x"),
                }
                column += part.n();
            }
            Ok(())
        };
        match &self.bias {
            Some(bias) => with_f32(bias, "linear: bias", |bias| multiply(Some(bias))),
            None => multiply(None),
        }
    }

    /// On any candle device.
    fn portable(&self, input: Input) -> Result<Tensor> {
        let x = input.tensor()?;
        let products = self.parts.iter().map(|part| match part {
            Part::Portable(w) => w.forward(&x),
            _ => bail!("linear: x lies on another device than the weights"),
        });
        let y = products.collect::<Result<Vec<_>>>()?;
        let y = if y.len() == 1 { y[0].clone() } else { Tensor::cat(&y, 1)? };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
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

/// Memory that products need on their way, kept from one to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    rounded: Activations,
    rows: Matrix,
}

/// What a product multiplies.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// `[M, K]`.
    Rows(View<'a>),
    /// [`rms_norm()`] of `x` `[M, K]` with `weight` `[K]` (f32).
    Normed { x: View<'a>, weight: &'a Tensor, eps: f64 },
    /// [`silu_mul()`] of `[M, 2 K]`.
    Gated(View<'a>),
}

impl<'a> Input<'a> {
    fn stored(&self) -> &View<'a> {
        match self {
            Input::Rows(x) | Input::Gated(x) | Input::Normed { x, .. } => x,
        }
    }

    /// M and K.
    fn dims(&self) -> Result<(usize, usize)> {
        let (m, columns) = self.stored().dims();
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

    /// `[M, K]` on another device than the processor.
    fn tensor(self) -> Result<Tensor> {
        let Seen::Device(x) = &self.stored().numbers else { bail!("linear: x lies on the host") };
        match &self {
            Input::Rows(_) => Ok(x.clone()),
            Input::Normed { weight, eps, .. } => rms_norm::portable::rms_norm(x, weight, *eps),
            Input::Gated(_) => silu_mul::portable::silu_mul(x),
        }
    }

    /// `[M, K]` on the processor, from `x` that is stored; in `rows` if it has to be made.
    fn numbers<'b>(&self, x: &'b [f32], rows: &'b mut Matrix) -> Result<&'b [f32]> {
        match self {
            Input::Rows(_) => return Ok(x),
            Input::Normed { x, weight, eps } => rms_norm(x.clone(), weight, *eps, rows)?,
            Input::Gated(gate_up) => silu_mul(gate_up.clone(), rows)?,
        }
        Ok(rows.slice())
    }

    /// The same in 8 bits, in one pass over `x` that is stored.
    fn round(&self, x: &[f32], k: usize, to: &mut Activations) -> Result<()> {
        let (m, _) = self.dims()?;
        match self {
            Input::Rows(_) => to.round(Stored { x, k }, m, k),
            Input::Gated(_) => to.round(Gated { gate_up: x, k }, m, k),
            Input::Normed { weight, eps, .. } => {
                return with_f32(weight, "linear: norm", |weight| {
                    to.round(Normed { x, weight, eps: *eps as f32 }, m, k);
                    Ok(())
                });
            }
        }
        Ok(())
    }
}

/// Where a part writes: columns from `column` on, of rows `stride` apart.
#[derive(Clone, Copy)]
struct Target<'a> {
    out: Shared<f32>,
    stride: usize,
    column: usize,
    /// One for each of the `stride` columns, added to the products.
    bias: Option<&'a [f32]>,
    /// The results are added to what is there.
    onto: bool,
}

impl Target<'_> {
    /// Writes sums of products: the part's columns from `first` on, sixteen or the `left` that there
    /// are.
    ///
    /// # Safety
    /// As [`Simd`]; the row must be there, and no other thread may write these columns of it.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, row: usize, (first, left): (usize, usize), sums: S::V) {
        let column = self.column + first;
        unsafe {
            let to = self.out.at(row * self.stride + column);
            if left >= PANEL {
                let sums = match self.bias {
                    Some(bias) => S::add(sums, S::load(bias.as_ptr().add(column))),
                    None => sums,
                };
                S::store(to, if self.onto { S::add(S::load(to), sums) } else { sums });
                return;
            }
            let mut lanes = [0f32; PANEL];
            S::store(lanes.as_mut_ptr(), sums);
            for (i, lane) in lanes.iter().take(left).enumerate() {
                let sum = match self.bias {
                    Some(bias) => lane + bias[column + i],
                    None => *lane,
                };
                let to = to.add(i);
                to.write(if self.onto { to.read() + sum } else { sum });
            }
        }
    }
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
