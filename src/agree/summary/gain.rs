//! What a judge, or a way of asking it, gains over another on the same labels.

use super::Rows;
use super::predictor::{Measures, Predictor, accuracies, correlations, counts_by_prompt, one_each};
use super::{pairwise, rating, support};
use crate::agree::judging::Judged;
use crate::agree::labels::{Item, Level};
use crate::agree::metrics::{Bootstrap, Metrics, clusters, only};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Measures of one judge less those of another, over the rows that both judged. Both are measured on the same
/// resamples, so that intervals are those of the difference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The other judge's file.
    pub over: String,
    /// Rows that both judged.
    pub items: usize,
    /// By kind of label, with the names and measures of its predictors; of `calibration_error`, less is better.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub support: Vec<Predictor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairwise: Vec<Predictor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rating: Vec<Predictor>,
}

impl Gain {
    /// Of `judged` over `others`, the verdicts in the file `over`. `None` if they have no row in common.
    pub fn new(
        items: &[Item],
        judged: &[Judged],
        others: &[Judged],
        over: String,
        bootstrap: &Bootstrap,
    ) -> Option<Self> {
        let [ours, theirs] = [judged, others].map(first_runs);
        let in_both = |item: &&Item| {
            let key = (item.idx.as_str(), item.hash());
            ours.contains(&key) && theirs.contains(&key)
        };
        let items: Vec<Item> = items.iter().filter(in_both).cloned().collect();
        let (a, b) = (Rows::new(&items, judged), Rows::new(&items, others));
        let gain = Self {
            over,
            items: items.len(),
            support: of_claims(&a, &b, bootstrap),
            pairwise: of_pairs(&a, &b, bootstrap),
            rating: of_ratings(&a, &b, bootstrap),
        };
        (gain.items > 0).then_some(gain)
    }
}

/// Rows of run 0: the label's idx, and the hash of what was judged.
fn first_runs(judged: &[Judged]) -> HashSet<(&str, String)> {
    let first = judged.iter().filter(|one| one.run == 0 && one.variant.is_plain());
    first.map(|one| (one.item.as_str(), one.input_hash.clone())).collect()
}

fn of_claims(a: &Rows, b: &Rows, bootstrap: &Bootstrap) -> Vec<Predictor> {
    let labels: Vec<usize> = a.claims.iter().map(|row| row.label.label as usize).collect();
    let prompts = clusters(a.claims.iter().map(|row| row.item.prompt()));
    let pairs = pairs(support::by_judge(&a.claims), support::by_judge(&b.claims));
    predictors(&labels, pairs, |a, b| {
        let count = Level::ALL.len();
        let metrics = bootstrap.estimate(&prompts, |items| {
            difference(a.measures(&labels, count, items), b.measures(&labels, count, items))
        });
        (prompts.clone(), metrics)
    })
}

fn of_pairs(a: &Rows, b: &Rows, bootstrap: &Bootstrap) -> Vec<Predictor> {
    let labels: Vec<f64> = a.pairs.iter().map(|row| row.label.label.sign()).collect();
    let prompts = clusters(a.pairs.iter().map(|row| row.item.prompt()));
    let pairs = pairs(pairwise::by_judge(&a.pairs), pairwise::by_judge(&b.pairs));
    predictors(&labels, pairs, |a, b| {
        let known = only(&prompts, |item| a.known[item] && b.known[item]);
        let metrics = bootstrap.estimate(&known, |items| {
            difference(a.measures(&labels, items), b.measures(&labels, items))
        });
        (known, metrics)
    })
}

fn of_ratings(a: &Rows, b: &Rows, bootstrap: &Bootstrap) -> Vec<Predictor> {
    let labels: Vec<f64> = a.ratings.iter().map(|row| row.label.rating).collect();
    let prompts = clusters(a.ratings.iter().map(|row| row.item.prompt()));
    let pairs = pairs(rating::by_judge(&a.ratings), rating::by_judge(&b.ratings));
    predictors(&labels, pairs, |a, b| {
        let known = only(&prompts, |item| a[item].is_some() && b[item].is_some());
        let [a, b] = [a, b].map(|values| rating::or_zero(values));
        let mut metrics = bootstrap.estimate(&known, |items| {
            difference(correlations(&labels, &a, items), correlations(&labels, &b, items))
        });
        let [a, b] = [a, b].map(|values| counts_by_prompt(&labels, &values, &known));
        metrics.extend(bootstrap.estimate(&one_each(a.len()), |drawn| {
            difference(accuracies(&a, drawn), accuracies(&b, drawn))
        }));
        (known, metrics)
    })
}

/// What both have under the same name.
fn pairs<T>(a: Vec<(&'static str, T)>, b: Vec<(&'static str, T)>) -> Vec<(&'static str, T, T)> {
    let mut b: Vec<(&str, Option<T>)> =
        b.into_iter().map(|(name, one)| (name, Some(one))).collect();
    let find = |(name, a)| {
        let other = b.iter_mut().find(|(other, _)| *other == name)?;
        Some((name, a, other.1.take()?))
    };
    a.into_iter().filter_map(find).collect()
}

/// A predictor of each pair, by the items that it is measured on and the measures; none where there are no labels.
fn predictors<L, T>(
    labels: &[L],
    pairs: Vec<(&'static str, T, T)>,
    measure: impl Fn(&T, &T) -> (Vec<Vec<usize>>, Metrics),
) -> Vec<Predictor> {
    if labels.is_empty() {
        return Vec::new();
    }
    let predictor = |(name, a, b): (&str, T, T)| {
        let (measured, metrics) = measure(&a, &b);
        Predictor::new(name, &measured, labels.len(), metrics)
    };
    pairs.into_iter().map(predictor).collect()
}

/// `a` less `b`, where both have a value.
fn difference(a: Measures, b: Measures) -> Measures {
    let less = |((name, a), (_, b)): ((_, Option<f64>), (_, Option<f64>))| {
        (name, a.zip(b).map(|(a, b)| a - b))
    };
    a.into_iter().zip(b).map(less).collect()
}
