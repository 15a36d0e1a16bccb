//! `config.json`.

use super::fields::Fields;
use super::{ModelConfig, RopeConfig, RopeScaling, Yarn};
use crate::error::{ModelError, Result};
use crate::spec::Architecture;
use candle_core::DType;
use serde_json::Value;
use std::path::Path;

/// GLM's rotary base before `rope_ratio`.
const GLM_THETA: f64 = 10_000.0;

pub(super) fn read_folder(folder: &Path) -> Result<ModelConfig> {
    let file = folder.join("config.json");
    from_text(&read_text(&file)?, &file)
}

/// Understands the text of a `config.json`; `file` is what errors call it.
///
/// # Errors
/// As [`super::read`].
pub fn from_text(text: &str, file: &Path) -> Result<ModelConfig> {
    let value = parse(text, file)?;
    let fields = Fields::new(file, &value)?;
    let config = match architecture(&fields)? {
        Architecture::ChatGlm => chatglm(&fields)?,
        architecture => hugging_face(&fields, architecture)?,
    };
    config.check(file)?;
    Ok(config)
}

/// The text of a file of settings.
pub(crate) fn read_text(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|e| ModelError::io(file, "can't be read", e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ModelError::file(file, format!("not UTF-8 (byte {at})"))
    })
}

pub(crate) fn parse(text: &str, file: &Path) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| ModelError::file(file, format!("not JSON: {e}")))
}

fn architecture(fields: &Fields) -> Result<Architecture> {
    let (key, name) = named(fields).ok_or_else(|| fields.bad("architectures", "missing"))?;
    match name.as_str() {
        Some("LlamaForCausalLM" | "llama" | "MistralForCausalLM" | "mistral") => Ok(Architecture::Llama),
        Some("ChatGLMModel" | "ChatGLMForConditionalGeneration" | "chatglm") => {
            Ok(Architecture::ChatGlm)
        }
        Some("GlmForCausalLM" | "glm") => Ok(Architecture::Glm),
        Some("Glm4ForCausalLM" | "glm4") => Ok(Architecture::Glm4),
        Some("Qwen2ForCausalLM" | "qwen2") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM" | "qwen3") => Ok(Architecture::Qwen3),
        _ => Err(fields.bad(
            key,
            format!(
                "{name} is not supported; supported are LlamaForCausalLM, MistralForCausalLM, \
                 ChatGLMModel, GlmForCausalLM, Glm4ForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM"
            ),
        )),
    }
}

/// The name of the architecture, and where it stands.
fn named<'a>(fields: &Fields<'a>) -> Option<(&'static str, &'a Value)> {
    let first = fields.value("architectures").and_then(|list| list.get(0));
    let name = first.map(|name| ("architectures", name));
    name.or_else(|| Some(("model_type", fields.value("model_type")?)))
}

/// All architectures but `ChatGLMModel`: their keys are the same. Defaults are those of the
/// configuration classes that write these files.
fn hugging_face(fields: &Fields, architecture: Architecture) -> Result<ModelConfig> {
    refuse_unsupported(fields, architecture)?;
    let glm = matches!(architecture, Architecture::Glm | Architecture::Glm4);
    let hidden = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let head_dim = match architecture {
        Architecture::Llama | Architecture::Qwen2 => head_dim(fields, hidden)?,
        _ => fields.size_or("head_dim", 128)?,
    };
    let bias = fields.flag_or("attention_bias", glm || architecture == Architecture::Qwen2)?;
    let rope = rope(fields, architecture, head_dim)?;
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: fields.size("num_hidden_layers")?,
        heads,
        kv_heads: fields.size_or("num_key_value_heads", kv_heads(fields, architecture, heads))?,
        head_dim,
        ffn: fields.size("intermediate_size")?,
        vocab: fields.size("vocab_size")?,
        max_positions: rope.scaling.reach(fields.size("max_position_embeddings")?),
        rms_eps: fields.float_or("rms_norm_eps", if glm { 1.5625e-7 } else { 1e-6 })?,
        rope,
        qkv_bias: bias,
        output_bias: bias && !glm && architecture != Architecture::Qwen2,
        tied: fields.flag_or("tie_word_embeddings", false)?,
        stored_dtype: stored_dtype(fields)?,
    })
}

