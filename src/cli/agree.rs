//! `longreward agree`: the judge beside people.

use super::agree_args::{Agree, Passage};
use super::stages::{Lazy, calibration, judging, on_mismatch};
use super::{Ending, embedder, model};
use crate::agree::bias::{Bias, Known};
use crate::agree::calibrate::labels_hash;
use crate::agree::compare::compare;
use crate::agree::judging::{
    Details, Judged, JudgingPlan, Method, Options, Tools, Variants, read_judged,
};
use crate::agree::labels::{Item, Labels};
use crate::agree::metrics::Bootstrap;
use crate::agree::passages::Cut;
use crate::agree::recall::{Recall, Trial, recall};
use crate::agree::scored::{Matched, matched};
use crate::agree::summary::{Gain, Summary};
use crate::judge::Dimension;
use crate::pipeline::jsonl::{RowError, holds_fields, keep_inputs, keep_others, replace};
use crate::pipeline::score::PASSAGE_TOKENS;
use crate::pipeline::{Error, Settings, Tokens, stored_settings};
use crate::retrieval::{Embed, Retriever, TOP_CHUNKS, Vectors};
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
pub fn agree(args: &Agree, cancel: &AtomicBool) -> Result<Ending> {
    // Told before anything is judged, which may take hours.
    args.out.as_deref().map_or(Ok(()), |out| check_summary(&summary_path(out), args))?;
    match (&args.compare[..], &args.labels) {
        ([a, b], labels) => compare_files(a, b, labels.as_deref(), args),
        (_, Some(labels)) if args.scored.is_some() => scored(labels, args),
        (_, Some(labels)) if args.recall_only => recall_only(labels, args),
        (_, Some(labels)) => judge(labels, args, cancel),
        _ => anyhow::bail!("there is nothing to do: give --labels or --compare"),
    }
}

fn compare_files(a: &Path, b: &Path, labels: Option<&Path>, args: &Agree) -> Result<Ending> {
    let labels = labels.map(|labels| Labels::read(labels, args.format.into(), None)).transpose()?;
    let Labels { items, mut problems } = labels.unwrap_or_default();
    let (comparison, more) = compare(a, b, &items, bootstrap(args))?;
    problems.extend(more);
    tell(&problems);
    let comparison = comparison
        .with_context(|| format!("{} and {} have no answer in common", a.display(), b.display()))?;
    finish(&comparison, &problems, args)
}

fn recall_only(labels: &Path, args: &Agree) -> Result<Ending> {
    let Labels { items, problems } = Labels::read(labels, args.format.into(), args.limit)?;
    tell(&problems);
    let text = args.model.as_deref().map(model::open_text).transpose()?;
    let tokenizer = text.map(|(_, text)| text.tokenizer);
    let tokens = |text: &str| tokenizer.as_ref().map_or(Vec::new(), |t| t.encode_offsets(text));
    let cuts = match &tokenizer {
        Some(_) => vec![Cut::Sentences, Cut::Chunks(args.verdicts.cutting(PASSAGE_TOKENS))],
        None => vec![Cut::Sentences],
    };
    let known = Vectors::default();
    let mut retriever = embedder::retriever(&args.judging.embedder, false)?.remembering(&known);
    let trial = (&cuts[..], &RECALL_AT[..]);
    let recall = recall_by(&items, &mut retriever, trial, &tokens, &known, args)?;
    anyhow::ensure!(!recall.is_empty(), "{}: no row names supporting sentences", labels.display());
    let summary = Summary {
        labels: labels.display().to_string(),
        bootstrap: bootstrap(args),
        recall,
        ..Summary::default()
    };
    finish(&summary, &problems, args)
}

/// Recall of BM25, of the embedder if there is one, and of both together. `known` is what that
/// embedder has embedded.
fn recall_by(
    items: &[Item],
    retriever: &mut Retriever,
    (cuts, ks): (&[Cut], &[usize]),
    tokens: &Tokens,
    known: &Vectors,
    args: &Agree,
) -> Result<Vec<Recall>> {
    let mut bm25 = Retriever::Bm25;
    let embedder = &args.judging.embedder;
    let mut both;
    let mut retrievers = vec![("bm25".to_owned(), &mut bm25)];
    if matches!(retriever, Retriever::Embeddings(_)) {
        let with_words = embedder::with_words(embedder);
        both = embedder::retriever(&with_words, false)?.remembering(known);
        retrievers.push((embedder::name(embedder)?, retriever));
        retrievers.push((embedder::name(&with_words)?, &mut both));
    } else if matches!(retriever, Retriever::Hybrid(_)) {
        retrievers.push((embedder::name(embedder)?, retriever));
    }
    let mut trial = Trial { retrievers: &mut retrievers, cuts, ks, tokens };
    Ok(recall(items, &mut trial, &bootstrap(args))?)
}

