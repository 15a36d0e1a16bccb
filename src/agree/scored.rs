//! Scored responses beside labels: the agreement of scores that are there already.
//!
//! An answer of the labels is found among the scored responses by its question and its text, and by
//! its document where the label has one. Where it has none, the answer must have been scored on one
//! document only.

use super::judging::{Details, Found, Judged, Variant};
use super::labels::{Item, Kind, Pair, Rating};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Row, RowError, read_rows};
use crate::pipeline::records::{EarlyStop, SampleId, input_hash};
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
    /// Labels without a document whose answers were scored on several.
    pub ambiguous: Vec<String>,
    /// Labels of which early stop left an answer without all its scores: a mean of those that are there is of
    /// other dimensions than the means of others.
    pub stopped: Vec<String>,
}

/// An answer to a question about some document.
#[derive(Debug)]
struct Answered {
    document: Document,
    /// `None` where early stop left some out.
    details: Option<Details>,
}

/// As far as a row tells which.
#[derive(Debug, PartialEq)]
enum Document {
    /// Over document, question and answer.
    Hash(String),
    /// In files of other programs.
    Prompt(u64),
}

/// Answers by question and text.
type Answers = HashMap<String, Vec<Answered>>;

/// Why an answer has no score.
enum Missing {
    Without,
    Ambiguous,
    Stopped,
}

/// Finds the scores of labelled answers. Claims have none.
///
/// # Errors
/// [`Error::Io`].
pub fn matched(items: &[Item], scored: &Path) -> Result<Matched, Error> {
    let mut answers = Answers::new();
    let problems = read_rows(scored, |row| {
        let (key, answered) = answered(row)?;
        let known = answers.entry(key).or_default();
        if known.iter().all(|one| one.document != answered.document) {
            known.push(answered);
        }
        Ok(())
    })?;
    let mut matched = Matched { problems, ..Matched::default() };
    for item in items {
        match found(item, &answers) {
            Ok(found) => matched.judged.push(record(item, found)),
            Err(Missing::Without) => matched.without.push(item.idx.clone()),
            Err(Missing::Ambiguous) => matched.ambiguous.push(item.idx.clone()),
            Err(Missing::Stopped) => matched.stopped.push(item.idx.clone()),
        }
    }
    Ok(matched)
}

fn key(query: &str, answer: &str) -> String {
    input_hash(&[query, answer])
}

fn found(item: &Item, answers: &Answers) -> Result<Found, Missing> {
    let get = |query: &str, context: &Option<String>, answer: &str| {
        let found = answer_on(answers, query, context.as_deref(), answer)?;
        found.details.clone().map(Box::new).ok_or(Missing::Stopped)
    };
    match &item.kind {
        Kind::Support(_) => Err(Missing::Without),
        Kind::Pairwise(Pair { query, context, responses: [a, b], .. }) => {
            Ok(Found::Pairwise { a: get(query, context, a)?, b: get(query, context, b)? })
        }
        Kind::Rating(Rating { query, context, answer, .. }) => {
            Ok(Found::Rating { details: get(query, context, answer)? })
        }
    }
}

