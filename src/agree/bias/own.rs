//! Whether a judge likes its own answers better than people do.

use super::{Known, Row, preference, scores};
use crate::agree::labels::{Kind, Pair, Rating};
use crate::agree::metrics::{Metrics, clusters, mean, pearson, standard_deviation};
use serde::{Deserialize, Serialize};

/// Answers whose author is the judge itself beside those of others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelfPreference {
    /// `pairwise` or `rating`.
    pub kind: String,
    /// Pairs of an own answer and another's; answers with an author.
    pub items: usize,
    /// Answers that are the judge's own.
    pub own: usize,
    /// Of pairs: `judge_prefers_own` and `people_prefer_own`, a tie being half, and `excess`, the
    /// former less the latter. Of ratings: `judge_own`, `judge_others`, `people_own`,
    /// `people_others`: mean scores; `excess`: what the judge gives its own answers more than
    /// others with the same human rating (the coefficient of ownership in a linear regression of
    /// its score on that rating and ownership), 0 to 10.
    pub metrics: Metrics,
}

impl SelfPreference {
    pub(super) fn all(rows: &[Row], known: &Known) -> Vec<Self> {
        [of_pairs(rows, known), of_ratings(rows, known)].into_iter().flatten().collect()
    }
}

fn is_own(author: &str, known: &Known) -> bool {
    known.own.iter().any(|name| name.eq_ignore_ascii_case(author))
}

/// A pair as seen from the own answer: 1 if that is preferred, 0.5 at a tie.
struct OwnPair {
    judge: f64,
    people: f64,
}

fn of_pairs(rows: &[Row], known: &Known) -> Option<SelfPreference> {
    let pairs = rows.iter().filter_map(|row| Some((row, own_pair(row, known)?)));
    let (rows, pairs): (Vec<&Row>, Vec<OwnPair>) = pairs.unzip();
    let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
    let metrics = || {
        known.bootstrap.estimate(&prompts, |items| {
            let column = |value: fn(&OwnPair) -> f64| {
                mean(&items.iter().map(|&item| value(&pairs[item])).collect::<Vec<_>>())
            };
            vec![
                ("judge_prefers_own", column(|pair| pair.judge)),
                ("people_prefer_own", column(|pair| pair.people)),
                ("excess", column(|pair| pair.judge - pair.people)),
            ]
        })
    };
    let items = pairs.len();
    let kind = "pairwise".to_owned();
    (items > 0).then(|| SelfPreference { kind, items, own: items, metrics: metrics() })
}

/// `None` unless one of the two is the judge's own and the other is known not to be.
fn own_pair(row: &Row, known: &Known) -> Option<OwnPair> {
    let Kind::Pairwise(Pair { authors: [Some(a), Some(b)], label, .. }) = &row.item.kind else {
        return None;
    };
    let [score_a, score_b] = scores(row.plain)[..] else { return None };
    let first = OwnPair { judge: preference(score_a, score_b), people: (label.sign() + 1.0) / 2.0 };
    match (is_own(a, known), is_own(b, known)) {
        (true, false) => Some(first),
        (false, true) => Some(OwnPair { judge: 1.0 - first.judge, people: 1.0 - first.people }),
        _ => None,
    }
}

/// An answer with its author.
struct Authored {
    /// 1 or 0.
    own: f64,
    judge: f64,
    people: f64,
}

fn of_ratings(rows: &[Row], known: &Known) -> Option<SelfPreference> {
    let answers = rows.iter().filter_map(|row| Some((row, authored(row, known)?)));
    let (rows, answers): (Vec<&Row>, Vec<Authored>) = answers.unzip();
    let own = answers.iter().filter(|answer| answer.own == 1.0).count();
    if own == 0 || own == answers.len() {
        return None;
    }
    let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
    let metrics = known.bootstrap.estimate(&prompts, |items| measure(&answers, items));
    Some(SelfPreference { kind: "rating".to_owned(), items: answers.len(), own, metrics })
}

fn authored(row: &Row, known: &Known) -> Option<Authored> {
    let Kind::Rating(Rating { author: Some(author), rating, .. }) = &row.item.kind else {
        return None;
    };
    let [judge] = scores(row.plain)[..] else { return None };
    Some(Authored { own: f64::from(u8::from(is_own(author, known))), judge, people: *rating })
}

fn measure(answers: &[Authored], items: &[usize]) -> Vec<(&'static str, Option<f64>)> {
    let drawn = || items.iter().map(|&item| &answers[item]);
    let of = |own: f64, value: fn(&Authored) -> f64| {
        mean(&drawn().filter(|answer| answer.own == own).map(value).collect::<Vec<_>>())
    };
    let column = |value: fn(&Authored) -> f64| drawn().map(value).collect::<Vec<f64>>();
    let excess = coefficient(
        &column(|answer| answer.judge),
        &column(|answer| answer.own),
        &column(|answer| answer.people),
    );
    vec![
        ("judge_own", of(1.0, |answer| answer.judge)),
        ("judge_others", of(0.0, |answer| answer.judge)),
        ("people_own", of(1.0, |answer| answer.people)),
        ("people_others", of(0.0, |answer| answer.people)),
        ("excess", excess),
    ]
}

/// The coefficient of `x` in the linear regression of `y` on `x` and `z`. `None` where one of
/// `x` and `z` is a constant or a linear function of the other.
fn coefficient(y: &[f64], x: &[f64], z: &[f64]) -> Option<f64> {
    let (sx, sy) = (standard_deviation(x)?, standard_deviation(y)?);
    let Some(xz) = pearson(x, z) else {
        // The same rating throughout: ownership alone is left.
        return standard_deviation(z).filter(|sz| *sz == 0.0).and(slope(y, x, sx, sy));
    };
    let (yx, yz) = (pearson(y, x).unwrap_or(0.0), pearson(y, z).unwrap_or(0.0));
    let left = 1.0 - xz * xz;
    (left > 1e-12).then(|| (yx - yz * xz) / left * sy / sx)
}

fn slope(y: &[f64], x: &[f64], sx: f64, sy: f64) -> Option<f64> {
    (sx > 0.0).then(|| pearson(y, x).unwrap_or(0.0) * sy / sx)
}
