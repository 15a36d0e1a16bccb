//! How often the judge's replies could be read, and what they cost.

use super::candidate::Candidate;
use super::overview::percent;
use crate::judge::{ATTEMPTS, Dimension, readings};
use crate::pipeline::Cost as Taken;
use serde::Serialize;

/// How often replies of one kind could be read; texts as they are shown.
#[derive(Debug, Serialize)]
pub struct Replies {
    pub name: &'static str,
    pub verdicts: usize,
    pub replies: String,
    pub first: String,
    pub parsed: String,
    pub forced: String,
}

#[derive(Debug, Serialize)]
pub struct Cost {
    pub replies: String,
    pub scored: usize,
    pub per_candidate: String,
    /// Tokens and time, in a sentence.
    pub taken: Option<String>,
}

/// Verdicts of one kind; of several votes each one.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Stage {
    name: &'static str,
    pub verdicts: usize,
    replies: f64,
    /// Read from the first reply, or without one.
    pub first: usize,
    forced: usize,
    /// Perhaps forced: the files don't tell.
    unclear: usize,
}

impl Stage {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// `share` is that of each reply which counts here.
    fn count(&mut self, verdicts: &[(u32, bool)], share: f64) {
        for &(attempts, forced) in verdicts {
            self.verdicts += 1;
            self.replies += f64::from(attempts) * share;
            self.first += usize::from(attempts <= 1 && !forced);
            self.forced += usize::from(forced);
        }
    }

    pub fn sum(stages: &[Stage]) -> Stage {
        let mut all = Stage::named("All");
        for stage in stages {
            all.verdicts += stage.verdicts;
            all.replies += stage.replies;
            all.first += stage.first;
            all.forced += stage.forced;
            all.unclear += stage.unclear;
        }
        all
    }

    /// One reply of each verdict that was not forced could be read. Verdicts that need no reply, or
    /// share one, have no such rate.
    pub fn row(&self) -> Replies {
        let Self { name, verdicts, replies, first, forced, unclear } = *self;
        let read = verdicts - forced;
        let rate = unclear == 0 && read as f64 <= replies;
        let parsed = if rate { percent(read, replies.round() as usize) } else { "–".to_owned() };
        let forced = match unclear {
            0 => forced.to_string(),
            _ => format!("{forced} to {}", forced + unclear),
        };
        let first = percent(first, verdicts);
        Replies { name, verdicts, replies: format!("{replies:.0}"), first, parsed, forced }
    }
}

/// The verdicts of all candidates, by kind.
pub fn stages(candidates: &[&Candidate]) -> Vec<Stage> {
    let names = ["Helpfulness", "Logicality", "Completeness", "List of statements", "Support"];
    let mut stages = names.map(Stage::named);
    let rated = [Dimension::Helpfulness, Dimension::Logicality, Dimension::Completeness];
    for verdicts in candidates.iter().map(|candidate| &candidate.verdicts) {
        for (stage, dimension) in stages.iter_mut().zip(rated) {
            if let Some(rated) = verdicts.rated(dimension) {
                let votes = rated.votes.as_deref();
                stage.count(&readings(votes, rated.attempts, rated.forced), 1.0);
            }
        }
        let any = verdicts.statements.iter().any(|statement| statement.forced);
        if let Some(listing) = &verdicts.faithfulness {
            // In older files one mark stands for the list and the verdicts on its statements.
            let forced = listing.listing_forced.unwrap_or(listing.forced && !any);
            stages[3].count(&[(listing.attempts, forced)], 1.0);
            let untold = listing.listing_forced.is_none() && listing.attempts >= ATTEMPTS;
            stages[3].unclear += usize::from(any && untold);
        }
        for statement in &verdicts.statements {
            let share = 1.0 / statement.statements_in_call.unwrap_or(1).max(1) as f64;
            stages[4].count(&statement.readings(), share);
        }
    }
    stages.into()
}

/// What all verdicts took.
pub fn cost(candidates: &[&Candidate], stages: &[Stage], taken: Option<Taken>) -> Cost {
    let replies = Stage::sum(stages).replies;
    let scored = |candidate: &&Candidate| {
        let verdicts = &candidate.verdicts;
        let rated = Dimension::ALL.iter().filter_map(|&dimension| verdicts.rated(dimension));
        let distributions = rated.map(|rated| &rated.distribution);
        let distributions =
            distributions.chain(verdicts.statements.iter().map(|s| &s.distribution));
        distributions.filter(|distribution| !distribution.is_empty()).count()
    };
    let per_candidate = replies / candidates.len().max(1) as f64;
    Cost {
        replies: format!("{replies:.0}"),
        scored: candidates.iter().map(scored).sum(),
        per_candidate: format!("{per_candidate:.1}"),
        taken: taken.map(|taken| sentence(&taken, candidates.len())),
    }
}

