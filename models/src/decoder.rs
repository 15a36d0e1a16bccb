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
use crate::spec::{LayerTensors, TensorSpec};
use crate::weights::{Loader, Weights};
use candle_core::{Device, Tensor};
use kernels::attention::{self, PagedAttention};
use kernels::embedding::Embedding;
use kernels::kv::{KvLayer, VarLen};
use kernels::linear::{self, Input, Linear};
use kernels::residual::add;
use kernels::rms_norm::{rms_norm, rms_norm_of_heads};
use kernels::rope::{self, RopeTable, rope};
use kernels::{Matrix, wide_awake};
use std::ops::Range;

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
    /// Weights of all heads of q and of k, one after the other.
    head_norms: Option<Tensor>,
    attention_output: Linear,
    attention_output_norm: Option<Tensor>,
    ffn_norm: Tensor,
    gate_up: Linear,
    down: Linear,
    ffn_output_norm: Option<Tensor>,
}

/// Memory of a step on its way through a decoder, kept from one step to the next: on the processor,
/// no operation allocates in a step that is no larger than those before.
#[derive(Default)]
pub struct Workspace {
    activations: Activations,
    products: Products,
    attention: attention::Workspace,
    /// Rows of `activations.x` that logits can be had of.
    logit_rows: usize,
    logits: Matrix,
}

#[derive(Default)]
struct Activations {
    /// The residual stream, `[T, hidden]`; at the end the final hidden states of rows with logits.
    x: Matrix,
    /// Queries, keys and values side by side, `[T, (heads + 2 kv_heads) * head_dim]`.
    qkv: Matrix,
    /// Results of the attention heads side by side, `[T, heads * head_dim]`.
    heads: Matrix,
    /// `[T, 2 ffn]`.
    gate_up: Matrix,
    /// Takes the place of `x` or `heads`.
    other: Matrix,
}

impl Decoder {
    /// Runs the batch, stores the KV of all its rows, and leaves the final hidden states of its
    /// `logit_rows` in `work` for [`Decoder::logits`].
    ///
    /// # Errors
    /// Arrays of the batch that do not fit each other, the vocabulary or the pool.
    pub fn run(&self, batch: &Batch, pool: &mut KvPool, work: &mut Workspace) -> Result<()> {
        self.check(batch, pool)?;
        if kernels::has_own(&self.device) {
            return wide_awake(|| self.layers(batch, pool, work));
        }
        self.layers(batch, pool, work)
    }

    /// Logits of some of the `logit_rows` of the batch that was run last, `[rows, vocab]`.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn logits<'a>(&self, rows: Range<usize>, work: &'a mut Workspace) -> Result<&'a Matrix> {
        let Workspace { activations, products, logit_rows, logits, .. } = work;
        if rows.end > *logit_rows {
            return Err(ModelError::Batch(format!("logits of rows {rows:?} of {logit_rows}")));
        }
        products.set(logits, &self.head, Input::Rows(activations.x.rows(rows)?))?;
        Ok(logits)
    }

    fn layers(&self, batch: &Batch, pool: &mut KvPool, work: &mut Workspace) -> Result<()> {
        let ModelConfig { heads: q, kv_heads: kv, head_dim: size, rms_eps, .. } = self.config;
        let (heads, blocks) = (attention::Heads { q, kv, size }, pool.blocks());
        let attention = PagedAttention::plan(&batch.layout, heads, blocks, &mut work.attention)?;
        let Workspace { activations, products, logit_rows, .. } = work;
        self.embedding.gather(&batch.tokens, &mut activations.x)?;
        *logit_rows = 0;
        let seqs = &batch.layout;
        let mut step = Step { decoder: self, seqs, attention, activations, products };
        for (number, layer) in self.layers.iter().enumerate() {
            step.attend(layer, pool.layer(number))?;
            if number + 1 == self.layers.len() {
                // Nothing after the last attention mixes rows, so the others end here.
                if batch.logit_rows.is_empty() {
                    return Ok(());
                }
                step.activations.pick(&batch.logit_rows)?;
            }
            step.finish(layer)?;
        }
        let Activations { x, other, .. } = activations;
        rms_norm(x.view(), &self.final_norm, rms_eps, other)?;
        std::mem::swap(x, other);
        *logit_rows = batch.logit_rows.len();
        Ok(())
    }

    fn normed<'a>(&self, x: &'a Matrix, weight: &'a Tensor) -> Input<'a> {
        Input::Normed { x: x.view(), weight, eps: self.config.rms_eps }
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
        Ok(())
    }
}

/// A batch on its way through the layers.
struct Step<'a> {
    decoder: &'a Decoder,
    seqs: &'a VarLen,
    attention: PagedAttention<'a>,
    activations: &'a mut Activations,
    products: &'a mut Products,
}