/// Key and value heads where there is no number of them.
fn kv_heads(fields: &Fields, architecture: Architecture, heads: usize) -> usize {
    match architecture {
        Architecture::Glm | Architecture::Glm4 => 2,
        _ if fields.is_null("num_key_value_heads") => heads,
        Architecture::Qwen2 | Architecture::Qwen3 => 32,
        _ if is_mistral(fields) => 8,
        _ => heads,
    }
}

/// Whether a Llama is a Mistral by its name: the networks are the same, some defaults are not.
fn is_mistral(fields: &Fields) -> bool {
    let name = named(fields).and_then(|(_, name)| name.as_str());
    matches!(name, Some("MistralForCausalLM" | "mistral"))
}

/// `ChatGLMModel`, whose keys are its own.
fn chatglm(fields: &Fields) -> Result<ModelConfig> {
    fields.require("rmsnorm", true)?;
    fields.require("add_bias_linear", false)?;
    fields.require("post_layer_norm", true)?;
    fields.require("apply_residual_connection_post_layernorm", false)?;
    refuse_quantised(fields)?;
    let heads = fields.size("num_attention_heads")?;
    let grouped = fields.flag_or("multi_query_attention", false)?;
    let head_dim = fields.size("kv_channels")?;
    let spec = Architecture::ChatGlm.spec();
    Ok(ModelConfig {
        architecture: Architecture::ChatGlm,
        hidden: fields.size("hidden_size")?,
        layers: fields.size_of(&["num_layers", "num_hidden_layers"])?,
        heads,
        kv_heads: if grouped { fields.size("multi_query_group_num")? } else { heads },
        head_dim,
        ffn: fields.size("ffn_hidden_size")?,
        vocab: fields.size_of(&["padded_vocab_size", "vocab_size"])?,
        max_positions: fields.size("seq_length")?,
        rms_eps: fields.float("layernorm_epsilon")?,
        rope: RopeConfig {
            theta: GLM_THETA * fields.float_or("rope_ratio", 1.0)?,
            rotated_dim: rotated_dim(head_dim, spec.rotated_share),
            style: spec.rope_style,
            scaling: RopeScaling::None,
        },
        qkv_bias: fields.flag_or("add_qkv_bias", false)?,
        output_bias: false,
        tied: fields.flag_or("tie_word_embeddings", false)?,
        stored_dtype: stored_dtype(fields)?,
    })
}

fn head_dim(fields: &Fields, hidden: usize) -> Result<usize> {
    let heads = fields.size("num_attention_heads")?;
    if !fields.has("head_dim") && !hidden.is_multiple_of(heads) {
        return Err(fields.bad(
            "num_attention_heads",
            format!("{heads} does not divide hidden_size {hidden}, and there is no head_dim"),
        ));
    }
    fields.size_or("head_dim", hidden / heads)
}

fn refuse_unsupported(fields: &Fields, architecture: Architecture) -> Result<()> {
    fields.require("mlp_bias", false)?;
    refuse_windows(fields, architecture)?;
    match fields.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => {
            return Err(fields.bad("hidden_act", format!("`{other}` is not supported, only silu")));
        }
    }
    refuse_quantised(fields)
}

/// Attention to the last so many tokens only. Qwen's files name a window that they switch off. Mistral's that name none,
/// and Qwen's that switch it on, have one of 4096 tokens.
fn refuse_windows(fields: &Fields, architecture: Architecture) -> Result<()> {
    let qwen = matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3);
    let switched_off = fields.value("use_sliding_window") == Some(&Value::Bool(false));
    let switched_on = qwen && fields.flag_or("use_sliding_window", false)?;
    if fields.has("sliding_window") && !switched_off {
        return Err(fields.bad("sliding_window", "windows of attention are not supported"));
    }
    let by_default = switched_on || is_mistral(fields);
    if by_default && !switched_off && !fields.is_null("sliding_window") {
        let problem = "missing, which means 4096, and windows of attention are not supported; write null if the model \
                       has none";
        return Err(fields.bad("sliding_window", problem));
    }
    let layers = fields.value("layer_types").and_then(Value::as_array);
    let other = layers.into_iter().flatten().find(|kind| *kind != "full_attention");
    other.map_or(Ok(()), |kind| Err(fields.bad("layer_types", format!("{kind} is not supported"))))
}

fn refuse_quantised(fields: &Fields) -> Result<()> {
    if fields.has("quantization_config") {
        return Err(fields.bad(
            "quantization_config",
            "quantised safetensors are not supported; use the original weights or a GGUF file",
        ));
    }
    Ok(())
}

