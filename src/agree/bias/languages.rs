//! Whether a verdict hangs on the language of the judge's prompts.

use super::{Known, Row, expected, preference, scores};
use crate::agree::judging::{Found, Variant};
use crate::agree::labels::{Kind, Level, Preference};
use crate::agree::metrics::{Confusion, Metrics, clusters, mean, spearman};
use crate::judge::Lang;
use serde::{Deserialize, Serialize};

/// Rows judged with English and with Chinese prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanguageBias {
    /// `support`, `pairwise` or `rating`.
    pub kind: String,
    pub items: usize,
    /// `same_verdict`: share of rows with the same degree of support, preference or mean rating;
    /// `kappa`: Cohen's, of degrees or preferences; `shift`: how much higher scores are in Chinese
    /// than in English (support 0 to 1, answers 0 to 10); `shift_expected`: by expected values.
    /// `agreement_en`, `agreement_zh` with people, as `measure` says, and `agreement_difference`,
    /// Chinese less English.
    pub metrics: Metrics,
    /// `accuracy`, `accuracy_ties_half` or `spearman`.
    pub measure: String,
}

/// A row in both languages.
struct Both {
    /// English, Chinese: by answer.
    scores: [Vec<f64>; 2],
    expected: [Vec<f64>; 2],
    label: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Support,
    Pairs,
    Ratings,
}

impl LanguageBias {
    pub(super) fn all(rows: &[Row], known: &Known) -> Vec<Self> {
        [Of::Support, Of::Pairs, Of::Ratings]
            .into_iter()
            .filter_map(|of| Self::new(of, rows, known))
            .collect()
    }

    fn new(of: Of, rows: &[Row], known: &Known) -> Option<Self> {
        let having = rows.iter().filter_map(|row| Some((row, both(of, row, known)?)));
        let (rows, both): (Vec<&Row>, Vec<Both>) = having.unzip();
        if both.is_empty() {
            return None;
        }
        let prompts = clusters(rows.iter().map(|row| row.item.prompt()));
        let (kind, measure_of) = match of {
            Of::Support => ("support", "accuracy"),
            Of::Pairs => ("pairwise", "accuracy_ties_half"),
            Of::Ratings => ("rating", "spearman"),
        };
        let metrics = known.bootstrap.estimate(&prompts, |items| measure(of, &both, items));
        let (kind, measure) = (kind.to_owned(), measure_of.to_owned());
        Some(Self { kind, items: both.len(), metrics, measure })
    }
}

fn both(of: Of, row: &Row, known: &Known) -> Option<Both> {
    let label = match (&row.item.kind, of) {
        (Kind::Support(claim), Of::Support) => claim.label as usize as f64,
        (Kind::Pairwise(pair), Of::Pairs) => pair.label.sign(),
        (Kind::Rating(rating), Of::Ratings) => rating.rating,
        _ => return None,
    };
    let own = row.item.lang(known.lang);
    let found = |lang: Lang| -> Option<&Found> {
        let variant = row.variants.get(&Variant::of(lang)).copied();
        variant.or((own == Some(lang)).then_some(row.plain))
    };
    let [en, zh] = [found(Lang::En)?, found(Lang::Zh)?];
    Some(Both { scores: [scores(en), scores(zh)], expected: [expected(en), expected(zh)], label })
}

impl Both {
    /// A class for degrees of support and for preferences.
    fn class(&self, of: Of, lang: usize) -> Option<usize> {
        match (of, &self.scores[lang][..]) {
            (Of::Support, [score]) => Some(Level::of_score(*score) as usize),
            (Of::Pairs, [a, b]) => Some(Preference::of_scores(*a, *b) as usize),
            _ => None,
        }
    }

    fn same(&self, of: Of) -> f64 {
        let same = match of {
            Of::Ratings => self.scores[0] == self.scores[1],
            _ => self.class(of, 0) == self.class(of, 1),
        };
        f64::from(u8::from(same))
    }
}

fn measure(of: Of, rows: &[Both], items: &[usize]) -> Vec<(&'static str, Option<f64>)> {
    let drawn = || items.iter().map(|&item| &rows[item]);
    let same: Vec<f64> = drawn().map(|row| row.same(of)).collect();
    let classes = drawn().filter_map(|row| row.class(of, 0).zip(row.class(of, 1)));
    let kappa = Confusion::new(3, classes).kappa();
    let shift = |values: fn(&Both) -> &[Vec<f64>; 2]| {
        let shifts = drawn().flat_map(|row| {
            let [en, zh] = values(row);
            zh.iter().zip(en).map(|(zh, en)| zh - en)
        });
        mean(&shifts.collect::<Vec<f64>>())
    };
    let agreement = [0, 1].map(|lang| agreement(of, rows, items, lang));
    let [en, zh] = agreement;
    vec![
        ("same_verdict", mean(&same)),
        ("kappa", kappa.filter(|_| of != Of::Ratings)),
        ("shift", shift(|row| &row.scores)),
        ("shift_expected", shift(|row| &row.expected)),
        ("agreement_en", en),
        ("agreement_zh", zh),
        ("agreement_difference", zh.zip(en).map(|(zh, en)| zh - en)),
    ]
}

/// With people, in one language.
fn agreement(of: Of, rows: &[Both], items: &[usize], lang: usize) -> Option<f64> {
    let drawn = || items.iter().map(|&item| &rows[item]);
    match of {
        Of::Support => {
            let right = |row: &Both| row.class(of, lang) == Some(row.label as usize);
            mean(&drawn().map(|row| f64::from(u8::from(right(row)))).collect::<Vec<_>>())
        }
        Of::Pairs => {
            let decided = drawn().filter(|row| row.label != 0.0);
            let right = decided.filter_map(|row| match row.scores[lang][..] {
                [a, b] => Some(1.0 - (preference(a, b) - (row.label + 1.0) / 2.0).abs()),
                _ => None,
            });
            mean(&right.collect::<Vec<f64>>())
        }
        Of::Ratings => {
            let label: Vec<f64> = drawn().map(|row| row.label).collect();
            let value: Vec<f64> = drawn().flat_map(|row| row.scores[lang].clone()).collect();
            (label.len() == value.len()).then(|| spearman(&label, &value)).flatten()
        }
    }
}
