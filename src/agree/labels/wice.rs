//! WiCE (Kamoi et al. 2023): claims of Wikipedia against the pages that they cite.
//!
//! A row has `claim`, `evidence` (sentences), `label` in the three names that this program uses,
//! `supporting_sentences` (sets of numbers, one for each annotator) and `meta` with `id`.

use super::own::{named, take_evidence, take_sets, take_text};
use super::{Claim, Level};
use crate::pipeline::jsonl::{Row, RowError};
use serde_json::Value;

const SUPPORTING: &str = "supporting_sentences";

/// Whether a row looks like one of WiCE.
pub fn matches(row: &Row) -> bool {
    row.fields.contains_key("claim") && row.fields.contains_key(SUPPORTING)
}

/// # Errors
/// If a field is missing or has another type.
pub fn claim(row: &mut Row) -> Result<Claim, RowError> {
    let claim = take_text(row, "claim")?;
    let evidence = take_evidence(row)?;
    let label = row.take("label")?;
    let label = named(row, "label", &label, &Level::ALL.map(|level| (level.name(), level)))?;
    let supporting = take_sets(row, SUPPORTING, evidence.len())?;
    Ok(Claim { query: String::new(), claim, evidence, label, votes: Vec::new(), supporting })
}

/// `meta.id`, if it is there.
pub fn idx(row: &Row) -> Option<String> {
    row.fields.get("meta")?.get("id").and_then(Value::as_str).map(str::to_owned)
}