fn rotated_dim(head_dim: usize, share: f64) -> usize {
    (head_dim as f64 * share) as usize
}

/// Newer files keep all rotary settings in `rope_parameters`; older ones have `rope_theta` and
/// `partial_rotary_factor` at the top and the rest in `rope_scaling`.
fn rope(fields: &Fields, architecture: Architecture, head_dim: usize) -> Result<RopeConfig> {
    let new = fields.nested("rope_parameters")?;
    let old = fields.nested("rope_scaling")?;
    let both = new.is_some() && old.is_some();
    let rope = rope_of(fields, new.as_ref().or(old.as_ref()), architecture, head_dim)?;
    // Which of them a library takes depends on its version.
    if both && rope_of(fields, old.as_ref(), architecture, head_dim)? != rope {
        let problem = "stands beside rope_parameters and says something else; remove one of them";
        return Err(fields.bad("rope_scaling", problem));
    }
    Ok(rope)
}

fn rope_of(
    fields: &Fields,
    parameters: Option<&Fields>,
    architecture: Architecture,
    head_dim: usize,
) -> Result<RopeConfig> {
    let float = |key: &str, default: f64| match parameters {
        Some(inner) if inner.has(key) => inner.float(key),
        _ => fields.float_or(key, default),
    };
    let spec = architecture.spec();
    Ok(RopeConfig {
        theta: float("rope_theta", 10_000.0)?,
        rotated_dim: rotated_dim(head_dim, float("partial_rotary_factor", spec.rotated_share)?),
        style: spec.rope_style,
        scaling: parameters.map_or(Ok(RopeScaling::None), |p| scaling(p, fields))?,
    })
}

/// `whole` are the fields that `parameters` stand in.
fn scaling(parameters: &Fields, whole: &Fields) -> Result<RopeScaling> {
    let key = if parameters.has("rope_type") { "rope_type" } else { "type" };
    match parameters.text(key)? {
        None if parameters.has("factor") => Err(parameters.bad(key, "missing")),
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: positive(parameters, "factor")? }),
        Some("llama3") => {
            let low = positive(parameters, "low_freq_factor")?;
            let high = positive(parameters, "high_freq_factor")?;
            if high <= low {
                return Err(parameters.bad(
                    "high_freq_factor",
                    format!("{high} must be larger than low_freq_factor, {low}"),
                ));
            }
            Ok(RopeScaling::Llama3 {
                factor: positive(parameters, "factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_positions: positive(parameters, "original_max_position_embeddings")?,
            })
        }
        Some("yarn") => yarn(parameters, whole),
        Some(other) => Err(parameters.bad(
            key,
            format!("`{other}` is not supported; supported are default, linear, llama3 and yarn"),
        )),
    }
}

fn yarn(parameters: &Fields, whole: &Fields) -> Result<RopeScaling> {
    // DeepSeek's way to say the attention factor.
    if let Some(key) = ["mscale", "mscale_all_dim"].into_iter().find(|key| parameters.has(key)) {
        return Err(parameters.bad(key, "not supported"));
    }
    let or = |key: &str, default: f64| match parameters.has(key) {
        true => positive(parameters, key),
        false => Ok(default),
    };
    let positions = whole.float("max_position_embeddings")?;
    let original_positions = or("original_max_position_embeddings", positions)?;
    let usual = Yarn::new(positive(parameters, "factor")?, original_positions);
    Ok(RopeScaling::Yarn(Yarn {
        beta_fast: or("beta_fast", usual.beta_fast)?,
        beta_slow: or("beta_slow", usual.beta_slow)?,
        whole_ends: parameters.flag_or("truncate", usual.whole_ends)?,
        attention_factor: or("attention_factor", usual.attention_factor)?,
        ..usual
    }))
}

fn positive(fields: &Fields, key: &str) -> Result<f64> {
    match fields.float(key)? {
        value if value > 0.0 => Ok(value),
        value => Err(fields.bad(key, format!("{value} is not positive"))),
    }
}

fn stored_dtype(fields: &Fields) -> Result<DType> {
    let key = if fields.has("dtype") { "dtype" } else { "torch_dtype" };
    match fields.text(key)? {
        None | Some("float32") => Ok(DType::F32),
        Some("bfloat16") => Ok(DType::BF16),
        Some("float16") => Ok(DType::F16),
        Some(other) => Err(fields.bad(key, format!("`{other}` is not supported"))),
    }
}
