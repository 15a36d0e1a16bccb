//! What an output took, in calls, tokens and time: `OUT.cost.json`.
//!
//! Numbers that are no property of the output stand in a file of their own, so that output and
//! settings are the same bytes whatever happened on the way. A run that is killed is not counted.

use super::Error;
use super::jsonl::replace;
use super::output::with_suffix;
use crate::chat::Usage;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The sum over all runs that came to an end or were stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub runs: u64,
    /// Replies of the model.
    pub calls: u64,
    /// Replies that a cache of calls gave.
    #[serde(default)]
    pub kept_calls: u64,
    #[serde(flatten)]
    pub usage: Usage,
    /// By the clock, to tenths; without loading the model.
    pub seconds: f64,
}

impl Cost {
    /// What is known of an output; `None` where nothing is.
    pub fn read(out: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path(out)).ok()?).ok()
    }

    /// Adds a run to what is known, or writes it alone if the output was begun `anew`. A run without
    /// replies is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn add(self, out: &Path, anew: bool) -> Result<(), Error> {
        if self.calls + self.kept_calls == 0 {
            return Ok(());
        }
        let mut sum = Self::read(out).filter(|_| !anew).unwrap_or_default();
        sum.runs += self.runs;
        sum.calls += self.calls;
        sum.kept_calls += self.kept_calls;
        sum.usage += self.usage;
        sum.seconds = ((sum.seconds + self.seconds) * 10.0).round() / 10.0;
        let path = path(out);
        let text = super::journal::json(&sum)?;
        replace(&path, |file| writeln!(file, "{text}").map_err(Error::io(&path)))
    }
}

fn path(out: &Path) -> PathBuf {
    with_suffix(out, ".cost.json")
}

#[cfg(test)]
mod tests {
    use super::super::score::{self, ScorePlan};
    use super::super::testing::{End, Lab, Model, run_score};
    use super::*;
    use crate::chat::cache::{Cached, CallCache};

    #[test]
    fn runs_are_added_up_until_the_output_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let usage = Usage { prompt_tokens: 9, cached_prompt_tokens: 5, completion_tokens: 2 };
        let run = Cost { runs: 1, calls: 3, usage, seconds: 0.26, ..Cost::default() };
        Cost::default().add(&out, true).unwrap();
        assert_eq!(Cost::read(&out), None);
        run.add(&out, true).unwrap();
        run.add(&out, false).unwrap();
        let both = Cost::read(&out).unwrap();
        assert_eq!(
            (both.runs, both.calls, both.usage.prompt_tokens, both.seconds),
            (2, 6, 18, 0.6)
        );
        run.add(&out, true).unwrap();
        assert_eq!(Cost::read(&out).unwrap().calls, 3);
    }

    #[test]
    fn a_stage_counts_its_calls_over_all_its_runs() {
        let lab = Lab::new();
        let out = lab.file("scored_responses.jsonl");
        assert!(lab.score(&mut Model::ending(20, End::Broken)).is_err());
        assert_eq!(Cost::read(&out).map(|cost| (cost.runs, cost.calls)), Some((1, 20)));
        let rest = lab.score(&mut Model::new()).unwrap();
        let cost = Cost::read(&out).unwrap();
        assert_eq!((cost.runs, cost.calls), (2, 20 + rest.calls));
        lab.score(&mut Model::new()).unwrap();
        assert_eq!(Cost::read(&out).unwrap(), cost);
    }

    #[test]
    fn replies_from_a_cache_are_counted_apart() {
        let lab = Lab::new();
        let mut cache = CallCache::open(&lab.file("calls"), 1 << 30).unwrap();
        let mut score = |name: &str| {
            let out = lab.file(name);
            let extracts = lab.file(&format!("{name}.extracts"));
            let options = score::Options { out: out.clone(), extracts, ..lab.score_options() };
            let mut model = Model::new();
            let mut chat = Cached::new(&mut model, &mut cache, [("model", "m")]);
            let summary = run_score(ScorePlan::open(options).unwrap(), &mut chat).unwrap();
            let cost = Cost::read(&out).unwrap();
            (summary.calls, cost.calls, cost.kept_calls)
        };
        let (calls, ..) = score("first");
        assert!(calls > 0);
        assert_eq!(score("second"), (0, 0, calls));
    }
}
