//! All stages in a row, in one folder.

use super::Error;
use super::pairs::{self, PairsSummary};
use super::progress::Summary;
use super::sample::{self, SamplePlan};
use super::score::{self, ScorePlan};
use std::fmt;
use std::path::{Path, PathBuf};

/// The files that the stages leave in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub responses: PathBuf,
    /// Written by scoring.
    pub chunk_info: PathBuf,
    pub scored: PathBuf,
    pub pairs: PathBuf,
}

impl Files {
    /// LongReward's names.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            responses: folder.join("sampled_responses.jsonl"),
            chunk_info: folder.join("chunk_info.jsonl"),
            scored: folder.join("scored_responses.jsonl"),
            pairs: folder.join("preference_pairs.jsonl"),
        }
    }
}

/// What each stage does; paths as in [`Files`].
#[derive(Debug, Clone)]
pub struct Options {
    pub sample: sample::Options,
    pub score: score::Options,
    pub pairs: pairs::Options,
}

/// How all stages ended; those after a cancelled one, or after one that left nothing, did not run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    pub sampled: Summary,
    pub scored: Option<Summary>,
    pub pairs: Option<PairsSummary>,
}

/// Runs all stages. `sample` and `score` are called where there is work for a model: they load it,
/// call [`SamplePlan::run`] and [`ScorePlan::run`], and let go of it again, so that policy and judge
/// need not fit beside each other. `tokens` is as in [`pairs::run`].
///
/// # Errors
/// Those of the stages and of the two functions.
pub fn run<E: From<Error>>(
    options: Options,
    sample: impl FnOnce(SamplePlan) -> Result<Summary, E>,
    score: impl FnOnce(ScorePlan) -> Result<Summary, E>,
    tokens: Option<&dyn Fn(&str) -> usize>,
) -> Result<RunSummary, E> {
    let plan = SamplePlan::open(options.sample)?;
    // Told before candidates are sampled, which may take hours.
    score::precheck(&options.score)?;
    pairs::precheck(&options.pairs)?;
    let sampled = if plan.todo() == 0 { plan.close()? } else { sample(plan)? };
    if sampled.cancelled || sampled.reused + sampled.added == 0 {
        return Ok(RunSummary { sampled, scored: None, pairs: None });
    }
    let plan = ScorePlan::open(options.score)?;
    let scored = if plan.todo() == 0 { plan.close()? } else { score(plan)? };
    let pairs = match scored.cancelled {
        true => None,
        false => Some(pairs::run(&options.pairs, tokens)?),
    };
    Ok(RunSummary { sampled, scored: Some(scored), pairs })
}

impl RunSummary {
    /// Whether the user stopped a stage.
    pub fn cancelled(&self) -> bool {
        self.sampled.cancelled || self.scored.as_ref().is_some_and(|scored| scored.cancelled)
    }

    /// Whether everything that the input asks for is there.
    pub fn is_complete(&self) -> bool {
        self.sampled.is_complete()
            && self.scored.as_ref().is_some_and(Summary::is_complete)
            && self.pairs.as_ref().is_some_and(PairsSummary::is_complete)
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.sampled)?;
        if let Some(scored) = &self.scored {
            write!(f, "\n{scored}")?;
        }
        if let Some(pairs) = &self.pairs {
            write!(f, "\n{pairs}")?;
        }
        Ok(())
    }
}
