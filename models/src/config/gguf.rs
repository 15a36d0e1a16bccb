//! The metadata of a GGUF file whose `general.architecture` is `llama`.

use super::{ModelConfig, RopeConfig, RopeScaling};
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
    let meta = Metadata { file, content };
    let name = meta.text("general.architecture")?;
    if name != "llama" {
        return Err(meta.bad(
            "general.architecture",
            format!("`{name}` is not supported in GGUF, only llama"),
        ));
    }
    if meta.size_or("llama.expert_count", 0)? > 0 {
        return Err(meta.bad("llama.expert_count", "mixtures of experts are not supported"));
    }
    let config = llama(&meta)?;
    config.check(file)?;
    Ok(config)
}

fn llama(meta: &Metadata) -> Result<ModelConfig> {
    let spec = Architecture::LlamaGguf.spec();
    let hidden = meta.size("llama.embedding_length")?;
    let heads = meta.size("llama.attention.head_count")?;
    let head_dim = meta.size_or("llama.attention.key_length", hidden / heads)?;
    if meta.size_or("llama.attention.value_length", head_dim)? != head_dim {
        return Err(meta.bad("llama.attention.value_length", "differs from key_length"));
    }
    let has = |name: &str| meta.content.tensor_infos.contains_key(name);
    Ok(ModelConfig {
        architecture: Architecture::LlamaGguf,
        hidden,
        layers: meta.size("llama.block_count")?,
        heads,
        kv_heads: meta.size_or("llama.attention.head_count_kv", heads)?,
        head_dim,
        ffn: meta.size("llama.feed_forward_length")?,
        vocab: meta.vocab()?,
        max_positions: meta.size("llama.context_length")?,
        rms_eps: meta.float("llama.attention.layer_norm_rms_epsilon")?,
        rope: RopeConfig {
            theta: meta.float_or("llama.rope.freq_base", 10_000.0)?,
            rotated_dim: meta.size_or("llama.rope.dimension_count", head_dim)?,
            style: spec.rope_style,
            scaling: meta.rope_scaling()?,
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
}

impl Metadata<'_> {
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

    /// Files without `llama.vocab_size` have one row per token of their vocabulary.
    fn vocab(&self) -> Result<usize> {
        if self.has("llama.vocab_size") {
            return self.size("llama.vocab_size");
        }
        match self.get("tokenizer.ggml.tokens")? {
            Value::Array(tokens) if !tokens.is_empty() => Ok(tokens.len()),
            _ => Err(self.bad("tokenizer.ggml.tokens", "not a list of tokens")),
        }
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let key = "llama.rope.scaling.type";
        if !self.has(key) {
            let old = "llama.rope.scale_linear";
            return if self.has(old) { self.linear(old) } else { Ok(RopeScaling::None) };
        }
        match self.text(key)? {
            "none" => Ok(RopeScaling::None),
            "linear" => self.linear("llama.rope.scaling.factor"),
            other => Err(self.bad(key, format!("`{other}` is not supported, only linear"))),
        }
    }

    fn linear(&self, key: &str) -> Result<RopeScaling> {
        match self.float(key)? {
            factor if factor > 0.0 => Ok(RopeScaling::Linear { factor }),
            factor => Err(self.bad(key, format!("{factor} is not positive"))),
        }
    }
}
