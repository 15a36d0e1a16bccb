//! Length beside single ratings; of pairs see [`crate::agree::summary::LengthBias`].

use super::{Row, scores};
use crate::agree::labels::Kind;
use crate::agree::metrics::{Bootstrap, Metrics, clusters, partial, pearson};
use serde::{Deserialize, Serialize};

/// Whether ratings follow the length of answers, in characters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatingLength {
    pub items: usize,
    /// Pearson's: `score_and_label`; `score_and_label_given_length`: what remains of it without
    /// what length explains; `score_and_length`; `label_and_length`.
    pub metrics: Metrics,
}

impl RatingLength {
    /// `None` without ratings.
    pub(super) fn new(rows: &[Row], bootstrap: &Bootstrap) -> Option<Self> {
        let rated = rows.iter().filter_map(|row| match (&row.item.kind, &scores(row.plain)[..]) {
            (Kind::Rating(rating), [score]) => {
                Some((row, [*score, rating.rating, rating.answer.chars().count() as f64]))
            }
            _ => None,
        });
        let (rows, rated): (Vec<&Row>, Vec<[f64; 3]>) = rated.unzip();
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        let metrics = || {
            bootstrap.estimate(&prompts, |items| {
                let column =
                    |i: usize| items.iter().map(|&item| rated[item][i]).collect::<Vec<_>>();
                let [score, label, length] = [0, 1, 2].map(column);
                vec![
                    ("score_and_label", pearson(&score, &label)),
                    ("score_and_label_given_length", partial(&score, &label, &length)),
                    ("score_and_length", pearson(&score, &length)),
                    ("label_and_length", pearson(&label, &length)),
                ]
            })
        };
        let items = rated.len();
        (items > 0).then(|| Self { items, metrics: metrics() })
    }
}
