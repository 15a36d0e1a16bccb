//! How verdicts stand in `details` of a scored response: field names as in LongReward's own files,
//! with what this judge knows besides.

use super::calibration::Uncalibrated;
use super::{ATTEMPTS, Verdict, Votes};
use crate::chat::Estimate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Helpfulness and logicality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rated {
    /// The judge's reply.
    pub analysis: String,
    /// 0 to 10.
    pub score: f64,
    pub attempts: u32,
    pub forced: bool,
    /// Probabilities of the ratings 0 to 10.
    pub distribution: Vec<f64>,
    /// The mean of `distribution`.
    pub expected: Option<f64>,
    /// As the judge gave them, if the two above are calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncalibrated: Option<Uncalibrated>,
    /// What the rating was made of, if there was more than one vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Box<Votes>>,
    /// See [`Verdict::estimate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

impl Rated {
    /// `None` if the verdict has no score.
    pub fn new(verdict: Verdict) -> Option<Self> {
        Some(Self {
            score: verdict.score()?,
            analysis: verdict.text,
            attempts: verdict.attempts,
            forced: verdict.forced,
            distribution: verdict.distribution,
            expected: verdict.expected,
            uncalibrated: None,
            votes: verdict.votes,
            estimate: verdict.estimate,
        })
    }
}

/// Completeness: the rating, and the extracts that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completeness {
    #[serde(flatten)]
    pub rated: Rated,
    /// Place in the document (`0% - 12%`) to extract, in document order.
    pub info_list: Map<String, Value>,
    /// Places whose extract was forced.
    #[serde(default)]
    pub forced_extracts: Vec<String>,
    /// Places whose extract was cut off by its budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_extracts: Vec<String>,
}

impl Completeness {
    /// Whether the rating or an extract was forced.
    pub fn forced(&self) -> bool {
        self.rated.forced || !self.forced_extracts.is_empty()
    }
}

/// A chunk that a statement was checked against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Index of the chunk in the document.
    pub c_idx: usize,
    pub content: String,
    /// The chunk's first token in the document.
    pub start_idx: usize,
    /// The token after its last.
    pub end_idx: usize,
    /// Tokens of the document.
    pub total_token: usize,
}

/// A statement with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Supported {
    pub fact: String,
    /// The judge's reply.
    pub analysis: String,
    /// 1 fully, 0.5 partially, 0 not supported.
    pub score: f64,
    /// In document order; empty if it was the whole document.
    pub evidences: Vec<Evidence>,
    pub attempts: u32,
    pub forced: bool,
    /// Probabilities of fully, partially, not supported.
    pub distribution: Vec<f64>,
    /// The mean of `distribution`.
    pub expected: Option<f64>,
    /// As the judge gave them, if the two above are calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncalibrated: Option<Uncalibrated>,
    /// What the score was made of, if there was more than one vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Box<Votes>>,
    /// Whether the evidence was the whole document, where that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_document: Option<bool>,
    /// How many statements shared the prompt, if there was more than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statements_in_call: Option<usize>,
    /// See [`Verdict::estimate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

impl Supported {
    /// `None` if the verdict has no score.
    pub fn new(fact: String, verdict: Verdict, evidences: Vec<Evidence>) -> Option<Self> {
        Some(Self {
            score: verdict.score()?,
            fact,
            analysis: verdict.text,
            evidences,
            attempts: verdict.attempts,
            forced: verdict.forced,
            distribution: verdict.distribution,
            expected: verdict.expected,
            uncalibrated: None,
            votes: verdict.votes,
            whole_document: None,
            statements_in_call: None,
            estimate: verdict.estimate,
        })
    }
}

/// Faithfulness: ten times the mean support of the statements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// 0 to 10.
    pub score: f64,
    /// Statement to score.
    pub facts: Map<String, Value>,
    pub details: Vec<Supported>,
    /// The reply that listed the statements.
    pub analysis: String,
    pub attempts: u32,
    /// The statements are the answer's own sentences, or one of the verdicts was forced.
    pub forced: bool,
    /// Whether the former holds; only where the list took all attempts, as it does not else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing_forced: Option<bool>,
    /// The list of statements was cut off by its budget. The answer's sentences that it had not come
    /// to are the last of the statements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// The answer states no fact, so that nothing can be unfaithful: the score is 10.
    pub no_statements: bool,
    /// Ten times the mean of the statements' expected values, where all have one.
    pub expected: Option<f64>,
    /// What that was before the statements were calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncalibrated: Option<f64>,
}

impl Faithfulness {
    /// From the verdict that listed the statements, and each statement's own, in the same order.
    pub fn new(listing: &Verdict, details: Vec<Supported>) -> Self {
        let scores: Vec<f64> = details.iter().map(|detail| detail.score).collect();
        Self {
            score: ten_times_mean(&scores),
            facts: details.iter().map(|d| (d.fact.clone(), Value::from(d.score))).collect(),
            analysis: listing.text.clone(),
            attempts: listing.attempts,
            forced: listing.forced || details.iter().any(|detail| detail.forced),
            listing_forced: (listing.attempts >= ATTEMPTS).then_some(listing.forced),
            cut: listing.cut,
            no_statements: details.is_empty(),
            expected: Self::expected_of(&details),
            uncalibrated: None,
            details,
        }
    }

