//! Whether a confidence of 70 % is right 7 times of 10.

use super::ratio;
use serde::{Deserialize, Serialize};

/// The items whose confidence lies in `(low, high]`; the first bin has 0, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    pub items: usize,
    /// The mean of theirs.
    pub confidence: Option<f64>,
    /// The share of them that is right.
    pub accuracy: Option<f64>,
}

/// Confidence beside accuracy, in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub bins: Vec<Bin>,
    /// Expected calibration error (Naeini et al. 2015): the mean over items of the distance
    /// between their bin's confidence and accuracy.
    pub error: Option<f64>,
}

impl Calibration {
    /// The number of bins that is usual.
    pub const BINS: usize = 10;

    /// From items of confidence (0 to 1) and whether they are right. A `bins` of 0 is taken as 1.
    pub fn new(items: &[(f64, bool)], bins: usize) -> Self {
        let bins = bins.max(1);
        let mut sums = vec![(0, 0.0, 0); bins];
        for &(confidence, right) in items {
            let (count, sum, rights) = &mut sums[bin_of(confidence, bins)];
            *count += 1;
            *sum += confidence;
            *rights += usize::from(right);
        }
        let apart: f64 = sums.iter().map(|&(_, sum, rights)| (sum - rights as f64).abs()).sum();
        let edge = |bin: usize| bin as f64 / bins as f64;
        let bin = |(bin, (items, sum, rights)): (usize, (usize, f64, usize))| Bin {
            low: edge(bin),
            high: edge(bin + 1),
            items,
            confidence: ratio(sum, items as f64),
            accuracy: ratio(rights as f64, items as f64),
        };
        let error = ratio(apart, items.len() as f64);
        Self { bins: sums.into_iter().enumerate().map(bin).collect(), error }
    }
}

/// The first bin whose upper edge is not below the confidence.
fn bin_of(confidence: f64, bins: usize) -> usize {
    let below = |bin: &usize| confidence > (*bin + 1) as f64 / bins as f64;
    (0..bins - 1).take_while(below).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_lower_bin() {
        let bins = [0.0, 0.1, 0.3, 0.7, 0.71, 1.0].map(|confidence| bin_of(confidence, 10));
        assert_eq!(bins, [0, 0, 2, 6, 7, 9]);
    }

    #[test]
    fn the_error_weighs_bins_by_their_items() {
        let items = [(0.95, true), (0.95, false), (0.6, true)];
        let calibration = Calibration::new(&items, 10);
        // |0.95 - 0.5| × 2/3 + |0.6 - 1| × 1/3
        assert!((calibration.error.unwrap() - (0.9 + 0.4) / 3.0).abs() < 1e-12);
        assert_eq!((calibration.bins[9].items, calibration.bins[9].accuracy), (2, Some(0.5)));
        assert_eq!((calibration.bins[0].items, calibration.bins[0].confidence), (0, None));
        assert_eq!(Calibration::new(&[], 0).error, None);
    }
}
