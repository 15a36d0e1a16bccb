//! What can go wrong while reading a checkpoint. Every message names the file and, inside it, the
//! key or tensor.

use std::path::{Path, PathBuf};

/// An error of the crate; `Display` is one line that a user can act on.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The operating system refused: not found, no permission, …
    #[error("{}: {action}: {source}", file.display())]
    Io { file: PathBuf, action: &'static str, source: std::io::Error },
    /// The file as a whole is not what its name promises.
    #[error("{}: {problem}", file.display())]
    File { file: PathBuf, problem: String },
    /// One key of `config.json` or of the GGUF metadata.
    #[error("{}: key `{key}`: {problem}", file.display())]
    Key { file: PathBuf, key: String, problem: String },
    /// One tensor of a weight file.
    #[error("{}: tensor `{tensor}`: {problem}", file.display())]
    Tensor { file: PathBuf, tensor: String, problem: String },
    /// A step that makes no sense for this model, such as a row that does not exist.
    #[error("{0}")]
    Batch(String),
    /// From the tensor library or a kernel.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// From the GPU.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] kernels::gpu::Error),
}

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, ModelError>;

impl ModelError {
    pub(crate) fn io(file: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), action, source }
    }

    pub(crate) fn file(file: &Path, problem: impl Into<String>) -> Self {
        Self::File { file: file.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn key(file: &Path, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key { file: file.to_path_buf(), key: key.into(), problem: problem.into() }
    }

    pub(crate) fn tensor(file: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            file: file.to_path_buf(),
            tensor: tensor.to_string(),
            problem: problem.into(),
        }
    }
}
