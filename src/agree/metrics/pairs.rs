//! Agreement on which of two is better, where either side may call a tie.

use super::ratio;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Pairs by what the labels and the predictions say of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCounts {
    /// Both prefer the same one.
    pub agree: usize,
    /// They prefer different ones.
    pub disagree: usize,
    /// A tie by the label, not by the prediction.
    pub label_tied: usize,
    /// A tie by the prediction, not by the label.
    pub prediction_tied: usize,
    pub both_tied: usize,
}

impl PairCounts {
    /// Counts pairs of label and prediction, each the order of the two compared.
    pub fn new(pairs: impl IntoIterator<Item = (Ordering, Ordering)>) -> Self {
        let mut counts = Self::default();
        for (label, prediction) in pairs {
            *match (label, prediction) {
                (Ordering::Equal, Ordering::Equal) => &mut counts.both_tied,
                (Ordering::Equal, _) => &mut counts.label_tied,
                (_, Ordering::Equal) => &mut counts.prediction_tied,
                (label, prediction) if label == prediction => &mut counts.agree,
                _ => &mut counts.disagree,
            } += 1;
        }
        counts
    }

    /// Counts all pairs of items that belong to the same group.
    pub fn within(groups: &[Vec<usize>], labels: &[f64], predictions: &[f64]) -> Self {
        let pairs = groups.iter().flat_map(|group| {
            let pairs = (0..group.len()).flat_map(move |i| (0..i).map(move |j| (i, j)));
            pairs.map(move |(i, j)| (group[i], group[j]))
        });
        Self::new(pairs.map(|(a, b)| {
            (labels[a].total_cmp(&labels[b]), predictions[a].total_cmp(&predictions[b]))
        }))
    }

    pub fn total(&self) -> usize {
        self.decided() + self.label_tied + self.prediction_tied + self.both_tied
    }

    fn decided(&self) -> usize {
        self.agree + self.disagree
    }

    /// Accuracy with ties: of all pairs, those where label and prediction say the same, a tie
    /// being something to say.
    pub fn with_ties(&self) -> Option<f64> {
        ratio((self.agree + self.both_tied) as f64, self.total() as f64)
    }

    /// Accuracy without ties: of the pairs that neither calls a tie.
    pub fn without_ties(&self) -> Option<f64> {
        ratio(self.agree as f64, self.decided() as f64)
    }

    /// Of the pairs that the label decides, a predicted tie counting as half right: what tossing a
    /// coin at ties would give.
    pub fn ties_as_half(&self) -> Option<f64> {
        let right = self.agree as f64 + self.prediction_tied as f64 / 2.0;
        ratio(right, (self.decided() + self.prediction_tied) as f64)
    }
}

impl std::iter::Sum for PairCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            agree: a.agree + b.agree,
            disagree: a.disagree + b.disagree,
            label_tied: a.label_tied + b.label_tied,
            prediction_tied: a.prediction_tied + b.prediction_tied,
            both_tied: a.both_tied + b.both_tied,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering::{Equal, Greater, Less};

    #[test]
    fn every_case_has_its_count() {
        let counts = PairCounts::new([
            (Less, Less),
            (Greater, Greater),
            (Greater, Greater),
            (Less, Greater),
            (Equal, Less),
            (Less, Equal),
            (Greater, Equal),
            (Equal, Equal),
        ]);
        let expected =
            PairCounts { agree: 3, disagree: 1, label_tied: 1, prediction_tied: 2, both_tied: 1 };
        assert_eq!(counts, expected);
        assert_eq!(counts.with_ties(), Some(0.5));
        assert_eq!(counts.without_ties(), Some(0.75));
        assert_eq!(counts.ties_as_half(), Some(4.0 / 6.0));
    }

    #[test]
    fn only_items_of_one_group_are_compared() {
        let groups = [vec![0, 2], vec![1], vec![3, 4, 5]];
        let counts = PairCounts::within(
            &groups,
            &[1.0, 9.0, 2.0, 1.0, 2.0, 3.0],
            &[1.0, 0.0, 2.0, 1.0, 3.0, 2.0],
        );
        assert_eq!((counts.agree, counts.disagree, counts.total()), (3, 1, 4));
    }

    #[test]
    fn without_pairs_there_is_no_accuracy() {
        let none = PairCounts::default();
        assert_eq!(
            (none.with_ties(), none.without_ties(), none.ties_as_half()),
            (None, None, None)
        );
        let tied = PairCounts::new([(Less, Equal)]);
        assert_eq!((tied.without_ties(), tied.ties_as_half()), (None, Some(0.5)));
    }
}
