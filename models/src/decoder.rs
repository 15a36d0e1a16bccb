//! The one decoder, in reading order. What differs between architectures was decided when the
//! weights were named ([`crate::spec`]); here it shows only as parts that are there or not.
//!
//! Every row is computed from its own inputs and its sequence's KV alone, so on the processor its
//! bits do not depend on what else is in the batch or on how a prompt was cut into chunks.

use crate::LoadOptions;
use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::kv::KvPool;
use crate::rope::inverse_frequencies;
use crate::spec::LayerTensors;
use crate::weights::{Loader, Weights};
use candle_core::{DType, Device, Tensor};
use kernels::attention::paged_attention;
use kernels::embedding::Embedding;
use kernels::kv::{KvLayer, VarLen};
use kernels::linear::{Input, Linear};
use kernels::residual::add;
use kernels::rms_norm::rms_norm;
use kernels::rope::{RopeTable, rope};
use kernels::wide_awake;

/// A decoder-only transformer, ready to run.
pub struct Decoder {
    config: ModelConfig,
    device: Device,
    embedding: Embedding,
    layers: Vec<Layer>,
    final_norm: Tensor,
    head: Linear,
    rope: RopeTable,
}

/// What a step of a decoder costs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCost {
    /// Weights that every step reads: all but an embedding table of its own, of which few rows are.
    pub bytes: usize,
    /// Operations for each row, two for each weight.
    pub layer_operations: u64,
    /// As `layer_operations`, for each row that needs logits.
    pub head_operations: u64,
    /// Whether weights are quantised, and so products of bytes.
    pub quantized: bool,
}

struct Layer {
    input_norm: Tensor,
    qkv: Linear,
    attention_output: Linear,
    attention_output_norm: Option<Tensor>,
    ffn_norm: Tensor,
    gate_up: Linear,
    down: Linear,
    ffn_output_norm: Option<Tensor>,
}

impl Decoder {
    /// Runs the batch and gives the logits of its `logit_rows`: `[logit_rows, vocab]`, f32.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn forward(&self, batch: &Batch, pool: &mut KvPool) -> Result<Tensor> {
        self.head(&self.hidden(batch, pool)?)
    }

    /// Runs the batch, stores the KV of all its rows, and gives the final hidden states of its
    /// `logit_rows`: `[logit_rows, hidden]`, f32, after the final norm.
    ///
    /// # Errors
    /// Arrays of the batch that do not fit each other, the vocabulary or the pool.
    pub fn hidden(&self, batch: &Batch, pool: &mut KvPool) -> Result<Tensor> {
        self.check(batch, pool)?;
        if self.device.is_cpu() {
            return wide_awake(|| self.run(batch, pool));
        }
        self.run(batch, pool)
    }

    fn run(&self, batch: &Batch, pool: &mut KvPool) -> Result<Tensor> {
        let mut x = self.embedding.gather(&batch.tokens)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let mut heads = self.attend(layer, &x, &batch.layout, pool.layer(number))?;
            if number + 1 == self.layers.len() {
                // Nothing after the last attention mixes rows, so the others end here.
                if batch.logit_rows.is_empty() {
                    return self.no_rows(self.config.hidden);
                }
                x = pick(&x, &batch.logit_rows)?;
                heads = pick(&heads, &batch.logit_rows)?;
            }
            x = self.finish(layer, x, &heads)?;
        }
        Ok(rms_norm(&x, &self.final_norm, self.config.rms_eps)?)
    }

    /// Logits of rows that [`Decoder::hidden`] gave: `[rows, hidden]` to `[rows, vocab]`, f32.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn head(&self, hidden: &Tensor) -> Result<Tensor> {
        if hidden.dims()[0] == 0 {
            return self.no_rows(self.config.vocab);
        }
        Ok(self.head.forward(hidden)?)
    }

    fn no_rows(&self, columns: usize) -> Result<Tensor> {
        Ok(Tensor::zeros((0, columns), DType::F32, &self.device)?)
    }

    /// Results of the attention heads, side by side: `[T, heads * head_dim]`.
    fn attend(&self, layer: &Layer, x: &Tensor, seqs: &VarLen, kv: &mut KvLayer) -> Result<Tensor> {
        let ModelConfig { heads, kv_heads, head_dim, .. } = self.config;
        let style = self.config.rope.style;
        let qkv = layer.qkv.multiply(self.normed_input(x, &layer.input_norm), None)?;
        let part = |first: usize, count: usize| {
            let columns = qkv.narrow(1, first * head_dim, count * head_dim)?.contiguous()?;
            columns.reshape((x.dims()[0], count, head_dim))
        };
        let q = rope(&part(0, heads)?, &seqs.positions, &self.rope, style)?;
        let k = rope(&part(heads, kv_heads)?, &seqs.positions, &self.rope, style)?;
        kv.store(&k, &part(heads + kv_heads, kv_heads)?, &seqs.slots)?;
        Ok(paged_attention(&q, kv, seqs, 1.0 / (head_dim as f32).sqrt())?)
    }

    /// The rest of a layer after its attention heads: output projection and feed-forward block,
    /// each added to the residual stream.
    fn finish(&self, layer: &Layer, x: Tensor, heads: &Tensor) -> Result<Tensor> {
        let Layer { attention_output, attention_output_norm, .. } = layer;
        let x = self.onto(x, attention_output, Input::Rows(heads), attention_output_norm)?;
        let gate_up = layer.gate_up.multiply(self.normed_input(&x, &layer.ffn_norm), None)?;
        self.onto(x, &layer.down, Input::Gated(&gate_up), &layer.ffn_output_norm)
    }

    fn normed_input<'a>(&self, x: &'a Tensor, weight: &'a Tensor) -> Input<'a> {
        Input::Normed { x, weight, eps: self.config.rms_eps }
    }

    /// The residual stream `x` plus a product, through its norm if it has one.
    fn onto(&self, x: Tensor, w: &Linear, input: Input, norm: &Option<Tensor>) -> Result<Tensor> {
        match norm {
            None => Ok(w.multiply(input, Some(&x))?),
            Some(norm) => {
                let normed = rms_norm(&w.multiply(input, None)?, norm, self.config.rms_eps)?;
                Ok(add(&x, &normed)?)
            }
        }
    }

    fn check(&self, batch: &Batch, pool: &KvPool) -> Result<()> {
        let rows = batch.tokens.len();
        if rows != batch.layout.rows() {
            let slots = batch.layout.rows();
            return Err(ModelError::Batch(format!("batch: {rows} tokens but {slots} slots")));
        }
        if let Some(row) = batch.logit_rows.iter().find(|&&row| row as usize >= rows) {
            return Err(ModelError::Batch(format!("batch: logits of row {row} of {rows}")));
        }
        if pool.layers() != self.layers.len() {
            let (pool, model) = (pool.layers(), self.layers.len());
            let problem = format!("batch: a KV pool of {pool} layers for a model of {model}");
            return Err(ModelError::Batch(problem));
        }
        Ok(batch.layout.validate(pool.blocks())?)
    }
}

