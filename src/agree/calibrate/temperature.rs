//! The temperature at which labels are likeliest.

use super::samples::{PairSample, Single};
use crate::agree::summary::probability_above;
use crate::judge::calibration::{TEMPERATURES, tempered};

/// No probability counts as less in a logarithm.
const LEAST: f64 = 1e-12;

/// Points that are tried before the best of them is refined.
const GRID: usize = 64;

/// The temperature within [`TEMPERATURES`] at which the labels' classes are likeliest; 1 where all
/// are equally good.
pub fn fit_singles(singles: &[&Single]) -> f64 {
    least(|temperature| singles.iter().map(|one| one.log_loss(temperature)).sum())
}

/// As [`fit_singles`], for pairs: the labels say which of two answers is better, and one
/// temperature is wanted for all distributions of ratings.
pub fn fit_pairs(pairs: &[&PairSample]) -> f64 {
    least(|temperature| pairs.iter().map(|pair| pair.log_loss(temperature)).sum())
}

impl Single {
    /// Cross-entropy of the label with the tempered distribution.
    pub fn log_loss(&self, temperature: f64) -> f64 {
        let tempered = tempered(&self.distribution, temperature);
        let terms = self.target.iter().zip(tempered).filter(|(weight, _)| **weight > 0.0);
        terms.map(|(weight, p)| -weight * p.max(LEAST).ln()).sum()
    }
}

impl PairSample {
    /// The probability that the first answer's scores come to more, plus half that of a tie.
    pub fn probability(&self, temperature: f64) -> f64 {
        let warm = |answer: &Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            answer.iter().map(|distribution| tempered(distribution, temperature)).collect()
        };
        let [a, b] = [&self.answers[0], &self.answers[1]].map(warm);
        probability_above(&a, &b, self.lead).unwrap_or(0.5)
    }

    /// Cross-entropy of the label with that probability; a tie counts half for either side.
    pub fn log_loss(&self, temperature: f64) -> f64 {
        let p = self.probability(temperature);
        let part =
            |weight: f64, p: f64| if weight > 0.0 { -weight * p.max(LEAST).ln() } else { 0.0 };
        part(self.first, p) + part(1.0 - self.first, 1.0 - p)
    }
}

/// The temperature of the least loss: the best of a grid of logarithms, refined by golden section
/// between its neighbours.
fn least(loss: impl Fn(f64) -> f64) -> f64 {
    let [low, high] = TEMPERATURES.map(f64::ln);
    let step = (high - low) / GRID as f64;
    let at = |x: f64| loss(x.exp());
    let grid: Vec<f64> = (0..=GRID).map(|i| at(low + step * i as f64)).collect();
    let best = (0..=GRID).fold(0, |best, i| if grid[i] < grid[best] { i } else { best });
    let worst = grid.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if worst - grid[best] <= 1e-12 * worst.abs() {
        return 1.0;
    }
    let around = |i: usize| (low + step * i as f64).clamp(low, high);
    golden_section(at, around(best.saturating_sub(1)), around(best + 1)).exp()
}

/// The place of the minimum of a function that falls and then rises.
fn golden_section(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    while high - low > 1e-9 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = f(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = f(right);
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_found() {
        let found = least(|temperature| (temperature.ln() - 0.7).powi(2) + 3.0);
        assert!((found.ln() - 0.7).abs() < 1e-7, "{found}");
        assert_eq!(least(|_| 2.0), 1.0);
        assert!(least(|temperature| temperature) < TEMPERATURES[0] * 1.001);
        assert!(least(|temperature| -temperature) > TEMPERATURES[1] * 0.999);
    }
}
