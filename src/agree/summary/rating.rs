//! Answers with a number each.

use super::pairwise::score;
use super::predictor::{Predictor, measure_values};
use super::spread::Spread;
use super::{Reading, Row, length};
use crate::agree::baselines::{nearest, overlap};
use crate::agree::judging::Details;
use crate::agree::labels::Rating;
use crate::agree::metrics::{Bootstrap, clusters, mean, only, spearman};
use crate::judge::Dimension;
use crate::retrieval::{Embed, EmbedError};
use serde::{Deserialize, Serialize};

/// Agreement with ratings, whose scale is the user's own. Measures of predictors: `pearson`,
/// `spearman`, `kendall`; and between answers to the same prompt `accuracy_with_ties`,
/// `accuracy_without_ties`, `accuracy_ties_half`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatingSummary {
    pub items: usize,
    /// Different prompts.
    pub prompts: usize,
    pub reading: Reading,
    /// The judge first.
    pub predictors: Vec<Predictor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

pub(super) type RatingRow<'a> = Row<'a, Rating, &'a Details>;

impl RatingSummary {
    /// `None` of no rows.
    pub(super) fn new(
        rows: &[RatingRow],
        bootstrap: &Bootstrap,
        embed: Option<&mut dyn Embed>,
    ) -> Result<Option<Self>, EmbedError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let labels: Vec<f64> = rows.iter().map(|row| row.label.rating).collect();
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        let mut predicted = by_judge(rows);
        predicted.extend(baselines(rows, embed)?);
        let measure = |(name, values): &(&str, Column)| {
            let known = only(&prompts, |item| values[item].is_some());
            measure_values(name, &labels, &or_zero(values), &known, bootstrap)
        };
        let mut predictors: Vec<Predictor> = predicted.iter().map(measure).collect();
        predictors.extend(people(rows, &prompts, bootstrap));
        Ok(Some(Self {
            items: rows.len(),
            prompts: prompts.len(),
            reading: Reading::of_answers(rows.iter().flat_map(|row| row.runs.iter().copied())),
            predictors,
            spread: spread(rows, &labels, &prompts, bootstrap),
        }))
    }
}

/// Values of the answers that have one.
type Column = Vec<Option<f64>>;

/// All of them, 0 where there is none.
pub(super) fn or_zero(values: &[Option<f64>]) -> Vec<f64> {
    values.iter().map(|value| value.unwrap_or_default()).collect()
}

/// By the mean rating, by its expected value, and by each dimension that some answer was judged in, alone.
pub(super) fn by_judge(rows: &[RatingRow]) -> Vec<(&'static str, Column)> {
    let column = |value: &dyn Fn(&Details) -> Option<f64>| -> Column {
        rows.iter().map(|row| value(row.runs[0])).collect()
    };
    let mut found = vec![
        ("judge", column(&|one| one.mean())),
        ("judge, expected", column(&|one| one.expected().or_else(|| one.mean()))),
    ];
    found.extend(Dimension::ALL.map(|d| (d.name(), column(&|one| score(one, d)))));
    found.retain(|(_, values)| values.iter().any(Option::is_some));
    found
}

fn baselines(
    rows: &[RatingRow],
    embed: Option<&mut dyn Embed>,
) -> Result<Vec<(&'static str, Column)>, EmbedError> {
    let column =
        |value: fn(&Rating) -> f64| rows.iter().map(|row| Some(value(row.label))).collect();
    let mut baselines = vec![
        ("length", column(|row| length(&row.answer))),
        ("word overlap", column(|row| overlap(&row.query, &row.answer))),
    ];
    if let Some(embed) = embed {
        let near =
            |row: &RatingRow| nearest(embed, &row.label.query, &[&row.label.answer]).map(Some);
        let values: Result<Column, EmbedError> = rows.iter().map(near).collect();
        baselines.push(("embedding", values?));
    }
    Ok(baselines)
}

/// Each annotator against the mean of an item's others.
fn people(rows: &[RatingRow], prompts: &[Vec<usize>], bootstrap: &Bootstrap) -> Option<Predictor> {
    let votes = |item: usize| &rows[item].label.votes;
    let (mut labels, mut values, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
    for items in only(prompts, |item| votes(item).len() > 1) {
        let start = labels.len();
        for votes in items.into_iter().map(votes) {
            let sum: f64 = votes.iter().sum();
            labels.extend(votes.iter().map(|vote| (sum - vote) / (votes.len() - 1) as f64));
            values.extend(votes);
        }
        clusters.push((start..labels.len()).collect::<Vec<usize>>());
    }
    let measure = || {
        let mut people = measure_values("people", &labels, &values, &clusters, bootstrap);
        // The annotators of an answer are no answers to compare.
        people.metrics.retain(|name, _| !name.starts_with("accuracy"));
        people
    };
    (!clusters.is_empty()).then(measure)
}

fn spread(
    rows: &[RatingRow],
    labels: &[f64],
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Option<Spread> {
    let scores = |row: &RatingRow| -> Vec<f64> {
        row.runs.iter().map(|answer| answer.mean().unwrap_or(0.0)).collect()
    };
    let scores: Vec<Vec<f64>> = rows.iter().map(scores).collect();
    let correlation = |items: &[usize], run: usize| {
        let label: Vec<f64> = items.iter().map(|&item| labels[item]).collect();
        let value: Vec<f64> = items.iter().map(|&item| scores[item][run]).collect();
        mean(&value).and_then(|_| spearman(&label, &value))
    };
    Spread::new(&scores, prompts, |a, b| a == b, ("spearman", correlation), bootstrap)
}
