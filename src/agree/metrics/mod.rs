//! Measures of agreement, as pure functions.
//!
//! Conventions: two slices are paired item by item and have equal lengths. Numbers are finite. A
//! measure that its definition leaves without a value (a correlation with a constant, kappa where
//! chance agreement is certain, anything of no items) is `None`; no function returns NaN.

mod bootstrap;
mod calibration;
mod classes;
mod fleiss;
#[cfg(test)]
mod goldens;
mod pairs;
mod rank;

pub use bootstrap::{Bootstrap, Estimate, Metrics, SplitMix, clusters, only};
pub use calibration::{Bin, Calibration};
pub use classes::Confusion;
pub use fleiss::fleiss_kappa;
pub use pairs::PairCounts;
pub use rank::{kendall, partial, pearson, ranks, spearman};

pub(crate) use crate::statistics::{mean, standard_deviation};

/// The mean of absolute differences; `None` of no values.
pub fn mean_absolute_difference(a: &[f64], b: &[f64]) -> Option<f64> {
    ratio(a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum(), a.len() as f64)
}

/// A quotient, if the denominator is positive.
fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_value_is_none() {
        assert_eq!((mean(&[]), mean(&[1.0, 2.0])), (None, Some(1.5)));
        assert_eq!(mean_absolute_difference(&[1.0, 5.0], &[2.0, 2.0]), Some(2.0));
        assert_eq!((standard_deviation(&[3.0]), standard_deviation(&[])), (None, None));
        assert_eq!(standard_deviation(&[1.0, 3.0]), Some(2f64.sqrt()));
    }
}
