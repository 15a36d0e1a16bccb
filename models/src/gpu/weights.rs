//! A decoder's weights on the GPU: matrices in bf16 or e4m3, norms in f32, in the order of their use.
//!
//! Attention knows heads of 64 and 128 columns. Smaller heads are filled up with zeros: rows of q,
//! k and v, and columns of the output projection, which changes no result.

use super::decoder::WeightType;
use super::e4m3::round_rows;
use super::stage::Stager;
use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::rope::inverse_frequencies;
use crate::spec::{LayerTensors, TensorSpec};
use crate::weights::{Piece, Weights};
use half::bf16;
use kernels::gpu::{Buffer, Gpu, Output, RopeTables};
use kernels::rope::table;

/// Columns of a head that attention knows.
const HEADS: [usize; 2] = [64, 128];

/// Factor by which widths of matrices must be divisible, and that of matrices in e4m3.
const WIDTH: usize = 8;
const WIDTH_E4M3: usize = 16;

/// `[n, k]`
pub struct Matrix {
    pub w: Output,
    pub bias: Option<Buffer<bf16>>,
    pub n: usize,
    pub k: usize,
}

pub struct Layer {
    pub input_norm: Buffer<f32>,
    pub qkv: Matrix,
    /// `[(heads + kv_heads) * head_dim]`, of q and of k
    pub head_norms: Option<Buffer<f32>>,
    pub attention_output: Matrix,
    pub attention_output_norm: Option<Buffer<f32>>,
    pub ffn_norm: Buffer<f32>,
    pub gate_up: Matrix,
    pub down: Matrix,
    pub ffn_output_norm: Option<Buffer<f32>>,
}

/// All weights of a decoder.
pub struct DeviceWeights {
    /// `[vocab, hidden]`
    pub embedding: Buffer<bf16>,
    pub layers: Vec<Layer>,
    pub final_norm: Buffer<f32>,
    pub head: Matrix,
    pub rope: RopeTables,
    /// Columns of a head as it lies on the GPU.
    pub head_dim: usize,
    /// That all of it takes.
    pub bytes: usize,
}

/// Where runs of numbers lie that are further apart than in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spread {
    run: usize,
    stride: usize,
}

impl Spread {
    const NONE: Self = Self { run: 1, stride: 1 };

    fn of(self, len: usize) -> usize {
        len / self.run * self.stride
    }
}

impl DeviceWeights {
    /// Takes all tensors of `weights`.
    ///
    /// # Errors
    /// Sizes that the GPU's kernels do not know, those of `weights`, or not enough memory.
    pub fn read(
        config: &ModelConfig,
        weights: &mut dyn Weights,
        weight_type: WeightType,
        gpu: &Gpu,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let head_dim = check(config, weight_type, gpu)?;
        let before = gpu.memory()?.free;
        let spec = config.architecture.spec();
        let total = weights.bytes();
        let stager = Stager::new(gpu)?;
        let mut loader = Loader { config, weights, weight_type, stager, progress, head_dim, total };
        let embedding = loader.bf16(&[spec.embedding(config)], Spread::NONE)?;
        let layers = (0..config.layers).map(|layer| loader.layer(spec.layer(config, layer)));
        let layers = layers.collect::<Result<_>>()?;
        let final_norm = loader.vector(&spec.final_norm(config))?;
        let head = match config.tied {
            true => embedding.again(),
            false => loader.bf16(&[spec.head(config)], Spread::NONE)?,
        };
        let rope = loader.rope()?;
        loader.finish()?;
        let Output::Bf16(embedding) = embedding.w else { unreachable!("weights are bf16") };
        let bytes = before.saturating_sub(gpu.memory()?.free) as usize;
        Ok(Self { embedding, layers, final_norm, head, rope, head_dim, bytes })
    }
}

impl Matrix {
    /// The same matrix in the same memory.
    fn again(&self) -> Self {
        let Self { w, bias, n, k } = self;
        Self { w: w.clone(), bias: bias.clone(), n: *n, k: *k }
    }

    /// Of its numbers.
    pub fn bytes(&self) -> usize {
        match self.w {
            Output::Bf16(_) => self.n * self.k * size_of::<bf16>(),
            Output::E4m3 { .. } => self.n * (self.k + size_of::<f32>()),
        }
    }
}

