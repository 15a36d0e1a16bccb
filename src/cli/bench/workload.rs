//! The judge's workload.

use super::super::args::{Common, WorkArgs};
use super::super::bench_args::Bench;
use super::super::method_args::score_options;
use super::super::stages::{self, Lazy, ScoreFiles};
use super::super::{Ending, model};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{holds_fields, keep_inputs, keep_others};
use crate::pipeline::score::ScorePlan;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Refuses to write calls over what is read, or over anything but calls.
fn check_calls(file: &Path, inputs: &[&Path]) -> Result<(), Error> {
    keep_inputs(file, inputs)?;
    keep_others(file, "calls", |file| {
        holds_fields(file, &[&["number", "prompt", "new_tokens", "continuations"]])
    })
}

/// Scores candidates into a folder that is thrown away.
pub fn workload(
    args: &Bench,
    data: &Path,
    responses: &Path,
    common: &Common,
    cancel: &AtomicBool,
) -> Result<Ending> {
    let name = args.model.as_deref().context("--data needs --model")?;
    args.calls.as_deref().map_or(Ok(()), |file| check_calls(file, &[data, responses]))?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("scored_responses.jsonl");
    let mut judge = Lazy::open(name, common)?;
    if args.dummy.is_some() {
        judge.stand_in(model::engine(super::weights(args, common)?, common)?)?;
    }
    let files = ScoreFiles { data, responses, out: &out, chunk_info: None };
    let work = WorkArgs { seed: args.seed, ..WorkArgs::default() };
    let plan = ScorePlan::open(score_options(files, &args.scoring, &work, &judge)?)?;
    judge.local()?;
    if let Some(file) = &args.calls {
        judge.record(file)?;
    }
    let start = Instant::now();
    let summary = stages::run_score(plan, &args.scoring.judging, &work, &mut judge, cancel)?;
    let seconds = start.elapsed().as_secs_f64();
    let engine = judge.local()?.engine();
    let stats = engine.stats();
    let per_hour = summary.added as f64 / seconds * 3600.0;
    let cached = stats.cached_prompt_tokens as f64 / stats.prompt_tokens.max(1) as f64;
    if args.json {
        println!(
            "{}",
            json!({
                "seconds": seconds,
                "responses": summary.added,
                "responses_per_hour": per_hour,
                "calls": summary.calls,
                "prompt_tokens": stats.prompt_tokens,
                "computed_prompt_tokens": stats.computed_prompt_tokens,
                "cached_share": cached,
                "generated_tokens": stats.generated_tokens,
                "preemptions": stats.preemptions,
                "peak_kv_blocks": stats.peak_blocks,
            })
        );
    } else {
        println!("{summary}");
        println!("judged responses per hour {per_hour:12.1}");
        println!("seconds                   {seconds:12.1}");
        println!("calls                     {:12}", summary.calls);
        println!("prompt tokens asked for   {:12}", stats.prompt_tokens);
        println!("prompt tokens computed    {:12}", stats.computed_prompt_tokens);
        println!("from the prefix cache     {:11.1}%", 100.0 * cached);
        println!("tokens generated          {:12}", stats.generated_tokens);
        println!("preemptions               {:12}", stats.preemptions);
    }
    Ok(stages::ending(&summary))
}