/// What the runs took that made the scores.
fn sentence(taken: &Taken, candidates: usize) -> String {
    let Taken { runs, calls, kept_calls, usage, seconds } = *taken;
    let runs = if runs == 1 {
        "The run that made them".to_owned()
    } else {
        format!("The {runs} runs that made them")
    };
    let cached = percent(usage.cached_prompt_tokens as usize, usage.prompt_tokens as usize);
    let hour = candidates as f64 / seconds.max(1e-9) * 3600.0;
    let kept = match kept_calls {
        0 => String::new(),
        kept => format!(" {} more replies came from a cache of calls.", grouped(kept)),
    };
    format!(
        "{runs} took {}, or {hour:.0} candidates an hour: {} calls with {} prompt tokens, {cached} of them \
         from the prefix cache, and {} new tokens.{kept} Runs that were killed are not counted.",
        time(seconds),
        grouped(calls),
        grouped(usage.prompt_tokens),
        grouped(usage.completion_tokens)
    )
}

/// Seconds as people say them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// With a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::candidate;

    #[test]
    fn replies_that_were_read_are_counted() {
        let mut candidates = [candidate(1, 0, 8.0), candidate(1, 1, 12.0)];
        let verdicts = &mut candidates[0].verdicts;
        let helpfulness = verdicts.helpfulness.as_mut().unwrap();
        (helpfulness.attempts, helpfulness.forced) = (5, true);
        verdicts.logicality.as_mut().unwrap().attempts = 3;
        verdicts.statements[0].forced = true;
        let listing = verdicts.faithfulness.as_mut().unwrap();
        (listing.attempts, listing.forced) = (5, true);
        let stages = stages(&candidates.iter().collect::<Vec<_>>());
        let row = |i: usize| {
            let Replies { replies, first, parsed, forced, .. } = stages[i].row();
            [replies, first, parsed, forced]
        };
        assert_eq!(row(0), ["6", "50.0 %", "16.7 %", "1"]);
        assert_eq!(row(1), ["4", "50.0 %", "50.0 %", "0"]);
        assert_eq!(row(3), ["6", "50.0 %", "–", "0 to 1"]);
        candidates[0].verdicts.faithfulness.as_mut().unwrap().listing_forced = Some(true);
        let list = super::stages(&candidates.iter().collect::<Vec<_>>())[3].row();
        assert_eq!((list.parsed.as_str(), list.forced.as_str()), ("16.7 %", "1"));
    }

    #[test]
    fn tokens_and_time_are_told() {
        use crate::chat::Usage;
        let usage = Usage {
            prompt_tokens: 1_812_911,
            cached_prompt_tokens: 1_707_600,
            completion_tokens: 999,
        };
        let taken = Taken { runs: 1, calls: 1039, kept_calls: 7, usage, seconds: 292.0 };
        let told = sentence(&taken, 10);
        let want = "The run that made them took 5 min, or 123 candidates an hour: 1,039 calls with 1,812,911 \
                    prompt tokens, 94.2 % of them from the prefix cache, and 999 new tokens.";
        assert!(told.starts_with(want), "{told}");
        assert!(told.contains(" 7 more replies came from a cache of calls."), "{told}");
        assert_eq!([7200.0, 30.25].map(time), ["2.0 h", "30.2 s"]);
    }

    #[test]
    fn shared_replies_are_counted_once_and_none_is_no_failure() {
        let mut all = candidate(1, 0, 8.0);
        all.verdicts.helpfulness.as_mut().unwrap().attempts = 0;
        let statement = || {
            let mut one = candidate(1, 0, 8.0).verdicts.statements.remove(0);
            one.statements_in_call = Some(4);
            one
        };
        all.verdicts.statements = (0..4).map(|_| statement()).collect();
        let stages = stages(&[&all]);
        assert_eq!(stages[0].row().first, "100.0 %");
        let support = stages[4].row();
        assert_eq!((support.verdicts, support.replies.as_str()), (4, "1"));
        assert_eq!(support.parsed, "–");
    }
}
