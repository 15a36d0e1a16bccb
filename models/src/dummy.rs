//! Seeded random weights in the shape of a real model, for tests and for measuring speed without
//! a checkpoint. The numbers depend on seed, tensor name and place alone, so that any language can
//! make the same ones.

mod gguf;

pub use gguf::{GgufOptions, is_dummy_gguf, write_gguf};

use crate::LoadOptions;
use crate::config::{ModelConfig, from_text};
use crate::decoder::Decoder;
use crate::encoder;
use crate::error::{ModelError, Result};
use crate::spec::TensorSpec;
use crate::weights::{Piece, Weight, Weights};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

const CONFIG: &str = "config.json";

/// Elements that one task fills.
const CHUNK: usize = 1 << 16;

/// Elements that are shown at a time.
const PIECE: usize = 64 * CHUNK;

/// The built-in shapes, by the name to ask for them.
const SHAPES: [(&str, &str); 3] = [
    ("llama-3.1-8b", include_str!("dummy/llama-3.1-8b.json")),
    ("glm-4-9b", include_str!("dummy/glm-4-9b.json")),
    ("smollm2-135m", include_str!("dummy/smollm2-135m.json")),
];

/// The configuration of a built-in shape (`llama-3.1-8b`, `glm-4-9b`, `smollm2-135m`) or of any
/// `config.json`, scaled by `factor`.
///
/// A factor scales the counts of layers and heads, the widths and the vocabulary; the size of a
/// head stays, and no part falls below the least that still works.
///
/// # Errors
/// A name that is neither built in nor a file, or what [`crate::config::read`] finds wrong.
pub fn config(shape: &str, factor: f64) -> Result<ModelConfig> {
    if !(factor.is_finite() && factor > 0.0) {
        return Err(ModelError::Batch(format!("size factor {factor} is not a positive number")));
    }
    let built_in = SHAPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(shape));
    let path = Path::new(shape);
    let config = match built_in {
        Some((_, text)) => from_text(text, path)?,
        None if path.exists() => from_text(&read(path)?, path)?,
        None => {
            let names = SHAPES.map(|(name, _)| name).join(", ");
            return Err(ModelError::file(path, format!("neither a file nor one of {names}")));
        }
    };
    Ok(if factor == 1.0 { config } else { scaled(config, factor) })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| ModelError::io(path, "can't be read", e))
}

fn scaled(mut config: ModelConfig, factor: f64) -> ModelConfig {
    let scale = |n: usize, least: usize| ((n as f64 * factor).round() as usize).max(least);
    // Widths stay multiples of 32, the block of the usual quantised types.
    let width = |n: usize| scale(n, 32).next_multiple_of(32);
    config.layers = scale(config.layers, 1);
    config.hidden = width(config.hidden);
    config.ffn = width(config.ffn);
    config.vocab = width(config.vocab);
    config.heads = scale(config.heads, 1);
    let most = scale(config.kv_heads, 1).min(config.heads);
    config.kv_heads = (1..=most).rev().find(|n| config.heads.is_multiple_of(*n)).unwrap_or(1);
    config
}

