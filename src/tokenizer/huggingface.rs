//! `tokenizer.json`, and what the pipelines read from it do at the edges of a text.

use super::files::{self, Config};
use super::{Definition, Pipeline, TokenizerError, caught, sha256_hex};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

pub(super) fn load(folder: &Path) -> Result<Definition, TokenizerError> {
    let path = folder.join("tokenizer.json");
    let bytes = files::read(&path)?;
    let not_json = |error| TokenizerError::invalid(&path, format!("not JSON: {error}"));
    // The crate `tokenizers` panics at wrong syntax in a decoder, and elsewhere names no place.
    serde_json::from_slice::<IgnoredAny>(&bytes).map_err(not_json)?;
    let mut pipeline = caught(&path, || {
        Pipeline::from_bytes(&bytes).map_err(|error| TokenizerError::invalid(&path, error))
    })?;
    // Settings of some training or other that files carry along.
    pipeline.with_padding(None);
    pipeline.with_truncation(None).map_err(|error| TokenizerError::invalid(&path, error))?;
    let config = Config::read(folder)?;
    let raw_prefix =
        raw_prefix(&pipeline).map_err(|error| TokenizerError::invalid(&path, error))?;
    let id = |text: &Option<String>| text.as_ref().and_then(|text| pipeline.token_to_id(text));
    let (bos, eos) = (id(&config.bos), id(&config.eos));
    let stop_tokens = config.stop_ids.into_iter().chain(eos).collect();
    let hash = sha256_hex(&[&bytes]);
    Ok(Definition { path, bos, eos, stop_tokens, raw_prefix, hash, pipeline })
}

/// What the pipeline puts before any text. (Some put something behind it, too.)
fn raw_prefix(pipeline: &Pipeline) -> tokenizers::Result<Vec<u32>> {
    let ids = |framed| pipeline.encode_fast("a", framed).map(|all| all.get_ids().to_vec());
    let (text, mut framed) = (ids(false)?, ids(true)?);
    let start = framed.windows(text.len().max(1)).position(|window| window == text);
    framed.truncate(start.unwrap_or(0));
    Ok(framed)
}

/// What a vocabulary does with the space before a text.
pub(super) struct Spacing {
    /// The pipeline that adds no space; `None` if none ever does.
    pub inner_text: Option<Pipeline>,
    /// The space is added at the very start only, not again after a control token.
    pub joins_after_special: bool,
}

/// Finds the steps that put a space before a text: the normalizer `Prepend` and the
/// pre-tokenizers `Metaspace` and `ByteLevel`, alone or in a sequence.
pub(super) fn spacing(pipeline: &Pipeline) -> Result<Spacing, String> {
    let mut normalizer = to_value(pipeline.get_normalizer())?;
    let mut pre_tokenizer = to_value(pipeline.get_pre_tokenizer())?;
    let joins_after_special = steps(&mut pre_tokenizer)
        .iter()
        .any(|step| step["type"] == "Metaspace" && step["prepend_scheme"] == "first");

    let prepends = drop_prepend(&mut normalizer);
    let mut spaces = false;
    for step in steps(&mut pre_tokenizer) {
        spaces |= drop_prefix_space(step);
    }
    if !prepends && !spaces {
        return Ok(Spacing { inner_text: None, joins_after_special: false });
    }
    let mut inner = pipeline.clone();
    let normalizer: Option<NormalizerWrapper> = from_value(normalizer)?;
    let pre_tokenizer: Option<PreTokenizerWrapper> = from_value(pre_tokenizer)?;
    inner.with_normalizer(normalizer).map_err(|e| e.to_string())?;
    inner.with_pre_tokenizer(pre_tokenizer);
    Ok(Spacing { inner_text: Some(inner), joins_after_special })
}

/// The steps of a component, which is one step or a sequence of them.
fn steps(component: &mut Value) -> Vec<&mut Value> {
    if component["type"] != "Sequence" {
        return vec![component];
    }
    let Some(fields) = component.as_object_mut() else { return Vec::new() };
    let lists = fields.values_mut().filter_map(Value::as_array_mut);
    lists.flatten().collect()
}

/// Removes `Prepend`; tells whether there was one.
fn drop_prepend(normalizer: &mut Value) -> bool {
    let is_prepend = |step: &Value| step["type"] == "Prepend";
    if is_prepend(normalizer) {
        *normalizer = Value::Null;
        return true;
    }
    let Some(list) = normalizer.get_mut("normalizers").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|step| !is_prepend(step));
    list.len() < before
}

/// Turns the leading space off; tells whether it was on.
fn drop_prefix_space(step: &mut Value) -> bool {
    let (field, off) = match step["type"].as_str() {
        Some("Metaspace") => ("prepend_scheme", json!("never")),
        Some("ByteLevel") => ("add_prefix_space", json!(false)),
        _ => return false,
    };
    let was_on = step[field] != off;
    step[field] = off;
    was_on
}

fn to_value(component: Option<impl serde::Serialize>) -> Result<Value, String> {
    serde_json::to_value(component).map_err(|e| e.to_string())
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<Option<T>, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}
