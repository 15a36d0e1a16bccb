//! `longreward verify`: scores that can be had once more.

use super::Ending;
use super::args::{Common, ScoringArgs, WorkArgs};
use super::method_args::score_options;
use super::remote::{JudgeServer, RemoteArgs};
use super::stages::{Lazy, ScoreFiles, run_score};
use super::values;
use crate::pipeline::score::ScorePlan;
use crate::pipeline::stored_settings;
use crate::pipeline::verify::{Checked, changed_settings, choose, compare};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Differences that are shown of a record.
const SHOWN: usize = 5;

/// Scores a random sample of records once more and reports what comes out otherwise
///
/// Give the options that the scores were made with: what differs from them is told first. Example:
/// longreward verify scored_responses.jsonl --model M --data sft.jsonl --responses
/// sampled_responses.jsonl
#[derive(Debug, Args)]
pub struct Verify {
    /// The scores
    #[arg(value_name = "OUT")]
    pub scored: PathBuf,
    #[arg(long, value_name = "M", help = super::args::MODEL_HELP, required_unless_present = "judge_url", conflicts_with_all = ["judge_url", "judge_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub server: JudgeServer,
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Prompts: JSON Lines with idx, query, answer, context
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Candidates: JSON Lines with idx ("<prompt idx>-<k>"), query, answer
    #[arg(long, value_name = "FILE")]
    pub responses: PathBuf,
    /// The extracts that the scores were made from, if score was given some; made anew if not given
    #[arg(long, value_name = "FILE")]
    pub chunk_info: Option<PathBuf>,
    /// Records to score once more
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = values::count())]
    pub sample: usize,
    /// Another seed, another sample
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub sample_seed: u64,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// The seed that the scores were made with
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    #[command(flatten)]
    pub common: Common,
}

/// Scores once more and compares.
///
/// # Errors
/// Unreadable files, or a model that fails.
pub fn verify(args: &Verify, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    check_is_scored(&args.scored)?;
    let folder = tempfile::tempdir()?;
    let (responses, out) = (folder.path().join("responses.jsonl"), folder.path().join("scored"));
    let whole_prompts = args.scoring.early_stop;
    let Verify { scored, sample, sample_seed, .. } = args;
    choose(scored, &args.responses, &responses, *sample, *sample_seed, whole_prompts)?;
    let mut judge =
        Lazy::at(args.model.as_deref(), args.server.named(), &args.remote, common, cancel)?;
    judge.text()?;
    let files = ScoreFiles {
        data: &args.data,
        responses: &responses,
        out: &out,
        chunk_info: args.chunk_info.as_deref(),
    };
    let work = WorkArgs { seed: args.seed, ..WorkArgs::default() };
    let options = score_options(files, &args.scoring, &work, &judge)?;
    let plan = ScorePlan::open(options)?;
    let changes = changed_settings(&args.scored, plan.settings())?;
    if !changes.is_empty() {
        println!("{} was made with other settings:{changes}", args.scored.display());
    }
    let summary = run_score(plan, &args.scoring.judging, &work, &mut judge, cancel)?;
    if summary.cancelled {
        return Ok(Ending::Interrupted);
    }
    let checked = compare(&args.scored, &out)?;
    checked.iter().for_each(show);
    let same = checked.iter().filter(|record| record.differences.is_empty()).count();
    println!("{same} of {} records came out the same", checked.len());
    let complete = summary.is_complete() && same == checked.len();
    Ok(if complete { Ending::Done } else { Ending::Incomplete })
}

/// Refuses what is not there or is no output of `score`, before one of its lines is called changed.
fn check_is_scored(file: &Path) -> Result<()> {
    std::fs::metadata(file).with_context(|| file.display().to_string())?;
    let settings = stored_settings(file).unwrap_or_default();
    ensure!(
        settings.get("stage").is_some_and(|stage| stage == "score"),
        "{}: was not written by score, or its .meta.json is gone: name a file of scores",
        file.display()
    );
    Ok(())
}

fn show(Checked { id, differences }: &Checked) {
    if differences.is_empty() {
        println!("{id}: the same");
        return;
    }
    println!("{id}: {} values differ", differences.len());
    for difference in differences.iter().take(SHOWN) {
        let (was, is) = (brief(&difference.was), brief(&difference.is));
        println!("  {}: was {was}, is {is}", difference.field);
    }
}

/// A value on one line.
fn brief(value: &Option<Value>) -> String {
    const MOST: usize = 60;
    let Some(value) = value else { return "not there".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
