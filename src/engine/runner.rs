//! What computes a batch.

pub use super::decoder_runner::DecoderRunner;
#[cfg(feature = "gpu")]
pub use super::gpu_runner::GpuRunner;
pub use super::jobs::{Outcome, Want};
pub use super::sampler::{Draw, LogProbabilities, NotFinite};

use models::ModelError;
use models::batch::Batch;
use std::ops::Range;

/// A row of logits, or what was read from it.
#[derive(Debug)]
pub enum Answers<'a> {
    /// `rows * vocab` numbers.
    Logits(&'a [f32]),
    /// One for each row; only where wants were given.
    Outcomes(Vec<Result<Outcome, NotFinite>>),
}

/// What is to be run.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub batch: &'a Batch,
    /// What the logit rows are wanted for, one for each; none where the caller reads logits itself.
    pub wants: &'a [Want<'a>],
    /// The batch that comes next if no sequence ends and none begins, but for its tokens: for runners that can get ready
    /// for it while their device works. It may not come.
    pub next: &'a dyn Fn() -> Option<Batch>,
}

impl<'a> Step<'a> {
    /// A batch by itself.
    pub fn of(batch: &'a Batch) -> Self {
        Self { batch, wants: &[], next: &|| None }
    }
}

/// Runs batches over a pool of KV blocks. Tests script it.
pub trait Runner {
    type Error: std::error::Error + 'static;

    /// Token ids are below this, and a row of logits has this length.
    fn vocab(&self) -> usize;

    /// Positions are below this.
    fn context(&self) -> usize;

    /// Blocks of the KV pool.
    fn blocks(&self) -> usize;

    /// Computes the batch, stores its KV, and hands what came of `batch.logit_rows`, in order, to `sink` in slices of
    /// a few hundred rows at most, so that the logits of a whole long prompt never exist at once: which of the logit
    /// rows, and their logits. A runner that samples on its device hands out what the rows are wanted for instead.
    ///
    /// # Errors
    /// Whatever stops the device. The KV written by this batch is then undefined.
    fn run(
        &mut self,
        step: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), Self::Error>;

    /// Copies a block's KV in all layers; later batches see the copy.
    ///
    /// # Errors
    /// As [`Runner::run`].
    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Self::Error>;
}

/// A runner that was chosen when the program started.
pub type AnyRunner = Box<dyn Runner<Error = ModelError> + Send>;

impl Runner for AnyRunner {
    type Error = ModelError;

    fn vocab(&self) -> usize {
        (**self).vocab()
    }

    fn context(&self) -> usize {
        (**self).context()
    }

    fn blocks(&self) -> usize {
        (**self).blocks()
    }

    fn run(
        &mut self,
        step: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), ModelError> {
        (**self).run(step, sink)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        (**self).copy_block(from, to)
    }
}