    /// Whether the list of statements was forced. Of files that don't tell it apart, as far as it
    /// can be known: a forced verdict on a statement hides it.
    pub fn is_listing_forced(&self) -> bool {
        let by_a_statement = || self.details.iter().any(|detail| detail.forced);
        self.listing_forced.unwrap_or_else(|| self.forced && !by_a_statement())
    }

    /// Ten times the mean of the statements' expected values, where all have one.
    pub(super) fn expected_of(details: &[Supported]) -> Option<f64> {
        let expected: Option<Vec<f64>> = details.iter().map(|detail| detail.expected).collect();
        expected.map(|values| ten_times_mean(&values))
    }
}

/// 10 for no values.
fn ten_times_mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 10.0;
    }
    values.iter().sum::<f64>() / values.len() as f64 * 10.0
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use serde_json::json;

    fn verdict(outcome: Outcome, expected: Option<f64>, forced: bool) -> Verdict {
        let distribution = vec![0.5, 0.5];
        let read = Verdict::new(outcome, "because");
        Verdict { attempts: 2, forced, distribution, expected, ..read }
    }

    fn supported(fact: &str, score: f64, expected: Option<f64>, forced: bool) -> Supported {
        let verdict = verdict(Outcome::Support(score), expected, forced);
        let evidence = Evidence {
            c_idx: 3,
            content: "chunk".to_owned(),
            start_idx: 384,
            end_idx: 512,
            total_token: 900,
        };
        Supported::new(fact.to_owned(), verdict, vec![evidence]).unwrap()
    }

    fn listing(forced: bool) -> Verdict {
        verdict(Outcome::Statements(vec!["a".to_owned(), "b".to_owned()]), None, forced)
    }

    #[test]
    fn a_rating_stands_as_in_public_files() {
        let rated = Rated::new(verdict(Outcome::Rating(8.0), Some(7.5), true)).unwrap();
        assert_eq!(
            serde_json::to_value(&rated).unwrap(),
            json!({"analysis": "because", "score": 8.0, "attempts": 2, "forced": true,
                   "distribution": [0.5, 0.5], "expected": 7.5})
        );
        assert!(Rated::new(listing(false)).is_none());
        let info_list = Map::from_iter([("0% - 100%".to_owned(), json!("x"))]);
        let forced_extracts = vec!["0% - 100%".to_owned()];
        let found = Completeness { rated, info_list, forced_extracts, cut_extracts: Vec::new() };
        let value = serde_json::to_value(found).unwrap();
        assert_eq!((&value["score"], &value["info_list"]["0% - 100%"]), (&json!(8.0), &json!("x")));
    }

    #[test]
    fn faithfulness_is_ten_times_the_mean() {
        let details =
            vec![supported("a", 1.0, Some(0.9), false), supported("b", 0.5, Some(0.6), false)];
        let faithfulness = Faithfulness::new(&listing(false), details);
        assert_eq!((faithfulness.score, faithfulness.expected), (7.5, Some(7.5)));
        assert!(!faithfulness.forced && !faithfulness.no_statements);
        let value = serde_json::to_value(&faithfulness).unwrap();
        assert_eq!(value["facts"], json!({"a": 1.0, "b": 0.5}));
        assert_eq!(value["details"][0]["evidences"][0]["start_idx"], 384);
        assert_eq!(serde_json::from_value::<Faithfulness>(value).unwrap(), faithfulness);
    }

    #[test]
    fn what_befell_the_list_alone_is_told_where_there_is_something_to_tell() {
        let found = |attempts, forced, cut| {
            let listing = Verdict { attempts, cut, ..listing(forced) };
            let details = vec![supported("a", 1.0, None, true)];
            serde_json::to_value(Faithfulness::new(&listing, details)).unwrap()
        };
        let early = found(4, false, false);
        assert!(early.get("listing_forced").or(early.get("cut")).is_none());
        assert_eq!(found(5, false, false)["listing_forced"], false);
        assert_eq!(found(5, true, false)["listing_forced"], true);
        assert_eq!(found(1, false, true)["cut"], true);
    }

    #[test]
    fn no_statements_is_its_own_case() {
        let faithfulness = Faithfulness::new(&listing(false), Vec::new());
        assert_eq!((faithfulness.score, faithfulness.no_statements), (10.0, true));
        assert_eq!(faithfulness.expected, Some(10.0));
    }

    #[test]
    fn forcing_anywhere_is_marked() {
        let forced = |listed, first| {
            let details = vec![supported("a", 1.0, None, first), supported("b", 0.0, None, false)];
            Faithfulness::new(&listing(listed), details)
        };
        assert!(forced(true, false).forced && forced(false, true).forced);
        assert!(!forced(false, false).forced);
        assert_eq!(forced(false, false).expected, None);
    }
}
