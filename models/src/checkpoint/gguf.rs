//! GGUF: one file with metadata, a list of tensors, and their data.

mod header;

use super::{Checkpoint, Format, MappedFile, Stored};
use crate::error::{ModelError, Result};
use candle_core::DType;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// Where a file names no `general.alignment`.
const ALIGNMENT: u64 = 32;

/// How candle names a type of tensors that it has no number for.
const UNKNOWN_TYPE: &str = "unknown dtype for tensor ";

/// Types of llama.cpp's that candle can't read.
const UNREADABLE: [(u32, &str); 12] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

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
    let alignment = header::alignment(&file.bytes).unwrap_or(ALIGNMENT);
    let mut tensors = BTreeMap::new();
    for (name, info) in &content.tensor_infos {
        if !info.offset.is_multiple_of(alignment) {
            let problem = format!("begins at {}, no multiple of {alignment} bytes", info.offset);
            return Err(ModelError::tensor(path, name, problem));
        }
        let stored = place(&file, content.tensor_data_offset, name, info)?;
        tensors.insert(name.clone(), stored);
    }
    check_places(path, &tensors)?;
    Ok(Checkpoint { path: path.to_path_buf(), files: vec![file], tensors })
}

/// Refuses two tensors in one place.
fn check_places(path: &Path, tensors: &BTreeMap<String, Stored>) -> Result<()> {
    let mut places: Vec<_> = tensors.iter().map(|(name, stored)| (&stored.bytes, name)).collect();
    places.sort_by_key(|(bytes, _)| (bytes.start, bytes.end));
    let overlap = places.windows(2).find(|pair| pair[0].0.end > pair[1].0.start);
    overlap.map_or(Ok(()), |pair| {
        let problem = format!("overlaps tensor `{}`: the file is damaged", pair[0].1);
        Err(ModelError::tensor(path, pair[1].1, problem))
    })
}

/// As the reader of the header divides by `general.alignment`, a zero there must not reach it.
fn check_alignment(file: &MappedFile) -> Result<()> {
    match header::alignment(&file.bytes) {
        Some(0) => Err(ModelError::key(&file.path, "general.alignment", "0 is no alignment")),
        _ => Ok(()),
    }
}

fn parse(file: &MappedFile) -> Result<Content> {
    check_alignment(file)?;
    let content = Content::read(&mut Cursor::new(&file.bytes[..]));
    let content = content.map_err(|e| ModelError::file(&file.path, explain(&e.to_string())))?;
    check_whole(file, &content)?;
    Ok(content)
}

/// What an error of candle's reader means.
fn explain(error: &str) -> String {
    let rest = error.split_once(UNKNOWN_TYPE).map(|(_, rest)| rest);
    let digits = rest.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let Some(number) = digits.and_then(|digits| digits.parse::<u32>().ok()) else {
        return format!("no valid GGUF header: {error}");
    };
    let known = UNREADABLE.iter().find(|(known, _)| *known == number);
    let name = known.map_or("an unknown one", |(_, name)| name);
    format!(
        "holds tensors of type {number} ({name}), which can't be read; take a Q4_K_M, Q8_0 or F16 file of the model"
    )
}

/// Refuses a part of a model, and a list that names one tensor twice.
fn check_whole(file: &MappedFile, content: &Content) -> Result<()> {
    let number = |key: &str| content.metadata.get(key).and_then(whole_number);
    if let Some(parts @ 2..) = number("split.count") {
        let part = number("split.no").unwrap_or_default() + 1;
        let problem = format!(
            "is part {part} of {parts} of a model; join them with `llama-gguf-split --merge`"
        );
        return Err(ModelError::file(&file.path, problem));
    }
    let (listed, names) = (header::tensors(&file.bytes), content.tensor_infos.len() as u64);
    if listed.is_some_and(|listed| listed != names) {
        let problem = "lists two tensors of one name: the file is damaged";
        return Err(ModelError::file(&file.path, problem));
    }
    Ok(())
}

fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::I32(number) => u64::try_from(*number).ok(),
        other => other.to_u64().ok(),
    }
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
