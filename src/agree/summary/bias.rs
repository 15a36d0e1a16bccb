//! Whether a judge likes long answers better than people do.

use crate::agree::metrics::{Bootstrap, Metrics, PairCounts, mean, only, partial, pearson};
use serde::{Deserialize, Serialize};

/// Lengths that differ by less than this share of the longer are similar.
const SIMILAR: f64 = 0.1;

/// Length and verdict; lengths in characters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LengthBias {
    /// Whose verdicts.
    pub predictor: String,
    /// Pairs of which people prefer the longer answer, …
    pub longer_better: usize,
    /// … the shorter, …
    pub shorter_better: usize,
    /// … and pairs (of those that they decided) whose lengths differ by less than a tenth.
    pub similar: usize,
    /// `accuracy_longer_better`, `accuracy_shorter_better`, `accuracy_similar`: on those pairs, a
    /// predicted tie being half right. `judge_prefers_longer`, `people_prefer_longer`: how often
    /// the longer of two is preferred, a tie being half. `score_and_label`: Pearson's correlation of
    /// the difference of scores with the label; `score_and_label_given_length`: what remains of it
    /// without what the difference of lengths explains; `score_and_length`: of the differences.
    pub metrics: Metrics,
}

impl LengthBias {
    pub(super) fn new(
        predictor: &str,
        labels: &[f64],
        scores: &[f64],
        lengths: &[[f64; 2]],
        prompts: &[Vec<usize>],
        bootstrap: &Bootstrap,
    ) -> Self {
        let pairs: Vec<Compared> = lengths
            .iter()
            .zip(labels.iter().zip(scores))
            .map(|(lengths, (&label, &score))| Compared::new(lengths, label, score))
            .collect();
        let count = |has: Kind| pairs.iter().filter(|pair| has(pair)).count();
        let mut metrics = bootstrap.estimate(prompts, |items| measure(&pairs, items));
        for (name, has) in ACCURACIES {
            // Prompts without such a pair would only seem to be something to draw from.
            let prompts = only(prompts, |item| has(&pairs[item]));
            metrics.extend(
                bootstrap.estimate(&prompts, |items| vec![(name, accuracy(&pairs, items))]),
            );
        }
        Self {
            predictor: predictor.to_owned(),
            longer_better: count(Compared::longer_better),
            shorter_better: count(Compared::shorter_better),
            similar: count(Compared::similar),
            metrics,
        }
    }
}

/// A pair as seen from its first answer.
struct Compared {
    /// 1, 0 or -1.
    label: f64,
    score: f64,
    length: f64,
    longest: f64,
}

impl Compared {
    fn new(&[a, b]: &[f64; 2], label: f64, score: f64) -> Self {
        Self { label, score, length: a - b, longest: a.max(b) }
    }

    fn longer_better(&self) -> bool {
        self.label * self.length > 0.0
    }

    fn shorter_better(&self) -> bool {
        self.label * self.length < 0.0
    }

    fn similar(&self) -> bool {
        self.label != 0.0 && self.length.abs() < SIMILAR * self.longest
    }

    /// 1 if the longer one is preferred by this difference, 0.5 at a tie; `None` if none is longer.
    fn prefers_longer(&self, difference: f64) -> Option<f64> {
        let towards = difference.signum() * self.length.signum();
        let preferred = if difference == 0.0 { 0.5 } else { (towards + 1.0) / 2.0 };
        (self.length != 0.0).then_some(preferred)
    }
}

/// Whether a pair is of a kind.
type Kind = fn(&Compared) -> bool;

/// Accuracies on the pairs of a kind.
const ACCURACIES: [(&str, Kind); 3] = [
    ("accuracy_longer_better", Compared::longer_better),
    ("accuracy_shorter_better", Compared::shorter_better),
    ("accuracy_similar", Compared::similar),
];

fn accuracy(pairs: &[Compared], items: &[usize]) -> Option<f64> {
    let sign = |value: f64| value.total_cmp(&0.0);
    let drawn = items.iter().map(|&item| (sign(pairs[item].label), sign(pairs[item].score)));
    PairCounts::new(drawn).ties_as_half()
}

fn measure(pairs: &[Compared], items: &[usize]) -> Vec<(&'static str, Option<f64>)> {
    let drawn = || items.iter().map(|&item| &pairs[item]);
    let longer = |difference: fn(&Compared) -> f64| {
        mean(&drawn().filter_map(|pair| pair.prefers_longer(difference(pair))).collect::<Vec<_>>())
    };
    let column = |value: fn(&Compared) -> f64| drawn().map(value).collect::<Vec<f64>>();
    let (label, score) = (column(|pair| pair.label), column(|pair| pair.score));
    let length = column(|pair| pair.length);
    vec![
        ("judge_prefers_longer", longer(|pair| pair.score)),
        ("people_prefer_longer", longer(|pair| pair.label)),
        ("score_and_label", pearson(&score, &label)),
        ("score_and_label_given_length", partial(&score, &label, &length)),
        ("score_and_length", pearson(&score, &length)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bias(rows: &[(f64, f64, [f64; 2])]) -> LengthBias {
        let labels: Vec<f64> = rows.iter().map(|row| row.0).collect();
        let scores: Vec<f64> = rows.iter().map(|row| row.1).collect();
        let lengths: Vec<[f64; 2]> = rows.iter().map(|row| row.2).collect();
        let single: Vec<Vec<usize>> = (0..rows.len()).map(|item| vec![item]).collect();
        let bootstrap = Bootstrap { resamples: 0, seed: 0 };
        LengthBias::new("judge", &labels, &scores, &lengths, &single, &bootstrap)
    }

    #[test]
    fn a_judge_that_follows_length_is_found_out() {
        let bias = bias(&[
            (1.0, 2.0, [200.0, 100.0]),
            (-1.0, 3.0, [300.0, 100.0]),
            (-1.0, -1.0, [100.0, 105.0]),
            (1.0, 0.0, [100.0, 100.0]),
            (0.0, -2.0, [10.0, 90.0]),
        ]);
        let value = |name: &str| bias.metrics[name].value;
        assert_eq!((bias.longer_better, bias.shorter_better, bias.similar), (2, 1, 2));
        assert_eq!(value("accuracy_longer_better"), Some(1.0));
        assert_eq!(value("accuracy_shorter_better"), Some(0.0));
        assert_eq!(value("accuracy_similar"), Some(0.75));
        assert_eq!(value("judge_prefers_longer"), Some(1.0));
        assert_eq!(value("people_prefer_longer"), Some((1.0 + 0.0 + 1.0 + 0.5) / 4.0));
        assert!(value("score_and_length").unwrap() > 0.9);
    }
}
