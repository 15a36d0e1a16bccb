//! Where a model lies.

use std::path::PathBuf;

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with `config.json` and safetensors.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}