/// An answer on this document, or on the only one. A file of another program does not tell
/// documents, so that there the only one will do.
fn answer_on<'a>(
    answers: &'a Answers,
    query: &str,
    context: Option<&str>,
    answer: &str,
) -> Result<&'a Answered, Missing> {
    let known = answers.get(&key(query, answer)).ok_or(Missing::Without)?;
    let hash = context.map(|context| input_hash(&[&input_hash(&[context, query]), answer]));
    let may_be = |one: &&Answered| match (&one.document, &hash) {
        (Document::Hash(is), Some(wanted)) => is == wanted,
        _ => true,
    };
    let exact = known.iter().find(|one| matches!(&one.document, Document::Hash(_)) && may_be(one));
    if let (Some(exact), true) = (exact, hash.is_some()) {
        return Ok(exact);
    }
    let mut found = known.iter().filter(may_be);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Missing::Without),
        (Some(_), Some(_)) => Err(Missing::Ambiguous),
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
fn answered(mut row: Row) -> Result<(String, Answered), RowError> {
    let key = key(&row.take_string("query")?, &row.take_string("answer")?);
    let document = match row.take_optional_string("input_hash")? {
        Some(hash) => Document::Hash(hash),
        None => {
            let id: Result<SampleId, String> = row.take_string("idx")?.parse();
            Document::Prompt(id.map_err(|why| row.error(Some("idx"), why))?.prompt)
        }
    };
    if EarlyStop::is_in(&row) {
        return Ok((key, Answered { document, details: None }));
    }
    let details = Details::take(&mut row)?;
    match details.verdicts().is_empty() {
        true => Err(row.error(Some("details"), "has no verdict that is known")),
        false => Ok((key, Answered { document, details: Some(details) })),
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
        let mut stopped = response("w");
        stopped["early_stop"] = json!({});
        let rows = [
            response("x"),
            response("y"),
            json!({"idx": "1-2", "query": "q", "answer": "z"}),
            stopped,
        ];
        std::fs::write(&scored, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let rows = [
            json!({"query": "q", "response_a": "x", "response_b": "y", "label": "a"}),
            json!({"query": "q", "response_a": "x", "response_b": "?", "label": "a"}),
            json!({"query": "q", "answer": "y", "rating": 3}),
            json!({"claim": "c", "evidence": "e", "label": "supported"}),
            json!({"query": "q", "response_a": "x", "response_b": "w", "label": "a"}),
        ];
        std::fs::write(&labels, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let items = Labels::read(&labels, Format::Auto, None).unwrap().items;
        let found = matched(&items, &scored).unwrap();
        let ids: Vec<&str> = found.judged.iter().map(|record| record.idx.as_str()).collect();
        assert_eq!(
            (ids, found.without),
            (vec!["1#0", "3#0"], vec!["2".to_owned(), "4".to_owned()])
        );
        assert_eq!(found.stopped, ["5"]);
        assert!(found.judged[0].forced);
        assert!(found.problems[0].to_string().contains("scored:3: field \"details\" is missing"));
    }

    #[test]
    fn the_same_answer_on_another_document_is_another_answer() {
        let dir = tempfile::tempdir().unwrap();
        let [labels, scored] = ["labels", "scored"].map(|name| dir.path().join(name));
        let scored_on = |idx: &str, context: &str, score: f64| {
            let rated = json!({"analysis": "", "score": score, "attempts": 1, "forced": false,
                               "distribution": [], "expected": null});
            let hash = input_hash(&[&input_hash(&[context, "q"]), "x"]);
            json!({"idx": idx, "query": "q", "answer": "x", "details": {"helpfulness": rated},
                   "input_hash": hash})
        };
        let rows = [scored_on("1-0", "one", 1.0), scored_on("2-0", "two", 9.0)];
        std::fs::write(&scored, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let rated = |context: Option<&str>| match context {
            Some(context) => {
                json!({"query": "q", "context": context, "answer": "x", "rating": 3})
            }
            None => json!({"query": "q", "answer": "x", "rating": 3}),
        };
        let rows = [rated(Some("two")), rated(Some("one")), rated(Some("three")), rated(None)];
        std::fs::write(&labels, rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let items = Labels::read(&labels, Format::Auto, None).unwrap().items;
        let found = matched(&items, &scored).unwrap();
        let scores: Vec<f64> = found
            .judged
            .iter()
            .filter_map(|record| match &record.found {
                Found::Rating { details } => details.mean(),
                _ => None,
            })
            .collect();
        assert_eq!(scores, [9.0, 1.0]);
        assert_eq!((found.without, found.ambiguous), (vec!["3".to_owned()], vec!["4".to_owned()]));
    }
}