/// Columns of a head on the GPU.
///
/// # Errors
/// The first size that does not fit the kernels.
fn check(config: &ModelConfig, weight_type: WeightType, gpu: &Gpu) -> Result<usize> {
    let is = gpu.properties()?;
    let (width, wanted) = match weight_type {
        WeightType::Bf16 => (WIDTH, "multiples of 8"),
        WeightType::E4m3 if is.capability != 90 && !is.emulated => {
            let (major, minor) = (is.capability / 10, is.capability % 10);
            return Err(ModelError::Batch(format!(
                "weights in e4m3 need a GPU of compute capability 9.0, and {} has {major}.{minor}; leave out --dtype e4m3",
                is.name
            )));
        }
        WeightType::E4m3 => (WIDTH_E4M3, "multiples of 16"),
    };
    let bad = |what: &str, size: usize, wanted: &str| {
        ModelError::Batch(format!("the GPU's kernels run no {what} of {size}, only {wanted}"))
    };
    for (what, size) in [("hidden size", config.hidden), ("feed-forward width", config.ffn)] {
        if !size.is_multiple_of(width) {
            return Err(bad(what, size, wanted));
        }
    }
    let fits = HEADS.into_iter().find(|&columns| columns >= config.head_dim);
    fits.ok_or_else(|| bad("head size", config.head_dim, "sizes up to 128"))
}

/// `[n, k]` of a matrix from the rows of all `parts`. Spread runs are whole rows, or parts of one.
fn shape(parts: &[TensorSpec], spread: Spread) -> [usize; 2] {
    let rows: usize = parts.iter().map(|part| part.shape[0]).sum();
    let columns = parts.first().map_or(0, |part| part.shape[1]);
    match spread.run <= columns {
        true => [rows, spread.of(columns)],
        false => [spread.of(rows * columns) / columns, columns],
    }
}

struct Loader<'a> {
    config: &'a ModelConfig,
    weights: &'a mut dyn Weights,
    weight_type: WeightType,
    stager: Stager,
    progress: &'a mut dyn FnMut(u64, u64),
    head_dim: usize,
    total: u64,
}