/// A decoder with random weights. `DtypeChoice::Auto` makes them in the type that the
/// configuration names.
///
/// # Errors
/// Not enough memory on the device.
pub fn decoder(
    config: ModelConfig,
    seed: u64,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Decoder> {
    let dtype = options.dtype.dtype().unwrap_or(config.stored_dtype);
    let mut weights = Dummy::new(&config, seed, dtype);
    Decoder::build(config, &mut weights, options, progress)
}

/// Writes a folder with `config.json` (the text as given) and `model.safetensors` (f32) that
/// [`crate::load`] reads; for tests, as all weights are held in memory at once.
///
/// # Errors
/// The text is no supported configuration, or the folder can't be written.
pub fn write_checkpoint(folder: &Path, config_json: &str, seed: u64) -> Result<()> {
    let file = folder.join(CONFIG);
    let config = from_text(config_json, &file)?;
    write(folder, config_json, config.architecture.spec().tensors(&config), seed)
}

/// The same for a [`crate::encoder::Encoder`].
///
/// # Errors
/// As [`write_checkpoint`].
pub fn write_encoder_checkpoint(folder: &Path, config_json: &str, seed: u64) -> Result<()> {
    let tensors = encoder::tensors_of(config_json, &folder.join(CONFIG))?;
    write(folder, config_json, tensors, seed)
}

fn write(folder: &Path, config_json: &str, specs: Vec<TensorSpec>, seed: u64) -> Result<()> {
    let file = folder.join(CONFIG);
    std::fs::create_dir_all(folder).map_err(|e| ModelError::io(folder, "can't be created", e))?;
    std::fs::write(&file, config_json).map_err(|e| ModelError::io(&file, "can't be written", e))?;
    let mut tensors = std::collections::HashMap::new();
    for tensor in specs {
        let values = values(&tensor, seed);
        let made = Tensor::from_vec(values, tensor.shape.as_slice(), &Device::Cpu)?;
        tensors.insert(tensor.name, made);
    }
    Ok(candle_core::safetensors::save(&tensors, folder.join("model.safetensors"))?)
}

/// Makes tensors when they are asked for.
pub(crate) struct Dummy {
    seed: u64,
    dtype: DType,
    pending: BTreeSet<(String, Vec<usize>)>,
}

impl Dummy {
    pub(crate) fn new(config: &ModelConfig, seed: u64, dtype: DType) -> Self {
        let tensors = config.architecture.spec().tensors(config);
        let pending = tensors.into_iter().map(|t| (t.name, t.shape)).collect();
        Self { seed, dtype, pending }
    }
}

impl Weights for Dummy {
    fn bytes(&self) -> u64 {
        let elements = self.pending.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64);
        elements.sum::<u64>() * self.dtype.size_in_bytes() as u64
    }

    fn has(&self, _: &str) -> bool {
        // Only optional tensors are asked about, and those are not made.
        false
    }

    fn take(&mut self, tensor: &TensorSpec, device: &Device) -> Result<Weight> {
        self.pending.remove(&(tensor.name.clone(), tensor.shape.clone()));
        let values = values(tensor, self.seed);
        let made = Tensor::from_vec(values, tensor.shape.as_slice(), &Device::Cpu)?;
        Ok(Weight::Dense(made.to_dtype(self.dtype)?.to_device(device)?))
    }

    fn read(
        &mut self,
        tensor: &TensorSpec,
        see: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.pending.remove(&(tensor.name.clone(), tensor.shape.clone()));
        let mut some = vec![0f32; tensor.elements().min(PIECE)];
        for first in (0..tensor.elements()).step_by(PIECE) {
            let some = &mut some[..(tensor.elements() - first).min(PIECE)];
            fill_in_parallel(PartOf { tensor, first, seed: self.seed }, some);
            see(Piece::F32(some))?;
        }
        Ok(())
    }

    fn left_over(&self) -> Option<ModelError> {
        let (name, _) = self.pending.first()?;
        Some(ModelError::tensor(Path::new("dummy weights"), name, "was not used by the model"))
    }
}

/// The elements of a tensor in row-major order.
fn values(tensor: &TensorSpec, seed: u64) -> Vec<f32> {
    let mut values = vec![0f32; tensor.elements()];
    fill_in_parallel(PartOf { tensor, first: 0, seed }, &mut values);
    values
}

fn fill_in_parallel(from: PartOf, values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, part)| {
        fill(PartOf { first: from.first + chunk * CHUNK, ..from }, part);
    });
}

/// Elements of a tensor from number `first` on.
#[derive(Clone, Copy)]
struct PartOf<'a> {
    tensor: &'a TensorSpec,
    first: usize,
    seed: u64,
}

fn fill(PartOf { tensor, first, seed }: PartOf, values: &mut [f32]) {
    let key = fnv1a(tensor.name.as_bytes()) ^ seed;
    let (base, spread) = distribution(tensor);
    for (i, value) in values.iter_mut().enumerate() {
        let r = symmetric(key, (first + i) as u64);
        *value = (base + r * spread) as f32;
    }
}

