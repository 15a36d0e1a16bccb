//! Options of how an answer is scored, by whichever command.

use super::args::{PromptArgs, ScoringArgs, WorkArgs};
use super::help::VERDICTS;
use super::stages::{self, Lazy, ScoreFiles, on_mismatch};
use super::verdict_args::{VerdictArgs, VoteChoice};
use crate::judge::Calibrations;
use crate::pipeline::records::ScoreBy;
use crate::pipeline::score::{self, PASSAGE_TOKENS};
use crate::pipeline::{Judging, OnMismatch};
use crate::retrieval::TOP_CHUNKS;
use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What counts, what statements are checked against, and what verdicts are like.
#[derive(Debug, Clone, Args)]
pub struct MethodArgs {
    /// What counts: the judge's ratings, or the expected values of their distributions
    #[arg(long, help_heading = VERDICTS, default_value = "rating", value_name = "WHAT")]
    pub score_by: ScoreChoice,
    /// Corrects the verdicts' probabilities by a file of calibrate; the scores are then expected
    /// values
    #[arg(long, help_heading = VERDICTS, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Use the calibration though it was fitted to another judge
    #[arg(long, help_heading = VERDICTS, requires = "calibration")]
    pub any_calibration: bool,
    /// Passages of the document that a statement is checked against
    #[arg(long, help_heading = VERDICTS, default_value_t = TOP_CHUNKS, value_parser = RangedU64ValueParser::<usize>::new().range(1..), value_name = "K")]
    pub passages: usize,
    /// Tokens of a passage
    #[arg(long, help_heading = VERDICTS, default_value_t = PASSAGE_TOKENS, value_parser = RangedU64ValueParser::<usize>::new().range(1..), value_name = "N")]
    pub passage_tokens: usize,
    #[command(flatten)]
    pub verdicts: VerdictArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScoreChoice {
    Rating,
    Expected,
}

impl Default for MethodArgs {
    /// The published method.
    fn default() -> Self {
        Self {
            score_by: ScoreChoice::Rating,
            calibration: None,
            any_calibration: false,
            passages: TOP_CHUNKS,
            passage_tokens: PASSAGE_TOKENS,
            verdicts: VerdictArgs::default(),
        }
    }
}

/// What the options stand for, besides themselves.
pub struct Means {
    /// As published.
    pub judging: Judging,
    /// Names the way of finding evidence.
    pub retriever: String,
    /// Tokens of the judge's context, if the whole document is to be shown.
    pub context: Option<usize>,
    pub calibration: Option<Calibrations>,
}

impl Means {
    /// # Errors
    /// Prompts, a calibration or the judge's configuration that can't be read.
    pub fn open(
        method: &MethodArgs,
        prompts: &PromptArgs,
        work: &WorkArgs,
        judge: &Lazy,
        retriever: String,
    ) -> Result<Self> {
        let judging = stages::judging(prompts, work, judge)?;
        let context = method.verdicts.whole_document.then(|| judge.context()).transpose()?;
        let mut settings = method.verdicts.applied(judging.clone())?.verdict_settings();
        let evidence = method.verdicts.evidence(method.passages, context);
        let cutting = method.verdicts.cutting(method.passage_tokens);
        settings.extend(score::evidence_settings(cutting, evidence));
        settings.insert("retriever".to_owned(), retriever.clone());
        let read = |file: &PathBuf| stages::calibration(file, method.any_calibration, &settings);
        let calibration = method.calibration.as_ref().map(read).transpose()?;
        Ok(Self { judging, retriever, context, calibration })
    }
}

impl MethodArgs {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self) -> Result<()> {
        self.verdicts.check(self.passage_tokens)?;
        let by_median = self.verdicts.vote_by == VoteChoice::Median;
        ensure!(
            !by_median || self.score_by == ScoreChoice::Rating,
            "--vote-by median and --score-by expected: expected values are averaged over votes; \
             leave one of them out"
        );
        ensure!(
            !by_median || self.calibration.is_none(),
            "--vote-by median and --calibration: the scores are then expected values, which are \
             averaged over votes; leave one of them out"
        );
        Ok(())
    }

    /// What the stage is told.
    ///
    /// # Errors
    /// Prompts that lack one which an option asks for.
    pub fn options(&self, files: ScoreFiles, means: Means) -> Result<score::Options> {
        let Means { judging, retriever, context, calibration } = means;
        Ok(score::Options {
            data: files.data.to_owned(),
            responses: files.responses.to_owned(),
            out: files.out.to_owned(),
            chunk_info: files.chunk_info.map(std::path::Path::to_owned),
            extracts: score::beside(files.out),
            judging: self.verdicts.applied(judging)?,
            retriever,
            cutting: self.verdicts.cutting(self.passage_tokens),
            evidence: self.verdicts.evidence(self.passages, context),
            score_by: match self.score_by {
                ScoreChoice::Rating if calibration.is_none() => ScoreBy::Rating,
                _ => ScoreBy::Expected,
            },
            calibration,
            early_stop: false,
            limit: None,
            on_mismatch: OnMismatch::Refuse,
        })
    }
}

/// # Errors
/// Prompts or an embedder that can't be found.
pub fn score_options(
    files: ScoreFiles,
    args: &ScoringArgs,
    work: &WorkArgs,
    judge: &Lazy,
) -> Result<score::Options> {
    let ScoringArgs { judging, method, early_stop } = args;
    let retriever = super::embedder::name(&judging.embedder)?;
    let means = Means::open(method, &judging.prompts, work, judge, retriever)?;
    let options = method.options(files, means)?;
    Ok(score::Options { early_stop: *early_stop, on_mismatch: on_mismatch(work), ..options })
}