fn judge(labels: &Path, args: &Agree, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    let out = args.out.as_deref().context("--out is missing")?;
    keep_inputs(out, &inputs(args))?;
    let server = args.server.named();
    let mut judge = Lazy::at(args.model.as_deref(), server, &args.work.remote, common, cancel)?;
    let tokenizer = judge.text()?.tokenizer.clone();
    let options = options(labels, out, args, &judge)?;
    let cut = options.method.claim_passage;
    let plan = JudgingPlan::open(options)?;
    let (items, settings) = (plan.items(), plan.settings().clone());
    let known = Vectors::default();
    let mut retriever = embedder::retriever(&args.judging.embedder, false)?.remembering(&known);
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
    let (mut judged, damaged) = read_judged(out)?;
    if let Some(damaged) = damaged.into_iter().next() {
        return Err(Error::Damaged(damaged).into());
    }
    let recall = recall_by(&items, &mut retriever, (&[cut], &[TOP_CHUNKS]), &tokens, &known, args)?;
    let settings = calibrate(&mut judged, &items, settings, args)?;
    let measured = measure(&items, &judged, settings, args, embed(&mut retriever))?;
    let labels = labels.display().to_string();
    show(&Summary { labels, recall, ..measured }, args)?;
    Ok(if stage.is_complete() { Ending::Done } else { Ending::Incomplete })
}

/// Scores that are there already beside labels.
fn scored(labels: &Path, args: &Agree) -> Result<Ending> {
    let scored = args.scored.as_deref().context("--scored is missing")?;
    let Labels { items, mut problems } = Labels::read(labels, args.format.into(), args.limit)?;
    let Matched { mut judged, problems: more, without, ambiguous, stopped } =
        matched(&items, scored)?;
    problems.extend(more);
    tell(&problems);
    anyhow::ensure!(
        !judged.is_empty(),
        "{}: no labelled answer was scored; they are found by query, answer and (where labels have one) \
         context, to the letter",
        scored.display()
    );
    let left_out = [
        (&without, "labelled rows without scores"),
        (
            &ambiguous,
            "labelled rows without context, whose answers were scored on several documents",
        ),
        (&stopped, "labelled rows with an answer that --early-stop left without all its scores"),
    ];
    for (rows, what) in left_out {
        if let Some(first) = rows.first() {
            eprintln!("{} {what}, the first is {first:?}", rows.len());
        }
    }
    let settings = stored_settings(scored).unwrap_or_default();
    let settings = calibrate(&mut judged, &items, settings, args)?;
    let measured = measure(&items, &judged, settings, args, None)?;
    let summary = Summary { labels: labels.display().to_string(), ..measured };
    let ending = finish(&summary, &problems, args)?;
    let is_whole = left_out.iter().all(|(rows, _)| rows.is_empty());
    Ok(if is_whole { ending } else { Ending::Incomplete })
}

/// Corrects verdicts by the file that is given, if one is, and notes that among the settings.
fn calibrate(
    judged: &mut [Judged],
    items: &[Item],
    mut settings: Settings,
    args: &Agree,
) -> Result<Settings> {
    let Some(file) = &args.calibration else { return Ok(settings) };
    let by = calibration(file, args.any_calibration, &settings)?;
    if by.labels_hash == labels_hash(items) {
        let file = file.display();
        eprintln!("warning: {file} was fitted to these labels: what it gains here says little");
    }
    judged.iter_mut().for_each(|record| record.calibrate(&by));
    settings.insert("calibration".to_owned(), by.hash);
    Ok(settings)
}

/// Agreement and biases.
fn measure(
    items: &[Item],
    judged: &[Judged],
    settings: Settings,
    args: &Agree,
    embed: Option<&mut dyn Embed>,
) -> Result<Summary> {
    let lang = settings.get("lang").and_then(|lang| lang.parse().ok()).unwrap_or_default();
    let mut own: Vec<String> = args.own.iter().chain(&args.model).cloned().collect();
    own.extend(["model", "checkpoint"].iter().filter_map(|name| settings.get(*name)).cloned());
    let seeds_by_text = args.scored.is_none();
    let known = Known { lang, own, seeds_by_text, bootstrap: bootstrap(args) };
    let bias = Bias::new(items, judged, &known);
    let bias = (!bias.is_empty()).then_some(bias);
    warn_of_mixture(judged);
    let measured = Summary::new(items, judged, bootstrap(args), embed)?;
    let gain = args.gain_over.as_deref().map(|file| gain(file, items, judged, args)).transpose()?;
    Ok(Summary { settings, bias, gain, ..measured })
}

