//! Running batches on a GPU.

use super::device_sampler::{is_for_device, outcomes, wanted};
use super::runner::{Answers, Runner, Step};
use kernels::kv::BLOCK;
use models::ModelError;
use models::gpu::{GpuDecoder, Logits};
use std::ops::Range;

/// Memory that the driver and libraries may still want beyond what the largest step took: kernels that are loaded when
/// they are first used, and recorded steps.
const KEPT_FREE: u64 = 1 << 30;

/// A decoder on a GPU with its KV pool.
pub struct GpuRunner {
    decoder: GpuDecoder,
    /// Whether logits are read where they are, so that only tokens and a few numbers come back.
    pub samples: bool,
}

impl GpuRunner {
    /// Blocks that `memory` bytes hold, or all that is free after the largest step has run.
    ///
    /// # Errors
    /// The GPU has not enough memory.
    pub fn room(decoder: &mut GpuDecoder, memory: Option<u64>) -> Result<usize, ModelError> {
        decoder.warm_up()?;
        blocks(decoder, memory)
    }

    /// A pool of `blocks` blocks.
    ///
    /// # Errors
    /// The GPU has not enough memory.
    pub fn new(mut decoder: GpuDecoder, blocks: usize) -> Result<Self, ModelError> {
        decoder.make_pool(blocks)?;
        Ok(Self { decoder, samples: true })
    }

    /// Steps that had been laid out when they came.
    pub fn prepared_steps(&self) -> u64 {
        self.decoder.prepared_steps()
    }
}

/// Blocks that fit.
fn blocks(decoder: &GpuDecoder, memory: Option<u64>) -> Result<usize, ModelError> {
    let memory_of_gpu = decoder.gpu().memory()?;
    let free = memory_of_gpu.free.saturating_sub(KEPT_FREE.min(memory_of_gpu.total / 16));
    let block = decoder.bytes_per_block() as u64;
    let wanted = memory.unwrap_or(free);
    let problem = |what: String| Err(ModelError::Batch(what));
    if wanted > free {
        return problem(format!(
            "{wanted} bytes of keys and values do not fit: {free} of the GPU's {} bytes are free beside weights and \
             buffers; lower --kv-memory or --batch-tokens",
            memory_of_gpu.total
        ));
    }
    if wanted < block {
        return problem(format!(
            "{wanted} bytes of KV memory hold no block of {BLOCK} tokens, which takes {block} bytes; raise \
             --kv-memory, or lower --batch-tokens, whose buffers take the rest of the GPU"
        ));
    }
    Ok(usize::try_from(wanted / block).unwrap_or(usize::MAX).min(u32::MAX as usize / BLOCK))
}

impl Runner for GpuRunner {
    type Error = ModelError;

    fn vocab(&self) -> usize {
        self.decoder.config().vocab
    }

    fn context(&self) -> usize {
        self.decoder.config().max_positions
    }

    fn blocks(&self) -> usize {
        self.decoder.blocks()
    }

    fn run(
        &mut self,
        Step { batch, wants, next }: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), ModelError> {
        let (samples, vocab) = (self.samples, self.vocab());
        self.decoder.run(batch, &mut |rows: Range<usize>, logits: Logits| {
            let wants = wants.get(rows.clone()).filter(|wants| samples && is_for_device(wants));
            match wants {
                Some(wants) => {
                    let wanted = wanted(wants, vocab);
                    let mut sampling = logits.sample(&wanted)?;
                    if rows.end == batch.logit_rows.len()
                        && let Some(next) = next()
                    {
                        sampling.prepare(next);
                    }
                    let found = sampling.found()?;
                    sink(rows, Answers::Outcomes(outcomes(wants, &wanted, &found)));
                }
                None => sink(rows, Answers::Logits(logits.read()?)),
            }
            Ok(())
        })
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        self.decoder.copy_block(from, to)
    }
}
