//! `longreward eval`: LongBench and LongBench-Chat.

use super::args::{Language, WorkArgs};
use super::eval_args::{Eval, LongBench, LongBenchChat, ProtocolName, RunArgs, Suites};
use super::stages::{self, Lazy, on_mismatch};
use super::{Ending, model};
use crate::agree::metrics::Bootstrap;
use crate::eval;
use crate::eval::cut::Window;
use crate::eval::judging::{self, JudgingPlan, REPLY_TOKENS};
use crate::eval::longbench::{self, Selection};
use crate::eval::predict::{self, PredictPlan};
use crate::eval::prompts::{JudgePrompts, Prompts};
use crate::eval::records::{Judged, Prediction, read};
use crate::eval::suite::{Item, Set, Suite};
use crate::eval::summary::{About, Summary};
use crate::eval::tasks::Protocol;
use crate::judge::LangChoice;
use crate::pipeline::jsonl::replace;
use crate::pipeline::{self, Error};
use crate::report;
use crate::tokenizer::Turn;
use anyhow::Result;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// `longreward eval`.
///
/// # Errors
/// Unreadable input, output that was made otherwise, or a model that fails.
pub fn eval(args: &Eval, cancel: &AtomicBool) -> Result<Ending> {
    match &args.suite {
        Suites::Longbench(args) => longbench(args, cancel),
        Suites::LongbenchChat(args) => longbench_chat(args, cancel),
    }
}

fn longbench(args: &LongBench, cancel: &AtomicBool) -> Result<Ending> {
    let protocol = match args.protocol {
        ProtocolName::Longreward => Protocol::LongReward,
        ProtocolName::Longbench => Protocol::LongBench,
    };
    let prompts = Prompts::load(protocol, args.run.prompts.as_deref())?;
    let selection = Selection {
        data: args.run.data.clone(),
        protocol,
        e: args.e,
        sets: args.sets.clone(),
        limit: args.run.limit,
    };
    let suite = longbench::open(&selection, &prompts)?;
    run(suite, args.temperature, &args.run, cancel)
}

fn longbench_chat(args: &LongBenchChat, cancel: &AtomicBool) -> Result<Ending> {
    let suite = eval::chat::open(&args.run.data, args.run.limit)?;
    run(suite, args.temperature, &args.run, cancel)
}

/// Predicts, judges if there is a judge, and says what it comes to.
fn run(suite: Suite, temperature: f32, args: &RunArgs, cancel: &AtomicBool) -> Result<Ending> {
    check_not_empty(&suite, &args.data)?;
    let common = &args.common;
    let files = Files::of(&args.out_dir);
    let judge_prompts = JudgePrompts::load(args.prompts.as_deref())?;
    let mut about = About::of(&suite);
    let (sets, items) = (suite.sets.clone(), suite.items.clone());
    let servers = (args.policy.named(), args.server.named());
    let mut policy = Lazy::at(args.model.as_deref(), servers.0, &args.work.remote, common, cancel)?;
    let plan = PredictPlan::open(suite, prediction(&files, temperature, args, &policy)?)?;
    about.settings = plan.settings().clone();
    let predicted = predict(plan, &args.work, &mut policy, cancel)?;
    let mut ending = stages::report(predicted)?;
    let predictions: Vec<Prediction> = read(&files.predictions)?;
    let mut verdicts: Vec<Judged> = Vec::new();
    let has_judge = args.judge.is_some() || servers.1.is_some();
    if has_judge && ending != Ending::Interrupted {
        let judge = match args.judge.is_some() && args.judge == args.model {
            true => policy,
            // The policy's memory is free again before the judge is loaded.
            false => {
                drop(policy);
                Lazy::at(args.judge.as_deref(), servers.1, &args.work.remote, common, cancel)?
            }
        };
        let bench = Bench { sets: &sets, items: &items, predictions: predictions.clone() };
        let (judged, settings) = judging(bench, judge_prompts, &files, args, judge, cancel)?;
        ending = ending.max(stages::report(judged)?);
        about.judge_settings = Some(settings);
        verdicts = read(&files.verdicts)?;
    }
    if ending != Ending::Interrupted {
        let bootstrap = Bootstrap { resamples: args.resamples, seed: args.work.seed };
        let summary = Summary::new(about, &predictions, &verdicts, bootstrap);
        show(&summary, &predictions, &verdicts, &files)?;
    }
    Ok(ending)
}

