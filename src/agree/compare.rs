//! Two files of scores on the same answers: two judges, two prompt languages, two settings.

use super::judging::{Details, Found, Judged};
use super::metrics::{
    Bootstrap, Metrics, PairCounts, clusters, kendall, mean, mean_absolute_difference, pearson,
    spearman,
};
use super::summary::within_prompts;
use crate::judge::Dimension;
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Row, RowError, read_rows};
use crate::pipeline::records::{SampleId, input_hash};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// How far two files agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    /// In both files.
    pub answers: usize,
    pub prompts: usize,
    /// Answers that only one of the files has.
    pub only_a: usize,
    pub only_b: usize,
    pub bootstrap: Bootstrap,
    /// Each dimension, then what they come to.
    pub scores: Vec<Compared>,
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub name: String,
    /// Answers that have it in both files.
    pub answers: usize,
    /// `pearson`, `spearman`, `kendall`, `mean_absolute_difference`, `mean_difference` (b less a);
    /// within prompts, a being the label: `accuracy_with_ties`, `accuracy_without_ties`,
    /// `accuracy_ties_half`.
    pub metrics: Metrics,
    /// Pairs of answers to the same prompt.
    pub pairs: PairCounts,
}

/// Scores that stand in a file, by dimension.
#[derive(Debug, Clone, PartialEq)]
struct Scored {
    id: String,
    prompt: String,
    /// Over what was scored.
    hash: String,
    scores: Vec<(String, f64)>,
}

/// Compares two files of scored responses, or two outputs of [`judging`](super::judging). An answer
/// that is not the same text in both is a bad row.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tools`] if no answer is in both.
pub fn compare(
    a: &Path,
    b: &Path,
    bootstrap: Bootstrap,
) -> Result<(Comparison, Vec<RowError>), Error> {
    let (in_a, mut problems) = read(a, &HashMap::new())?;
    let by_id: HashMap<String, Scored> =
        in_a.iter().map(|scored| (scored.id.clone(), scored.clone())).collect();
    let (in_b, more) = read(b, &by_id)?;
    problems.extend(more);
    let both: Vec<(&Scored, &Scored)> =
        in_b.iter().filter_map(|b| Some((by_id.get(&b.id)?, b))).collect();
    if both.is_empty() {
        let (a, b) = (a.display(), b.display());
        return Err(Error::Tools(format!("{a} and {b} have no answer in common")));
    }
    let names = names(&both);
    let scores = names.iter().map(|name| compared(name, &both, &bootstrap)).collect();
    let comparison = Comparison {
        a: a.display().to_string(),
        b: b.display().to_string(),
        answers: both.len(),
        prompts: clusters(both.iter().map(|(a, _)| &a.prompt)).len(),
        only_a: in_a.len() - both.len(),
        only_b: in_b.len() - both.len(),
        bootstrap,
        scores,
    };
    Ok((comparison, problems))
}

/// Dimensions that some answer has in both files, in the order of the first.
fn names(both: &[(&Scored, &Scored)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in both.iter().flat_map(|(a, _)| &a.scores) {
        let in_both = || both.iter().any(|(a, b)| a.get(name).and(b.get(name)).is_some());
        if !names.contains(name) && in_both() {
            names.push(name.clone());
        }
    }
    names
}

impl Scored {
    fn get(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|(other, _)| other == name).map(|(_, score)| *score)
    }
}

fn compared(name: &str, both: &[(&Scored, &Scored)], bootstrap: &Bootstrap) -> Compared {
    let having = both.iter().filter_map(|(a, b)| Some((&a.prompt, a.get(name)?, b.get(name)?)));
    let having: Vec<(&String, f64, f64)> = having.collect();
    let prompts = clusters(having.iter().map(|(prompt, ..)| prompt));
    let a: Vec<f64> = having.iter().map(|(_, a, _)| *a).collect();
    let b: Vec<f64> = having.iter().map(|(.., b)| *b).collect();
    let mut metrics = bootstrap.estimate(&prompts, |items| {
        let pick = |values: &[f64]| items.iter().map(|&item| values[item]).collect::<Vec<_>>();
        let (a, b) = (pick(&a), pick(&b));
        let differences: Vec<f64> = b.iter().zip(&a).map(|(b, a)| b - a).collect();
        vec![
            ("pearson", pearson(&a, &b)),
            ("spearman", spearman(&a, &b)),
            ("kendall", kendall(&a, &b)),
            ("mean_absolute_difference", mean_absolute_difference(&a, &b)),
            ("mean_difference", mean(&differences)),
        ]
    });
    metrics.extend(within_prompts(&a, &b, &prompts, bootstrap));
    let pairs = PairCounts::within(&prompts, &a, &b);
    Compared { name: name.to_owned(), answers: having.len(), metrics, pairs }
}

/// Reads a file of scores. `known` are those of the other file, whose texts must be the same.
fn read(
    path: &Path,
    known: &HashMap<String, Scored>,
) -> Result<(Vec<Scored>, Vec<RowError>), Error> {
    let mut found: Vec<Scored> = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    let problems = read_rows(path, |row| {
        let place = row.place.clone();
        for scored in scored(row)? {
            if let Some(line) = seen.insert(scored.id.clone(), place.line) {
                return Err(place.error(Some("idx"), format!("is the same as on line {line}")));
            }
            if known.get(&scored.id).is_some_and(|other| other.hash != scored.hash) {
                let why = "has another text in the other file";
                return Err(place.error(Some("idx"), why));
            }
            found.push(scored);
        }
        Ok(())
    })?;
    Ok((found, problems))
}

