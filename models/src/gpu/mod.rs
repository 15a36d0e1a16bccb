//! The decoder on a GPU: the same names, shapes and architectures as on the processor
//! ([`crate::spec`]), other memory and other kernels ([`kernels::gpu`]).
//!
//! ```text
//! checkpoint ─ pieces ─ stage (pinned) ─► weights (bf16, or e4m3 with a factor a row)
//!                                            │
//! batch ─ plan (tasks of attention) ─ block ─► decoder (buffers made once) ─► logits
//!                                            │
//!                                     KV pages, recorded steps
//! ```

mod block;
mod decoder;
mod e4m3;
mod peak;
mod profile;
mod run;
mod sampling;
mod stage;
mod weights;

pub use decoder::{GpuDecoder, GpuOptions, LOGIT_ROWS, Logits, Sampling, WeightType};
pub use peak::peak;
pub use profile::{Profile, Spent};
pub use sampling::{Found, MOST_TOP, Wanted};

use crate::config::{self, ModelConfig};
use crate::dummy::Dummy;
use crate::error::Result;
use crate::source::Source;
use candle_core::DType;
use kernels::gpu::Gpu;

/// Loads the model of a folder or GGUF file onto a GPU. `progress` is told bytes done and
/// bytes in all.
///
/// # Errors
/// As [`crate::load`]; or the GPU's kernels do not know a size of the model, or it does not fit.
pub fn load(
    source: &Source,
    gpu: &Gpu,
    options: GpuOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<GpuDecoder> {
    let config = config::read(source)?;
    let mut checkpoint = crate::checkpoint::Checkpoint::open(source)?;
    checkpoint.check(&config)?;
    GpuDecoder::new(config, &mut checkpoint, gpu, options, progress)
}

/// A decoder with random weights, those of [`crate::dummy::decoder`] with this seed.
///
/// # Errors
/// The GPU's kernels do not know a size of the model, or it does not fit.
pub fn dummy(
    config: ModelConfig,
    seed: u64,
    gpu: &Gpu,
    options: GpuOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<GpuDecoder> {
    let mut weights = Dummy::new(&config, seed, DType::BF16);
    GpuDecoder::new(config, &mut weights, gpu, options, progress)
}
