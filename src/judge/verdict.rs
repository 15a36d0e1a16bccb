//! What the judge found.

use super::Votes;
use crate::chat::Estimate;
use serde::{Deserialize, Serialize};

/// The result of one [`Ask`](super::Ask).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// The reply that was accepted; for a forced rating or label the last reply, completed by the
    /// forced `[[…]]`.
    pub text: String,
    /// How many replies were sampled.
    pub attempts: u32,
    /// No reply could be read, and the outcome was obtained in another way
    /// (see [`AskKind`](super::AskKind)).
    pub forced: bool,
    /// The reply that lists statements or extracts was cut off by its budget, so that it may lack
    /// some; of statements the sentences of the answer that it had not come to are added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Probabilities of the ratings 0 to 10, or of fully, partially and not supported, at the
    /// place where the reply gives its verdict; they sum to 1 and are rounded to six decimals (so
    /// that they survive JSON unchanged). Empty for other asks, and where the model can't score.
    pub distribution: Vec<f64>,
    /// The mean of `distribution`.
    pub expected: Option<f64>,
    /// The votes that it was made of, if there was more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Box<Votes>>,
    /// How `distribution` (and so a forced outcome) was had from a server that can't score
    /// continuations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// 0 to 10, or on the scale that was asked for.
    Rating(f64),
    /// 1 fully, 0.5 partially, 0 not supported; of several votes the mean or median.
    Support(f64),
    /// Of several statements, in their order, each with its own verdict; `None` where the reply has
    /// no readable label for it.
    Supports(Vec<Option<Verdict>>),
    /// Distinct, in the order of the answer. Empty: the answer states no fact.
    Statements(Vec<String>),
    /// `None`: nothing relevant.
    Extract(Option<String>),
}

impl Verdict {
    /// Of one reply that could be read, without a distribution.
    pub fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        Self {
            outcome,
            text: text.into(),
            attempts: 1,
            forced: false,
            cut: false,
            distribution: Vec::new(),
            expected: None,
            votes: None,
            estimate: None,
        }
    }

    /// The rating or the degree of support.
    pub fn score(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Rating(score) | Outcome::Support(score) => Some(score),
            Outcome::Supports(_) | Outcome::Statements(_) | Outcome::Extract(_) => None,
        }
    }

    /// The factual statements, if that is what was asked for.
    pub fn statements(&self) -> Option<&[String]> {
        match &self.outcome {
            Outcome::Statements(statements) => Some(statements),
            _ => None,
        }
    }

    /// The extract as `chunk_info.jsonl` records it, if that is what was asked for.
    pub fn extract(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Extract(extract) => {
                Some(extract.as_deref().unwrap_or(super::NO_RELEVANT_INFORMATION))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(outcome: Outcome) -> Verdict {
        let distribution = vec![0.333333, 0.666667];
        Verdict { distribution, expected: Some(0.666667), ..Verdict::new(outcome, "t") }
    }

    #[test]
    fn verdicts_survive_json() {
        for outcome in [
            Outcome::Rating(8.5),
            Outcome::Support(0.5),
            Outcome::Statements(vec!["a".to_owned()]),
            Outcome::Extract(None),
            Outcome::Extract(Some("x".to_owned())),
            Outcome::Supports(vec![None, Some(verdict(Outcome::Support(1.0)))]),
        ] {
            let verdict = verdict(outcome);
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
        }
    }

    #[test]
    fn each_outcome_answers_its_own_question() {
        assert_eq!(verdict(Outcome::Rating(7.0)).score(), Some(7.0));
        assert_eq!(verdict(Outcome::Extract(None)).extract(), Some("No relevant information"));
        assert_eq!(verdict(Outcome::Extract(None)).score(), None);
        assert_eq!(verdict(Outcome::Support(1.0)).statements(), None);
        assert_eq!(verdict(Outcome::Statements(vec![])).statements(), Some(&[][..]));
    }
}
