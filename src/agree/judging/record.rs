//! The rows of `OUT.jsonl`: what the judge says of each labelled row.

use crate::judge::{
    Calibrations, Dimension, Faithfulness, Lang, Rated, Supported, Uncalibrated, Votes, rounded,
};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{RowError, read_rows};
pub use crate::pipeline::records::Details;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The judge's view of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// `"<item>#<run>"`, and `"<item>#<run>+<variant>"` of another way of asking.
    pub idx: String,
    /// The label's idx.
    pub item: String,
    /// From 0; every run has seeds of its own.
    pub run: usize,
    #[serde(default, skip_serializing_if = "Variant::is_plain")]
    pub variant: Variant,
    #[serde(flatten)]
    pub found: Found,
    /// Whether any of its verdicts was forced.
    pub forced: bool,
    /// Over all that was judged.
    pub input_hash: String,
}

/// What was done to a row before it was judged, to see what that changes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Nothing.
    #[default]
    Plain,
    /// Sentences that say nothing were added to the answers.
    Padded,
    /// The judge's prompts are in this language.
    En,
    Zh,
}

impl Variant {
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain
    }

    /// Of a language of prompts.
    pub fn of(lang: Lang) -> Self {
        match lang {
            Lang::En => Self::En,
            Lang::Zh => Self::Zh,
        }
    }

    fn suffix(self) -> &'static str {
        ["", "+padded", "+en", "+zh"][self as usize]
    }
}

/// By the kind of label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Found {
    Support { details: Supported },
    Pairwise { a: Box<Details>, b: Box<Details> },
    Rating { details: Box<Details> },
}

impl Found {
    /// The answers; none of a claim.
    pub fn answers(&self) -> Vec<&Details> {
        match self {
            Self::Support { .. } => Vec::new(),
            Self::Pairwise { a, b } => vec![a, b],
            Self::Rating { details } => vec![details],
        }
    }
}

/// One dimension of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score<'a> {
    pub dimension: Dimension,
    /// 0 to 10.
    pub score: f64,
    /// The mean of the distribution.
    pub expected: Option<f64>,
    /// Probabilities of the ratings 0 to 10; empty where there is none.
    pub distribution: &'a [f64],
    /// The two before they were calibrated, if they are.
    pub uncalibrated: &'a Option<Uncalibrated>,
    pub forced: bool,
    /// Replies that the verdict took; of faithfulness the list of statements alone.
    pub attempts: u32,
    pub votes: Option<&'a Votes>,
}

impl<'a> Score<'a> {
    fn of(dimension: Dimension, rated: &'a Rated) -> Self {
        let &Rated {
            score, expected, forced, attempts, ref distribution, ref uncalibrated, ..
        } = rated;
        let votes = rated.votes.as_deref();
        Self { dimension, score, expected, distribution, uncalibrated, forced, attempts, votes }
    }

    fn of_faithfulness(found: &'a Faithfulness) -> Self {
        let &Faithfulness { score, expected, forced, attempts, .. } = found;
        let (dimension, distribution, uncalibrated) = (Dimension::Faithfulness, &[][..], &None);
        let votes = None;
        Self { dimension, score, expected, distribution, uncalibrated, forced, attempts, votes }
    }
}

impl Judged {
    pub fn id(item: &str, run: usize, variant: Variant) -> String {
        format!("{item}#{run}{}", variant.suffix())
    }

    /// Corrects distributions and expected values; the judge's own stand beside them.
    pub fn calibrate(&mut self, by: &Calibrations) {
        match &mut self.found {
            Found::Support { details } => by.supported(details),
            Found::Pairwise { a, b } => [a, b].into_iter().for_each(|one| one.calibrate(by)),
            Found::Rating { details } => details.calibrate(by),
        }
    }
}

