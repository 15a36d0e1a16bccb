//! Running batches on a decoder.

use super::runner::{Answers, Runner, Step};
use candle_core::{Storage, Tensor};
use kernels::kv::KvDtype;
use models::{Decoder, KvPool, ModelError};
use std::ops::Range;

/// Rows whose logits exist at the same time.
const ROWS: usize = 128;

/// A decoder with its KV pool.
pub struct DecoderRunner {
    decoder: Decoder,
    pool: KvPool,
}

impl DecoderRunner {
    /// A pool of `blocks` blocks on the decoder's device.
    ///
    /// # Errors
    /// The device has not enough memory.
    pub fn new(decoder: Decoder, blocks: usize, dtype: KvDtype) -> Result<Self, ModelError> {
        let pool = KvPool::new(decoder.config(), blocks, dtype, decoder.device())?;
        Ok(Self { decoder, pool })
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
        let hidden = self.decoder.hidden(batch, &mut self.pool)?;
        let rows = batch.logit_rows.len();
        for first in (0..rows).step_by(ROWS) {
            let last = (first + ROWS).min(rows);
            let logits = self.decoder.head(&hidden.narrow(0, first, last - first)?)?;
            read(&logits, &mut |numbers| sink(first..last, Answers::Logits(numbers)))?;
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        self.pool.copy_block(from, to)
    }
}

/// Shows the numbers of a tensor, in place if they lie in memory as they are read.
fn read(logits: &Tensor, see: &mut dyn FnMut(&[f32])) -> Result<(), ModelError> {
    let (storage, layout) = logits.storage_and_layout();
    if let (Storage::Cpu(numbers), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        see(&numbers.as_slice::<f32>()?[start..end]);
        return Ok(());
    }
    drop(storage);
    see(&logits.flatten_all()?.to_vec1()?);
    Ok(())
}
