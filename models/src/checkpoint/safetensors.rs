//! Safetensors: one file, or shards named by an index.

use super::{Checkpoint, Format, MappedFile, Stored};
use crate::error::{ModelError, Result};
use candle_core::DType;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Bytes of the length that opens a file.
const LENGTH: usize = 8;

pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let index = folder.join(INDEX);
    if index.exists() {
        return open_sharded(folder, &index);
    }
    let single = folder.join(SINGLE);
    if !single.exists() {
        return Err(ModelError::file(
            folder,
            format!("has neither {SINGLE} nor {INDEX}; other weight formats must be converted"),
        ));
    }
    let mut checkpoint = empty(&single);
    add_file(&mut checkpoint, &single)?;
    Ok(checkpoint)
}

fn empty(path: &Path) -> Checkpoint {
    Checkpoint { path: path.to_path_buf(), files: vec![], tensors: BTreeMap::new() }
}

fn open_sharded(folder: &Path, index: &Path) -> Result<Checkpoint> {
    let weight_map = read_index(index)?;
    for (tensor, shard) in &weight_map {
        if !folder.join(shard).exists() {
            let problem = format!("its shard {shard} is not in the folder");
            return Err(ModelError::tensor(index, tensor, problem));
        }
    }
    let shards: BTreeSet<_> = weight_map.values().collect();
    let mut checkpoint = empty(index);
    for shard in shards {
        add_file(&mut checkpoint, &folder.join(shard))?;
    }
    for (tensor, shard) in &weight_map {
        if !checkpoint.tensors.contains_key(tensor) {
            let problem = format!("is not in {shard}, where the index places it");
            return Err(ModelError::tensor(index, tensor, problem));
        }
    }
    Ok(checkpoint)
}

/// The index's map from tensor to shard, in order of tensors.
///
/// # Errors
/// It can't be read, or names as a shard what is no file of the same folder.
pub(crate) fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = std::fs::read(index).map_err(|e| ModelError::io(index, "can't be read", e))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| ModelError::file(index, format!("not JSON: {e}")))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| ModelError::key(index, "weight_map", "not an object"))?;
    map.iter()
        .map(|(tensor, shard)| Ok((tensor.clone(), shard_name(index, tensor, shard)?)))
        .collect()
}

/// A shard is a file of the same folder, never a path that leads elsewhere.
fn shard_name(index: &Path, tensor: &str, shard: &Value) -> Result<String> {
    let name = shard.as_str().unwrap_or_default();
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) => Ok(name.to_string()),
        _ => Err(ModelError::key(
            index,
            format!("weight_map.{tensor}"),
            format!("{shard} is not the name of a file"),
        )),
    }
}

fn add_file(checkpoint: &mut Checkpoint, path: &Path) -> Result<()> {
    let file = MappedFile::open(path)?;
    let number = checkpoint.files.len();
    let (header, metadata) =
        SafeTensors::read_metadata(&file.bytes).map_err(|e| explain(path, &file.bytes, e))?;
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let stored = Stored {
            file: number,
            bytes: LENGTH + header + start..LENGTH + header + end,
            shape: info.shape.clone(),
            format: format(info.dtype),
        };
        if let Some(other) = checkpoint.tensors.insert(name.clone(), stored) {
            let other: &PathBuf = &checkpoint.files[other.file].path;
            let problem = format!("is also in {}", other.display());
            return Err(ModelError::tensor(path, &name, problem));
        }
    }
    checkpoint.files.push(file);
    Ok(())
}

fn format(dtype: Dtype) -> Format {
    match dtype {
        Dtype::F32 => Format::Dense(DType::F32),
        Dtype::F16 => Format::Dense(DType::F16),
        Dtype::BF16 => Format::Dense(DType::BF16),
        other => Format::Unknown(other.to_string()),
    }
}

/// Names the tensor that is cut off where the file ends too early, else what the header lacks.
fn explain(path: &Path, bytes: &[u8], error: SafeTensorError) -> ModelError {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => match first_cut_off(bytes) {
            Some((tensor, end)) => ModelError::tensor(
                path,
                &tensor,
                format!(
                    "the file is truncated: it has {} bytes, this tensor ends at {end}",
                    bytes.len()
                ),
            ),
            None => ModelError::file(path, "has bytes that belong to no tensor"),
        },
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            ModelError::file(path, "is truncated inside the header, or is no safetensors file")
        }
        SafeTensorError::InvalidOffset(tensor) => {
            ModelError::tensor(path, &tensor, "its place in the file contradicts its neighbours")
        }
        other => ModelError::file(path, format!("no valid safetensors header: {other}")),
    }
}

/// The first tensor, in order of place, that ends behind the end of the file.
fn first_cut_off(bytes: &[u8]) -> Option<(String, u64)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Value = serde_json::from_slice(rest.get(..length)?).ok()?;
    let data = (LENGTH + length) as u64;
    let ends = header.as_object()?.iter().filter_map(|(name, info)| {
        Some((name.clone(), data + info.get("data_offsets")?.get(1)?.as_u64()?))
    });
    ends.filter(|&(_, end)| end > bytes.len() as u64).min_by_key(|&(_, end)| end)
}
