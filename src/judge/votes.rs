//! Several verdicts on one thing, sampled independently, made into one.

use super::{Outcome, Verdict, rounded};
use crate::statistics;
use serde::{Deserialize, Serialize};

/// How many verdicts are sampled for each rating and label, and what of them counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voting {
    /// 1 is the published method.
    pub count: usize,
    pub by: VoteBy,
}

impl Default for Voting {
    fn default() -> Self {
        Self { count: 1, by: VoteBy::Mean }
    }
}

/// What of several votes counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteBy {
    Mean,
    /// Of an even number the mean of the two in the middle.
    Median,
}

impl VoteBy {
    /// Its name in records of settings.
    pub fn name(self) -> &'static str {
        match self {
            VoteBy::Mean => "mean",
            VoteBy::Median => "median",
        }
    }
}

/// The votes behind a score, and what they amount to; to six decimals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Votes {
    pub mean: f64,
    pub median: f64,
    /// Their standard deviation (divided by one less than there are).
    pub spread: f64,
    /// In the order of their seeds.
    pub each: Vec<Vote>,
}

/// One of several verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    pub score: f64,
    /// The judge's reply.
    pub analysis: String,
    pub attempts: u32,
    pub forced: bool,
    pub expected: Option<f64>,
}

/// One verdict of several on the same ask. Its score is their mean or median, its text that of the
/// vote nearest to it (of equals the first), its distribution the mean of theirs. Of verdicts on
/// several statements each statement gets its own, if all votes have one on it.
///
/// # Errors
/// If they are not all ratings, all labels, or all on the same number of statements.
pub fn combine(verdicts: &[Verdict], by: VoteBy) -> Result<Verdict, String> {
    match verdicts {
        [] => Err("there are no votes".to_owned()),
        [first, ..] if matches!(first.outcome, Outcome::Supports(_)) => each(verdicts, by),
        _ => one(verdicts, by),
    }
}

fn one(verdicts: &[Verdict], by: VoteBy) -> Result<Verdict, String> {
    let votes = Votes::new(verdicts).ok_or("a vote is no rating or label")?;
    let score = match by {
        VoteBy::Mean => votes.mean,
        VoteBy::Median => votes.median,
    };
    let outcome = match verdicts[0].outcome {
        Outcome::Support(_) => Outcome::Support(score),
        _ => Outcome::Rating(score),
    };
    let gap = |vote: &Vote| (vote.score - score).abs();
    let nearest = votes.each.iter().reduce(|a, b| if gap(b) < gap(a) { b } else { a });
    let expected: Option<Vec<f64>> = votes.each.iter().map(|vote| vote.expected).collect();
    Ok(Verdict {
        outcome,
        text: nearest.map(|vote| vote.analysis.clone()).unwrap_or_default(),
        attempts: votes.each.iter().map(|vote| vote.attempts).sum(),
        forced: votes.each.iter().any(|vote| vote.forced),
        cut: false,
        distribution: mean_distribution(verdicts),
        expected: expected.map(|values| rounded(mean(&values))),
        estimate: verdicts.iter().find_map(|verdict| verdict.estimate),
        votes: Some(Box::new(votes)),
    })
}

/// Statement by statement.
fn each(verdicts: &[Verdict], by: VoteBy) -> Result<Verdict, String> {
    let lists: Vec<&[Option<Verdict>]> = verdicts
        .iter()
        .map(|verdict| match &verdict.outcome {
            Outcome::Supports(list) => Ok(list.as_slice()),
            _ => Err("a vote is not on several statements".to_owned()),
        })
        .collect::<Result<_, String>>()?;
    let count = lists[0].len();
    if lists.iter().any(|list| list.len() != count) {
        return Err("the votes are on different numbers of statements".to_owned());
    }
    let combined = (0..count).map(|statement| {
        let votes = lists.iter().map(|list| list[statement].clone());
        votes.collect::<Option<Vec<_>>>().map(|votes| one(&votes, by)).transpose()
    });
    let outcome = Outcome::Supports(combined.collect::<Result<_, String>>()?);
    let attempts = verdicts.iter().map(|verdict| verdict.attempts).sum();
    Ok(Verdict { outcome, attempts, ..verdicts[0].clone() })
}

impl Votes {
    /// `None` if one of the verdicts has no score.
    fn new(verdicts: &[Verdict]) -> Option<Self> {
        let vote = |verdict: &Verdict| {
            Some(Vote {
                score: verdict.score()?,
                analysis: verdict.text.clone(),
                attempts: verdict.attempts,
                forced: verdict.forced,
                expected: verdict.expected,
            })
        };
        let each: Vec<Vote> = verdicts.iter().map(vote).collect::<Option<_>>()?;
        let scores: Vec<f64> = each.iter().map(|vote| vote.score).collect();
        let [mean, median, spread] =
            [mean(&scores), median(&scores), deviation(&scores)].map(rounded);
        Some(Self { mean, median, spread, each })
    }
}