fn warn_of_mixture(judged: &[Judged]) {
    let dimensions = |answer: &Details| -> Vec<Dimension> {
        answer.verdicts().iter().map(|score| score.dimension).collect()
    };
    let mut sets = judged.iter().flat_map(|one| one.found.answers()).map(dimensions);
    let first = sets.next();
    if sets.any(|set| Some(set) != first) {
        eprintln!(
            "warning: not all answers were judged in the same dimensions; \"judge\" is the mean of those that \
             each was judged in, only lines of one dimension compare like with like"
        );
    }
}

fn gain(file: &Path, items: &[Item], judged: &[Judged], args: &Agree) -> Result<Gain> {
    let (others, damaged) = read_judged(file)?;
    if let Some(damaged) = damaged.into_iter().next() {
        return Err(Error::Damaged(damaged).into());
    }
    let over = file.display().to_string();
    let gain = Gain::new(items, judged, &others, over, &bootstrap(args));
    gain.with_context(|| {
        let file = file.display();
        format!(
            "--gain-over {file}: has no verdict on a row that was judged here, with the same text"
        )
    })
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
    let context = args.verdicts.whole_document.then(|| judge.context()).transpose()?;
    Ok(Options {
        labels: labels.to_owned(),
        format: args.format.into(),
        limit: args.limit,
        out: out.to_owned(),
        judging: args.verdicts.applied(judging(&args.judging.prompts, &args.work, judge)?)?,
        runs: args.seeds,
        variants: Variants {
            padded: args.padding,
            langs: args.langs.iter().map(|&lang| lang.into()).collect(),
        },
        method: Method {
            claim_passage: match args.passage {
                Passage::Chunk => Cut::Chunks(args.verdicts.cutting(PASSAGE_TOKENS)),
                Passage::Sentence => Cut::Sentences,
            },
            cutting: args.verdicts.cutting(PASSAGE_TOKENS),
            evidence: args.verdicts.evidence(TOP_CHUNKS, context),
            dimensions: dimensions.into_iter().map(Into::into).collect(),
        },
        retriever: embedder::name(&args.judging.embedder)?,
        on_mismatch: on_mismatch(&args.work),
    })
}

fn bootstrap(args: &Agree) -> Bootstrap {
    Bootstrap { resamples: args.resamples, seed: args.work.seed }
}

/// Before anything that they may be the reason of.
fn tell(problems: &[RowError]) {
    problems.iter().for_each(|problem| eprintln!("{problem}"));
}

/// Prints and writes what was measured without a judge.
fn finish(
    measured: &(impl Serialize + fmt::Display),
    problems: &[RowError],
    args: &Agree,
) -> Result<Ending> {
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

/// Refuses to write measures over what is read, or over anything but measures.
fn check_summary(path: &Path, args: &Agree) -> Result<(), Error> {
    const OURS: [&[&str]; 2] = [&["labels", "settings", "bootstrap"], &["a", "b", "bootstrap"]];
    keep_inputs(path, &inputs(args))?;
    keep_others(path, "measures", |path| holds_fields(path, &OURS))
}

/// The files that are read.
fn inputs(args: &Agree) -> Vec<&Path> {
    let single = [&args.labels, &args.scored, &args.calibration, &args.gain_over];
    let single = single.into_iter().filter_map(|file| file.as_deref());
    single.chain(args.compare.iter().map(PathBuf::as_path)).collect()
}

fn write_summary(measured: &impl Serialize, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(measured)?;
    replace(path, |file| {
        writeln!(file, "{text}").map_err(|source| Error::Io { path: path.to_owned(), source })
    })?;
    Ok(())
}

/// `agree.jsonl` → `agree.summary.json`. Whatever else a name ends with is part of it.
fn summary_path(out: &Path) -> PathBuf {
    if out.extension().is_some_and(|extension| extension == "jsonl") {
        return out.with_extension("summary.json");
    }
    let mut name = out.as_os_str().to_owned();
    name.push(".summary.json");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_outputs_have_different_summaries() {
        let names = ["d/agree.jsonl", "m-0.5.jsonl", "m-0.5", "m-0.7"];
        assert_eq!(
            names.map(|name| summary_path(Path::new(name))),
            ["d/agree", "m-0.5", "m-0.5", "m-0.7"]
                .map(|name| PathBuf::from(format!("{name}.summary.json")))
        );
    }
}
