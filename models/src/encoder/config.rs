//! What the files of a sentence embedder say: `config.json` of the network, and beside it, in the
//! layout of the sentence-transformers library, how token states become one vector.

use crate::config::{Fields, MOST_LAYERS, parse, read_text};
use crate::error::{ModelError, Result};
use crate::source::POOLING;
use serde_json::Value;
use std::path::Path;

/// Keys of `1_Pooling/config.json`, and the poolings that the encoder has.
const POOLINGS: [(&str, Option<Pooling>); 6] = [
    ("pooling_mode_cls_token", Some(Pooling::Cls)),
    ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
    ("pooling_mode_max_tokens", None),
    ("pooling_mode_mean_sqrt_len_tokens", None),
    ("pooling_mode_weightedmean_tokens", None),
    ("pooling_mode_lasttoken", None),
];

/// The steps of `modules.json` that the encoder does.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The state of the first token.
    Cls,
}

/// The shape of an embedder, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EncoderConfig {
    /// Width of the token states.
    pub hidden: usize,
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    pub vocab: usize,
    /// Rows of the token-type embedding, of which only the first is used.
    pub token_types: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// Added to the variance in every layer norm.
    pub eps: f64,
    /// Longest text that the embedder is meant for.
    pub max_tokens: usize,
    pub pooling: Pooling,
}

/// Reads `config.json` and, where they exist, `sentence_bert_config.json`, `1_Pooling/config.json`
/// and `modules.json`.
///
/// # Errors
/// Names the file and the key: missing, of the wrong type, or something the encoder does not do.
pub(super) fn read(folder: &Path) -> Result<EncoderConfig> {
    let file = folder.join("config.json");
    let mut config = from_text(&read_text(&file)?, &file)?;
    if_present(&folder.join("modules.json"), check_modules)?;
    let sentence = folder.join("sentence_bert_config.json");
    if let Some(tokens) = if_present(&sentence, max_tokens)?.flatten() {
        config.max_tokens = tokens.min(config.positions);
    }
    let pooling_file = folder.join(POOLING);
    if let Some(pooling) = if_present(&pooling_file, pooling)? {
        config.pooling = pooling;
    }
    Ok(config)
}

fn if_present<T>(file: &Path, read: fn(&Path, &Value) -> Result<T>) -> Result<Option<T>> {
    if !file.exists() {
        return Ok(None);
    }
    read(file, &parse(&read_text(file)?, file)?).map(Some)
}

/// Understands the text of a `config.json`; `file` is what errors call it.
pub(super) fn from_text(text: &str, file: &Path) -> Result<EncoderConfig> {
    let value = parse(text, file)?;
    let fields = Fields::new(file, &value)?;
    check_architecture(&fields)?;
    only(&fields, "hidden_act", "gelu")?;
    only(&fields, "position_embedding_type", "absolute")?;
    fields.require("is_decoder", false)?;
    let positions = fields.size("max_position_embeddings")?;
    let config = EncoderConfig {
        hidden: fields.size("hidden_size")?,
        layers: fields.size("num_hidden_layers")?,
        heads: fields.size("num_attention_heads")?,
        ffn: fields.size("intermediate_size")?,
        vocab: fields.size("vocab_size")?,
        token_types: fields.size_or("type_vocab_size", 2)?,
        positions,
        eps: fields.float_or("layer_norm_eps", 1e-12)?,
        max_tokens: positions,
        pooling: Pooling::Mean,
    };
    check_sizes(&fields, &config)?;
    Ok(config)
}

fn check_architecture(fields: &Fields) -> Result<()> {
    let architecture = fields.value("architectures").and_then(|list| list.get(0));
    let (key, name) = match architecture {
        Some(name) => ("architectures", Some(name)),
        None => ("model_type", fields.value("model_type")),
    };
    match name.map(|name| (name, name.as_str())) {
        Some((_, Some("BertModel" | "bert"))) => Ok(()),
        Some((name, _)) => {
            let problem = format!("{name} is not supported as an embedder, only BertModel");
            Err(fields.bad(key, problem))
        }
        None => Err(fields.bad("architectures", "missing")),
    }
}

/// A choice of which one alternative is supported, and is meant where the key is absent.
fn only(fields: &Fields, key: &str, wanted: &str) -> Result<()> {
    match fields.text(key)? {
        Some(other) if other != wanted => {
            Err(fields.bad(key, format!("`{other}` is not supported, only {wanted}")))
        }
        _ => Ok(()),
    }
}

fn check_sizes(fields: &Fields, config: &EncoderConfig) -> Result<()> {
    let EncoderConfig { hidden, heads, layers, eps, .. } = *config;
    if !hidden.is_multiple_of(heads) {
        let problem = format!("{heads} does not divide hidden_size {hidden}");
        return Err(fields.bad("num_attention_heads", problem));
    }
    if layers > MOST_LAYERS {
        return Err(fields.bad("num_hidden_layers", format!("{layers} layers can't be meant")));
    }
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(fields.bad("layer_norm_eps", format!("{eps} is not a small positive number")));
    }
    Ok(())
}

fn max_tokens(file: &Path, value: &Value) -> Result<Option<usize>> {
    let fields = Fields::new(file, value)?;
    fields.has("max_seq_length").then(|| fields.size("max_seq_length")).transpose()
}

fn pooling(file: &Path, value: &Value) -> Result<Pooling> {
    let fields = Fields::new(file, value)?;
    let mut on = vec![];
    for (key, pooling) in POOLINGS {
        if fields.flag_or(key, false)? {
            on.push((key, pooling));
        }
    }
    match on[..] {
        [(_, Some(pooling))] => Ok(pooling),
        [(key, None)] => Err(fields.bad(key, "is not supported, only cls_token and mean_tokens")),
        [] => Err(ModelError::file(file, "no pooling mode is on")),
        [(first, _), (second, _), ..] => {
            Err(fields.bad(second, format!("on together with {first}; only one is supported")))
        }
    }
}

/// Vectors that pass through a step that we leave out would be silently wrong.
fn check_modules(file: &Path, value: &Value) -> Result<()> {
    let Some(modules) = value.as_array() else {
        return Err(ModelError::file(file, "not a JSON array"));
    };
    for module in modules {
        let fields = Fields::new(file, module)?;
        let name = fields.text("type")?.unwrap_or_default();
        let class = name.rsplit('.').next().unwrap_or(name);
        if !MODULES.contains(&class) {
            let known = MODULES.join(", ");
            return Err(fields.bad("type", format!("`{name}` is not supported, only {known}")));
        }
    }
    Ok(())
}
