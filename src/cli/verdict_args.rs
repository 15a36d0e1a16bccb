//! Options for verdicts other than the published ones, and what they mean together.

use super::preset::Preset;
use crate::judge::{Judge, Settings, VoteBy, Voting};
use crate::pipeline::{Evidencing, Judging};
use crate::retrieval::chunk::{CutAt, Cutting};
use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args, ValueEnum};

/// What may be better or faster than the published method.
#[derive(Debug, Clone, Args)]
pub struct VerdictArgs {
    /// Options by name: longreward is the published method, fast wants few tokens, careful takes more
    /// work. What is given besides goes before what the preset says
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Verdicts sampled for each rating and support label, all at temperature 0.95
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub votes: usize,
    /// What of several votes is the score
    #[arg(long, default_value = "mean", value_name = "WHAT")]
    pub vote_by: VoteChoice,
    /// Ratings and labels without an analysis: each possible one is scored right after the prompt and
    /// the likeliest (with --score-by expected the mean) counts; nothing is sampled
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub verdict_first: bool,
    /// Statements of an answer that are checked in one call, against the passages of all of them; one
    /// that gets no readable label is checked by itself
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    pub statements_per_call: usize,
    /// Check statements against the whole document instead of passages, where it fits into the
    /// judge's context
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub whole_document: bool,
    /// Tokens that a passage has in common with the one before it
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub passage_overlap: usize,
    /// Where passages end: after so many tokens, or with the last sentence that fits into them
    #[arg(long, default_value = "tokens", value_name = "WHERE")]
    pub passage_cut: CutChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VoteChoice {
    Mean,
    Median,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CutChoice {
    Tokens,
    Sentences,
}

impl Default for VerdictArgs {
    /// The published method.
    fn default() -> Self {
        Self {
            preset: None,
            votes: 1,
            vote_by: VoteChoice::Mean,
            verdict_first: false,
            statements_per_call: 1,
            whole_document: false,
            passage_overlap: 0,
            passage_cut: CutChoice::Tokens,
        }
    }
}

impl VerdictArgs {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self, passage_tokens: usize) -> Result<()> {
        let Self { votes, passage_overlap, .. } = self;
        ensure!(
            *votes == 1 || !self.verdict_first,
            "--votes {votes} and --verdict-first: a verdict without analysis is not sampled, so that \
             all votes would be the same; leave one of them out, or write --verdict-first=false \
             where a preset sets it"
        );
        ensure!(
            *votes > 1 || self.vote_by == VoteChoice::Mean,
            "--vote-by median: there is one vote only; add --votes 3 or more"
        );
        ensure!(
            *passage_overlap < passage_tokens,
            "--passage-overlap {passage_overlap} leaves nothing new in passages of {passage_tokens} \
             tokens; it must be less than --passage-tokens"
        );
        Ok(())
    }

    /// How documents are cut into passages of so many tokens.
    pub fn cutting(&self, passage_tokens: usize) -> Cutting {
        let at = match self.passage_cut {
            CutChoice::Tokens => CutAt::Tokens,
            CutChoice::Sentences => CutAt::Sentences,
        };
        Cutting { size: passage_tokens, overlap: self.passage_overlap, at }
    }

    /// What statements are checked against: passages, or within `context` tokens the whole document.
    pub fn evidence(&self, passages: usize, context: Option<usize>) -> Evidencing {
        Evidencing { passages, whole_document: context.filter(|_| self.whole_document) }
    }

    /// How a judge works that gives such verdicts instead of the published ones.
    ///
    /// # Errors
    /// Prompts that lack one which an option asks for.
    pub fn applied(&self, published: Judging) -> Result<Judging> {
        let by = match self.vote_by {
            VoteChoice::Mean => VoteBy::Mean,
            VoteChoice::Median => VoteBy::Median,
        };
        let settings = Settings {
            verdict_first: self.verdict_first,
            voting: Voting { count: self.votes, by },
            statements_per_call: self.statements_per_call,
            ..published.judge.settings().clone()
        };
        let prompts = published.judge.prompts().clone();
        prompts.check(&settings.more_prompts())?;
        Ok(Judging { judge: Judge::new(prompts, settings), ..published })
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_for_tests;

    fn score(more: &str) -> Result<String, String> {
        let base = "longreward score --model m --data d --responses r --out o";
        let parsed = parse_for_tests(&format!("{base} {more}"));
        parsed.map(|_| String::new()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn options_that_contradict_each_other_are_refused_by_name() {
        for (more, says) in [
            ("--votes 3 --verdict-first", "--votes 3 and --verdict-first"),
            ("--preset fast --votes 3", "--verdict-first=false"),
            ("--vote-by median", "there is one vote only"),
            ("--votes 3 --vote-by median --score-by expected", "expected values are averaged"),
            ("--votes 3 --vote-by median --calibration f", "--calibration: the scores are then"),
            ("--passage-overlap 128", "must be less than --passage-tokens"),
            ("--passage-overlap 16 --passage-tokens 16", "passages of 16 tokens"),
        ] {
            let error = score(more).unwrap_err();
            assert!(error.contains(says), "{more}: {error}");
        }
        for more in [
            "--votes 3 --vote-by median",
            "--votes 3 --score-by expected",
            "--preset fast --votes 3 --verdict-first=false",
            "--verdict-first --statements-per-call 4 --whole-document --early-stop",
            "--passage-overlap 15 --passage-tokens 16 --passage-cut sentences",
        ] {
            score(more).unwrap();
        }
    }
}
