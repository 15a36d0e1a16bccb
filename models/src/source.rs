//! Where a checkpoint lies.

use std::path::PathBuf;

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with `config.json` and safetensors.
    Folder(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
}
