//! A decoder on a GPU, in reading order. It is [`crate::decoder`] over buffers that are made once, for the largest
//! step; a step puts work on a stream and waits only for what it gives back.

use super::block::{Arrays, Block, Sizes};
use super::profile::Profile;
use super::run::Run;
use super::sampling::{Found, Sampler, Wanted};
use super::weights::{DeviceWeights, Matrix};
use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::decoder::StepCost;
use crate::error::{ModelError, Result};
use crate::weights::Weights;
use half::bf16;
use kernels::gpu::{
    self, Buffer, Gpu, Graph, Kv, KvShape, KvType, Output, Pinned, PlanSettings, Stream,
};
use kernels::kv::{BLOCK, VarLen};
use std::collections::HashMap;
use std::ops::Range;

/// Rows whose logits exist at the same time, and rows of the largest step that is recorded.
pub const LOGIT_ROWS: usize = 256;

/// How a decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Rows of the largest step.
    pub rows: usize,
    /// A row's bits do not depend on what else is in its step, at some cost.
    pub deterministic: bool,
    /// Steps that decode one token of each sequence are recorded once and replayed.
    pub graphs: bool,
    /// Keys and values that sequences have in common are read once for all of them, where that pays (cascade
    /// attention); never where steps are deterministic.
    pub share: bool,
    pub weights: WeightType,
    pub kv_type: KvType,
}

/// Type of the weights of layers. (Embedding, output projection of attention, and head are bf16 in any case.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    Bf16,
    /// 8 bits, with a factor for each row, multiplied with activations that are rounded to 8 bits where they are made
    /// (by norms and SwiGLU). For GPUs of compute capability 9.0.
    E4m3,
}

/// A decoder with its keys and values.
pub struct GpuDecoder {
    pub(super) config: ModelConfig,
    pub(super) options: GpuOptions,
    planning: PlanSettings,
    gpu: Gpu,
    stream: Stream,
    pub(super) weights: DeviceWeights,
    buffers: Buffers,
    block: Block,
    prepared: Option<Prepared>,
    prepared_steps: u64,
    pairs: Pairs,
    pub(super) kv: Kv,
    pub(super) profile: Option<Profile>,
    /// By the sizes that they are for.
    graphs: HashMap<Sizes, Graph>,
    /// Logits on the host, where they are wanted there.
    logits: Pinned<f32>,
    sampler: Sampler,
}

/// Logits of some rows on the GPU, `[rows, vocab]`.
pub struct Logits<'a> {
    decoder: &'a mut GpuDecoder,
    rows: usize,
}

impl<'a> Logits<'a> {
    /// All of them.
    ///
    /// # Errors
    /// The GPU's.
    pub fn read(self) -> Result<&'a [f32]> {
        let GpuDecoder { stream, buffers, logits, config, .. } = self.decoder;
        let len = self.rows * config.vocab;
        stream.download(&buffers.logits, logits, len)?;
        stream.wait()?;
        Ok(&logits[..len])
    }

    /// Begins to read what is wanted of them.
    ///
    /// # Errors
    /// A row beyond them, or the GPU's.
    pub fn sample(self, wanted: &'a Wanted) -> Result<Sampling<'a>> {
        let GpuDecoder { stream, buffers, sampler, config, .. } = self.decoder;
        if let Some(row) = wanted.rows.iter().find(|row| row.row as usize >= self.rows) {
            let problem = format!("tokens of row {} of {} rows of logits", row.row, self.rows);
            return Err(ModelError::Batch(problem));
        }
        sampler.launch(stream, &buffers.logits, config.vocab, wanted)?;
        Ok(Sampling { decoder: self.decoder, wanted })
    }
}

/// Logits that are being read, as the last work of a step, while the host goes on.
pub struct Sampling<'a> {
    decoder: &'a mut GpuDecoder,
    wanted: &'a Wanted,
}

impl Sampling<'_> {
    /// Lays out a step that may come next, but for its tokens: if it comes, only they have to be added. One that could not
    /// be run is passed over.
    pub fn prepare(&mut self, next: Batch) {
        let decoder = &mut *self.decoder;
        decoder.prepared = decoder.lay_out(&next).ok().map(|step| Prepared { batch: next, step });
    }

    /// Waits for what was wanted.
    ///
    /// # Errors
    /// The GPU's.
    pub fn found(self) -> Result<Found> {
        self.decoder.stream.wait()?;
        Ok(self.decoder.sampler.found(self.wanted))
    }
}

/// A step that lies in the block, but for its tokens.
#[derive(Clone, Copy)]
struct LaidOut {
    /// What the block is laid out for.
    sizes: Sizes,
    /// Whether the step is one that is recorded.
    recorded: bool,
    bytes: usize,
}

