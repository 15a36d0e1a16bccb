//! What a stage tells while it runs, and when it has ended.

use super::jsonl::RowError;
use std::fmt;
use std::path::PathBuf;

/// Where a running stage stands. All that is counted as done or failed is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub stage: &'static str,
    /// Records in the output, those of earlier runs included.
    pub done: usize,
    pub failed: usize,
    pub total: usize,
    /// Replies so far, those from a cache of calls included.
    pub calls: u64,
    pub in_flight: usize,
    /// About how many calls are to come, as soon as that can be told.
    pub calls_left: Option<u64>,
}

/// Watches stages. Rates and bars are its own business.
pub trait Progress {
    fn update(&mut self, status: &Status);

    /// A record failed, or something else that the user should know now.
    fn warn(&mut self, message: &str);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn update(&mut self, _: &Status) {}

    fn warn(&mut self, _: &str) {}
}

/// A record that could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub id: String,
    pub reason: String,
}

/// How a stage ended. [`fmt::Display`] writes it for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub stage: &'static str,
    pub out: PathBuf,
    /// Records that the good rows of the input call for.
    pub total: usize,
    /// Those that were there before.
    pub reused: usize,
    /// Those that this run added.
    pub added: usize,
    pub failures: Vec<Failure>,
    /// Bad rows of the input.
    pub problems: Vec<RowError>,
    /// Rows of the input that belong to prompts that it is not about.
    pub foreign: usize,
    /// Replies of the model.
    pub calls: u64,
    /// Replies that an earlier run had left in the journal.
    pub reused_calls: u64,
    /// The user stopped the stage; the same command goes on from here.
    pub cancelled: bool,
}

impl Summary {
    /// Whether everything that the input asks for is there.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && self.problems.is_empty() && !self.cancelled
    }
}

/// How many failures and problems are listed one by one.
const LISTED: usize = 20;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { stage, total, reused, added, calls, .. } = self;
        let out = self.out.display();
        if *added == 0 && *calls == 0 && *reused == *total {
            write!(f, "{stage}: nothing to do, all {total} records are in {out}")?;
        } else {
            let done = reused + added;
            write!(f, "{stage}: {done} of {total} records in {out} ({added} new, {calls} calls)")?;
        }
        if self.reused_calls > 0 {
            let replies = self.reused_calls;
            write!(f, "\n  {replies} replies were found in the journal of an earlier run")?;
        }
        if self.cancelled {
            write!(f, "\n  stopped before the end: the same command goes on from here")?;
        }
        let failures = self.failures.iter().map(|failure| format!("{failure}"));
        list(f, "failed", failures.collect())?;
        let problems = self.problems.iter().map(|problem| format!("{problem}"));
        list(f, "bad input rows", problems.collect())?;
        match passed_over(self.foreign) {
            None => Ok(()),
            Some(told) => write!(f, "\n  {told}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason)
    }
}

/// A heading with the number of items, and the first of them.
pub(super) fn list(f: &mut fmt::Formatter, heading: &str, items: Vec<String>) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {heading}: {}", items.len())?;
    first_of(items.into_iter()).iter().try_for_each(|line| write!(f, "\n    {line}"))
}

/// Says how many rows were passed over because they belong to prompts that the data lacks.
pub(super) fn passed_over(foreign: usize) -> Option<String> {
    let told =
        || format!("rows of prompts that --data has no good row for, passed over: {foreign}");
    (foreign > 0).then(told)
}

/// The first of some items, and how many more there are.
pub(super) fn first_of(items: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = items.len().saturating_sub(LISTED);
    let mut lines: Vec<String> = items.take(LISTED).collect();
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            stage: "score",
            out: "o.jsonl".into(),
            total: 3,
            reused: 3,
            added: 0,
            failures: Vec::new(),
            problems: Vec::new(),
            foreign: 0,
            calls: 0,
            reused_calls: 0,
            cancelled: false,
        }
    }

    #[test]
    fn a_run_without_work_says_so() {
        assert_eq!(summary().to_string(), "score: nothing to do, all 3 records are in o.jsonl");
        assert!(summary().is_complete());
    }

    #[test]
    fn what_is_missing_is_listed() {
        let failure = |n: usize| Failure { id: format!("1-{n}"), reason: "too long".to_owned() };
        let failures: Vec<Failure> = (0..22).map(failure).collect();
        let summary = Summary { reused: 1, failures, calls: 9, ..summary() };
        let text = summary.to_string();
        assert!(
            text.starts_with("score: 1 of 3 records in o.jsonl (0 new, 9 calls)\n  failed: 22")
        );
        assert!(text.contains("    1-19: too long\n    … and 2 more"), "{text}");
        assert!(!summary.is_complete());
    }
}
