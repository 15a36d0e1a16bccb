//! GGUF: one file with metadata, a list of tensors, and their data.

mod alignment;

use super::{Checkpoint, Format, MappedFile, Stored};
use crate::error::{ModelError, Result};
use candle_core::DType;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// Reads the metadata and the list of tensors of a GGUF file.
///
/// # Errors
/// Names the file: it can't be opened, or is no valid GGUF file.
pub fn read_header(file: &Path) -> Result<Content> {
    parse(&MappedFile::open(file)?)
}

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let file = MappedFile::open(path)?;
    let content = parse(&file)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in &content.tensor_infos {
        let stored = place(&file, content.tensor_data_offset, name, info)?;
        tensors.insert(name.clone(), stored);
    }
    Ok(Checkpoint { path: path.to_path_buf(), files: vec![file], tensors })
}

/// As the reader of the header divides by `general.alignment`, a zero there must not reach it.
fn check_alignment(file: &MappedFile) -> Result<()> {
    match alignment::alignment(&file.bytes) {
        Some(0) => Err(ModelError::key(&file.path, "general.alignment", "0 is no alignment")),
        _ => Ok(()),
    }
}

fn parse(file: &MappedFile) -> Result<Content> {
    check_alignment(file)?;
    let header = Content::read(&mut Cursor::new(&file.bytes[..]));
    header.map_err(|e| ModelError::file(&file.path, format!("no valid GGUF header: {e}")))
}

fn place(file: &MappedFile, data: u64, name: &str, info: &TensorInfo) -> Result<Stored> {
    let bad = |problem: String| ModelError::tensor(&file.path, name, problem);
    let shape = info.shape.dims().to_vec();
    let elements = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let elements = elements.ok_or_else(|| bad(format!("shape {shape:?} is too large")))?;
    let block = info.ggml_dtype.block_size();
    if !elements.is_multiple_of(block) {
        return Err(bad(format!("{elements} elements are no whole number of blocks of {block}")));
    }
    let bytes = (elements / block).checked_mul(info.ggml_dtype.type_size());
    let range = bytes.and_then(|length| {
        let start = usize::try_from(data.checked_add(info.offset)?).ok()?;
        Some(start..start.checked_add(length)?)
    });
    match range {
        Some(bytes) if bytes.end <= file.bytes.len() => {
            Ok(Stored { file: 0, bytes, shape, format: format(info.ggml_dtype) })
        }
        Some(bytes) => Err(bad(format!(
            "the file is truncated: it has {} bytes, this tensor ends at {}",
            file.bytes.len(),
            bytes.end
        ))),
        None => Err(bad("lies outside of any file".to_string())),
    }
}

fn format(dtype: GgmlDType) -> Format {
    match dtype {
        GgmlDType::F32 => Format::Dense(DType::F32),
        GgmlDType::F16 => Format::Dense(DType::F16),
        GgmlDType::BF16 => Format::Dense(DType::BF16),
        quantized => Format::Quantized(quantized),
    }
}
