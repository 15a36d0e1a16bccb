//! Dummy weights as a GGUF file (version 3), so that other programs can be measured on the same
//! model. Tensors are made, quantised and written one after the other; no more than one is held.

use super::{PartOf, config as shape_of, fill};
use crate::checkpoint::read_gguf_header;
use crate::config::{ModelConfig, RopeScaling};
use crate::error::{ModelError, Result};
use crate::rope::inverse_frequencies;
use crate::spec::{Architecture, TensorSpec};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Tensors begin at multiples of this many bytes (`general.alignment`, by default 32).
const ALIGNMENT: u64 = 32;

/// Elements that one task makes and quantises: whole blocks of every type.
const PIECE: usize = 1 << 18;

/// What to write.
#[derive(Debug, Clone)]
pub struct GgufOptions {
    /// A built-in shape of the Llama family or a `config.json` ([`super::config`]).
    pub shape: String,
    /// Scales the sizes of the shape.
    pub factor: f64,
    /// Of the random numbers.
    pub seed: u64,
    /// Type of all matrices; vectors are f32.
    pub dtype: GgmlDType,
}

/// Writes the file under another name beside `path` and renames it at the end. It has no vocabulary
/// (`no_vocab`): it serves for measuring with random tokens.
///
/// # Errors
/// A shape that is not of the Llama family, a row that is no whole number of blocks (the tensor is
/// named), or a file that can't be written.
pub fn write_gguf(
    path: &Path,
    options: &GgufOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let config = as_gguf(shape_of(&options.shape, options.factor)?, &options.shape)?;
    let tensors = plan(&config, options.dtype, path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(|e| ModelError::io(folder, "can't be created", e))?;
    let partial = partial_name(path);
    let result = write(&partial, &config, &tensors, options, progress);
    if let Err(error) = result {
        // The first error is what the user needs to know.
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    std::fs::rename(&partial, path).map_err(|e| ModelError::io(path, "can't be written", e))
}

/// Whether a file was written by [`write_gguf`].
pub fn is_dummy_gguf(path: &Path) -> bool {
    let header = read_gguf_header(path).ok();
    let name = header.as_ref().and_then(|header| header.metadata.get(NAME)?.to_string().ok());
    name.is_some_and(|name| name.starts_with(NAMED))
}

/// What the name of a dummy begins with.
const NAMED: &str = "dummy ";
const NAME: &str = "general.name";

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// The same shape under GGUF's names.
fn as_gguf(mut config: ModelConfig, shape: &str) -> Result<ModelConfig> {
    if config.architecture != Architecture::Llama || config.qkv_bias || config.output_bias {
        let problem = "GGUF dummies are written for the Llama family without biases only";
        return Err(ModelError::file(Path::new(shape), problem));
    }
    config.architecture = Architecture::LlamaGguf;
    Ok(config)
}

/// A tensor of the file and where its data begins.
struct Planned {
    tensor: TensorSpec,
    dtype: GgmlDType,
    /// From the first tensor's data on.
    offset: u64,
    bytes: u64,
}

fn plan(config: &ModelConfig, dtype: GgmlDType, path: &Path) -> Result<Vec<Planned>> {
    let spec = config.architecture.spec();
    let mut tensors = spec.tensors(config);
    if matches!(config.rope.scaling, RopeScaling::Llama3 { .. }) {
        tensors.extend(spec.rope_factors(config));
    }
    let mut offset = 0;
    let mut place = |tensor: TensorSpec| {
        let dtype = if tensor.shape.len() == 1 { GgmlDType::F32 } else { dtype };
        let row = tensor.shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(dtype.block_size()) {
            let block = dtype.block_size();
            let problem = format!(
                "rows of {row} are no whole number of {dtype:?} blocks of {block}: take a type with \
                 smaller ones (q8_0 and q4_1 have 32, f16 has none)"
            );
            return Err(ModelError::tensor(path, &tensor.name, problem));
        }
        let bytes = (tensor.elements() / dtype.block_size() * dtype.type_size()) as u64;
        let planned = Planned { tensor, dtype, offset, bytes };
        offset += bytes.next_multiple_of(ALIGNMENT);
        Ok(planned)
    };
    tensors.into_iter().map(&mut place).collect()
}

fn write(
    path: &Path,
    config: &ModelConfig,
    tensors: &[Planned],
    options: &GgufOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let failed = |e| ModelError::io(path, "can't be written", e);
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    let header = header(config, tensors, &options.shape);
    out.write_all(&header).map_err(failed)?;
    let total = tensors.iter().map(|t| t.bytes).sum();
    let mut done = 0;
    for planned in tensors {
        for piece in data(planned, config, options.seed)? {
            out.write_all(&piece).map_err(failed)?;
        }
        out.write_all(&padding(planned.bytes)).map_err(failed)?;
        done += planned.bytes;
        progress(done, total);
    }
    out.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
}

fn padding(length: u64) -> Vec<u8> {
    vec![0; (length.next_multiple_of(ALIGNMENT) - length) as usize]
}

/// Everything before the first tensor's data.
fn header(config: &ModelConfig, tensors: &[Planned], shape: &str) -> Vec<u8> {
    let metadata = metadata(config, shape);
    let mut out = Vec::new();
    out.extend(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in &metadata {
        put_text(&mut out, key);
        put_value(&mut out, value);
    }
    for Planned { tensor, dtype, offset, .. } in tensors {
        put_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for &size in tensor.shape.iter().rev() {
            out.extend((size as u64).to_le_bytes());
        }
        out.extend(type_number(*dtype).to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    let padding = padding(out.len() as u64);
    out.extend(padding);
    out
}

/// Values that the header needs, with GGUF's numbers for their types.
enum Meta {
    U32(u32),
    F32(f32),
    Text(String),
}

fn metadata(config: &ModelConfig, shape: &str) -> Vec<(&'static str, Meta)> {
    let size = |n: usize| Meta::U32(n as u32);
    vec![
        ("general.architecture", Meta::Text("llama".into())),
        (NAME, Meta::Text(format!("{NAMED}{shape}"))),
        ("llama.vocab_size", size(config.vocab)),
        ("llama.context_length", size(config.max_positions)),
        ("llama.embedding_length", size(config.hidden)),
        ("llama.block_count", size(config.layers)),
        ("llama.feed_forward_length", size(config.ffn)),
        ("llama.attention.head_count", size(config.heads)),
        ("llama.attention.head_count_kv", size(config.kv_heads)),
        ("llama.attention.key_length", size(config.head_dim)),
        ("llama.attention.value_length", size(config.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(config.rms_eps as f32)),
        ("llama.rope.dimension_count", size(config.rope.rotated_dim)),
        ("llama.rope.freq_base", Meta::F32(config.rope.theta as f32)),
        ("tokenizer.ggml.model", Meta::Text("no_vocab".into())),
    ]
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Meta) {
    match value {
        Meta::U32(n) => {
            out.extend(4u32.to_le_bytes());
            out.extend(n.to_le_bytes());
        }
        Meta::F32(x) => {
            out.extend(6u32.to_le_bytes());
            out.extend(x.to_le_bytes());
        }
        Meta::Text(text) => {
            out.extend(8u32.to_le_bytes());
            put_text(out, text);
        }
    }
}

/// GGUF's number for a type of tensor.
fn type_number(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

/// The bytes of a tensor, in pieces.
fn data(planned: &Planned, config: &ModelConfig, seed: u64) -> Result<Vec<Vec<u8>>> {
    let Planned { tensor, dtype, .. } = planned;
    if config.architecture.spec().rope_factors(config).as_ref() == Some(tensor) {
        let divisors = rope_divisors(config);
        return Ok(vec![divisors.into_iter().flat_map(f32::to_le_bytes).collect()]);
    }
    let elements = tensor.elements();
    (0..elements.div_ceil(PIECE))
        .into_par_iter()
        .map(|piece| {
            let first = piece * PIECE;
            let mut values = vec![0f32; PIECE.min(elements - first)];
            fill(PartOf { tensor, first, seed }, &mut values);
            let len = values.len();
            let values = Tensor::from_vec(values, len, &Device::Cpu)?;
            Ok(QTensor::quantize(&values, *dtype)?.data()?.into_owned())
        })
        .collect()
}

/// By how much each frequency is divided: GGUF has these numbers in place of Llama-3.1's settings.
fn rope_divisors(config: &ModelConfig) -> Vec<f32> {
    let mut plain = config.rope.clone();
    plain.scaling = RopeScaling::None;
    let plain = inverse_frequencies(&plain);
    let scaled = inverse_frequencies(&config.rope);
    plain.iter().zip(scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use crate::{DtypeChoice, LoadOptions};

    fn options(shape: &str, factor: f64, dtype: GgmlDType) -> GgufOptions {
        GgufOptions { shape: shape.into(), factor, seed: 5, dtype }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/m.gguf");
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::F16] {
            let options = options("llama-3.1-8b", 0.125, dtype);
            let mut seen = (0, 0);
            write_gguf(&path, &options, &mut |done, total| seen = (done, total)).unwrap();
            assert!(seen.0 == seen.1 && seen.0 > 0);
            let source = Source::Gguf(path.clone());
            let config = crate::config::read(&source).unwrap();
            let want = as_gguf(shape_of(&options.shape, options.factor).unwrap(), "").unwrap();
            assert_eq!((config.hidden, config.ffn, config.vocab), (512, 1792, want.vocab));
            assert_eq!((config.layers, config.heads, config.kv_heads), (4, 4, 1));
            let load = LoadOptions { dtype: DtypeChoice::Auto, device: Device::Cpu };
            crate::load(&source, &load, &mut |_, _| {}).unwrap();
            assert!(!partial_name(&path).exists() && is_dummy_gguf(&path));
        }
    }

    #[test]
    fn values_are_those_of_the_generator() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let options = options("smollm2-135m", 0.1, GgmlDType::F16);
        write_gguf(&path, &options, &mut |_, _| {}).unwrap();
        let header = read_gguf_header(&path).unwrap();
        let mut file = File::open(&path).unwrap();
        let name = "blk.1.ffn_down.weight";
        let stored = header.tensor(&mut file, name, &Device::Cpu).unwrap();
        let stored = stored.dequantize(&Device::Cpu).unwrap();
        let tensor = TensorSpec::new(name.into(), stored.dims());
        let want = super::super::values(&tensor, 5);
        let got = stored.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(got.iter().zip(&want).all(|(x, y)| (x - y).abs() <= y.abs() / 1000.0 + 1e-6));
    }

    #[test]
    fn divisors_turn_plain_frequencies_into_scaled_ones() {
        let config = shape_of("llama-3.1-8b", 1.0).unwrap();
        let divisors = rope_divisors(&config);
        assert_eq!((divisors[0], divisors[63]), (1.0, 8.0));
        assert!(divisors.is_sorted());
    }

    #[test]
    fn shapes_and_types_that_do_not_fit_are_refused_by_name() {
        let path = Path::new("never-written.gguf");
        let refused = |shape: &str, dtype| {
            write_gguf(path, &options(shape, 1.0, dtype), &mut |_, _| {}).unwrap_err().to_string()
        };
        let message = refused("smollm2-135m", GgmlDType::Q4K);
        assert!(message.contains("token_embd.weight") && message.contains("576"), "{message}");
        assert!(refused("glm-4-9b", GgmlDType::Q8_0).contains("Llama family"));
        assert!(!path.exists() && !is_dummy_gguf(path));
    }
}
