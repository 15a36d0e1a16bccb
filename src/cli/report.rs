//! `longreward report`.

use super::Ending;
use crate::pipeline::jsonl::keep_inputs;
use crate::report::{self, Options};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Explains scored candidates in one HTML file that opens from disk
///
/// Example: longreward report --scored scored_responses.jsonl --data sft.jsonl
/// --pairs preference_pairs.jsonl --out report.html
#[derive(Debug, Args)]
pub struct Report {
    /// Scored candidates, as `score` writes them
    #[arg(long, value_name = "FILE")]
    pub scored: PathBuf,
    /// Prompts: JSON Lines with idx, query, answer, context
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Pairs in the longreward format; each prompt's best and worst if not given
    #[arg(long, value_name = "FILE")]
    pub pairs: Option<PathBuf>,
    /// Extracts, for scored rows that hold none
    #[arg(long, value_name = "FILE")]
    pub chunk_info: Option<PathBuf>,
    /// The judge's agreement with people: a .summary.json of agree, shown in a view of its own
    #[arg(long, value_name = "FILE")]
    pub agree: Option<PathBuf>,
    /// The page; an older one is replaced, any other file is refused
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Writes the page.
///
/// # Errors
/// Unreadable input, no row to show, or an output that can't be written.
pub fn report(args: &Report) -> Result<Ending> {
    let Report { scored, data, pairs, chunk_info, agree, out } = args;
    let mut inputs = vec![scored.as_path(), data];
    inputs.extend([pairs, chunk_info, agree].into_iter().filter_map(|file| file.as_deref()));
    keep_inputs(out, &inputs)?;
    let summary = report::run(&Options {
        scored: scored.clone(),
        data: data.clone(),
        pairs: pairs.clone(),
        chunk_info: chunk_info.clone(),
        agree: agree.clone(),
        out: out.clone(),
    })?;
    println!("{summary}");
    Ok(if summary.is_complete() { Ending::Done } else { Ending::Incomplete })
}
