//! Whatever says something about labelled items: the judge, a baseline, another person.

use crate::agree::metrics::{
    Bootstrap, Calibration, Confusion, Metrics, PairCounts, kendall, only, pearson, spearman,
};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Who predicts, and how well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictor {
    pub name: String,
    /// Items that it says something of, where these are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Measures by name; which ones depends on the kind of label.
    pub metrics: Metrics,
}

impl Predictor {
    /// Measured on these of `all` items.
    pub(super) fn new(name: &str, measured: &[Vec<usize>], all: usize, metrics: Metrics) -> Self {
        let items = measured.iter().map(Vec::len).sum();
        Self { name: name.to_owned(), items: (items < all).then_some(items), metrics }
    }

    /// Its name, with its items where these are not all.
    pub fn title(&self) -> String {
        match self.items {
            Some(items) => format!("{} ({items} rows)", self.name),
            None => self.name.clone(),
        }
    }
}

/// Measures of a sample by name, always in the same order.
pub(super) type Measures = Vec<(&'static str, Option<f64>)>;

/// Predicted classes, with numbers behind them.
pub(super) struct Classes {
    pub classes: Vec<usize>,
    /// In the order of classes.
    pub values: Vec<f64>,
    /// Probabilities of the predicted classes, where there are some.
    pub confidences: Vec<Option<f64>>,
}

impl Classes {
    /// Without probabilities.
    pub fn new(classes: Vec<usize>, values: Vec<f64>) -> Self {
        let confidences = vec![None; classes.len()];
        Self { classes, values, confidences }
    }

    /// Compares with labels. `count` is the number of classes.
    pub fn measure(
        &self,
        name: &str,
        labels: &[usize],
        count: usize,
        clusters: &[Vec<usize>],
        bootstrap: &Bootstrap,
    ) -> Predictor {
        let metrics = bootstrap.estimate(clusters, |items| self.measures(labels, count, items));
        Predictor::new(name, clusters, self.values.len(), metrics)
    }

    /// All measures of some items.
    pub fn measures(&self, labels: &[usize], count: usize, items: &[usize]) -> Measures {
        let confusion = self.confusion(labels, count, items);
        let label: Vec<f64> = items.iter().map(|&item| labels[item] as f64).collect();
        let value: Vec<f64> = items.iter().map(|&item| self.values[item]).collect();
        vec![
            ("accuracy", confusion.accuracy()),
            ("macro_f1", confusion.macro_f1()),
            ("kappa", confusion.kappa()),
            ("quadratic_kappa", confusion.quadratic_kappa()),
            ("pearson", pearson(&label, &value)),
            ("spearman", spearman(&label, &value)),
            ("kendall", kendall(&label, &value)),
            ("calibration_error", self.calibration(labels, items).error),
        ]
    }

    pub fn confusion(&self, labels: &[usize], count: usize, items: &[usize]) -> Confusion {
        Confusion::new(count, items.iter().map(|&item| (labels[item], self.classes[item])))
    }

    pub fn calibration(&self, labels: &[usize], items: &[usize]) -> Calibration {
        let right = |item: usize| labels[item] == self.classes[item];
        let items = items.iter().filter_map(|&item| Some((self.confidences[item]?, right(item))));
        Calibration::new(&items.collect::<Vec<_>>(), Calibration::BINS)
    }
}

/// By how much the first of each pair is held to be better than the second.
pub(super) struct Differences {
    /// 0 where nothing is known.
    pub values: Vec<f64>,
    pub known: Vec<bool>,
    /// Probabilities that the first is better, where there are some.
    pub probabilities: Vec<Option<f64>>,
}

impl Differences {
    /// Of all pairs, without probabilities.
    pub fn new(values: Vec<f64>) -> Self {
        Self::of_some(values.into_iter().map(Some).collect())
    }

    /// Of those pairs that have a value, without probabilities.
    pub fn of_some(values: Vec<Option<f64>>) -> Self {
        let known = values.iter().map(Option::is_some).collect();
        let probabilities = vec![None; values.len()];
        let values = values.into_iter().map(Option::unwrap_or_default).collect();
        Self { values, known, probabilities }
    }

    /// Compares with labels: 1 where the first is better, -1 where the second is, else 0.
    pub fn measure(
        &self,
        name: &str,
        labels: &[f64],
        clusters: &[Vec<usize>],
        bootstrap: &Bootstrap,
    ) -> Predictor {
        let known = only(clusters, |item| self.known[item]);
        let metrics = bootstrap.estimate(&known, |items| self.measures(labels, items));
        Predictor::new(name, &known, self.values.len(), metrics)
    }

    /// All measures of some pairs.
    pub fn measures(&self, labels: &[f64], items: &[usize]) -> Measures {
        let counts = self.counts(labels, items);
        let mut measures = vec![
            ("accuracy_with_ties", counts.with_ties()),
            ("accuracy_without_ties", counts.without_ties()),
            ("accuracy_ties_half", counts.ties_as_half()),
            ("kappa", self.confusion(labels, items).kappa()),
        ];
        measures.extend(correlations(labels, &self.values, items));
        measures.push(("calibration_error", self.calibration(labels, items).error));
        measures
    }

    pub fn counts(&self, labels: &[f64], items: &[usize]) -> PairCounts {
        let sign = |value: f64| value.total_cmp(&0.0);
        let pair = |&item: &usize| (sign(labels[item]), sign(self.values[item]));
        PairCounts::new(items.iter().map(pair))
    }

    /// Classes: the first, a tie, the second.
    pub fn confusion(&self, labels: &[f64], items: &[usize]) -> Confusion {
        let pair = |&item: &usize| (side(labels[item]), side(self.values[item]));
        Confusion::new(3, items.iter().map(pair))
    }

    /// Of the likelier side, among pairs that the label decides.
    pub fn calibration(&self, labels: &[f64], items: &[usize]) -> Calibration {
        let judged = |&item: &usize| {
            let probability = self.probabilities[item]?;
            let decided = labels[item] != 0.0 && probability != 0.5;
            let right = (probability > 0.5) == (labels[item] > 0.0);
            decided.then_some((probability.max(1.0 - probability), right))
        };
        Calibration::new(&items.iter().filter_map(judged).collect::<Vec<_>>(), Calibration::BINS)
    }
}

fn side(difference: f64) -> usize {
    match difference.total_cmp(&0.0) {
        Ordering::Greater => 0,
        Ordering::Equal => 1,
        Ordering::Less => 2,
    }
}

/// Compares numbers with numbers. `prompts` are items whose order among themselves counts; others are left out.
pub(super) fn measure_values(
    name: &str,
    labels: &[f64],
    values: &[f64],
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Predictor {
    let metrics = bootstrap.estimate(prompts, |items| correlations(labels, values, items));
    let mut predictor = Predictor::new(name, prompts, values.len(), metrics);
    predictor.metrics.extend(within_prompts(labels, values, prompts, bootstrap));
    predictor
}

/// Correlations of some items.
pub(super) fn correlations(labels: &[f64], values: &[f64], items: &[usize]) -> Measures {
    let label: Vec<f64> = items.iter().map(|&item| labels[item]).collect();
    let value: Vec<f64> = items.iter().map(|&item| values[item]).collect();
    vec![
        ("pearson", pearson(&label, &value)),
        ("spearman", spearman(&label, &value)),
        ("kendall", kendall(&label, &value)),
    ]
}

/// Pairwise accuracy within prompts: what is drawn is a prompt with all its pairs. Prompts without a pair would only
/// seem to be something to draw from.
pub(in crate::agree) fn within_prompts(
    labels: &[f64],
    values: &[f64],
    prompts: &[Vec<usize>],
    bootstrap: &Bootstrap,
) -> Metrics {
    let counts = counts_by_prompt(labels, values, prompts);
    bootstrap.estimate(&one_each(counts.len()), |drawn| accuracies(&counts, drawn))
}

/// Pairs of items of each prompt that has some, counted.
pub(super) fn counts_by_prompt(
    labels: &[f64],
    values: &[f64],
    prompts: &[Vec<usize>],
) -> Vec<PairCounts> {
    let within = |prompt| PairCounts::within(std::slice::from_ref(prompt), labels, values);
    prompts.iter().filter(|items| items.len() > 1).map(within).collect()
}

/// Clusters of one item.
pub(super) fn one_each(items: usize) -> Vec<Vec<usize>> {
    (0..items).map(|item| vec![item]).collect()
}

/// Pairwise accuracies of some prompts.
pub(super) fn accuracies(counts: &[PairCounts], prompts: &[usize]) -> Measures {
    let all: PairCounts = prompts.iter().map(|&prompt| counts[prompt]).sum();
    vec![
        ("accuracy_with_ties", all.with_ties()),
        ("accuracy_without_ties", all.without_ties()),
        ("accuracy_ties_half", all.ties_as_half()),
    ]
}

/// All ordered pairs of different annotators of each item: what one says as label, what another
/// says as prediction; and the pairs of each prompt's items.
pub(super) fn annotator_pairs<T: Copy>(
    votes: &[&[T]],
    prompts: &[Vec<usize>],
) -> (Vec<(T, T)>, Vec<Vec<usize>>) {
    let (mut pairs, mut clusters) = (Vec::new(), Vec::new());
    for items in only(prompts, |item| votes[item].len() > 1) {
        let start = pairs.len();
        for votes in items.into_iter().map(|item| votes[item]) {
            for (i, &one) in votes.iter().enumerate() {
                let others = votes.iter().enumerate().filter(|&(j, _)| j != i);
                pairs.extend(others.map(|(_, &other)| (one, other)));
            }
        }
        clusters.push((start..pairs.len()).collect());
    }
    (pairs, clusters)
}
