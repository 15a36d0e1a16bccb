//! Rows in the format of this program; see the table in [`super`].

use super::{Claim, Kind, Level, Pair, Preference, Rating, most_frequent};
use crate::pipeline::jsonl::{Row, RowError};
use serde_json::Value;
use std::collections::BTreeSet;

/// Reads a row of any kind.
pub fn kind(row: &mut Row) -> Result<Kind, RowError> {
    let has = |field: &str| row.fields.contains_key(field);
    if has("claim") {
        support(row).map(Kind::Support)
    } else if has("response_a") || has("response_b") {
        pairwise(row).map(Kind::Pairwise)
    } else if has("answer") {
        rating(row).map(Kind::Rating)
    } else {
        let why =
            "has no field \"claim\" (support), \"response_a\" (pairwise) or \"answer\" (rating)";
        Err(row.error(None, why))
    }
}

fn support(row: &mut Row) -> Result<Claim, RowError> {
    let query = row.take_optional_string("query")?.unwrap_or_default();
    let claim = take_text(row, "claim")?;
    let evidence = take_evidence(row)?;
    let (label, votes) = take_labels(row, &Level::ALL.map(|level| (level.name(), level)))?;
    let supporting = match row.fields.contains_key("supporting") {
        true => take_sets(row, "supporting", evidence.len())?,
        false => Vec::new(),
    };
    Ok(Claim { query, claim, evidence, label, votes, supporting })
}

fn pairwise(row: &mut Row) -> Result<Pair, RowError> {
    let (query, context) = take_prompt(row)?;
    let responses = [row.take_string("response_a")?, row.take_string("response_b")?];
    let names = Preference::ALL.map(|preference| (preference.name(), preference));
    let (label, votes) = take_labels(row, &names)?;
    let authors = [row.take_optional_string("author_a")?, row.take_optional_string("author_b")?];
    Ok(Pair { query, context, responses, authors, label, votes })
}

fn rating(row: &mut Row) -> Result<Rating, RowError> {
    let (query, context) = take_prompt(row)?;
    let answer = row.take_string("answer")?;
    let author = row.take_optional_string("author")?;
    let number = |row: &Row, field: &str, value: &Value| {
        value.as_f64().ok_or_else(|| row.wrong_type(field, "a number", value))
    };
    if !row.fields.contains_key("ratings") {
        let value = row.take("rating")?;
        let rating = number(row, "rating", &value)?;
        return Ok(Rating { query, context, answer, author, rating, votes: Vec::new() });
    }
    let values = take_list(row, "ratings")?;
    let votes = values.iter().map(|value| number(row, "ratings", value));
    let votes = votes.collect::<Result<Vec<f64>, _>>()?;
    let rating = crate::agree::metrics::mean(&votes);
    let rating = rating.ok_or_else(|| row.error(Some("ratings"), "is empty"))?;
    Ok(Rating { query, context, answer, author, rating, votes })
}

fn take_prompt(row: &mut Row) -> Result<(String, Option<String>), RowError> {
    let query = row.take_string("query")?;
    let context = row.take_optional_string("context")?;
    Ok((query, context.filter(|context| !context.trim().is_empty())))
}

/// Takes a string that is not blank.
pub fn take_text(row: &mut Row, field: &str) -> Result<String, RowError> {
    let text = row.take_string(field)?;
    match text.trim().is_empty() {
        true => Err(row.error(Some(field), "is empty")),
        false => Ok(text),
    }
}

/// Takes `evidence`: a text or a list of texts, not all of them blank.
pub fn take_evidence(row: &mut Row) -> Result<Vec<String>, RowError> {
    const FIELD: &str = "evidence";
    let texts = match row.take(FIELD)? {
        Value::String(text) => vec![text],
        Value::Array(values) => values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(text),
                other => Err(row.wrong_type(FIELD, "a list of strings", &other)),
            })
            .collect::<Result<_, _>>()?,
        other => return Err(row.wrong_type(FIELD, "a string or a list of strings", &other)),
    };
    match texts.iter().all(|text| text.trim().is_empty()) {
        true => Err(row.error(Some(FIELD), "is empty")),
        false => Ok(texts),
    }
}

/// Takes sets of numbers of sentences, each number once; a flat list is one set. Empty sets are left out.
pub fn take_sets(
    row: &mut Row,
    field: &str,
    sentences: usize,
) -> Result<Vec<Vec<usize>>, RowError> {
    let values = take_list(row, field)?;
    let flat = values.iter().any(Value::is_number);
    let sets = if flat { vec![Value::Array(values)] } else { values };
    let wanted = "a list of sentence numbers, or of lists of them";
    let set = |value: &Value| {
        let numbers = value.as_array().ok_or_else(|| row.wrong_type(field, wanted, value))?;
        numbers.iter().map(|number| sentence(row, field, number, sentences)).collect()
    };
    let sets: Vec<BTreeSet<usize>> = sets.iter().map(set).collect::<Result<_, _>>()?;
    let sets = sets.into_iter().map(Vec::from_iter);
    Ok(sets.filter(|set| !set.is_empty()).collect())
}

fn sentence(row: &Row, field: &str, value: &Value, sentences: usize) -> Result<usize, RowError> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    let number = number.ok_or_else(|| row.wrong_type(field, "a sentence number", value))?;
    match number < sentences {
        true => Ok(number),
        false => {
            let why = format!("names sentence {number}, but the evidence has {sentences} (from 0)");
            Err(row.error(Some(field), why))
        }
    }
}

/// Takes `labels`, or `label`; gives the one that counts, and all votes if there are several.
fn take_labels<T: Ord + Copy>(row: &mut Row, names: &[(&str, T)]) -> Result<(T, Vec<T>), RowError> {
    if !row.fields.contains_key("labels") {
        let value = row.take("label")?;
        return Ok((named(row, "label", &value, names)?, Vec::new()));
    }
    let values = take_list(row, "labels")?;
    let votes = values.iter().map(|value| named(row, "labels", value, names));
    let votes = votes.collect::<Result<Vec<T>, _>>()?;
    let label = most_frequent(&votes);
    Ok((label.ok_or_else(|| row.error(Some("labels"), "is empty"))?, votes))
}

/// The value that a string names.
pub fn named<T: Copy>(
    row: &Row,
    field: &str,
    value: &Value,
    names: &[(&str, T)],
) -> Result<T, RowError> {
    let found = value.as_str().and_then(|text| names.iter().find(|(name, _)| *name == text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
        row.error(Some(field), format!("should be {}, but is {value}", names.join(" or ")))
    })
}

fn take_list(row: &mut Row, field: &str) -> Result<Vec<Value>, RowError> {
    match row.take(field)? {
        Value::Array(values) => Ok(values),
        other => Err(row.wrong_type(field, "a list", &other)),
    }
}
