//! The one place that understands a decoder's `config.json` and the metadata of a GGUF file.

mod fields;
mod gguf;
mod json;
#[cfg(test)]
mod tests;

pub(crate) use fields::Fields;
pub use json::from_text;
pub(crate) use json::{parse, read_text};

use crate::error::{ModelError, Result};
use crate::source::Source;
use crate::spec::Architecture;
use candle_core::DType;
use kernels::attention::HEAD_MULTIPLE;
use kernels::rope::RopeStyle;
use std::path::Path;

/// A damaged file must not make the loader list tensors or tabulate angles without end.
pub(crate) const MOST_LAYERS: usize = 10_000;
const MOST_POSITIONS: usize = 1 << 22;

/// The shape of a model, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which layout of weights, and with it everything in [`crate::spec::Spec`].
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    /// Rows of the embedding and of the head, padding included.
    pub vocab: usize,
    /// Longest sequence in tokens.
    pub max_positions: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_eps: f64,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the output head is the embedding matrix.
    pub tied: bool,
    /// The type that the configuration says the weights have (dummy weights are made in it).
    pub stored_dtype: DType,
}

/// Rotary position embedding of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How many elements of each head are rotated; even.
    pub rotated_dim: usize,
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// Changes of the rotary frequencies for contexts longer than the first training length.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by `factor`.
    Linear { factor: f64 },
    /// Llama-3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_positions: f64 },
    /// Slow pairs slowed down, fast ones kept, and all cosines and sines enlarged.
    Yarn(Yarn),
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071, section 3).
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// What the frequencies of slow pairs are divided by.
    pub factor: f64,
    /// The first training length.
    pub original_positions: f64,
    /// Pairs that turn more often within the first training length are kept …
    pub beta_fast: f64,
    /// … those that turn less often are slowed down, and between there is a ramp,
    pub beta_slow: f64,
    /// whose ends are whole pairs, or lie anywhere.
    pub whole_ends: bool,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
}

impl RopeScaling {
    /// Positions that a model with so many in its configuration has with this scaling.
    fn reach(&self, positions: usize) -> usize {
        match *self {
            Self::Yarn(Yarn { factor, original_positions, .. }) => {
                positions.max((factor * original_positions) as usize)
            }
            Self::None | Self::Linear { .. } | Self::Llama3 { .. } => positions,
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn table_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::None | Self::Linear { .. } | Self::Llama3 { .. } => 1.0,
        }
    }
}

impl Yarn {
    /// With what the paper chooses where a checkpoint says nothing else.
    fn new(factor: f64, original_positions: f64) -> Self {
        let attention_factor = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        let (beta_fast, beta_slow, whole_ends) = (32.0, 1.0, true);
        Self { factor, original_positions, beta_fast, beta_slow, whole_ends, attention_factor }
    }
}

impl ModelConfig {
    /// Rows of the query projection.
    pub fn q_rows(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub fn kv_rows(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.architecture.spec().tensors(self).iter().map(|t| t.elements()).sum()
    }

    /// Relations between the sizes that no single key can be blamed for when it is read.
    fn check(&self, file: &Path) -> Result<()> {
        let bad = |key: &str, problem: String| Err(ModelError::key(file, key, problem));
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return bad(
                "num_attention_heads",
                format!("{heads} query heads can't share {kv_heads} key/value heads evenly"),
            );
        }
        if self.layers > MOST_LAYERS {
            return bad("num_hidden_layers", format!("{} layers can't be meant", self.layers));
        }
        if self.max_positions > MOST_POSITIONS {
            let problem = format!("{} positions can't be meant", self.max_positions);
            return bad("max_position_embeddings", problem);
        }
        if !self.head_dim.is_multiple_of(HEAD_MULTIPLE) {
            let (heads, of) = (self.head_dim, HEAD_MULTIPLE);
            return bad(
                "head_dim",
                format!("heads of {heads} elements are not supported, only multiples of {of}"),
            );
        }
        let rotated = self.rope.rotated_dim;
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > self.head_dim {
            return bad(
                "head_dim",
                format!("{rotated} rotated elements don't fit heads of {}", self.head_dim),
            );
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 0.0) {
            return bad("rope_theta", format!("{} is not a positive number", self.rope.theta));
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return bad("rms_norm_eps", format!("{} is not a small positive number", self.rms_eps));
        }
        Ok(())
    }
}

/// Reads the configuration that belongs to a checkpoint: `config.json`, or the metadata of a GGUF
/// file.
///
/// # Errors
/// Names the file and the key: file missing, not UTF-8, not JSON, a key missing, of the wrong type
/// or with a value that the decoder can't run.
pub fn read(source: &Source) -> Result<ModelConfig> {
    match source {
        Source::Folder(folder) => json::read_folder(folder),
        Source::Gguf(file) => gguf::read_file(file),
    }
}
