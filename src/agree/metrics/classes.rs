//! Agreement on classes: accuracy, F1 and Cohen's kappa, all from the confusion matrix.

use super::{mean, ratio};
use serde::{Deserialize, Serialize};

/// How often each label met each prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Confusion {
    /// `counts[label][prediction]`.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts pairs of label and prediction. Classes are numbers below `classes`; others are not
    /// counted.
    pub fn new(classes: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (label, prediction) in pairs {
            if let Some(count) = counts.get_mut(label).and_then(|row| row.get_mut(prediction)) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// Items.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// How many items have this label.
    pub fn labelled(&self, class: usize) -> usize {
        self.counts[class].iter().sum()
    }

    /// How many items are predicted to be of this class.
    pub fn predicted(&self, class: usize) -> usize {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// The share of items whose prediction is their label.
    pub fn accuracy(&self) -> Option<f64> {
        let right: usize = (0..self.counts.len()).map(|class| self.counts[class][class]).sum();
        ratio(right as f64, self.total() as f64)
    }

    /// The harmonic mean of a class's precision and recall; 0 where no item of it was found, `None`
    /// where it is neither a label nor a prediction.
    pub fn f1(&self, class: usize) -> Option<f64> {
        let both = self.labelled(class) + self.predicted(class);
        ratio(2.0 * self.counts[class][class] as f64, both as f64)
    }

    /// The mean F1 of the classes that occur as label or prediction.
    pub fn macro_f1(&self) -> Option<f64> {
        let scores: Vec<f64> = (0..self.counts.len()).filter_map(|class| self.f1(class)).collect();
        mean(&scores)
    }

    /// Cohen's kappa (1960): agreement beyond chance. `None` where chance alone agrees on all,
    /// because there is one class.
    pub fn kappa(&self) -> Option<f64> {
        self.weighted_kappa(|label, prediction| f64::from(label != prediction))
    }

    /// Cohen's kappa (1968) for classes in order, a disagreement weighing the square of its size.
    pub fn quadratic_kappa(&self) -> Option<f64> {
        self.weighted_kappa(|label, prediction| label.abs_diff(prediction).pow(2) as f64)
    }

    fn weighted_kappa(&self, weight: impl Fn(usize, usize) -> f64) -> Option<f64> {
        let total = self.total() as f64;
        let (mut seen, mut by_chance) = (0.0, 0.0);
        for (label, row) in self.counts.iter().enumerate() {
            for (prediction, &count) in row.iter().enumerate() {
                let weight = weight(label, prediction);
                let expected = self.labelled(label) as f64 * self.predicted(prediction) as f64;
                seen += weight * count as f64;
                by_chance += weight * expected;
            }
        }
        Some(1.0 - ratio(seen * total, by_chance)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Labels 0 0 0 1 1 2, predictions 0 0 1 1 1 1.
        let confusion =
            Confusion::new(3, [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (2, 1), (7, 0), (0, 7)]);
        assert_eq!(confusion.counts, [[2, 1, 0], [0, 2, 0], [0, 1, 0]]);
        assert_eq!(confusion.accuracy(), Some(4.0 / 6.0));
        // F1: 2·2/5, 2·2/6, 0.
        assert_eq!(confusion.f1(2), Some(0.0));
        let f1 = (0.8 + 4.0 / 6.0) / 3.0;
        assert!((confusion.macro_f1().unwrap() - f1).abs() < 1e-12);
        // Chance: (3·2 + 2·4 + 1·0) / 36 = 14/36.
        let kappa = (4.0 / 6.0 - 14.0 / 36.0) / (1.0 - 14.0 / 36.0);
        assert!((confusion.kappa().unwrap() - kappa).abs() < 1e-12);
    }

    #[test]
    fn one_class_has_no_kappa() {
        let confusion = Confusion::new(3, [(1, 1), (1, 1)]);
        assert_eq!((confusion.accuracy(), confusion.macro_f1()), (Some(1.0), Some(1.0)));
        assert_eq!((confusion.kappa(), confusion.quadratic_kappa()), (None, None));
        assert_eq!(confusion.f1(0), None);
        let empty = Confusion::new(3, []);
        assert_eq!((empty.accuracy(), empty.macro_f1(), empty.kappa()), (None, None, None));
    }

    #[test]
    fn a_constant_prediction_agrees_by_chance() {
        let confusion = Confusion::new(2, [(0, 0), (1, 0), (0, 0)]);
        assert_eq!(confusion.kappa(), Some(0.0));
    }
}
