//! The rows of `predictions.jsonl` and `verdicts.jsonl`.

use crate::chat::Finish;
use crate::judge::Rated;
use crate::pipeline::Error;
use crate::pipeline::jsonl::read_rows;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// What a model answered. `pred`, `answers`, `all_classes` and `length` are what the suite's public
/// scorer reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// `"<set>/<line>"`.
    pub idx: String,
    pub dataset: String,
    #[serde(rename = "_id", skip_serializing_if = "Option::is_none", default)]
    pub row_id: Option<String>,
    pub query: String,
    pub pred: String,
    pub answers: Vec<String>,
    pub all_classes: Option<Vec<String>>,
    pub length: Option<u64>,
    /// Tokens of the whole input.
    pub input_tokens: usize,
    /// Those that were cut out of its middle.
    pub cut_tokens: usize,
    pub finish: Finish,
    pub input_hash: String,
}

/// What the judge says of a prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Of the prediction.
    pub idx: String,
    pub dataset: String,
    /// The best over the references, 0 to 1.
    pub score: f64,
    /// The reference with it, the first of equals.
    pub best: usize,
    /// Against each reference; `score` is the rating.
    pub verdicts: Vec<Rated>,
    /// Whether the best verdict was forced.
    pub forced: bool,
    /// Over what was predicted from, and the prediction.
    pub input_hash: String,
}

/// Reads a file that this program wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::Damaged`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let mut records = Vec::new();
    let problems = read_rows(path, |row| {
        let place = row.place;
        let record = serde_json::from_value(Value::Object(row.fields));
        records.push(record.map_err(|why| place.error(None, format!("is no such record: {why}")))?);
        Ok(())
    })?;
    match problems.into_iter().next() {
        None => Ok(records),
        Some(problem) => Err(Error::Damaged(problem)),
    }
}
