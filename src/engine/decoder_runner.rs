//! Running batches on a decoder.

use super::runner::{Answers, Runner, Step};
use kernels::kv::KvDtype;
use models::{Decoder, KvPool, ModelError, Workspace};
use std::ops::Range;

/// Rows whose logits exist at the same time.
const ROWS: usize = 128;

/// A decoder with its KV pool and the memory of its steps.
pub struct DecoderRunner {
    decoder: Decoder,
    pool: KvPool,
    work: Workspace,
}

impl DecoderRunner {
    /// A pool of `blocks` blocks on the decoder's device.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(decoder: Decoder, blocks: usize, dtype: KvDtype) -> Result<Self, ModelError> {
        let pool = KvPool::new(decoder.config(), blocks, dtype, decoder.device())?;
        Ok(Self { decoder, pool, work: Workspace::default() })
    }
}

impl Runner for DecoderRunner {
    type Error = ModelError;

    fn vocab(&self) -> usize {
        self.decoder.config().vocab
    }

    fn context(&self) -> usize {
        self.decoder.config().max_positions
    }

    fn blocks(&self) -> usize {
        self.pool.blocks()
    }

    fn run(
        &mut self,
        Step { batch, .. }: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), ModelError> {
        let Self { decoder, pool, work } = self;
        decoder.run(batch, pool, work)?;
        let rows = batch.logit_rows.len();
        for first in (0..rows).step_by(ROWS) {
            let last = (first + ROWS).min(rows);
            let logits = decoder.logits(first..last, work)?;
            sink(first..last, Answers::Logits(&logits.view().read()?));
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        self.pool.copy_block(from, to)
    }
}
