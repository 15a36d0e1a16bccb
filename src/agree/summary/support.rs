//! Claims: three levels of support.

use super::predictor::{Classes, Predictor, annotator_pairs};
use super::spread::Spread;
use super::{Read, Reading, Row};
use crate::agree::baselines::{as_frequent, coverage, nearest};
use crate::agree::labels::{Claim, Level};
use crate::agree::metrics::{
    Bootstrap, Calibration, Confusion, Metrics, clusters, fleiss_kappa, only,
};
use crate::judge::Supported;
use crate::retrieval::{Embed, EmbedError};
use serde::{Deserialize, Serialize};

/// Agreement on how far evidence supports claims. Measures of predictors: `accuracy`, `macro_f1`,
/// `kappa`, `quadratic_kappa`, `pearson`, `spearman`, `kendall`, `calibration_error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupportSummary {
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
    /// Of the likeliest class.
    pub calibration: Calibration,
    /// Fleiss' kappa among several annotators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotators: Option<Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

pub(super) type ClaimRow<'a> = Row<'a, Claim, &'a Supported>;

type Claims<'a> = [ClaimRow<'a>];

impl SupportSummary {
    /// `None` of no rows.
    pub(super) fn new(
        rows: &Claims,
        bootstrap: &Bootstrap,
        embed: Option<&mut dyn Embed>,
    ) -> Result<Option<Self>, EmbedError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let labels: Vec<usize> = rows.iter().map(|row| row.label.label as usize).collect();
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        let all: Vec<usize> = (0..rows.len()).collect();
        let mut named = by_judge(rows);
        named.extend(baselines(rows, &labels, embed)?);
        let measure = |(name, one): &(&str, Classes)| {
            one.measure(name, &labels, Level::ALL.len(), &prompts, bootstrap)
        };
        let mut predictors: Vec<Predictor> = named.iter().map(measure).collect();
        predictors.extend(people(rows, &prompts, bootstrap));
        let found = rows.iter().flat_map(|row| row.runs.iter().copied());
        let (verdicts, likeliest) = (&named[0].1, &named[1].1);
        Ok(Some(Self {
            items: rows.len(),
            reading: Reading::new(found.flat_map(Read::of_claim)),
            classes: Level::ALL.map(|level| level.name().to_owned()).to_vec(),
            labelled: counts(&labels),
            predictors,
            confusion: verdicts.confusion(&labels, Level::ALL.len(), &all),
            calibration: likeliest.calibration(&labels, &all),
            annotators: annotators(rows, &prompts, bootstrap),
            spread: spread(rows, &labels, &prompts, bootstrap),
        }))
    }
}

fn counts(labels: &[usize]) -> Vec<usize> {
    let count = |class| labels.iter().filter(|&&label| label == class).count();
    (0..Level::ALL.len()).map(count).collect()
}

/// By the verdict, and by its distribution.
pub(super) fn by_judge(rows: &Claims) -> Vec<(&'static str, Classes)> {
    vec![("judge", verdicts(rows, 0)), ("judge, likeliest", likeliest(rows))]
}

/// What the judge said in a run.
fn verdicts(rows: &Claims, run: usize) -> Classes {
    let scores: Vec<f64> = rows.iter().map(|row| row.runs[run].score).collect();
    let classes = scores.iter().map(|&score| Level::of_score(score) as usize).collect();
    Classes::new(classes, scores)
}

/// The likeliest class by the judge's distribution, and its expected value; the verdict where there
/// is none.
fn likeliest(rows: &Claims) -> Classes {
    let verdict = verdicts(rows, 0);
    let expected = rows.iter().map(|row| row.runs[0].expected.unwrap_or(row.runs[0].score));
    let mut likeliest = Classes::new(verdict.classes, expected.collect());
    for (item, row) in rows.iter().enumerate() {
        // Fully, partially, not: the other way round. Of equals the first, as where forced.
        let distribution = &row.runs[0].distribution;
        let best = (0..distribution.len())
            .reduce(|best, i| if distribution[i] > distribution[best] { i } else { best });
        if let Some(best) = best {
            likeliest.classes[item] = Level::ALL.len() - 1 - best;
            likeliest.confidences[item] = Some(distribution[best]);
        }
    }
    likeliest
}