/// What agreement looks at.
impl Details {
    /// The dimensions that are there, in the order of the fields.
    pub fn verdicts(&self) -> Vec<Score<'_>> {
        let Self { helpfulness, logicality, faithfulness, completeness } = self;
        let scores = [
            helpfulness.as_ref().map(|one| Score::of(Dimension::Helpfulness, one)),
            logicality.as_ref().map(|one| Score::of(Dimension::Logicality, one)),
            faithfulness.as_ref().map(Score::of_faithfulness),
            completeness.as_ref().map(|one| Score::of(Dimension::Completeness, &one.rated)),
        ];
        scores.into_iter().flatten().collect()
    }

    /// As [`verdicts`](Self::verdicts), but for faithfulness, which is made of many.
    pub fn ratings(&self) -> impl Iterator<Item = Score<'_>> {
        let all = self.verdicts().into_iter();
        all.filter(|score| score.dimension != Dimension::Faithfulness)
    }

    /// The mean score of the dimensions.
    pub fn mean(&self) -> Option<f64> {
        let scores: Vec<f64> = self.verdicts().iter().map(|score| score.score).collect();
        crate::agree::metrics::mean(&scores).map(rounded)
    }

    /// The mean of expected values, where all dimensions have one.
    pub fn expected(&self) -> Option<f64> {
        let values: Option<Vec<f64>> = self.verdicts().iter().map(|score| score.expected).collect();
        crate::agree::metrics::mean(&values?).map(rounded)
    }
}

/// Reads `OUT.jsonl`.
///
/// # Errors
/// [`Error::Io`].
pub fn read_judged(path: &Path) -> Result<(Vec<Judged>, Vec<RowError>), Error> {
    let mut records = Vec::new();
    let problems = read_rows(path, |row| {
        let place = row.place;
        let record = serde_json::from_value(Value::Object(row.fields));
        records.push(record.map_err(|e| place.error(None, format!("is no such record: {e}")))?);
        Ok(())
    })?;
    Ok((records, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    fn rated(score: f64, expected: Option<f64>) -> Rated {
        Rated { expected, ..testing::rated(score, &[0.25, 0.75]) }
    }

    #[test]
    fn records_survive_json() {
        let supported = testing::supported(0.5, &[0.25, 0.5, 0.25]);
        let answered = Details { logicality: Some(rated(3.0, Some(2.5))), ..Details::default() };
        for found in [
            Found::Support { details: supported },
            Found::Pairwise { a: answered.clone().into(), b: Details::default().into() },
            Found::Rating { details: answered.into() },
        ] {
            let (item, input_hash) = ("i".to_owned(), "h".to_owned());
            let plain = r#"{"idx":"i#2","item":"i","run":2,"kind":"#;
            let padded = r#"{"idx":"i#2+padded","item":"i","run":2,"variant":"padded","kind":"#;
            for (variant, start) in [(Variant::Plain, plain), (Variant::Padded, padded)] {
                let idx = Judged::id(&item, 2, variant);
                let (item, found, input_hash) = (item.clone(), found.clone(), input_hash.clone());
                let record = Judged { idx, item, run: 2, variant, found, forced: true, input_hash };
                let json = serde_json::to_string(&record).unwrap();
                assert!(json.starts_with(start), "{json}");
                assert_eq!(serde_json::from_str::<Judged>(&json).unwrap(), record);
            }
        }
    }

    #[test]
    fn means_are_over_the_dimensions_that_are_there() {
        let helpfulness = Some(rated(4.0, Some(5.0)));
        let answered = Details { helpfulness, ..Details::default() };
        assert_eq!((answered.mean(), answered.expected()), (Some(4.0), Some(5.0)));
        assert_eq!(answered.verdicts()[0].distribution, [0.25, 0.75]);
        let both = Details { logicality: Some(rated(1.0, None)), ..answered };
        assert_eq!((both.mean(), both.expected()), (Some(2.5), None));
        assert_eq!(Details::default().mean(), None);
    }
}
