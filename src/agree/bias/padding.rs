//! Whether an answer is worth more with sentences that say nothing.

use super::{Row, expected, preference, scores};
use crate::agree::judging::Variant;
use crate::agree::metrics::{Bootstrap, Metrics, clusters, mean};
use crate::agree::summary::score;
use crate::judge::Dimension;
use serde::{Deserialize, Serialize};

/// Answers as they are beside the same ones with sentences added (see [`crate::agree::padding`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaddingBias {
    pub answers: usize,
    pub pairs: usize,
    /// `shift`: how much the mean score (0 to 10) rises with padding; `shift_expected`: by expected
    /// values; `shift_helpfulness` and so on: in one dimension. `raised`, `lowered`: shares of
    /// answers whose score rises, falls. `padded_preferred`: of pairs in which one answer is padded
    /// (each side once), how often the padded one is preferred, a tie being half; 0.5 without bias.
    pub metrics: Metrics,
}

/// A row judged both ways: scores, by answer.
struct Both {
    plain: Vec<f64>,
    padded: Vec<f64>,
    shifts_expected: Vec<f64>,
    /// By dimension.
    shifts: [Vec<f64>; 4],
}

impl PaddingBias {
    /// `None` if no row was judged both ways.
    pub(super) fn new(rows: &[Row], bootstrap: &Bootstrap) -> Option<Self> {
        let having = rows.iter().filter_map(|row| Some((row, both(row)?)));
        let (rows, both): (Vec<&Row>, Vec<Both>) = having.unzip();
        if both.is_empty() {
            return None;
        }
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        Some(Self {
            answers: both.iter().map(|row| row.plain.len()).sum(),
            pairs: both.iter().filter(|row| row.plain.len() == 2).count(),
            metrics: bootstrap.estimate(&prompts, |items| measure(&both, items)),
        })
    }
}

fn both(row: &Row) -> Option<Both> {
    let other = *row.variants.get(&Variant::Padded)?;
    let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let shift = |dimension: Dimension| -> Vec<f64> {
        let pairs = other.answers().into_iter().zip(row.plain.answers());
        pairs.filter_map(|(a, b)| Some(score(a, dimension)? - score(b, dimension)?)).collect()
    };
    Some(Both {
        plain: scores(row.plain),
        padded: scores(other),
        shifts_expected: minus(&expected(other), &expected(row.plain)),
        shifts: Dimension::ALL.map(shift),
    })
}

fn measure(rows: &[Both], items: &[usize]) -> Vec<(&'static str, Option<f64>)> {
    let drawn = || items.iter().map(|&item| &rows[item]);
    let shifts: Vec<f64> =
        drawn().flat_map(|row| row.padded.iter().zip(&row.plain).map(|(a, b)| a - b)).collect();
    let share = |is: fn(f64) -> bool| {
        mean(&shifts.iter().map(|&shift| f64::from(u8::from(is(shift)))).collect::<Vec<_>>())
    };
    let expected: Vec<f64> = drawn().flat_map(|row| row.shifts_expected.iter().copied()).collect();
    let preferred: Vec<f64> = drawn().flat_map(padded_preferred).collect();
    let dimension = |i: usize| {
        mean(&drawn().flat_map(|row| row.shifts[i].iter().copied()).collect::<Vec<f64>>())
    };
    vec![
        ("shift", mean(&shifts)),
        ("shift_expected", mean(&expected)),
        ("shift_helpfulness", dimension(0)),
        ("shift_logicality", dimension(1)),
        ("shift_faithfulness", dimension(2)),
        ("shift_completeness", dimension(3)),
        ("raised", share(|shift| shift > 0.0)),
        ("lowered", share(|shift| shift < 0.0)),
        ("padded_preferred", mean(&preferred)),
    ]
}

/// Each answer of a pair padded against the other as it is.
fn padded_preferred(row: &Both) -> Vec<f64> {
    match (&row.plain[..], &row.padded[..]) {
        ([a, b], [padded_a, padded_b]) => {
            vec![preference(*padded_a, *b), preference(*padded_b, *a)]
        }
        _ => Vec::new(),
    }
}
