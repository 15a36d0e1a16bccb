//! What verdicts lose before and after a correction.

use super::Options;
use super::samples::{PairSample, Single, Verdicts};
use crate::agree::metrics::{Calibration, Metrics, mean};
use crate::judge::Calibrator;
use crate::judge::calibration::worth;

/// One item's losses.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// Where probabilities are corrected.
    log_loss: Option<f64>,
    squared_error: f64,
    /// The probability of the likeliest class, and whether it is the label.
    confidence: Option<(f64, bool)>,
}

/// `calibrators` are those of each item.
pub fn losses(
    verdicts: &Verdicts,
    calibrators: &[Calibrator],
    prompts: &[Vec<usize>],
    options: &Options,
) -> Metrics {
    let (before, after): (Vec<Loss>, Vec<Loss>) = match verdicts {
        Verdicts::Singles(labels, singles) => {
            let both = |(one, by): (&Single, &Calibrator)| {
                (single(one, labels, None, by), single(one, labels, Some(by), by))
            };
            singles.iter().zip(calibrators).map(both).unzip()
        }
        Verdicts::Pairs(pairs) => {
            let both = |(one, by): (&PairSample, &Calibrator)| {
                (pair(one, 1.0), pair(one, temperature(by)))
            };
            pairs.iter().zip(calibrators).map(both).unzip()
        }
    };
    options
        .bootstrap
        .estimate(prompts, |items| {
            let mut measures = Vec::new();
            let names = [
                ["log_loss_before", "log_loss_after", "log_loss_gain"],
                ["squared_error_before", "squared_error_after", "squared_error_gain"],
                ["calibration_error_before", "calibration_error_after", "calibration_error_gain"],
            ];
            for (names, measure) in
                names.into_iter().zip([log_loss, squared_error, calibration_error])
            {
                let (before, after) = (measure(&before, items), measure(&after, items));
                let gain = before.zip(after).map(|(before, after)| before - after);
                measures.extend(names.into_iter().zip([before, after, gain]));
            }
            measures
        })
        .into_iter()
        .filter(|(_, estimate)| estimate.value.is_some())
        .collect()
}

fn temperature(by: &Calibrator) -> f64 {
    match by {
        Calibrator::Temperature { temperature } => *temperature,
        Calibrator::Isotonic { .. } => 1.0,
    }
}

/// `like` says what is corrected, `by` corrects it.
fn single(one: &Single, labels: &str, by: Option<&Calibrator>, like: &Calibrator) -> Loss {
    let Single { distribution, expected, target, value, .. } = one;
    let worth = worth(labels);
    let found = by.map_or(*expected, |by| by.expected(distribution, *expected, &worth));
    let squared_error = (found - value).powi(2);
    if matches!(like, Calibrator::Isotonic { .. }) {
        return Loss { log_loss: None, squared_error, confidence: None };
    }
    let corrected = by.map_or(distribution.clone(), |by| by.distribution(distribution));
    let likeliest = largest(&corrected);
    let confidence = Some((corrected[likeliest], likeliest == largest(target)));
    let log_loss = Some(one.log_loss(by.map_or(1.0, temperature)));
    Loss { log_loss, squared_error, confidence }
}

fn pair(one: &PairSample, temperature: f64) -> Loss {
    let p = one.probability(temperature);
    let decided = one.first != 0.5 && p != 0.5;
    Loss {
        log_loss: Some(one.log_loss(temperature)),
        squared_error: (p - one.first).powi(2),
        confidence: decided.then_some((p.max(1.0 - p), (p > 0.5) == (one.first > 0.5))),
    }
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

fn log_loss(losses: &[Loss], items: &[usize]) -> Option<f64> {
    let values: Option<Vec<f64>> = items.iter().map(|&item| losses[item].log_loss).collect();
    mean(&values?)
}

fn squared_error(losses: &[Loss], items: &[usize]) -> Option<f64> {
    mean(&items.iter().map(|&item| losses[item].squared_error).collect::<Vec<_>>())
}

fn calibration_error(losses: &[Loss], items: &[usize]) -> Option<f64> {
    let items: Vec<(f64, bool)> =
        items.iter().filter_map(|&item| losses[item].confidence).collect();
    Calibration::new(&items, Calibration::BINS).error
}