impl Step<'_> {
    /// Attention heads of a layer: `heads` from `x`.
    fn attend(&mut self, layer: &Layer, kv: &mut KvLayer) -> Result<()> {
        let ModelConfig { heads, kv_heads, head_dim, rms_eps, .. } = self.decoder.config;
        let Activations { x, qkv, heads: results, .. } = &mut *self.activations;
        self.products.set(qkv, &layer.qkv, self.decoder.normed(x, &layer.input_norm))?;
        let turned = rope::Heads { count: heads + kv_heads, size: head_dim };
        if let Some(weight) = &layer.head_norms {
            rms_norm_of_heads(qkv, turned, weight, rms_eps)?;
        }
        let style = self.decoder.config.rope.style;
        rope(qkv, turned, &self.seqs.positions, &self.decoder.rope, style)?;
        kv.store(qkv.view(), &self.seqs.slots)?;
        let scale = 1.0 / (head_dim as f32).sqrt();
        Ok(self.attention.run(qkv.view(), kv, scale, results)?)
    }

    /// The rest of a layer after its attention heads: output projection and feed-forward block,
    /// each added to the residual stream.
    fn finish(&mut self, layer: &Layer) -> Result<()> {
        let Self { decoder, activations, products, .. } = self;
        let Activations { x, heads, gate_up, .. } = &mut **activations;
        let norm = |weight| Norm { weight, eps: decoder.config.rms_eps };
        let output_norm = layer.attention_output_norm.as_ref().map(norm);
        products.add(x, &layer.attention_output, Input::Rows(heads.view()), output_norm)?;
        products.set(gate_up, &layer.gate_up, decoder.normed(x, &layer.ffn_norm))?;
        let output_norm = layer.ffn_output_norm.as_ref().map(norm);
        products.add(x, &layer.down, Input::Gated(gate_up.view()), output_norm)
    }
}

impl Activations {
    /// Keeps some rows of the residual stream and of the heads.
    fn pick(&mut self, rows: &[u32]) -> Result<()> {
        let Self { x, heads, other, .. } = self;
        for all in [x, heads] {
            if rows.len() < all.dims().0 || !rows.is_sorted_by(|a, b| a < b) {
                other.pick(all.view(), rows)?;
                std::mem::swap(all, other);
            }
        }
        Ok(())
    }
}

/// Products, and what they need beside their inputs and outputs.
#[derive(Default)]
struct Products {
    memory: linear::Workspace,
    product: Matrix,
    normed: Matrix,
}

#[derive(Clone, Copy)]
struct Norm<'a> {
    weight: &'a Tensor,
    eps: f64,
}

impl Products {
    fn set(&mut self, to: &mut Matrix, w: &Linear, input: Input) -> Result<()> {
        Ok(w.multiply(input, &mut self.memory, to)?)
    }

    /// Adds a product to the residual stream, through its norm if it has one.
    fn add(&mut self, x: &mut Matrix, w: &Linear, input: Input, norm: Option<Norm>) -> Result<()> {
        let Self { memory, product, normed } = self;
        let Some(Norm { weight, eps }) = norm else {
            return Ok(w.add_product(input, memory, x)?);
        };
        w.multiply(input, memory, product)?;
        rms_norm(product.view(), weight, eps, normed)?;
        Ok(add(x, normed.view())?)
    }
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

    /// Memory that all weights take as they are kept for running, and the angles of all positions.
    pub fn bytes(&self) -> usize {
        self.embedding.bytes() + self.step_cost().bytes + self.rope.bytes()
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
            layers.push(Layer::build(spec.layer(&config, layer), &config, &mut loader)?);
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
    fn build(names: LayerTensors, config: &ModelConfig, loader: &mut Loader) -> Result<Self> {
        Ok(Self {
            input_norm: loader.vector(&names.input_norm)?,
            qkv: loader.linear(&names.qkv, &names.qkv_bias)?,
            head_norms: head_norms(&names.head_norms, config, loader)?,
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

fn head_norms(
    names: &[TensorSpec],
    config: &ModelConfig,
    loader: &mut Loader,
) -> Result<Option<Tensor>> {
    let counts = [config.heads, config.kv_heads];
    let heads =
        names.iter().zip(counts).map(|(name, heads)| Ok(loader.vector(name)?.repeat(heads)?));
    let heads = heads.collect::<Result<Vec<_>>>()?;
    if heads.is_empty() { Ok(None) } else { Ok(Some(Tensor::cat(&heads, 0)?)) }
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
    let factor = config.rope.scaling.table_factor();
    Ok(RopeTable::new(&frequencies, config.max_positions, factor, loader.device())?)
}
