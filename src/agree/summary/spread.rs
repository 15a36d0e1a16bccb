//! How far verdicts hang on the seed.

use crate::agree::metrics::{Bootstrap, Estimate, Metrics, mean, only, standard_deviation};
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
    /// `scores` are those of each item, by run; `prompts` are items that are drawn together. `None`
    /// if there is one run.
    pub(super) fn new(
        scores: &[Vec<f64>],
        prompts: &[Vec<usize>],
        same_verdict: impl Fn(f64, f64) -> bool,
        (measure, of_run): (&str, impl Fn(&[usize], usize) -> Option<f64>),
        bootstrap: &Bootstrap,
    ) -> Option<Self> {
        let runs = scores.iter().map(Vec::len).max().filter(|&runs| runs > 1)?;
        let prompts = only(prompts, |item| scores[item].len() == runs);
        let flips = |item: usize| {
            let differs = |&score: &f64| !same_verdict(scores[item][0], score);
            f64::from(u8::from(scores[item].iter().any(differs)))
        };
        let metrics = bootstrap.estimate(&prompts, |items| {
            let deviations = items.iter().filter_map(|&item| standard_deviation(&scores[item]));
            let flips: Vec<f64> = items.iter().map(|&item| flips(item)).collect();
            vec![
                ("standard_deviation", mean(&deviations.collect::<Vec<_>>())),
                ("flips", mean(&flips)),
            ]
        });
        let by_run = |run: usize| {
            let metrics = bootstrap.estimate(&prompts, |items| vec![(NAME, of_run(items, run))]);
            metrics.get(NAME).copied().unwrap_or_default()
        };
        let by_run = (0..runs).map(by_run).collect();
        let items = prompts.iter().map(Vec::len).sum();
        Some(Self { runs, items, metrics, measure: measure.to_owned(), by_run })
    }
}
