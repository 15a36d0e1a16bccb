//! `longreward agree`: the judge beside people.

use super::agree_args::{Agree, Passage};
use super::args::Common;
use super::stages::{Lazy, judging, on_mismatch};
use super::{Ending, embedder, model};
use crate::agree::compare::compare;
use crate::agree::judging::{JudgingPlan, Method, Options, Tools, read_judged};
use crate::agree::labels::{Item, Labels};
use crate::agree::metrics::Bootstrap;
use crate::agree::passages::Cut;
use crate::agree::recall::{Recall, Trial, recall};
use crate::agree::summary::Summary;
use crate::pipeline::jsonl::{RowError, replace};
use crate::pipeline::score::PASSAGE_TOKENS;
use crate::pipeline::{Error, Tokens};
use crate::retrieval::{Embed, Retriever, TOP_CHUNKS};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Numbers of passages that recall is measured at.
const RECALL_AT: [usize; 4] = [1, 3, 5, 10];

/// `longreward agree`.
///
/// # Errors
/// Unreadable input, output that was made otherwise, or a model that fails.
pub fn agree(args: &Agree, common: &Common, cancel: &AtomicBool) -> Result<Ending> {
    match (&args.compare[..], &args.labels) {
        ([a, b], _) => compare_files(a, b, args),
        (_, Some(labels)) if args.recall_only => recall_only(labels, args),
        (_, Some(labels)) => judge(labels, args, common, cancel),
        _ => anyhow::bail!("there is nothing to do: give --labels or --compare"),
    }
}

fn compare_files(a: &Path, b: &Path, args: &Agree) -> Result<Ending> {
    let (comparison, problems) = compare(a, b, bootstrap(args))?;
    finish(&comparison, &problems, args)
}

fn recall_only(labels: &Path, args: &Agree) -> Result<Ending> {
    let Labels { items, problems } = Labels::read(labels, args.format.into(), args.limit)?;
    let text = args.model.as_deref().map(model::open_text).transpose()?;
    let tokenizer = text.map(|(_, text)| text.tokenizer);
    let tokens = |text: &str| tokenizer.as_ref().map_or(Vec::new(), |t| t.encode_offsets(text));
    let cuts = match &tokenizer {
        Some(_) => vec![Cut::Sentences, Cut::Tokens(PASSAGE_TOKENS)],
        None => vec![Cut::Sentences],
    };
    let mut retriever = embedder::retriever(&args.judging.embedder)?;
    let recall = recall_by(&items, &mut retriever, &cuts, &RECALL_AT, &tokens, args)?;
    anyhow::ensure!(!recall.is_empty(), "{}: no row names supporting sentences", labels.display());
    let summary = Summary {
        labels: labels.display().to_string(),
        bootstrap: bootstrap(args),
        recall,
        ..Summary::default()
    };
    finish(&summary, &problems, args)
}

/// Recall of BM25, of the embedder if there is one, and of both together.
fn recall_by(
    items: &[Item],
    retriever: &mut Retriever,
    cuts: &[Cut],
    ks: &[usize],
    tokens: &Tokens,
    args: &Agree,
) -> Result<Vec<Recall>> {
    let mut bm25 = Retriever::Bm25;
    let embedder = &args.judging.embedder;
    let mut both;
    let mut retrievers = vec![("bm25".to_owned(), &mut bm25)];
    if matches!(retriever, Retriever::Embeddings(_)) {
        let with_words = embedder::with_words(embedder);
        both = embedder::retriever(&with_words)?;
        retrievers.push((embedder::name(embedder)?, retriever));
        retrievers.push((embedder::name(&with_words)?, &mut both));
    } else if matches!(retriever, Retriever::Hybrid(_)) {
        retrievers.push((embedder::name(embedder)?, retriever));
    }
    let mut trial = Trial { retrievers: &mut retrievers, cuts, ks, tokens };
    Ok(recall(items, &mut trial, &bootstrap(args))?)
}

