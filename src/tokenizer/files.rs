//! Reading the small files beside a checkpoint, with errors that name them.

use super::TokenizerError;
use serde_json::Value;
use std::path::Path;

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path).map_err(|source| TokenizerError::Io { path: path.to_owned(), source })
}

/// Reads a JSON file if it is there; `Null` if not.
pub(super) fn read_json(path: &Path) -> Result<Value, TokenizerError> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&read(path)?).map_err(|e| TokenizerError::invalid(path, e))
}

/// What the files beside a tokenizer say of its control tokens.
pub(super) struct Config {
    /// `tokenizer_config.json`, `Null` where missing.
    pub tokenizer: Value,
    pub bos: Option<String>,
    pub eos: Option<String>,
    /// End tokens of `generation_config.json` and `config.json`.
    pub stop_ids: Vec<u32>,
}

impl Config {
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let tokenizer = read_json(&folder.join("tokenizer_config.json"))?;
        let map = read_json(&folder.join("special_tokens_map.json"))?;
        let named = |key: &str| token_text(&tokenizer[key]).or_else(|| token_text(&map[key]));
        let mut stop_ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            let path = folder.join(file);
            let value = read_json(&path)?;
            stop_ids.extend(token_ids(&value["eos_token_id"]).ok_or_else(|| {
                TokenizerError::invalid(&path, "field eos_token_id: expected a token id or a list")
            })?);
        }
        Ok(Self { bos: named("bos_token"), eos: named("eos_token"), tokenizer, stop_ids })
    }
}

/// A token is written as a string or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// One id, a list of them, or none at all.
fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}