fn baselines(
    rows: &Claims,
    labels: &[usize],
    embed: Option<&mut dyn Embed>,
) -> Result<Vec<(&'static str, Classes)>, EmbedError> {
    let counts = counts(labels);
    let majority =
        (0..counts.len()).fold(0, |best, i| if counts[i] > counts[best] { i } else { best });
    let majority = Classes::new(vec![majority; rows.len()], vec![0.0; rows.len()]);
    let shown = |row: &ClaimRow| -> Vec<String> {
        match row.runs[0].whole_document {
            Some(true) => row.label.evidence.clone(),
            _ => row.runs[0].evidences.iter().map(|one| one.content.clone()).collect(),
        }
    };
    let shown: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let texts = |item: usize| -> Vec<&str> { shown[item].iter().map(String::as_str).collect() };
    let graded = |values: Vec<f64>| Classes::new(as_frequent(&values, &counts), values);
    let words = rows.iter().enumerate();
    let words = words.map(|(item, row)| coverage(&row.label.claim, &texts(item))).collect();
    let mut baselines = vec![("majority class", majority), ("word overlap", graded(words))];
    if let Some(embed) = embed {
        let values = rows.iter().enumerate();
        let values: Result<Vec<f64>, EmbedError> =
            values.map(|(item, row)| nearest(embed, &row.label.claim, &texts(item))).collect();
        baselines.push(("embedding", graded(values?)));
    }
    Ok(baselines)
}

/// One annotator against another.
fn people(rows: &Claims, prompts: &[Vec<usize>], bootstrap: &Bootstrap) -> Option<Predictor> {
    let votes: Vec<&[Level]> = rows.iter().map(|row| row.label.votes.as_slice()).collect();
    let (pairs, clusters) = annotator_pairs(&votes, prompts);
    let labels: Vec<usize> = pairs.iter().map(|pair| pair.0 as usize).collect();
    let classes: Vec<usize> = pairs.iter().map(|pair| pair.1 as usize).collect();
    let values = classes.iter().map(|&class| class as f64).collect();
    let one = Classes::new(classes, values);
    let measure = || one.measure("people", &labels, Level::ALL.len(), &clusters, bootstrap);
    (!pairs.is_empty()).then(measure)
}

fn annotators(rows: &Claims, prompts: &[Vec<usize>], bootstrap: &Bootstrap) -> Option<Metrics> {
    let votes = |row: &ClaimRow| {
        let classes: Vec<usize> = row.label.votes.iter().map(|&vote| vote as usize).collect();
        counts(&classes)
    };
    fleiss(rows.iter().map(votes).collect(), prompts, bootstrap)
}

/// Fleiss' kappa of the items with several votes, if there are some.
pub(super) fn fleiss(
    votes: Vec<Vec<usize>>,
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Option<Metrics> {
    let clusters = only(prompts, |item| votes[item].iter().sum::<usize>() > 1);
    let estimate = || {
        bootstrap.estimate(&clusters, |items| {
            let drawn: Vec<Vec<usize>> = items.iter().map(|&item| votes[item].clone()).collect();
            vec![("fleiss_kappa", fleiss_kappa(&drawn))]
        })
    };
    (!clusters.is_empty()).then(estimate)
}

fn spread(
    rows: &Claims,
    labels: &[usize],
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Option<Spread> {
    let scores =
        |row: &ClaimRow| -> Vec<f64> { row.runs.iter().map(|found| found.score).collect() };
    let scores: Vec<Vec<f64>> = rows.iter().map(scores).collect();
    let same = |a: f64, b: f64| Level::of_score(a) == Level::of_score(b);
    let accuracy = |items: &[usize], run: usize| {
        let right = |&&item: &&usize| Level::of_score(scores[item][run]) as usize == labels[item];
        Some(items.iter().filter(right).count() as f64 / items.len() as f64)
    };
    Spread::new(&scores, prompts, same, ("accuracy", accuracy), bootstrap)
}