fn judge(labels: &Path, args: &Agree, common: &Common, cancel: &AtomicBool) -> Result<Ending> {
    let out = args.out.as_deref().context("--out is missing")?;
    let server = args.server.named();
    let mut judge = Lazy::at(args.model.as_deref(), server, &args.work.remote, common)?;
    let tokenizer = judge.text()?.tokenizer.clone();
    let options = options(labels, out, args, &judge)?;
    let cut = options.method.claim_passage;
    let plan = JudgingPlan::open(options)?;
    let (items, settings) = (plan.items().to_vec(), plan.settings().clone());
    let mut retriever = embedder::retriever(&args.judging.embedder)?;
    let tokens = |text: &str| tokenizer.encode_offsets(text);
    let stage = if plan.todo() == 0 {
        plan.close()?
    } else {
        let tools = Tools { tokens: &tokens, retriever: &mut retriever };
        judge.session(&args.work, cancel, |session| plan.run(tools, session))?
    };
    println!("{stage}");
    if stage.cancelled {
        return Ok(Ending::Interrupted);
    }
    let (judged, damaged) = read_judged(out)?;
    if let Some(damaged) = damaged.into_iter().next() {
        return Err(Error::Damaged(damaged).into());
    }
    let recall = recall_by(&items, &mut retriever, &[cut], &[TOP_CHUNKS], &tokens, args)?;
    let measured = Summary::new(&items, &judged, bootstrap(args), embed(&mut retriever))?;
    let labels = labels.display().to_string();
    let summary = Summary { labels, settings, recall, ..measured };
    show(&summary, args)?;
    Ok(if stage.is_complete() { Ending::Done } else { Ending::Incomplete })
}

fn embed(retriever: &mut Retriever) -> Option<&mut dyn Embed> {
    match retriever {
        Retriever::Embeddings(embed) | Retriever::Hybrid(embed) => Some(embed.as_mut()),
        _ => None,
    }
}

fn options(labels: &Path, out: &Path, args: &Agree, judge: &Lazy) -> Result<Options> {
    let mut dimensions = args.dimensions.clone();
    dimensions.sort_unstable();
    dimensions.dedup();
    Ok(Options {
        labels: labels.to_owned(),
        format: args.format.into(),
        limit: args.limit,
        out: out.to_owned(),
        judging: judging(&args.judging.prompts, &args.work, judge)?,
        runs: args.seeds,
        method: Method {
            claim_passage: match args.passage {
                Passage::Chunk => Cut::Tokens(PASSAGE_TOKENS),
                Passage::Sentence => Cut::Sentences,
            },
            passage_tokens: PASSAGE_TOKENS,
            passages: TOP_CHUNKS,
            dimensions: dimensions.into_iter().map(Into::into).collect(),
        },
        retriever: embedder::name(&args.judging.embedder)?,
        on_mismatch: on_mismatch(&args.work),
    })
}

fn bootstrap(args: &Agree) -> Bootstrap {
    Bootstrap { resamples: args.resamples, seed: args.work.seed }
}

/// Prints and writes what was measured without a judge.
fn finish(
    measured: &(impl Serialize + fmt::Display),
    problems: &[RowError],
    args: &Agree,
) -> Result<Ending> {
    for problem in problems {
        eprintln!("{problem}");
    }
    show(measured, args)?;
    if problems.is_empty() {
        return Ok(Ending::Done);
    }
    println!("{} bad input rows", problems.len());
    Ok(Ending::Incomplete)
}

/// Writes `OUT.summary.json`, if there is an `--out`, and only then prints: what reads the table may
/// stop early.
fn show(measured: &(impl Serialize + fmt::Display), args: &Agree) -> Result<()> {
    let path = args.out.as_deref().map(summary_path);
    if let Some(path) = &path {
        write_summary(measured, path)?;
    }
    print!("{measured}");
    if let Some(path) = &path {
        println!("measures are in {}", path.display());
    }
    Ok(())
}

fn write_summary(measured: &impl Serialize, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(measured)?;
    replace(path, |file| {
        writeln!(file, "{text}").map_err(|source| Error::Io { path: path.to_owned(), source })
    })?;
    Ok(())
}

/// `agree.jsonl` → `agree.summary.json`.
fn summary_path(out: &Path) -> PathBuf {
    out.with_extension("summary.json")
}