/// The rows of `x` that `rows` names.
fn pick(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    if rows.len() == x.dims()[0] && rows.is_sorted_by(|a, b| a < b) {
        return Ok(x.clone());
    }
    Ok(x.index_select(&Tensor::from_slice(rows, rows.len(), x.device())?, 0)?)
}

/// What there is to know about a decoder without running it.
impl Decoder {
    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights lie and batches run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Memory that all weights take as they are kept for running.
    pub fn bytes(&self) -> usize {
        self.embedding.bytes() + self.step_cost().bytes
    }

    /// What a step takes at least.
    pub fn step_cost(&self) -> StepCost {
        let operations = |w: &Linear| 2 * (w.n() * w.k()) as u64;
        StepCost {
            bytes: self.products().map(Linear::bytes).sum::<usize>() + self.head.bytes(),
            layer_operations: self.products().map(operations).sum(),
            head_operations: operations(&self.head),
            quantized: self.products().all(Linear::is_quantized),
        }
    }

    /// The products of all layers.
    fn products(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|l| [&l.qkv, &l.attention_output, &l.gate_up, &l.down])
    }
}

/// Building a decoder: tensors are taken in the order in which they are used, so that at no time
/// more than one matrix exists twice.
impl Decoder {
    pub(crate) fn build(
        config: ModelConfig,
        weights: &mut dyn Weights,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let spec = config.architecture.spec();
        let mut loader = Loader::new(weights, options, progress)?;
        let (embedding, tied_head) = loader.embedding(&spec.embedding(&config), config.tied)?;
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            layers.push(Layer::build(spec.layer(&config, layer), &mut loader)?);
        }
        let final_norm = loader.vector(&spec.final_norm(&config))?;
        let head = match tied_head {
            Some(head) => head,
            None => loader.linear(&[spec.head(&config)], &[])?,
        };
        let rope = rope_table(&config, &mut loader)?;
        loader.finish()?;
        let device = options.device.clone();
        Ok(Self { config, device, embedding, layers, final_norm, head, rope })
    }
}

impl Layer {
    fn build(names: LayerTensors, loader: &mut Loader) -> Result<Self> {
        Ok(Self {
            input_norm: loader.vector(&names.input_norm)?,
            qkv: loader.linear(&names.qkv, &names.qkv_bias)?,
            attention_output: loader
                .linear(&[names.attention_output], &names.attention_output_bias)?,
            attention_output_norm: loader.joined(&names.attention_output_norm)?,
            ffn_norm: loader.vector(&names.ffn_norm)?,
            gate_up: loader.linear(&names.gate_up, &[])?,
            down: loader.linear(&[names.down], &[])?,
            ffn_output_norm: loader.joined(&names.ffn_output_norm)?,
        })
    }
}

/// Some files carry a divisor for each frequency in place of the settings they come from.
fn rope_table(config: &ModelConfig, loader: &mut Loader) -> Result<RopeTable> {
    let mut frequencies = inverse_frequencies(&config.rope);
    let factors = config.architecture.spec().rope_factors(config);
    if let Some(factors) = factors.filter(|t| loader.has(&t.name)) {
        let divisors = loader.vector(&factors)?.to_vec1::<f32>()?;
        for (frequency, divisor) in frequencies.iter_mut().zip(divisors) {
            *frequency = f64::from(*frequency as f32 / divisor);
        }
    }
    Ok(RopeTable::new(&frequencies, config.max_positions, 1.0, loader.device())?)
}
