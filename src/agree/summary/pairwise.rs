//! Pairs of answers: which is better.

use super::bias::LengthBias;
use super::predictor::{Differences, Predictor, annotator_pairs};
use super::spread::Spread;
use super::support::fleiss;
use super::{Reading, Row, length};
use crate::agree::baselines::{nearest, overlap};
use crate::agree::judging::Details;
use crate::agree::labels::{Pair, Preference};
use crate::agree::metrics::{Bootstrap, Calibration, Confusion, Metrics, PairCounts, clusters};
use crate::judge::{Dimension, Faithfulness};
use crate::retrieval::{Embed, EmbedError};
use serde::{Deserialize, Serialize};

/// Agreement on which of two answers is better. Measures of predictors: `accuracy_with_ties` (of
/// all pairs, a tie being a verdict), `accuracy_without_ties` (of those that neither calls a tie),
/// `accuracy_ties_half` (of those that people decided, a predicted tie being half right), `kappa`
/// (over a, tie, b), `kendall`, `pearson` and `spearman` (label against the difference of scores),
/// `calibration_error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairwiseSummary {
    pub items: usize,
    pub reading: Reading,
    /// Of rows and columns of `confusion`, and of `labelled`.
    pub classes: Vec<String>,
    /// Items of each label.
    pub labelled: Vec<usize>,
    /// The judge first.
    pub predictors: Vec<Predictor>,
    /// Label by the judge's verdict.
    pub confusion: Confusion,
    /// Pairs by what people and the judge say of them.
    pub counts: PairCounts,
    /// Of the likelier side, by the judge's distributions.
    pub calibration: Calibration,
    /// Of the judge by its ratings, then by their expected values.
    pub length_bias: Vec<LengthBias>,
    /// Fleiss' kappa among several annotators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotators: Option<Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

pub(super) type PairRow<'a> = Row<'a, Pair, [&'a Details; 2]>;

impl PairwiseSummary {
    /// `None` of no rows.
    pub(super) fn new(
        rows: &[PairRow],
        bootstrap: &Bootstrap,
        embed: Option<&mut dyn Embed>,
    ) -> Result<Option<Self>, EmbedError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let labels: Vec<f64> = rows.iter().map(|row| row.label.label.sign()).collect();
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        let all: Vec<usize> = (0..rows.len()).collect();
        let mut predicted = by_judge(rows);
        predicted.extend(baselines(rows, &labels, embed)?);
        let measure =
            |(name, one): &(&str, Differences)| one.measure(name, &labels, &prompts, bootstrap);
        let mut predictors: Vec<Predictor> = predicted.iter().map(measure).collect();
        predictors.extend(people(rows, &prompts, bootstrap));
        let lengths: Vec<[f64; 2]> = rows.iter().map(lengths).collect();
        let bias = |(name, one): &(&str, Differences)| {
            LengthBias::new(name, &labels, &one.values, &lengths, &prompts, bootstrap)
        };
        let (ratings, expected) = (&predicted[0].1, &predicted[1].1);
        Ok(Some(Self {
            items: rows.len(),
            reading: Reading::of_answers(rows.iter().flat_map(|row| row.runs.concat())),
            classes: Preference::ALL.map(|one| one.name().to_owned()).to_vec(),
            labelled: votes(&rows.iter().map(|row| row.label.label).collect::<Vec<_>>()),
            confusion: ratings.confusion(&labels, &all),
            counts: ratings.counts(&labels, &all),
            calibration: expected.calibration(&labels, &all),
            length_bias: predicted[..2].iter().map(bias).collect(),
            annotators: fleiss(
                rows.iter().map(|row| votes(&row.label.votes)).collect(),
                &prompts,
                bootstrap,
            ),
            spread: spread(rows, &labels, &prompts, bootstrap),
            predictors,
        }))
    }
}

/// How many are for a, tie, b.
fn votes(votes: &[Preference]) -> Vec<usize> {
    let count = |one| votes.iter().filter(|&&vote| vote == one).count();
    Preference::ALL.map(count).to_vec()
}

fn lengths(row: &PairRow) -> [f64; 2] {
    let [a, b] = &row.label.responses;
    [length(a), length(b)]
}

/// By the mean rating, by its expected value, and by each dimension that some pair was judged in, alone.
pub(super) fn by_judge(rows: &[PairRow]) -> Vec<(&'static str, Differences)> {
    let means = differences(rows, |_, answer| answer.mean());
    let expected = differences(rows, |_, answer| answer.expected().or_else(|| answer.mean()));
    let probabilities = rows.iter().map(|row| probability_of_first(row.runs[0])).collect();
    let expected = Differences { probabilities, ..expected };
    let mut found = vec![("judge", means), ("judge, expected", expected)];
    for dimension in Dimension::ALL {
        let one = differences(rows, |_, answer| score(answer, dimension));
        if one.known.contains(&true) {
            found.push((dimension.name(), one));
        }
    }
    found
}

pub(in crate::agree) fn score(answer: &Details, dimension: Dimension) -> Option<f64> {
    let scores = answer.verdicts();
    scores.iter().find(|score| score.dimension == dimension).map(|score| score.score)
}

/// The value of the first answer less that of the second.
fn differences(rows: &[PairRow], value: impl Fn(&str, &Details) -> Option<f64>) -> Differences {
    let difference = |row: &PairRow| {
        let ([a, b], [text_a, text_b]) = (row.runs[0], &row.label.responses);
        Some(value(text_a, a)? - value(text_b, b)?)
    };
    Differences::of_some(rows.iter().map(difference).collect())
}