fn check_not_empty(suite: &Suite, data: &Path) -> Result<()> {
    if suite.items.is_empty() {
        suite.problems.iter().for_each(|problem| eprintln!("{problem}"));
        anyhow::bail!("{}: there is no good row in the sets that are asked for", data.display());
    }
    Ok(())
}

fn predict(
    plan: PredictPlan,
    work: &WorkArgs,
    policy: &mut Lazy,
    cancel: &AtomicBool,
) -> Result<pipeline::Summary> {
    if plan.todo() == 0 {
        return Ok(plan.close()?);
    }
    let tokenizer = policy.text()?.tokenizer.clone();
    let tokens = |text: &str| tokenizer.encode_offsets(text);
    plan.check_room(&tokens)?;
    policy.session(work, cancel, |session| plan.run(&tokens, session))
}

/// What is to be judged.
struct Bench<'a> {
    sets: &'a [Set],
    items: &'a [Item],
    predictions: Vec<Prediction>,
}

fn judging(
    bench: Bench,
    prompts: JudgePrompts,
    files: &Files,
    args: &RunArgs,
    mut judge: Lazy,
    cancel: &AtomicBool,
) -> Result<(pipeline::Summary, pipeline::Settings)> {
    let options = judging::Options {
        out: files.verdicts.clone(),
        model: judge.settings()?,
        prompts,
        lang: match args.lang {
            Language::Auto => LangChoice::Auto,
            Language::En => LangChoice::En,
            Language::Zh => LangChoice::Zh,
        },
        max_reply_tokens: args.max_reply_tokens.unwrap_or(REPLY_TOKENS),
        seed: args.work.seed,
        on_mismatch: on_mismatch(&args.work),
    };
    let plan = JudgingPlan::open(bench.sets, bench.items, bench.predictions, options)?;
    let settings = plan.settings().clone();
    let summary = match plan.todo() {
        0 => plan.close()?,
        _ => judge.session(&args.work, cancel, |session| plan.run(session))?,
    };
    Ok((summary, settings))
}

fn prediction(
    files: &Files,
    temperature: f32,
    args: &RunArgs,
    policy: &Lazy,
) -> Result<predict::Options> {
    let model::Text { tokenizer, template, .. } = policy.text()?;
    let empty = template.encode(tokenizer, &[Turn::user("")], "")?;
    let (context, template) = (policy.context()?, empty.len());
    Ok(predict::Options {
        out: files.predictions.clone(),
        model: policy.settings()?,
        window: Window { context, template, max_input: args.max_input_tokens },
        temperature,
        seed: args.work.seed,
        on_mismatch: on_mismatch(&args.work),
    })
}

/// What stands in `--out-dir`.
struct Files {
    predictions: PathBuf,
    verdicts: PathBuf,
    result: PathBuf,
    report: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            predictions: folder.join("predictions.jsonl"),
            verdicts: folder.join("verdicts.jsonl"),
            result: folder.join("result.json"),
            report: folder.join("report.html"),
        }
    }
}

/// Writes result and report, and only then prints: what reads the table may stop early.
fn show(
    summary: &Summary,
    predictions: &[Prediction],
    verdicts: &[Judged],
    files: &Files,
) -> Result<()> {
    write(&files.result, &(serde_json::to_string_pretty(summary)? + "\n"))?;
    write(&files.report, &report::eval::page(summary, predictions, verdicts)?)?;
    print!("{summary}");
    println!("scores are in {}, with {}", files.result.display(), files.report.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, |file| file.write_all(text.as_bytes()).map_err(Error::io(path)))
}
