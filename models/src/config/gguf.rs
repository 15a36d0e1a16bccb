//! The metadata of a GGUF file whose `general.architecture` is `llama`, `qwen2` or `qwen3`.

use super::{ModelConfig, RopeConfig, RopeScaling, Yarn};
use crate::error::{ModelError, Result};
use crate::spec::Architecture;
use candle_core::DType;
use candle_core::quantized::gguf_file::{Content, Value};
use std::path::Path;

pub(super) fn read_file(file: &Path) -> Result<ModelConfig> {
    from_metadata(&crate::checkpoint::read_gguf_header(file)?, file)
}

/// Understands the header of a GGUF file. Whether the head is tied and q, k, v have a bias is seen
/// from the list of tensors.
pub(super) fn from_metadata(content: &Content, file: &Path) -> Result<ModelConfig> {
    let name = Metadata { file, content, prefix: "" }.text("general.architecture")?.to_owned();
    let meta = Metadata { file, content, prefix: &name };
    let architecture = match name.as_str() {
        "llama" => Architecture::LlamaGguf,
        "qwen2" => Architecture::Qwen2Gguf,
        "qwen3" => Architecture::Qwen3Gguf,
        _ => {
            let problem = format!("`{name}` is not supported in GGUF, only llama, qwen2 and qwen3");
            return Err(meta.bad("general.architecture", problem));
        }
    };
    let experts = meta.own("expert_count");
    if meta.size_or(&experts, 0)? > 0 {
        return Err(meta.bad(&experts, "mixtures of experts are not supported"));
    }
    let config = model(&meta, architecture)?;
    config.check(file)?;
    Ok(config)
}

fn model(meta: &Metadata, architecture: Architecture) -> Result<ModelConfig> {
    let spec = architecture.spec();
    let size = |key: &str| meta.size(&meta.own(key));
    let size_or = |key: &str, default: usize| meta.size_or(&meta.own(key), default);
    let hidden = size("embedding_length")?;
    let heads = size("attention.head_count")?;
    let head_dim = size_or("attention.key_length", hidden / heads)?;
    if size_or("attention.value_length", head_dim)? != head_dim {
        return Err(meta.bad(&meta.own("attention.value_length"), "differs from key_length"));
    }
    let has = |name: &str| meta.content.tensor_infos.contains_key(name);
    let positions = size("context_length")?;
    let scaling = meta.rope_scaling(positions)?;
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: size("block_count")?,
        heads,
        kv_heads: size_or("attention.head_count_kv", heads)?,
        head_dim,
        ffn: size("feed_forward_length")?,
        vocab: meta.vocab()?,
        max_positions: scaling.reach(positions),
        rms_eps: meta.float(&meta.own("attention.layer_norm_rms_epsilon"))?,
        rope: RopeConfig {
            theta: meta.float_or(&meta.own("rope.freq_base"), 10_000.0)?,
            rotated_dim: size_or("rope.dimension_count", head_dim)?,
            style: spec.rope_style,
            scaling,
        },
        qkv_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        tied: !has(&format!("{}.weight", spec.head)),
        stored_dtype: DType::F32,
    })
}

struct Metadata<'a> {
    file: &'a Path,
    content: &'a Content,
    /// What the architecture's own keys begin with.
    prefix: &'a str,
}

impl Metadata<'_> {
    /// The whole name of one of the architecture's keys.
    fn own(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn bad(&self, key: &str, problem: impl Into<String>) -> ModelError {
        ModelError::key(self.file, key, problem)
    }

    fn get(&self, key: &str) -> Result<&Value> {
        self.content.metadata.get(key).ok_or_else(|| self.bad(key, "missing"))
    }

    fn has(&self, key: &str) -> bool {
        self.content.metadata.contains_key(key)
    }

    fn text(&self, key: &str) -> Result<&str> {
        match self.get(key)? {
            Value::String(text) => Ok(text),
            other => Err(self.bad(key, format!("{:?} is not a text", other.value_type()))),
        }
    }

    fn integer(&self, key: &str) -> Result<u32> {
        let value = self.get(key)?;
        let number = match value {
            Value::I32(n) => u64::try_from(*n).ok(),
            Value::I64(n) => u64::try_from(*n).ok(),
            other => other.to_u64().ok(),
        };
        number.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            let problem = format!("a {:?} where one whole number belongs", value.value_type());
            self.bad(key, problem)
        })
    }

    /// A count of something: 1 or more.
    fn size(&self, key: &str) -> Result<usize> {
        match self.integer(key)? {
            0 => Err(self.bad(key, "0 is not a size")),
            n => Ok(n as usize),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) { Ok(self.integer(key)? as usize) } else { Ok(default) }
    }

    fn float(&self, key: &str) -> Result<f64> {
        match self.get(key)? {
            Value::F32(x) => Ok(f64::from(*x)),
            Value::F64(x) => Ok(*x),
            other => Err(self.bad(key, format!("{:?} is not a number", other.value_type()))),
        }
    }

    fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.float(key) } else { Ok(default) }
    }

    /// Files that do not say have one row per token of their vocabulary.
    fn vocab(&self) -> Result<usize> {
        let size = self.own("vocab_size");
        if self.has(&size) {
            return self.size(&size);
        }
        match self.get("tokenizer.ggml.tokens")? {
            Value::Array(tokens) if !tokens.is_empty() => Ok(tokens.len()),
            _ => Err(self.bad("tokenizer.ggml.tokens", "not a list of tokens")),
        }
    }

    /// `positions` is the length that the file names.
    fn rope_scaling(&self, positions: usize) -> Result<RopeScaling> {
        let key = self.own("rope.scaling.type");
        let factor = self.own("rope.scaling.factor");
        if !self.has(&key) {
            let old = self.own("rope.scale_linear");
            return if self.has(&old) { self.linear(&old) } else { Ok(RopeScaling::None) };
        }
        match self.text(&key)? {
            "none" => Ok(RopeScaling::None),
            "linear" => self.linear(&factor),
            "yarn" => {
                let original =
                    self.size_or(&self.own("rope.scaling.original_context_length"), positions)?;
                Ok(RopeScaling::Yarn(Yarn::new(self.positive(&factor)?, original as f64)))
            }
            other => {
                Err(self.bad(&key, format!("`{other}` is not supported, only linear and yarn")))
            }
        }
    }

    fn linear(&self, key: &str) -> Result<RopeScaling> {
        Ok(RopeScaling::Linear { factor: self.positive(key)? })
    }

    fn positive(&self, key: &str) -> Result<f64> {
        match self.float(key)? {
            value if value > 0.0 => Ok(value),
            value => Err(self.bad(key, format!("{value} is not positive"))),
        }
    }
}
