//! LLMBar (Zeng et al. 2024): an instruction, two outputs, and which of them follows it.
//!
//! A row has `input`, `output_1`, `output_2` and `label`, 1 or 2.

use super::{Pair, Preference};
use crate::pipeline::jsonl::{Row, RowError};

/// Whether a row looks like one of LLMBar.
pub fn matches(row: &Row) -> bool {
    row.fields.contains_key("output_1") && row.fields.contains_key("output_2")
}

/// # Errors
/// If a field is missing or has another type.
pub fn pair(row: &mut Row) -> Result<Pair, RowError> {
    let query = row.take_string("input")?;
    let responses = [row.take_string("output_1")?, row.take_string("output_2")?];
    let label = row.take("label")?;
    let label = match label.as_u64() {
        Some(1) => Preference::A,
        Some(2) => Preference::B,
        _ => return Err(row.error(Some("label"), format!("should be 1 or 2, but is {label}"))),
    };
    let authors = [const { None }; 2];
    Ok(Pair { query, context: None, responses, authors, label, votes: Vec::new() })
}