fn scored(row: Row) -> Result<Vec<Scored>, RowError> {
    match row.fields.contains_key("kind") {
        true => judged(row),
        false => response(row).map(|scored| vec![scored]),
    }
}

/// A row of `scored_responses.jsonl`.
fn response(mut row: Row) -> Result<Scored, RowError> {
    let id = row.take_string("idx")?;
    let idx: SampleId = id.parse().map_err(|why: String| row.error(Some("idx"), why))?;
    let hash = input_hash(&[&row.take_string("query")?, &row.take_string("answer")?]);
    let given = row.take_object("scores")?;
    let names = Dimension::ALL.iter().map(|dimension| dimension.name()).chain(["total"]);
    let mut scores = Vec::new();
    for name in names {
        // Early stop leaves out scores.
        let Some(value) = given.get(name).filter(|value| !value.is_null()) else { continue };
        let field = format!("scores.{name}");
        let score = value.as_f64().ok_or_else(|| row.wrong_type(&field, "a number", value))?;
        scores.push((name.to_owned(), score));
    }
    if scores.is_empty() {
        return Err(row.error(Some("scores"), "has no score that is known"));
    }
    Ok(Scored { id, prompt: idx.prompt.to_string(), hash, scores })
}

/// A row of labels that were judged: a claim, an answer, or two.
fn judged(row: Row) -> Result<Vec<Scored>, RowError> {
    let place = row.place;
    let record: Judged = serde_json::from_value(Value::Object(row.fields))
        .map_err(|e| place.error(None, format!("is no such record: {e}")))?;
    let Judged { idx, found, input_hash: hash, .. } = record;
    let scored = |suffix: &str, scores: Vec<(String, f64)>| Scored {
        id: format!("{idx}{suffix}"),
        prompt: idx.clone(),
        hash: hash.clone(),
        scores,
    };
    Ok(match &found {
        Found::Support { details } => {
            vec![scored("", vec![("support".to_owned(), details.score)])]
        }
        Found::Pairwise { a, b } => vec![scored("/a", means(a)), scored("/b", means(b))],
        Found::Rating { details } => vec![scored("", means(details))],
    })
}

fn means(answer: &Details) -> Vec<(String, f64)> {
    let scores = answer.verdicts();
    let scores = scores.iter().map(|score| (score.dimension.name().to_owned(), score.score));
    scores.chain(answer.mean().map(|mean| ("mean".to_owned(), mean))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn row(idx: &str, answer: &str, scores: [f64; 2]) -> String {
        let scores = BTreeMap::from([("helpfulness", scores[0]), ("total", scores[1])]);
        let row = serde_json::json!({"idx": idx, "query": "q", "answer": answer, "scores": scores});
        format!("{row}\n")
    }

    fn run(a: &str, b: &str) -> Result<(Comparison, Vec<RowError>), Error> {
        let dir = tempfile::tempdir().unwrap();
        let [path_a, path_b] = ["a.jsonl", "b.jsonl"].map(|name| dir.path().join(name));
        std::fs::write(&path_a, a).unwrap();
        std::fs::write(&path_b, b).unwrap();
        compare(&path_a, &path_b, Bootstrap { resamples: 20, seed: 0 })
    }

    #[test]
    fn answers_are_joined_by_their_ids() {
        let a = row("1-0", "x", [1.0, 10.0])
            + &row("1-1", "y", [2.0, 20.0])
            + &row("2-0", "z", [5.0, 9.0]);
        let b = row("1-1", "y", [4.0, 10.0])
            + &row("1-0", "x", [1.0, 15.0])
            + &row("3-0", "z", [5.0, 9.0]);
        let (found, problems) = run(&a, &b).unwrap();
        assert_eq!((found.answers, found.prompts, found.only_a, found.only_b), (2, 1, 1, 1));
        assert_eq!(problems, []);
        let names: Vec<&str> = found.scores.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["helpfulness", "total"]);
        let value = |i: usize, name: &str| found.scores[i].metrics[name].value;
        assert_eq!(value(0, "accuracy_with_ties"), Some(1.0));
        assert_eq!((value(1, "pearson"), value(1, "accuracy_with_ties")), (Some(-1.0), Some(0.0)));
        assert_eq!(value(1, "mean_absolute_difference"), Some(7.5));
        assert_eq!(value(1, "mean_difference"), Some(-2.5));
    }

    #[test]
    fn other_texts_under_the_same_id_are_refused() {
        let a = row("1-0", "x", [1.0, 10.0]) + &row("1-1", "y", [2.0, 20.0]);
        let b =
            row("1-0", "other", [1.0, 1.0]) + &row("1-1", "y", [2.0, 2.0]) + "{\"idx\":\"1-2\"}";
        let (found, problems) = run(&a, &b).unwrap();
        assert_eq!((found.answers, problems.len()), (1, 2));
        assert!(problems[0].to_string().contains("b.jsonl:1: field \"idx\" has another text"));
        let nothing = run(&a, &row("7-0", "x", [1.0, 1.0])).unwrap_err();
        assert!(nothing.to_string().contains("no answer in common"));
    }
}
