//! Verdicts made up for tests: of one reply, their expected values those of their distributions.

use super::calibration::{SUPPORT, worth};
use super::{Outcome, Rated, Supported, Verdict};

fn weighed(outcome: Outcome, distribution: &[f64], worth: &[f64]) -> Verdict {
    let mean = distribution.iter().zip(worth).map(|(p, worth)| p * worth).sum();
    let expected = (!distribution.is_empty()).then_some(mean);
    Verdict { distribution: distribution.to_vec(), expected, ..Verdict::new(outcome, "") }
}

/// A rating. The distribution may be empty.
pub fn rated(score: f64, distribution: &[f64]) -> Rated {
    Rated::new(weighed(Outcome::Rating(score), distribution, &worth(""))).unwrap()
}

/// A statement's verdict, without evidence. The distribution may be empty.
pub fn supported(score: f64, distribution: &[f64]) -> Supported {
    let verdict = weighed(Outcome::Support(score), distribution, &worth(SUPPORT));
    Supported::new(String::new(), verdict, Vec::new()).unwrap()
}