impl Loader<'_> {
    fn layer(&mut self, names: LayerTensors) -> Result<Layer> {
        let (stored, on_gpu) = (self.config.head_dim, self.head_dim);
        let columns = Spread { run: stored, stride: on_gpu };
        let rows = Spread { run: stored * self.config.hidden, stride: on_gpu * self.config.hidden };
        Ok(Layer {
            input_norm: self.vector(&names.input_norm)?,
            qkv: Matrix {
                bias: self.bias(&names.qkv_bias, columns)?,
                ..self.matrix(&names.qkv, rows)?
            },
            head_norms: self.head_norms(&names.head_norms)?,
            attention_output: Matrix {
                bias: self.bias(&names.attention_output_bias, Spread::NONE)?,
                ..self.bf16(&[names.attention_output], columns)?
            },
            attention_output_norm: self.optional_vector(&names.attention_output_norm)?,
            ffn_norm: self.vector(&names.ffn_norm)?,
            gate_up: self.matrix(&names.gate_up, Spread::NONE)?,
            down: self.matrix(&[names.down], Spread::NONE)?,
            ffn_output_norm: self.optional_vector(&names.ffn_output_norm)?,
        })
    }

    /// One matrix from the rows of all `parts`, in the type of the layers' weights.
    fn matrix(&mut self, parts: &[TensorSpec], spread: Spread) -> Result<Matrix> {
        match self.weight_type {
            WeightType::Bf16 => self.bf16(parts, spread),
            WeightType::E4m3 => self.e4m3(parts, spread),
        }
    }

    fn bf16(&mut self, parts: &[TensorSpec], spread: Spread) -> Result<Matrix> {
        let [n, k] = shape(parts, spread);
        Ok(Matrix { w: Output::Bf16(self.numbers(parts, spread)?), bias: None, n, k })
    }

    fn e4m3(&mut self, parts: &[TensorSpec], spread: Spread) -> Result<Matrix> {
        let [n, k] = shape(parts, spread);
        let gpu = self.stager.stream().gpu().clone();
        let (values, scales) = (gpu.alloc(n * k)?, gpu.alloc(n)?);
        let mut row = 0;
        for part in parts {
            let (rounded, factors) = round_rows(&self.spread_values(part, spread)?, k);
            let rows = row..row + factors.len();
            let stream = self.stager.stream();
            stream.write(&values.slice(rows.start * k..rows.end * k), &rounded)?;
            stream.write(&scales.slice(rows.clone()), &factors)?;
            row = rows.end;
        }
        Ok(Matrix { w: Output::E4m3 { values, scales }, bias: None, n, k })
    }

    fn bias(&mut self, parts: &[TensorSpec], spread: Spread) -> Result<Option<Buffer<bf16>>> {
        if parts.is_empty() {
            return Ok(None);
        }
        self.numbers(parts, spread).map(Some)
    }

    /// The numbers of all `parts`, one after the other.
    fn numbers(&mut self, parts: &[TensorSpec], spread: Spread) -> Result<Buffer<bf16>> {
        let len = parts.iter().map(|part| spread.of(part.elements())).sum();
        let to = self.stager.stream().gpu().alloc(len)?;
        let mut at = 0;
        for part in parts {
            at += match spread.run == spread.stride {
                true => self.stream(part, &to, at)?,
                false => self.spread(part, spread, &to, at)?,
            };
        }
        Ok(to)
    }

    /// Copies a tensor as it is.
    fn stream(&mut self, part: &TensorSpec, to: &Buffer<bf16>, at: usize) -> Result<usize> {
        let Self { weights, stager, .. } = self;
        let mut done = 0;
        weights.read(part, &mut |piece| {
            done += stager.put(piece, to, at + done)?;
            Ok(())
        })?;
        self.tell();
        Ok(done)
    }

    /// Copies a tensor with zeros between its runs. (Only small models have such heads.)
    fn spread(
        &mut self,
        part: &TensorSpec,
        spread: Spread,
        to: &Buffer<bf16>,
        at: usize,
    ) -> Result<usize> {
        let filled = self.spread_values(part, spread)?;
        self.stager.put(Piece::F32(&filled), to, at)
    }

    /// A tensor in f32 with zeros between its runs, on the host.
    fn spread_values(&mut self, part: &TensorSpec, spread: Spread) -> Result<Vec<f32>> {
        let numbers = self.values(part)?;
        let Spread { run, stride } = spread;
        if run == stride {
            return Ok(numbers);
        }
        let mut filled = vec![0f32; spread.of(numbers.len())];
        for (from, to) in numbers.chunks(run).zip(filled.chunks_mut(stride)) {
            to[..from.len()].copy_from_slice(from);
        }
        Ok(filled)
    }

    /// A tensor in f32, on the host.
    fn values(&mut self, tensor: &TensorSpec) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(tensor.elements());
        self.weights.read(tensor, &mut |piece| {
            match piece {
                Piece::F32(numbers) => all.extend_from_slice(numbers),
                Piece::Bf16(numbers) => {
                    all.extend(numbers.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()));
                }
            }
            Ok(())
        })?;
        self.tell();
        Ok(all)
    }

    /// The weights of all heads of q and k, one after the other, each filled up with zeros.
    fn head_norms(&mut self, names: &[TensorSpec]) -> Result<Option<Buffer<f32>>> {
        let mut all = Vec::new();
        for (name, heads) in names.iter().zip([self.config.heads, self.config.kv_heads]) {
            let mut weight = self.values(name)?;
            weight.resize(self.head_dim, 0.0);
            all.extend(weight.repeat(heads));
        }
        if all.is_empty() { Ok(None) } else { Ok(Some(self.stager.stream().buffer_of(&all)?)) }
    }

    fn vector(&mut self, tensor: &TensorSpec) -> Result<Buffer<f32>> {
        let values = self.values(tensor)?;
        Ok(self.stager.stream().buffer_of(&values)?)
    }

    fn optional_vector(&mut self, tensors: &[TensorSpec]) -> Result<Option<Buffer<f32>>> {
        tensors.first().map(|tensor| self.vector(tensor)).transpose()
    }

    /// Some files carry a divisor for each frequency in place of the settings they come from.
    fn rope(&mut self) -> Result<RopeTables> {
        let mut frequencies = inverse_frequencies(&self.config.rope);
        let factors = self.config.architecture.spec().rope_factors(self.config);
        if let Some(factors) = factors.filter(|tensor| self.weights.has(&tensor.name)) {
            for (frequency, divisor) in frequencies.iter_mut().zip(self.values(&factors)?) {
                *frequency = f64::from(*frequency as f32 / divisor);
            }
        }
        let positions = self.config.max_positions;
        let factor = self.config.rope.scaling.table_factor();
        let angles = |f| table(&frequencies, positions, factor, f);
        let stream = self.stager.stream();
        Ok(RopeTables {
            cos: stream.buffer_of(&angles(f64::cos))?,
            sin: stream.buffer_of(&angles(f64::sin))?,
            rotated: 2 * frequencies.len(),
            style: self.config.rope.style,
        })
    }

    fn tell(&mut self) {
        (self.progress)(self.total - self.weights.bytes().min(self.total), self.total);
    }

    fn finish(self) -> Result<()> {
        if let Some(error) = self.weights.left_over() {
            return Err(error);
        }
        (self.progress)(self.total, self.total);
        self.stager.finish()
    }
}
