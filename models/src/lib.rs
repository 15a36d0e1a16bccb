//! Checkpoints and what runs them: the one decoder, and an encoder that finds texts by meaning.
//!
//! ```text
//! config.json / GGUF metadata ─ config ─┐
//! safetensors / GGUF / dummy ─ weights ─┼─ decoder ─ hidden, head
//! name tables (llama, …) ────── spec ───┘     │
//!                              batch, kv ─────┘
//! ```
//! The encoder stands beside it and shares configuration fields, checkpoints and weights.
//!
//! The crate knows no request and no text: a [`batch::Batch`] comes in, hidden states or logits go
//! out.

pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod dummy;
pub mod encoder;
pub mod error;
mod glm4;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod kv;
mod llama;
mod qwen;
mod rope;
pub mod source;
pub mod spec;
pub mod weights;

pub use config::ModelConfig;
pub use decoder::{Decoder, Workspace};
pub use error::{ModelError, Result};
pub use kv::KvPool;

use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use source::Source;

/// The type that matrices are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// As stored; quantised weights stay quantised.
    #[default]
    Auto,
    /// Widened (or de-quantised) to f32.
    F32,
    /// Converted to f16.
    F16,
    /// Converted to bf16.
    Bf16,
    /// Rounded to 8 bits with a factor for each 32 numbers of a row, as `Q8_0` of GGUF files.
    Q8_0,
}

impl DtypeChoice {
    /// The type of numbers asked for, if one is.
    pub(crate) fn dtype(self) -> Option<DType> {
        match self {
            Self::Auto | Self::Q8_0 => None,
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
        }
    }
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Type of the matrices; norms and biases are always f32.
    pub dtype: DtypeChoice,
    /// Where the weights go and batches run.
    pub device: Device,
}

/// Loads the model of a folder or GGUF file. `progress` is told bytes done and bytes in all.
///
/// # Errors
/// Names the file and the key or tensor that is missing, malformed, of the wrong shape, cut off,
/// left over, or of a kind that is not supported.
pub fn load(
    source: &Source,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Decoder> {
    let config = config::read(source)?;
    let mut checkpoint = Checkpoint::open(source)?;
    checkpoint.check(&config)?;
    Decoder::build(config, &mut checkpoint, options, progress)
}
