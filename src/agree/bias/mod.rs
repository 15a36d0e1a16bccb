//! What moves a judge that should not: words that say nothing, the language of its prompts, answers
//! of its own, length. What seeds do is in [`super::summary`]; the order of two answers can't
//! matter, since each is judged by itself.

mod languages;
mod length;
mod own;
mod padding;
#[cfg(test)]
mod tests;

pub use languages::LanguageBias;
pub use length::RatingLength;
pub use own::SelfPreference;
pub use padding::PaddingBias;

use super::judging::{Details, Found, Judged, Variant};
use super::labels::{Item, Kind};
use super::metrics::Bootstrap;
use crate::judge::LangChoice;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// All checks that the records allow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bias {
    /// Why the place of an answer makes no difference; `None` of claims alone, and of scores that
    /// were there already, whose seeds hang on the numbers of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<PaddingBias>,
    /// Of each kind of label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<LanguageBias>,
    /// Of pairs and of ratings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub self_preference: Vec<SelfPreference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating_length: Option<RatingLength>,
}

/// What the checks need to know besides records and labels.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// How the language of prompts was chosen.
    pub lang: LangChoice,
    /// Names under which the judge may stand as an author.
    pub own: Vec<String>,
    /// The verdicts are [`judging`](super::judging)'s, whose seeds hang on the text of answers.
    pub seeds_by_text: bool,
    pub bootstrap: Bootstrap,
}

const POSITION: &str = "answers are judged one by one, with seeds that hang on their text: \
                        swapping two of them changes no verdict";

/// The records of run 0 on a row.
struct Row<'a> {
    item: &'a Item,
    plain: &'a Found,
    variants: HashMap<Variant, &'a Found>,
}

impl Bias {
    pub fn new(items: &[Item], judged: &[Judged], known: &Known) -> Self {
        let rows = rows(items, judged);
        let has_answers = rows.iter().any(|row| !matches!(row.item.kind, Kind::Support(_)));
        Self {
            position: (has_answers && known.seeds_by_text).then(|| POSITION.to_owned()),
            padding: PaddingBias::new(&rows, &known.bootstrap),
            languages: LanguageBias::all(&rows, known),
            self_preference: SelfPreference::all(&rows, known),
            rating_length: RatingLength::new(&rows, &known.bootstrap),
        }
    }

    /// Whether nothing could be checked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rows that were judged as they are, in the order of their file.
fn rows<'a>(items: &'a [Item], judged: &'a [Judged]) -> Vec<Row<'a>> {
    let mut found: HashMap<&str, HashMap<Variant, &Found>> = HashMap::new();
    for record in judged.iter().filter(|record| record.run == 0) {
        found.entry(&record.item).or_default().insert(record.variant, &record.found);
    }
    let row = |item: &'a Item| {
        let variants = found.remove(item.idx.as_str())?;
        let plain = *variants.get(&Variant::Plain)?;
        Some(Row { item, plain, variants })
    };
    items.iter().filter_map(row).collect()
}

/// The degree of support of a claim (0 to 1), or the mean of each answer.
fn scores(found: &Found) -> Vec<f64> {
    match found {
        Found::Support { details } => vec![details.score],
        _ => found.answers().iter().filter_map(|answer| answer.mean()).collect(),
    }
}

/// As [`scores`], by expected values; the score where there is none.
fn expected(found: &Found) -> Vec<f64> {
    match found {
        Found::Support { details } => vec![details.expected.unwrap_or(details.score)],
        _ => {
            let of = |answer: &&Details| answer.expected().or_else(|| answer.mean());
            found.answers().iter().filter_map(of).collect()
        }
    }
}

/// 1 where the first of two is preferred, 0.5 at a tie, 0 where the second is.
fn preference(first: f64, second: f64) -> f64 {
    match first.total_cmp(&second) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }
}