/// A step that was laid out before it came.
struct Prepared {
    /// Its tokens mean nothing.
    batch: Batch,
    step: LaidOut,
}

impl Prepared {
    fn is(&self, batch: &Batch) -> bool {
        self.batch.layout == batch.layout && self.batch.logit_rows == batch.logit_rows
    }
}

/// What takes the logits of a step, slice by slice.
type See<'a> = &'a mut dyn FnMut(Range<usize>, Logits<'_>) -> Result<()>;

/// Activations, each with room for the largest step.
pub(super) struct Buffers {
    pub(super) residual: Buffer<f32>,
    /// What layers multiply, in the type of their weights.
    pub(super) normed: Output,
    /// What the head multiplies.
    pub(super) last_normed: Output,
    pub(super) qkv: Buffer<bf16>,
    pub(super) heads: Buffer<bf16>,
    pub(super) projected: Buffer<bf16>,
    pub(super) gate_up: Buffer<bf16>,
    pub(super) gated: Output,
    pub(super) parts: Buffer<f32>,
    pub(super) part_sums: Buffer<f32>,
    pub(super) picked_residual: Buffer<f32>,
    pub(super) picked_heads: Buffer<bf16>,
    pub(super) logits: Buffer<f32>,
}

/// A block to copy, and where to.
struct Pairs {
    host: Pinned<u32>,
    device: Buffer<u32>,
}

/// Memory for results of attention over parts of the keys.
const PARTS_BYTES: usize = 64 << 20;

/// Memory for what steps need from the host, at first.
const BLOCK_BYTES: usize = 4 << 20;

impl GpuDecoder {
    pub(super) fn new(
        config: ModelConfig,
        weights: &mut dyn Weights,
        gpu: &Gpu,
        options: GpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let options = GpuOptions { rows: options.rows.max(1), ..options };
        let weights = DeviceWeights::read(&config, weights, options.weights, gpu, progress)?;
        let planning = planning(&config, weights.head_dim, &options, gpu)?;
        let buffers = Buffers::new(&config, &planning, &options, gpu)?;
        let kv = Kv::new(gpu, kv_shape(&config, weights.head_dim, options.kv_type, 1))?;
        Ok(Self {
            stream: Stream::new(gpu)?,
            block: Block::new(gpu, BLOCK_BYTES)?,
            prepared: None,
            prepared_steps: 0,
            profile: None,
            pairs: Pairs { host: gpu.alloc_pinned(2)?, device: gpu.alloc(2)? },
            graphs: HashMap::new(),
            logits: gpu.alloc_pinned(options.rows.min(LOGIT_ROWS) * config.vocab)?,
            sampler: Sampler::new(gpu)?,
            gpu: gpu.clone(),
            config,
            options,
            planning,
            weights,
            buffers,
            kv,
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Memory that all weights take.
    pub fn bytes(&self) -> usize {
        self.weights.bytes
    }

    /// Memory that a block of keys and values takes in all layers.
    pub fn bytes_per_block(&self) -> usize {
        self.kv_shape(1).bytes_per_block()
    }

    fn kv_shape(&self, blocks: usize) -> KvShape {
        kv_shape(&self.config, self.weights.head_dim, self.options.kv_type, blocks)
    }

    /// Blocks of the pool.
    pub fn blocks(&self) -> usize {
        self.kv.shape().blocks
    }

    /// Steps that had been laid out when they came ([`Sampling::prepare`]).
    pub fn prepared_steps(&self) -> u64 {
        self.prepared_steps
    }

    /// From now on the time of each operation is taken, for which steps are no longer recorded.
    pub fn profile(&mut self) -> Profile {
        self.options.graphs = false;
        self.profile.get_or_insert_default().clone()
    }

    /// What a step takes at least.
    pub fn step_cost(&self) -> StepCost {
        let matrices = self.weights.layers.iter();
        let products =
            || matrices.clone().flat_map(|l| [&l.qkv, &l.attention_output, &l.gate_up, &l.down]);
        let operations = |w: &Matrix| 2 * (w.n * w.k) as u64;
        StepCost {
            bytes: products().map(Matrix::bytes).sum::<usize>() + self.weights.head.bytes(),
            layer_operations: products().map(operations).sum(),
            head_operations: operations(&self.weights.head),
            quantized: false,
        }
    }

    /// Makes a new pool of `blocks` blocks in place of the one there is.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn make_pool(&mut self, blocks: usize) -> Result<()> {
        self.stream.wait()?;
        self.prepared = None;
        // The memory of the old one is needed for the new one.
        self.graphs.clear();
        self.kv = Kv::new(&self.gpu, self.kv_shape(1))?;
        self.kv = Kv::new(&self.gpu, self.kv_shape(blocks))?;
        Ok(())
    }

    /// Runs the largest step once, so that everything that libraries allocate is there. The pool is
    /// a small one afterwards.
    ///
    /// # Errors
    /// Not enough memory, or the GPU's.
    pub fn warm_up(&mut self) -> Result<()> {
        let rows = self.options.rows.min(self.config.max_positions);
        self.make_pool(rows.div_ceil(BLOCK))?;
        let positions: Vec<u32> = (0..rows as u32).collect();
        let layout = VarLen {
            slots: positions.clone(),
            positions,
            query_starts: vec![0, rows as u32],
            kv_lens: vec![rows as u32],
            block_tables: vec![(0..rows.div_ceil(BLOCK) as u32).collect()],
        };
        let logit_rows = (0..rows.min(LOGIT_ROWS) as u32).collect();
        let batch = Batch { tokens: vec![0; rows], layout, logit_rows };
        self.run(&batch, &mut |_, logits| logits.read().map(|_| ()))?;
        self.make_pool(1)
    }

    /// Copies a block's keys and values in all layers; later steps see the copy.
    ///
    /// # Errors
    /// A block beyond the pool, or the GPU's.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        let blocks = self.blocks();
        if from.max(to) as usize >= blocks {
            let problem = format!("block {from} can't be copied to {to}: there are {blocks}");
            return Err(ModelError::Batch(problem));
        }
        if from == to {
            return Ok(());
        }
        self.stream.wait()?;
        self.pairs.host[..2].copy_from_slice(&[from, to]);
        self.stream.upload(&self.pairs.host, &self.pairs.device, 2)?;
        Ok(self.kv.copy_blocks(&self.stream, &self.pairs.device, 1)?)
    }
}

fn kv_shape(config: &ModelConfig, head_dim: usize, kv_type: KvType, blocks: usize) -> KvShape {
    let ModelConfig { layers, kv_heads, .. } = *config;
    KvShape { layers, blocks, kv_heads, head_dim, kv_type }
}

/// How the attention of steps is cut into tasks.
fn planning(
    config: &ModelConfig,
    head_dim: usize,
    options: &GpuOptions,
    gpu: &Gpu,
) -> Result<PlanSettings> {
    let part = size_of::<f32>() * config.heads * (head_dim + 1);
    Ok(PlanSettings {
        q_heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim,
        kv_bytes: options.kv_type.bytes(),
        multiprocessors: gpu.properties()?.multiprocessors,
        max_parts: PARTS_BYTES / part,
        share: options.share,
        same_for_all_batches: options.deterministic,
    })
}

impl Buffers {
    fn new(
        config: &ModelConfig,
        &PlanSettings { head_dim, max_parts, .. }: &PlanSettings,
        options: &GpuOptions,
        gpu: &Gpu,
    ) -> Result<Self> {
        let ModelConfig { hidden, heads, kv_heads, ffn, vocab, .. } = *config;
        let (rows, picked) = (options.rows, options.rows.min(LOGIT_ROWS));
        let parts = max_parts * heads;
        let factor = |width: usize| match options.weights {
            WeightType::Bf16 => gpu.alloc(rows * width).map(Output::Bf16),
            WeightType::E4m3 => {
                let (values, scales) = (gpu.alloc(rows * width)?, gpu.alloc(rows)?);
                Ok(Output::E4m3 { values, scales })
            }
        };
        Ok(Self {
            residual: gpu.alloc(rows * hidden)?,
            normed: factor(hidden)?,
            last_normed: Output::Bf16(gpu.alloc(picked * hidden)?),
            qkv: gpu.alloc(rows * (heads + 2 * kv_heads) * head_dim)?,
            heads: gpu.alloc(rows * heads * head_dim)?,
            projected: gpu.alloc(rows * hidden)?,
            gate_up: gpu.alloc(rows * 2 * ffn)?,
            gated: factor(ffn)?,
            parts: gpu.alloc(parts * head_dim)?,
            part_sums: gpu.alloc(parts)?,
            picked_residual: gpu.alloc(picked * hidden)?,
            picked_heads: gpu.alloc(picked * heads * head_dim)?,
            logits: gpu.alloc(picked * vocab)?,
        })
    }
}

/// Running.
impl GpuDecoder {
    /// Runs the batch, stores the keys and values of all its rows, and shows the logits of its `logit_rows`, in
    /// order, in slices: which of the logit rows, and their logits.
    ///
    /// # Errors
    /// Arrays of the batch that do not fit each other, the vocabulary, the pool or the largest step; those of `see`;
    /// or the GPU's.
    pub fn run(&mut self, batch: &Batch, see: See) -> Result<()> {
        self.check_tokens(batch)?;
        let prepared = self.prepared.take().filter(|prepared| prepared.is(batch));
        self.prepared_steps += u64::from(prepared.is_some());
        let step = match prepared {
            Some(Prepared { step, .. }) => step,
            None => self.lay_out(batch)?,
        };
        let LaidOut { sizes, recorded, bytes } = step;
        // What was sent before may still be on its way, or be read.
        self.stream.wait()?;
        self.block.send(&self.stream, &batch.tokens, &sizes, bytes)?;
        if !recorded {
            return self.compute(batch, sizes, see);
        }
        self.replay(&sizes)?;
        let rows = batch.tokens.len();
        see(0..rows, Logits { decoder: self, rows })
    }

    /// Puts a step into the block, but for its tokens.
    fn lay_out(&mut self, batch: &Batch) -> Result<LaidOut> {
        self.check_layout(batch)?;
        let plan = gpu::plan(&batch.layout, &self.planning);
        let own = Sizes::of(batch, &plan);
        let room = self.bucket(batch).filter(|room| room.hold(&own));
        let recorded = room.is_some();
        let sizes = room.map_or(own, |room| room.without_what_lacks(&own));
        let needed = Block::bytes_for(&sizes, plan.tables.len());
        if needed > self.block.bytes() {
            self.stream.wait()?;
            self.graphs.clear();
            self.block = Block::new(&self.gpu, needed.next_power_of_two())?;
        }
        let bytes = self.block.fill(batch, &plan, &sizes);
        Ok(LaidOut { sizes, recorded, bytes })
    }

    fn compute(&mut self, batch: &Batch, sizes: Sizes, see: See) -> Result<()> {
        let arrays = self.block.arrays(sizes);
        self.on(&arrays).layers()?;
        for first in (0..batch.logit_rows.len()).step_by(LOGIT_ROWS) {
            let range = first..(first + LOGIT_ROWS).min(batch.logit_rows.len());
            self.on(&arrays).ends(range.clone())?;
            let rows = range.len();
            see(range, Logits { decoder: self, rows })?;
        }
        Ok(())
    }

    /// Where the batch is one row of each sequence, all with logits, the sizes that such steps are
    /// recorded for.
    fn bucket(&self, batch: &Batch) -> Option<Sizes> {
        let rows = batch.tokens.len();
        let single = batch.layout.kv_lens.len() == rows && batch.logit_rows.len() == rows;
        let bucket = match rows {
            0..=8 => rows.next_power_of_two(),
            9..=32 => rows.next_multiple_of(8),
            _ => rows.next_multiple_of(16),
        };
        let most = LOGIT_ROWS.min(self.options.rows);
        let recorded = self.options.graphs && single && rows > 0 && bucket <= most;
        recorded.then(|| Sizes::of_single_rows(bucket, &self.planning))
    }

    /// Launches the recording of a step of these sizes. A step that comes for the first time is run as it is, and
    /// recorded then: libraries choose and allocate meanwhile, which can't be recorded.
    fn replay(&mut self, sizes: &Sizes) -> Result<()> {
        if let Some(graph) = self.graphs.get(sizes) {
            return Ok(self.stream.launch(graph)?);
        }
        let arrays = self.block.arrays(*sizes);
        let run = self.on(&arrays);
        run.whole()?;
        self.stream.wait()?;
        match self.stream.capture(|_| run.whole()) {
            Ok(graph) => drop(self.graphs.insert(*sizes, graph)),
            Err(error) => {
                tracing::warn!("steps are not recorded, and decoding is slower for it: {error}");
                self.options.graphs = false;
            }
        }
        Ok(())
    }

    fn on<'a>(&'a self, arrays: &'a Arrays) -> Run<'a> {
        Run { decoder: self, arrays, stream: &self.stream, b: &self.buffers }
    }

    fn check_tokens(&self, batch: &Batch) -> Result<()> {
        let (rows, vocab) = (batch.tokens.len(), self.config.vocab);
        if rows != batch.layout.rows() {
            return bad(format!("{rows} tokens but {} slots", batch.layout.rows()));
        }
        match batch.tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(token) => bad(format!("token {token} of a vocabulary of {vocab}")),
            None => Ok(()),
        }
    }

    fn check_layout(&self, batch: &Batch) -> Result<()> {
        let rows = batch.layout.rows();
        if rows > self.options.rows {
            return bad(format!("{rows} rows, but buffers were made for {}", self.options.rows));
        }
        if let Some(row) = batch.logit_rows.iter().find(|&&row| row as usize >= rows) {
            return bad(format!("logits of row {row} of {rows}"));
        }
        let positions = self.config.max_positions;
        if let Some(p) = batch.layout.positions.iter().find(|&&p| p as usize >= positions) {
            return bad(format!("position {p} of {positions}"));
        }
        Ok(batch.layout.validate(self.blocks())?)
    }
}

/// A batch that can't be run.
fn bad(problem: String) -> Result<()> {
    Err(ModelError::Batch(format!("batch: {problem}")))
}