/// The probability that the first answer's sum of scores is the higher, plus half that of a tie;
/// ratings are drawn from their distributions, each by itself, and faithfulness, which has none, is
/// what it is. `None` where a rating has none, or there is no rating.
pub(super) fn probability_of_first(answers: [&Details; 2]) -> Option<f64> {
    let distributions = |answer: &Details| -> Vec<Vec<f64>> {
        answer.ratings().map(|score| score.distribution.to_vec()).collect()
    };
    let [a, b] = answers.map(distributions);
    let lead = faithfulness_lead(answers, |found| found.expected.unwrap_or(found.score))?;
    if a.is_empty() && b.is_empty() { None } else { probability_above(&a, &b, lead) }
}

/// By how much the first answer is the more faithful; 0 where neither was judged in that. `None` if
/// one was.
pub(in crate::agree) fn faithfulness_lead(
    [a, b]: [&Details; 2],
    value: impl Fn(&Faithfulness) -> f64,
) -> Option<f64> {
    match (&a.faithfulness, &b.faithfulness) {
        (Some(a), Some(b)) => Some(value(a) - value(b)),
        (None, None) => Some(0.0),
        _ => None,
    }
}

/// As [`probability_of_first`], of the distributions of two answers' ratings; `lead` is what the
/// first is ahead by what has no distribution.
pub(in crate::agree) fn probability_above(
    a: &[Vec<f64>],
    b: &[Vec<f64>],
    lead: f64,
) -> Option<f64> {
    let [a, b] = [sums(a)?, sums(b)?];
    let (mut below, mut probability, mut next) = (0.0, 0.0, 0);
    for (sum, p) in a.iter().enumerate() {
        let sum = sum as f64 + lead;
        while next < b.len() && (next as f64) < sum {
            below += b[next];
            next += 1;
        }
        let equal = b.get(next).copied().filter(|_| next as f64 == sum).unwrap_or(0.0);
        probability += p * (below + equal / 2.0);
    }
    let total: f64 = a.iter().sum::<f64>() * b.iter().sum::<f64>();
    (total > 0.0).then(|| (probability / total).clamp(0.0, 1.0))
}

/// The distribution of a sum of ratings.
fn sums(distributions: &[Vec<f64>]) -> Option<Vec<f64>> {
    let mut sums = vec![1.0];
    for distribution in distributions {
        if distribution.is_empty() {
            return None;
        }
        let mut next = vec![0.0; sums.len() + distribution.len() - 1];
        for (i, p) in sums.iter().enumerate() {
            for (j, q) in distribution.iter().enumerate() {
                next[i + j] += p * q;
            }
        }
        sums = next;
    }
    Some(sums)
}

fn baselines(
    rows: &[PairRow],
    labels: &[f64],
    embed: Option<&mut dyn Embed>,
) -> Result<Vec<(&'static str, Differences)>, EmbedError> {
    let count = |sign: f64| labels.iter().filter(|&&label| label == sign).count();
    let more = |best: f64, sign: f64| if count(sign) > count(best) { sign } else { best };
    let majority = [1.0, -1.0, 0.0].into_iter().fold(1.0, more);
    let each = |value: &dyn Fn(&Pair, &str) -> f64| {
        let difference = |row: &PairRow| {
            let [a, b] = &row.label.responses;
            value(row.label, a) - value(row.label, b)
        };
        Differences::new(rows.iter().map(difference).collect())
    };
    let mut baselines = vec![
        ("majority class", Differences::new(vec![majority; rows.len()])),
        ("longest wins", each(&|_, answer| length(answer))),
        ("word overlap", each(&|pair, answer| overlap(&pair.query, answer))),
    ];
    if let Some(embed) = embed {
        let mut difference = |row: &PairRow| -> Result<f64, EmbedError> {
            let [a, b] = &row.label.responses;
            let mut near = |answer: &str| nearest(embed, &row.label.query, &[answer]);
            Ok(near(a)? - near(b)?)
        };
        let values: Result<Vec<f64>, EmbedError> = rows.iter().map(&mut difference).collect();
        baselines.push(("embedding", Differences::new(values?)));
    }
    Ok(baselines)
}

/// One annotator against another.
fn people(rows: &[PairRow], prompts: &[Vec<usize>], bootstrap: &Bootstrap) -> Option<Predictor> {
    let votes: Vec<&[Preference]> = rows.iter().map(|row| row.label.votes.as_slice()).collect();
    let (pairs, clusters) = annotator_pairs(&votes, prompts);
    let labels: Vec<f64> = pairs.iter().map(|pair| pair.0.sign()).collect();
    let others = Differences::new(pairs.iter().map(|pair| pair.1.sign()).collect());
    (!pairs.is_empty()).then(|| others.measure("people", &labels, &clusters, bootstrap))
}

fn spread(
    rows: &[PairRow],
    labels: &[f64],
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Option<Spread> {
    let difference = |[a, b]: &[&Details; 2]| a.mean().zip(b.mean()).map_or(0.0, |(a, b)| a - b);
    let scores = |row: &PairRow| -> Vec<f64> { row.runs.iter().map(difference).collect() };
    let scores: Vec<Vec<f64>> = rows.iter().map(scores).collect();
    let same = |a: f64, b: f64| a.total_cmp(&0.0) == b.total_cmp(&0.0);
    let accuracy = |items: &[usize], run: usize| {
        let values = scores.iter().map(|scores| scores.get(run).copied().unwrap_or(0.0));
        Differences::new(values.collect()).counts(labels, items).ties_as_half()
    };
    Spread::new(&scores, prompts, same, ("accuracy_ties_half", accuracy), bootstrap)
}
