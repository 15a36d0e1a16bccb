//! `longreward bench`.

use super::args::{Bench, Common, Dtype, KvType, WorkArgs};
use super::method_args::score_options;
use super::stages::{self, Lazy, ScoreFiles};
use super::{Ending, decoder::AnyDecoder, model};
use crate::bench::{
    Asked, DecodeSize, Limit, Measurement, Prediction, Quality, decode, predict, prefill, requests,
};
use crate::device::DeviceChoice;
use crate::pipeline::score::ScorePlan;
use anyhow::{Context, Result, bail};
use kernels::kv::BLOCK;
use kernels::peak::Peak;
use models::dummy;
use models::source::{Resolved, resolve};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Measures and prints.
///
/// # Errors
/// A model that can't be loaded, or a size that does not fit.
pub fn bench(args: &Bench, common: &Common, cancel: &AtomicBool) -> Result<Ending> {
    if !args.quality.is_empty() {
        return quality(args, common).map(|()| Ending::Done);
    }
    if let Some(file) = &args.requests {
        return given(file, args, common).map(|()| Ending::Done);
    }
    match (&args.data, &args.responses) {
        (Some(data), Some(responses)) => workload(args, data, responses, common, cancel),
        _ => sizes(args, common).map(|()| Ending::Done),
    }
}

fn sizes(args: &Bench, common: &Common) -> Result<()> {
    let decoder = match (&args.model, &args.dummy) {
        // No text is needed, so files without a vocabulary will do.
        (Some(name), _) => model::load(&resolve(name)?, common)?,
        (None, Some(shape)) => {
            let config = dummy::config(shape, args.dummy_factor)?;
            AnyDecoder::dummy(config, args.seed, common)?
        }
        (None, None) => bail!("--model or --dummy is needed"),
    };
    let on = decoder.place()?;
    let limit = decoder.limit(common)?;
    let mut engine = model::engine(decoder, common)?;
    let mut found: Vec<Measurement> = Vec::new();
    for (i, &len) in args.prefill.iter().enumerate() {
        let m = prefill(&mut engine, len, args.repeats, args.seed + 1000 * i as u64)?;
        found.push(limit.iter().fold(m, |m, limit| limit.of_prefill(m)));
        show(args, &found);
    }
    for (i, &batch) in args.decode.iter().enumerate() {
        let (context, new_tokens, shared) = (args.context, args.new_tokens, args.shared);
        let size = DecodeSize { batch, context, new_tokens, shared };
        let seed = args.seed + 100_000 * (i as u64 + 1);
        let m = decode(&mut engine, size, args.repeats, seed)?;
        found.push(limit.iter().fold(m, |m, limit| limit.of_decode(m, size)));
        show(args, &found);
    }
    if args.json {
        let peak = limit.map(|Limit { peak: Peak { f32_gflops, int8_gops, read_gb }, .. }| {
            json!({"f32_gflops": f32_gflops, "int8_gops": int8_gops, "read_gb": read_gb})
        });
        println!("{}", json!({"device": on, "peak": peak, "measurements": found}));
        return Ok(());
    }
    println!("on {on}");
    if let Some(Peak { f32_gflops, int8_gops, read_gb }) = limit.map(|limit| limit.peak) {
        let of = match int8_gops {
            0.0 => "bf16".to_owned(),
            _ => format!("f32 and {int8_gops:.0} Gop/s of bytes"),
        };
        println!("which does at most {f32_gflops:.0} GFLOP/s of {of}, and reads {read_gb:.1} GB/s");
    }
    Ok(())
}

/// Runs the requests of a file.
fn given(file: &Path, args: &Bench, common: &Common) -> Result<()> {
    let name = args.model.as_deref().context("--requests needs --model")?;
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let asked = lines.map(|(number, line)| {
        serde_json::from_str::<Asked>(line)
            .with_context(|| format!("{}:{}", file.display(), number + 1))
    });
    let mut asked = asked.collect::<Result<Vec<_>>>()?;
    asked.retain(|one| one.new_tokens > 0);
    let mut engine = model::engine(model::load(&resolve(name)?, common)?, common)?;
    let found = [requests(&mut engine, asked)?];
    show(args, &found);
    if args.json {
        println!("{}", json!({"measurements": found}));
    }
    Ok(())
}

/// Prints the last measurement as a row of the table.
fn show(args: &Bench, found: &[Measurement]) {
    let Some(m) = found.last().filter(|_| !args.json) else { return };
    if found.len() == 1 {
        println!(
            "phase          sequences  context   tokens    tokens/s  of limit  seconds of each run"
        );
    }
    let seconds: Vec<String> = m.seconds.iter().map(|s| format!("{s:.2}")).collect();
    let share = m.limit_share.map_or(String::new(), |share| format!("{:.0}%", 100.0 * share));
    println!(
        "{:14} {:9} {:8} {:8} {:11.1} {share:>9}  {}",
        m.phase,
        m.batch,
        m.context,
        m.tokens,
        m.tokens_per_second,
        seconds.join(" ")
    );
}

/// Compares the type asked for, where it runs, with f32 on the processor, on texts.
fn quality(args: &Bench, common: &Common) -> Result<()> {
    let name = args.model.as_deref().context("--quality needs --model")?;
    let (found, text) = model::open_text(name)?;
    let mut texts = Vec::new();
    for file in &args.quality {
        let content = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let mut tokens = text.tokenizer.raw_prefix().to_vec();
        tokens.extend(text.tokenizer.encode(&content));
        tokens.truncate(args.quality_tokens);
        texts.push(tokens);
    }
    let wide = Common {
        device: DeviceChoice::Cpu,
        dtype: Dtype::F32,
        kv_dtype: KvType::Auto,
        ..common.clone()
    };
    let quality =
        Quality::of(&predictions(&found, &texts, common)?, &predictions(&found, &texts, &wide)?);
    if args.json {
        println!("{}", json!(quality));
        return Ok(());
    }
    println!("predictions                {:10}", quality.predictions);
    println!("mean log-probability       {:10.4}", quality.mean_logprob);
    println!("  with f32                 {:10.4}", quality.reference_logprob);
    println!("mean difference            {:10.4}", quality.mean_difference);
    println!("largest difference         {:10.4}", quality.largest_difference);
    println!("same likeliest token       {:9.2}%", 100.0 * quality.top1_agreement);
    Ok(())
}

/// What a model predicts, with weights and keys of the type that `common` asks for.
fn predictions(found: &Resolved, texts: &[Vec<u32>], common: &Common) -> Result<Vec<Prediction>> {
    let decoder = model::load(found, common)?;
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let context = decoder.config().max_positions;
    if longest > context {
        bail!("--quality-tokens {longest} are more than the model's context of {context}");
    }
    let blocks = longest.div_ceil(BLOCK).max(1);
    let step = decoder.limits(common).tokens_per_step;
    let mut runner = decoder.runner_of(blocks, common)?;
    let mut all = Vec::new();
    for tokens in texts {
        all.extend(predict(&mut runner, tokens, step)?);
    }
    Ok(all)
}

/// Scores candidates into a folder that is thrown away.
fn workload(
    args: &Bench,
    data: &Path,
    responses: &Path,
    common: &Common,
    cancel: &AtomicBool,
) -> Result<Ending> {
    let name = args.model.as_deref().context("--data needs --model")?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("scored_responses.jsonl");
    let mut judge = Lazy::open(name, common)?;
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
    let stats = judge.local()?.engine().stats();
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
    Ok(if summary.is_complete() { Ending::Done } else { Ending::Incomplete })
}
