//! Weight files: mapped into memory, listed, checked against what the model needs before anything
//! is read, and then *taken* tensor by tensor.

mod gguf;
mod pieces;
mod safetensors;
#[cfg(test)]
mod tests;

pub use gguf::read_header as read_gguf_header;
pub(crate) use safetensors::read_index;

use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::source::Source;
use crate::spec::TensorSpec;
use crate::weights::{Piece, Weight, Weights};
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How many names of a list of wrong tensors an error spells out.
const NAMES_SHOWN: usize = 6;

/// Strictest alignment of any block of quantised values.
const BLOCK_ALIGNMENT: usize = 8;

/// The weight files of a model. What is taken is gone from the list.
#[derive(Debug)]
pub struct Checkpoint {
    /// What errors about the whole call it: the folder's main file, or the GGUF file.
    path: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Stored>,
}

/// A file whose bytes can be read like a slice.
#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    bytes: memmap2::Mmap,
}

/// Where a tensor lies and what its bytes mean.
#[derive(Debug)]
struct Stored {
    file: usize,
    bytes: Range<usize>,
    shape: Vec<usize>,
    format: Format,
}

/// The stored type of a tensor. Types that this program can't read are kept by name, so that the
/// error comes only if such a tensor is needed.
#[derive(Debug, Clone)]
enum Format {
    Dense(DType),
    Quantized(GgmlDType),
    Unknown(String),
}

impl MappedFile {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| ModelError::io(path, "can't be opened", e))?;
        // SAFETY: the mapping is read-only and private to this struct. A checkpoint that another
        // process rewrites while it is loaded would change under us; like every loader of such
        // files we rely on weight files being replaced, not edited.
        let bytes = unsafe { memmap2::Mmap::map(&file) }
            .map_err(|e| ModelError::io(path, "can't be mapped into memory", e))?;
        Ok(Self { path: path.to_path_buf(), bytes })
    }
}

impl Checkpoint {
    /// Maps the weight files of a source and reads their lists of tensors.
    ///
    /// # Errors
    /// A file or shard that is missing, truncated, or not of its format; a tensor listed twice.
    pub fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Folder(folder) => safetensors::open(folder),
            Source::Gguf(file) => gguf::open(file),
        }
    }

    /// Compares the list of tensors with what the model needs, and drops those that hold nothing.
    ///
    /// # Errors
    /// Lists every tensor that is missing, has another shape, or is not known to the model.
    pub fn check(&mut self, config: &ModelConfig) -> Result<()> {
        let spec = config.architecture.spec();
        let mut needed = spec.tensors(config);
        needed.extend(spec.rope_factors(config).filter(|t| self.tensors.contains_key(&t.name)));
        self.check_list(spec.name, &needed, |name| spec.may_ignore(config, name))
    }

    /// The same for any list of needed tensors; `may_ignore` knows by name what holds nothing, and
    /// `model` is what an error calls the network.
    pub(crate) fn check_list(
        &mut self,
        model: &str,
        needed: &[TensorSpec],
        may_ignore: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut missing = vec![];
        let mut misshapen = vec![];
        for tensor in needed {
            match self.tensors.get(&tensor.name) {
                None => missing.push(tensor.name.clone()),
                Some(stored) if stored.shape != tensor.shape => misshapen.push(format!(
                    "{} is {:?} instead of {:?}",
                    tensor.name, stored.shape, tensor.shape
                )),
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<_> = needed.iter().map(|t| &t.name).collect();
        self.tensors.retain(|name, _| known.contains(name) || !may_ignore(name));
        let extra = self.tensors.keys().filter(|name| !known.contains(name)).cloned().collect();
        self.report(model, [missing, misshapen, extra])
    }

    /// A tensor that is as expected, and from now on off the list.
    fn remove(&mut self, tensor: &TensorSpec) -> Result<Stored> {
        let Some(stored) = self.tensors.remove(&tensor.name) else {
            return Err(ModelError::tensor(&self.path, &tensor.name, "missing"));
        };
        if stored.shape != tensor.shape {
            let problem = format!("shape {:?} instead of {:?}", stored.shape, tensor.shape);
            return Err(ModelError::tensor(&self.files[stored.file].path, &tensor.name, problem));
        }
        Ok(stored)
    }

    fn report(&self, model: &str, [missing, misshapen, extra]: [Vec<String>; 3]) -> Result<()> {
        let mut problems = vec![];
        for (what, names) in [
            ("tensors missing", missing),
            ("tensors of the wrong shape", misshapen),
            ("tensors that the model does not have", extra),
        ] {
            if !names.is_empty() {
                problems.push(format!("{} {what}: {}", names.len(), shown(&names)));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let problems = problems.join("; ");
        Err(ModelError::file(&self.path, format!("does not fit {model}: {problems}")))
    }
}

fn shown(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_SHOWN)].join(", ");
    if names.len() > NAMES_SHOWN {
        text += ", …";
    }
    text
}

impl Weights for Checkpoint {
    fn bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.bytes.len() as u64).sum()
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn take(&mut self, tensor: &TensorSpec, device: &Device) -> Result<Weight> {
        let stored = self.remove(tensor)?;
        let file = &self.files[stored.file];
        let bad = |problem: String| ModelError::tensor(&file.path, &tensor.name, problem);
        let bytes = &file.bytes[stored.bytes];
        match stored.format {
            Format::Dense(dtype) => Tensor::from_raw_buffer(bytes, dtype, &stored.shape, device)
                .map(Weight::Dense)
                .map_err(|e| bad(e.to_string())),
            Format::Quantized(_) if !(bytes.as_ptr() as usize).is_multiple_of(BLOCK_ALIGNMENT) => {
                Err(bad(format!("does not start at a multiple of {BLOCK_ALIGNMENT} bytes")))
            }
            Format::Quantized(dtype) => qtensor_from_ggml(dtype, bytes, stored.shape, device)
                .map(Weight::Quantized)
                .map_err(|e| bad(e.to_string())),
            Format::Unknown(name) => Err(bad(format!("stored as {name}, which is not supported"))),
        }
    }

    fn read(
        &mut self,
        tensor: &TensorSpec,
        see: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let stored = self.remove(tensor)?;
        let file = &self.files[stored.file];
        let bytes = &file.bytes[stored.bytes.clone()];
        let bad = |problem| ModelError::tensor(&file.path, &tensor.name, problem);
        pieces::show(&stored, bytes, &bad, see)
    }

    fn left_over(&self) -> Option<ModelError> {
        let (name, stored) = self.tensors.first_key_value()?;
        Some(ModelError::tensor(&self.files[stored.file].path, name, "was not used by the model"))
    }
}