/// Centre and half width of a tensor's values. Matrices keep the size of what they multiply; those
/// that make queries and keys are larger, so that attention is not flat.
fn distribution(tensor: &TensorSpec) -> (f64, f64) {
    let name = tensor.name.as_str();
    let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match tensor.shape.as_slice() {
        [_] if name.ends_with(".bias") => (0.0, 0.1),
        [_] => (1.0, 0.1),
        _ if any(&["embed", "embd"]) => (0.0, 1.0),
        [.., k] => {
            let sharp = ["q_proj", "k_proj", "query_key_value", "qkv", "attn_q", "attn_k"];
            let gain = if any(&sharp) { 2.0 } else { 1.0 };
            (0.0, (3.0 / *k as f64).sqrt() * gain)
        }
        [] => (0.0, 1.0),
    }
}

/// The `i`-th number of a stream, evenly spread over [-1, 1): splitmix64 (Steele, Lea & Flood
/// 2014), upper 24 bits.
fn symmetric(key: u64, i: u64) -> f64 {
    let mut z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    2.0 * ((z >> 40) as f64 / f64::from(1u32 << 24)) - 1.0
}

/// Fowler-Noll-Vo hash, 64 bits, variant 1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.to_string(), shape: shape.to_vec() }
    }

    #[test]
    fn hash_and_generator_equal_their_published_values() {
        assert_eq!(fnv1a(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_F739_67E8);
        // First output of splitmix64 with seed 0 is 0xE220A8397B1DCDAF.
        let want = f64::from(0x00E2_20A8u32) / f64::from(1u32 << 23) - 1.0;
        assert_eq!(symmetric(0, 0), want);
    }

    #[test]
    fn values_do_not_depend_on_how_the_work_is_cut() {
        let long = values(&tensor("x.bias", &[2 * CHUNK + 3]), 7);
        let short = values(&tensor("x.bias", &[10]), 7);
        assert_eq!(long[..10], short);
        let r = symmetric(fnv1a(b"x.bias") ^ 7, (2 * CHUNK) as u64);
        assert_eq!(long[2 * CHUNK], (0.1 * r) as f32);
    }

    #[test]
    fn each_kind_of_tensor_has_its_own_spread() {
        let spread = |name: &str, shape: &[usize]| distribution(&tensor(name, shape));
        assert_eq!(spread("model.norm.weight", &[8]), (1.0, 0.1));
        assert_eq!(spread("a.q_proj.bias", &[8]), (0.0, 0.1));
        assert_eq!(spread("t.word_embeddings.weight", &[8, 12]), (0.0, 1.0));
        assert_eq!(spread("a.k_proj.weight", &[8, 12]), (0.0, 1.0));
        assert_eq!(spread("a.v_proj.weight", &[8, 12]), (0.0, 0.5));
    }

    #[test]
    fn built_in_shapes_have_the_sizes_of_the_models_they_are_named_after() {
        for (name, parameters) in [
            ("Llama-3.1-8B", 8_030_261_248),
            ("glm-4-9b", 9_399_951_360),
            ("smollm2-135m", 134_515_008),
        ] {
            assert_eq!(config(name, 1.0).unwrap().parameters(), parameters);
        }
        let message = config("gpt-5", 1.0).unwrap_err().to_string();
        assert!(message.contains("gpt-5") && message.contains("smollm2-135m"), "{message}");
    }

    #[test]
    fn a_size_factor_gives_a_shape_that_still_fits_together() {
        for (name, _) in SHAPES {
            for factor in [0.001, 0.1, 0.3, 2.0] {
                let config = config(name, factor).unwrap();
                assert!(config.heads.is_multiple_of(config.kv_heads));
                assert!(config.hidden.is_multiple_of(32) && config.ffn.is_multiple_of(32));
            }
        }
    }
}
