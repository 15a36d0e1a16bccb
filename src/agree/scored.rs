//! Scored responses beside labels: the agreement of scores that are there already.
//!
//! An answer of the labels is found among the scored responses by its question and its text.

use super::judging::{Details, Found, Judged, Variant};
use super::labels::{Item, Kind};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Row, RowError, read_rows};
use crate::pipeline::records::input_hash;

use std::collections::HashMap;
use std::path::Path;

/// What a file of scored responses says of labelled rows.
#[derive(Debug, Default)]
pub struct Matched {
    pub judged: Vec<Judged>,
    /// Bad rows of the scored file.
    pub problems: Vec<RowError>,
    /// Labels whose answers were not all scored.
    pub without: Vec<String>,
}

/// Finds the scores of labelled answers. Claims have none.
///
/// # Errors
/// [`Error::Io`].
pub fn matched(items: &[Item], scored: &Path) -> Result<Matched, Error> {
    let mut answers: HashMap<String, Details> = HashMap::new();
    let problems = read_rows(scored, |row| {
        let (key, answered) = answered(row)?;
        answers.entry(key).or_insert(answered);
        Ok(())
    })?;
    let mut matched = Matched { problems, ..Matched::default() };
    for item in items {
        match found(item, &answers) {
            Some(found) => matched.judged.push(record(item, found)),
            None => matched.without.push(item.idx.clone()),
        }
    }
    Ok(matched)
}

fn key(query: &str, answer: &str) -> String {
    input_hash(&[query, answer])
}

fn found(item: &Item, answers: &HashMap<String, Details>) -> Option<Found> {
    let get = |query: &str, answer: &str| answers.get(&key(query, answer)).cloned().map(Box::new);
    match &item.kind {
        Kind::Support(_) => None,
        Kind::Pairwise(pair) => {
            let [a, b] = &pair.responses;
            Some(Found::Pairwise { a: get(&pair.query, a)?, b: get(&pair.query, b)? })
        }
        Kind::Rating(row) => Some(Found::Rating { details: get(&row.query, &row.answer)? }),
    }
}

fn record(item: &Item, found: Found) -> Judged {
    let forced = match &found {
        Found::Support { details } => details.forced,
        Found::Pairwise { a, b } => a.forced() || b.forced(),
        Found::Rating { details } => details.forced(),
    };
    let variant = Variant::Plain;
    let (idx, input_hash) = (Judged::id(&item.idx, 0, variant), item.hash());
    Judged { idx, item: item.idx.clone(), run: 0, variant, found, forced, input_hash }
}

/// The verdicts of a row of `scored_responses.jsonl`.
fn answered(mut row: Row) -> Result<(String, Details), RowError> {
    let key = key(&row.take_string("query")?, &row.take_string("answer")?);
    let found = Details::take(&mut row)?;
    match found.verdicts().is_empty() {
        true => Err(row.error(Some("details"), "has no verdict that is known")),
        false => Ok((key, found)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Format, Labels};
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_found_by_their_text() {
        let dir = tempfile::tempdir().unwrap();
        let [labels, scored] = ["labels", "scored"].map(|name| dir.path().join(name));
        let rated = json!({"analysis": "", "score": 7.0, "attempts": 1, "forced": true,
                           "distribution": [], "expected": null});
        let response = |answer: &str| {
            let details = json!({"helpfulness": rated});
            json!({"idx": "1-0", "query": "q", "answer": answer, "details": details})
        };
        let rows = [response("x"), response("y"), json!({"query": "q", "answer": "z"})];
        std::fs::write(&scored, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let rows = [
            json!({"query": "q", "response_a": "x", "response_b": "y", "label": "a"}),
            json!({"query": "q", "response_a": "x", "response_b": "?", "label": "a"}),
            json!({"query": "q", "answer": "y", "rating": 3}),
            json!({"claim": "c", "evidence": "e", "label": "supported"}),
        ];
        std::fs::write(&labels, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let items = Labels::read(&labels, Format::Auto, None).unwrap().items;
        let found = matched(&items, &scored).unwrap();
        let ids: Vec<&str> = found.judged.iter().map(|record| record.idx.as_str()).collect();
        assert_eq!(
            (ids, found.without),
            (vec!["1#0", "3#0"], vec!["2".to_owned(), "4".to_owned()])
        );
        assert!(found.judged[0].forced);
        assert!(found.problems[0].to_string().contains("scored:3: field \"details\" is missing"));
    }
}
