//! The verdicts that a reply could give, and how likely a model finds each.

use super::unexpected;
use crate::chat::{ChatError, Reply};
use crate::judge::AskKind;

/// Labels that a support verdict is chosen from, and what each is worth.
const LABELS: [(&str, f64); 3] =
    [("Fully supported", 1.0), ("Partially supported", 0.5), ("No support", 0.0)];

/// What can stand between the brackets, with its worth. `None` where a verdict has none.
pub(super) fn alternatives(kind: &AskKind) -> Option<Vec<(String, f64)>> {
    match *kind {
        AskKind::Rating => Some(ratings(0, 10)),
        AskKind::Scale { low, high } => Some(ratings(low, high)),
        AskKind::Support | AskKind::Supports { .. } => {
            Some(LABELS.iter().map(|&(name, worth)| (name.to_owned(), worth)).collect())
        }
        AskKind::Statements { .. } | AskKind::Extract => None,
    }
}

fn ratings(low: u8, high: u8) -> Vec<(String, f64)> {
    (low..=high).map(|n| (n.to_string(), f64::from(n))).collect()
}

/// The probabilities of the alternatives, one for each, normalised over them.
///
/// # Errors
/// The model's own, or a reply that holds no such scores.
pub(super) fn probabilities(
    kind: &AskKind,
    reply: Result<Reply, ChatError>,
) -> Result<Vec<f64>, ChatError> {
    let (Reply::Scores { logprobs, .. } | Reply::Estimates { logprobs, .. }) = reply? else {
        return Err(unexpected("a text", "scores"));
    };
    let wanted = alternatives(kind).map_or(0, |alternatives| alternatives.len());
    if logprobs.len() != wanted {
        let (got, wanted) = (format!("{} scores", logprobs.len()), wanted.to_string());
        return Err(unexpected(&got, &wanted));
    }
    normalised(&logprobs).ok_or_else(|| {
        ChatError::Refused(format!("the model gives no verdict a probability: {logprobs:?}"))
    })
}

/// `None` if no logarithm is finite, or one is not a probability's.
fn normalised(logprobs: &[f64]) -> Option<Vec<f64>> {
    let highest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !highest.is_finite() || logprobs.iter().any(|logprob| logprob.is_nan()) {
        return None;
    }
    let weights: Vec<f64> = logprobs.iter().map(|logprob| (logprob - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Some(weights.into_iter().map(|weight| weight / sum).collect())
}

/// The index of the largest value, the lowest of equals.
pub(super) fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
