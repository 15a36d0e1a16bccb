//! What computes a batch.

pub use super::decoder_runner::DecoderRunner;

use models::batch::Batch;
use std::ops::Range;

/// Runs batches over a pool of KV blocks. Tests script it.
///
/// Logits leave it slice by slice, so that those of a whole long prompt never exist at once. (A
/// runner that samples on its device would be given what each row is wanted for together with the
/// batch, which the engine knows before the step as plain data: `jobs::Want`.)
pub trait Runner {
    type Error: std::error::Error + 'static;

    /// Token ids are below this, and a row of logits has this length.
    fn vocab(&self) -> usize;

    /// Positions are below this.
    fn context(&self) -> usize;

    /// Blocks of the KV pool.
    fn blocks(&self) -> usize;

    /// Computes the batch, stores its KV, and hands the logits of `batch.logit_rows`, in order, to
    /// `sink` in slices of a few hundred rows at most: which of the logit rows, and `rows * vocab`
    /// numbers.
    ///
    /// # Errors
    /// Whatever stops the device. The KV written by this batch is then undefined.
    fn run(
        &mut self,
        batch: &Batch,
        sink: &mut dyn FnMut(Range<usize>, &[f32]),
    ) -> Result<(), Self::Error>;

    /// Copies a block's KV in all layers; later batches see the copy.
    ///
    /// # Errors
    /// As [`Runner::run`].
    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Self::Error>;
}
