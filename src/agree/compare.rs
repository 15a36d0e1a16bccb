//! Two files of scores on the same answers: two judges, two prompt languages, two settings.

use super::judging::{Details, Found, Judged};
use super::labels::Item;
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

/// Compares two files of scored responses, or two outputs of [`judging`](super::judging), of these
/// the verdicts of run 0 on rows as they are: other runs and variants are no further answers. An
/// answer that is not the same text in both is a bad row. `labels` say which rows of the latter are
/// on the same prompt; without them, only the two answers of a pair are.
/// The comparison is `None` if no answer is in both.
///
/// # Errors
/// [`Error::Io`].
pub fn compare(
    a: &Path,
    b: &Path,
    labels: &[Item],
    bootstrap: Bootstrap,
) -> Result<(Option<Comparison>, Vec<RowError>), Error> {
    let prompts: HashMap<&str, String> =
        labels.iter().map(|item| (item.idx.as_str(), item.prompt())).collect();
    let (in_a, mut problems) = read(a, &HashMap::new(), &prompts)?;
    let by_id: HashMap<String, Scored> =
        in_a.iter().map(|scored| (scored.id.clone(), scored.clone())).collect();
    let (in_b, more) = read(b, &by_id, &prompts)?;
    problems.extend(more);
    let both: Vec<(&Scored, &Scored)> =
        in_b.iter().filter_map(|b| Some((by_id.get(&b.id)?, b))).collect();
    if both.is_empty() {
        return Ok((None, problems));
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
    Ok((Some(comparison), problems))
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
    prompts: &HashMap<&str, String>,
) -> Result<(Vec<Scored>, Vec<RowError>), Error> {
    let mut found: Vec<Scored> = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    let problems = read_rows(path, |row| {
        let place = row.place.clone();
        for scored in scored(row, prompts)? {
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

fn scored(row: Row, prompts: &HashMap<&str, String>) -> Result<Vec<Scored>, RowError> {
    match row.fields.contains_key("kind") {
        true => judged(row, prompts),
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

/// A row of labels that were judged: a claim, an answer, or two; none of another run or variant.
fn judged(row: Row, prompts: &HashMap<&str, String>) -> Result<Vec<Scored>, RowError> {
    let place = row.place;
    let record: Judged = serde_json::from_value(Value::Object(row.fields))
        .map_err(|e| place.error(None, format!("is no such record: {e}")))?;
    let Judged { idx, item, run, variant, found, input_hash: hash, .. } = record;
    if run > 0 || !variant.is_plain() {
        return Ok(Vec::new());
    }
    let prompt = prompts.get(item.as_str()).unwrap_or(&item);
    let scored = |suffix: &str, scores: Vec<(String, f64)>| Scored {
        id: format!("{idx}{suffix}"),
        prompt: prompt.clone(),
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

    fn run(a: &str, b: &str) -> (Option<Comparison>, Vec<RowError>) {
        let dir = tempfile::tempdir().unwrap();
        let [path_a, path_b] = ["a.jsonl", "b.jsonl"].map(|name| dir.path().join(name));
        std::fs::write(&path_a, a).unwrap();
        std::fs::write(&path_b, b).unwrap();
        compare(&path_a, &path_b, &[], Bootstrap { resamples: 20, seed: 0 }).unwrap()
    }

    #[test]
    fn answers_are_joined_by_their_ids() {
        let a = row("1-0", "x", [1.0, 10.0])
            + &row("1-1", "y", [2.0, 20.0])
            + &row("2-0", "z", [5.0, 9.0]);
        let b = row("1-1", "y", [4.0, 10.0])
            + &row("1-0", "x", [1.0, 15.0])
            + &row("3-0", "z", [5.0, 9.0]);
        let (found, problems) = run(&a, &b);
        let found = found.unwrap();
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
    fn runs_and_variants_are_no_further_answers_and_labels_tell_prompts() {
        use crate::agree::judging::Variant;
        use crate::agree::labels::{Kind, Rating};
        let label = |i: usize| {
            let (query, answer) = ("q".to_owned(), format!("answer {i}"));
            let (context, author, rating, votes) = (None, None, 1.0, Vec::new());
            let kind = Kind::Rating(Rating { query, context, answer, author, rating, votes });
            Item { idx: i.to_string(), kind }
        };
        let items = [label(1), label(2)];
        let record = |item: &Item, run: usize, variant: Variant, score: f64| {
            let helpfulness = Some(crate::judge::testing::rated(score, &[]));
            let details = Box::new(Details { helpfulness, ..Details::default() });
            let idx = Judged::id(&item.idx, run, variant);
            let (found, input_hash) = (Found::Rating { details }, item.hash());
            let item = item.idx.clone();
            let record = Judged { idx, item, run, variant, found, forced: false, input_hash };
            serde_json::to_string(&record).unwrap() + "\n"
        };
        let file = |scores: [f64; 2]| {
            let plain = |i: usize| record(&items[i], 0, Variant::Plain, scores[i]);
            plain(0)
                + &record(&items[0], 1, Variant::Plain, 9.0)
                + &record(&items[0], 0, Variant::Padded, 9.0)
                + &plain(1)
        };
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a.jsonl", "b.jsonl"].map(|name| dir.path().join(name));
        std::fs::write(&a, file([1.0, 2.0])).unwrap();
        std::fs::write(&b, file([3.0, 5.0])).unwrap();
        let bootstrap = Bootstrap { resamples: 20, seed: 0 };
        let (alone, problems) = compare(&a, &b, &[], bootstrap).unwrap();
        let alone = alone.unwrap();
        assert_eq!((alone.answers, alone.prompts, problems), (2, 2, Vec::new()));
        assert_eq!(alone.scores[0].metrics["mean_difference"].value, Some(2.5));
        let labelled = compare(&a, &b, &items, bootstrap).unwrap().0.unwrap();
        assert_eq!((labelled.answers, labelled.prompts), (2, 1));
        assert_eq!(labelled.scores[0].metrics["accuracy_with_ties"].value, Some(1.0));
    }

    #[test]
    fn other_texts_under_the_same_id_are_refused() {
        let a = row("1-0", "x", [1.0, 10.0]) + &row("1-1", "y", [2.0, 20.0]);
        let b =
            row("1-0", "other", [1.0, 1.0]) + &row("1-1", "y", [2.0, 2.0]) + "{\"idx\":\"1-2\"}";
        let (found, problems) = run(&a, &b);
        assert_eq!((found.unwrap().answers, problems.len()), (1, 2));
        assert!(problems[0].to_string().contains("b.jsonl:1: field \"idx\" has another text"));
        let (nothing, problems) = run(&a, "{\"idx\":\"7-0\"}");
        assert_eq!((nothing, problems.len()), (None, 1));
    }
}
