//! How far verdicts hang on the seed.

use crate::agree::metrics::{Bootstrap, Estimate, Metrics, mean, standard_deviation};
use serde::{Deserialize, Serialize};

/// Of the one measure that is estimated at a time.
const NAME: &str = "measure";

/// Over the items that were judged in every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub runs: usize,
    pub items: usize,
    /// `standard_deviation`: of an item's scores over the runs, the mean over items.
    /// `flips`: the share of items whose verdict is not the same in all runs.
    pub metrics: Metrics,
    /// The measure in `by_run`.
    pub measure: String,
    /// What the judge would be found to be with the seeds of each run.
    pub by_run: Vec<Estimate>,
}

impl Spread {
    /// `scores` are those of each item, by run. `None` if there is one run.
    pub(super) fn new(
        scores: &[Vec<f64>],
        same_verdict: impl Fn(f64, f64) -> bool,
        measure: &str,
        of_run: impl Fn(&[usize], usize) -> Option<f64>,
        bootstrap: &Bootstrap,
    ) -> Option<Self> {
        let runs = scores.iter().map(Vec::len).max().filter(|&runs| runs > 1)?;
        let items: Vec<usize> = (0..scores.len()).filter(|&i| scores[i].len() == runs).collect();
        let single: Vec<Vec<usize>> = items.iter().map(|&item| vec![item]).collect();
        let flips = |item: usize| {
            let differs = |&score: &f64| !same_verdict(scores[item][0], score);
            f64::from(u8::from(scores[item].iter().any(differs)))
        };
        let metrics = bootstrap.estimate(&single, |items| {
            let deviations = items.iter().filter_map(|&item| standard_deviation(&scores[item]));
            let flips: Vec<f64> = items.iter().map(|&item| flips(item)).collect();
            vec![
                ("standard_deviation", mean(&deviations.collect::<Vec<_>>())),
                ("flips", mean(&flips)),
            ]
        });
        let by_run = |run: usize| {
            let metrics = bootstrap.estimate(&single, |items| vec![(NAME, of_run(items, run))]);
            metrics.get(NAME).copied().unwrap_or_default()
        };
        let by_run = (0..runs).map(by_run).collect();
        Some(Self { runs, items: items.len(), metrics, measure: measure.to_owned(), by_run })
    }
}