/// How many replies each vote of a verdict took, and whether it was forced; of a single verdict its
/// own.
pub fn readings(votes: Option<&Votes>, attempts: u32, forced: bool) -> Vec<(u32, bool)> {
    match votes {
        Some(votes) => votes.each.iter().map(|vote| (vote.attempts, vote.forced)).collect(),
        None => vec![(attempts, forced)],
    }
}

fn mean(values: &[f64]) -> f64 {
    statistics::mean(values).unwrap_or_default()
}

fn median(values: &[f64]) -> f64 {
    statistics::median(values).unwrap_or_default()
}

fn deviation(values: &[f64]) -> f64 {
    statistics::standard_deviation(values).unwrap_or_default()
}

/// Empty unless all have one.
fn mean_distribution(verdicts: &[Verdict]) -> Vec<f64> {
    let length = verdicts[0].distribution.len();
    if verdicts.iter().any(|verdict| verdict.distribution.len() != length) {
        return Vec::new();
    }
    let at = |i: usize| verdicts.iter().map(|v| v.distribution[i]).collect::<Vec<_>>();
    (0..length).map(|i| rounded(mean(&at(i)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        outcome: Outcome,
        text: &str,
        distribution: &[f64],
        expected: Option<f64>,
    ) -> Verdict {
        let distribution = distribution.to_vec();
        Verdict { distribution, expected, ..Verdict::new(outcome, text) }
    }

    fn rating(score: f64, text: &str) -> Verdict {
        verdict(Outcome::Rating(score), text, &[0.25, 0.75], Some(score - 0.5))
    }

    fn label(score: f64) -> Option<Verdict> {
        Some(verdict(Outcome::Support(score), "", &[], None))
    }

    #[test]
    fn mean_median_and_spread_of_votes() {
        let votes = [rating(9.0, "a"), rating(4.0, "b"), rating(5.0, "c")];
        let combined = combine(&votes, VoteBy::Mean).unwrap();
        assert_eq!((combined.outcome.clone(), combined.text.as_str()), (Outcome::Rating(6.0), "c"));
        assert_eq!((combined.expected, combined.attempts), (Some(5.5), 3));
        assert_eq!(combined.distribution, [0.25, 0.75]);
        let votes_of = combined.votes.unwrap();
        // Deviations 3, -2, -1: the root of 14 / 2.
        assert_eq!((votes_of.mean, votes_of.median, votes_of.spread), (6.0, 5.0, 2.645751));
        assert_eq!(votes_of.each.iter().map(|v| v.score).collect::<Vec<_>>(), [9.0, 4.0, 5.0]);
        let combined = combine(&votes, VoteBy::Median).unwrap();
        assert_eq!((combined.outcome, combined.text.as_str()), (Outcome::Rating(5.0), "c"));
        let even = [rating(9.0, "a"), rating(4.0, "b")];
        assert_eq!(combine(&even, VoteBy::Median).unwrap().outcome, Outcome::Rating(6.5));
        assert_eq!(combine(&even[..1], VoteBy::Median).unwrap().votes.unwrap().spread, 0.0);
    }

    #[test]
    fn what_a_vote_lacks_the_whole_lacks_and_one_forced_vote_is_told() {
        let mut votes = [rating(3.0, "a"), rating(5.0, "b")];
        votes[1] = Verdict {
            forced: true,
            attempts: 5,
            distribution: vec![],
            expected: None,
            ..votes[1].clone()
        };
        let combined = combine(&votes, VoteBy::Mean).unwrap();
        assert!(combined.forced && combined.distribution.is_empty() && combined.expected.is_none());
        assert_eq!(combined.attempts, 6);
        let replies = readings(combined.votes.as_deref(), combined.attempts, combined.forced);
        assert_eq!(replies, [(1, false), (5, true)]);
        assert_eq!(readings(None, 2, false), [(2, false)]);
        assert!(combine(&[], VoteBy::Mean).is_err());
        let listing = verdict(Outcome::Extract(None), "", &[], None);
        assert!(combine(&[rating(1.0, ""), listing], VoteBy::Mean).is_err());
    }

    #[test]
    fn several_statements_are_combined_one_by_one() {
        let list = |labels: Vec<Option<Verdict>>| verdict(Outcome::Supports(labels), "", &[], None);
        let votes = [list(vec![label(1.0), label(0.0), None]), list(vec![label(0.5), None, None])];
        let Outcome::Supports(found) = combine(&votes, VoteBy::Mean).unwrap().outcome else {
            panic!("not on several statements");
        };
        assert_eq!(found[0].as_ref().unwrap().outcome, Outcome::Support(0.75));
        assert!(found[1].is_none() && found[2].is_none());
        let short = list(vec![label(1.0)]);
        assert!(combine(&[votes[0].clone(), short], VoteBy::Mean).is_err());
    }
}
