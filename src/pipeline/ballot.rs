//! The votes on a unit that wants more than one verdict.

use super::drive::Finding;
use crate::chat::ChatError;
use crate::judge::{Verdict, VoteBy, Voting, combine};

/// Holds the votes until all are there, in whatever order they come.
#[derive(Debug)]
pub(super) struct Ballot {
    by: VoteBy,
    votes: Vec<Option<Result<Verdict, ChatError>>>,
}

/// Names a vote: the unit's key, and the vote's number.
pub(super) type VoteId = (String, usize);

/// The key of one vote, from which its seed comes.
pub(super) fn vote_key((unit, vote): &VoteId) -> String {
    format!("{unit}/vote/{vote}")
}

impl Ballot {
    pub fn new(voting: Voting) -> Self {
        Self { by: voting.by, votes: vec![None; voting.count] }
    }

    /// Takes a vote. When it was the last, gives what the unit found; of failures the first one by
    /// number, so that it does not matter which came first.
    pub fn put(
        &mut self,
        vote: usize,
        found: Result<Finding, ChatError>,
    ) -> Option<Result<Finding, ChatError>> {
        self.votes[vote] =
            Some(found.and_then(|finding| finding.verdict().map_err(ChatError::Refused)));
        let votes: Vec<Result<Verdict, ChatError>> =
            self.votes.iter().cloned().collect::<Option<_>>()?;
        Some(self.count(votes))
    }

    fn count(&self, votes: Vec<Result<Verdict, ChatError>>) -> Result<Finding, ChatError> {
        let votes: Vec<Verdict> = votes.into_iter().collect::<Result<_, _>>()?;
        combine(&votes, self.by).map(Finding::Verdict).map_err(ChatError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Outcome;

    fn vote(score: f64) -> Result<Finding, ChatError> {
        Ok(Finding::Verdict(Verdict::new(Outcome::Rating(score), score.to_string())))
    }

    fn refused(why: &str) -> Result<Finding, ChatError> {
        Err(ChatError::Refused(why.to_owned()))
    }

    #[test]
    fn the_order_in_which_votes_come_does_not_matter() {
        let found = |order: [usize; 3]| {
            let mut ballot = Ballot::new(Voting { count: 3, by: VoteBy::Mean });
            let mut found = order.map(|i| ballot.put(i, vote([9.0, 2.0, 4.0][i])));
            assert!(found[0].is_none() && found[1].is_none());
            found[2].take().unwrap().unwrap().verdict().unwrap()
        };
        assert_eq!(found([0, 1, 2]).outcome, Outcome::Rating(5.0));
        assert_eq!(found([2, 0, 1]), found([0, 1, 2]));
    }

    #[test]
    fn the_first_failure_by_number_is_told() {
        let mut ballot = Ballot::new(Voting { count: 3, by: VoteBy::Mean });
        assert!(ballot.put(2, refused("last")).is_none());
        assert!(ballot.put(1, refused("middle")).is_none());
        let end = ballot.put(0, vote(1.0)).unwrap();
        assert!(matches!(end, Err(ChatError::Refused(why)) if why == "middle"));
    }
}
