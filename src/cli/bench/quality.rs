//! Accuracy: the type asked for, where it runs, against f32 on the processor.

use super::super::args::{Common, Dtype, KvType};
use super::super::bench_args::Bench;
use super::super::model;
use crate::bench::{Prediction, Quality, Replies, greedy, predict};
use crate::device::DeviceChoice;
use crate::engine::Engine;
use anyhow::{Context, Result, bail};
use kernels::kv::BLOCK;
use models::source::Resolved;
use serde_json::json;

/// Tokens of a text before a greedy reply, and of the reply.
const PROMPT: usize = 128;
const REPLY: usize = 64;

/// What one way of computing says.
struct Said {
    predictions: Vec<Prediction>,
    replies: Vec<Vec<u32>>,
}

/// Compares the type asked for, where it runs, with f32 on the processor, on texts.
pub fn quality(args: &Bench, common: &Common) -> Result<()> {
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
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    if longest < 2 {
        bail!("--quality: no text has two tokens, so that none is predicted");
    }
    let prompts = prompts(&texts, args.quality_replies);
    let wide = Common {
        device: DeviceChoice::Cpu,
        dtype: Dtype::F32,
        kv_dtype: KvType::Auto,
        ..common.clone()
    };
    let ours = said(&found, &texts, &prompts, common)?;
    let reference = said(&found, &texts, &prompts, &wide)?;
    let quality = Quality::of(&ours.predictions, &reference.predictions);
    let replies = Replies::of(&ours.replies, &reference.replies);
    if args.json {
        println!("{}", json!({"predictions": quality, "replies": replies}));
        return Ok(());
    }
    println!("predictions                {:10}", quality.predictions);
    println!("mean log-probability       {:10.4}", quality.mean_logprob);
    println!("  with f32                 {:10.4}", quality.reference_logprob);
    println!("mean difference            {:10.4}", quality.mean_difference);
    println!("largest difference         {:10.4}", quality.largest_difference);
    println!("same likeliest token       {:9.2}%", 100.0 * quality.top1_agreement);
    if replies.count > 0 {
        println!("greedy replies             {:10}", replies.count);
        println!("equal over {REPLY} tokens       {:10}", replies.equal);
        println!("mean equal tokens          {:10.1}", replies.mean_equal_tokens);
    }
    Ok(())
}

/// Windows of the texts, which they are cut into without overlap: the first `count` of all texts in turn.
fn prompts(texts: &[Vec<u32>], count: usize) -> Vec<Vec<u32>> {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let windows = (0..longest / PROMPT)
        .flat_map(|i| texts.iter().filter_map(move |text| text.get(i * PROMPT..(i + 1) * PROMPT)));
    windows.take(count).map(<[u32]>::to_vec).collect()
}

/// What a model predicts and replies, with weights and keys of the type that `common` asks for.
fn said(
    found: &Resolved,
    texts: &[Vec<u32>],
    prompts: &[Vec<u32>],
    common: &Common,
) -> Result<Said> {
    let decoder = model::load(found, common)?;
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let context = decoder.config().max_positions;
    if longest > context {
        bail!("--quality-tokens {longest} are more than the model's context of {context}");
    }
    let of_replies = prompts.len() * (PROMPT + REPLY).div_ceil(BLOCK);
    let blocks = longest.div_ceil(BLOCK).max(of_replies).max(1);
    let limits = decoder.limits(common);
    let mut runner = decoder.runner_of(blocks, common)?;
    let mut predictions = Vec::new();
    for tokens in texts {
        predictions.extend(predict(&mut runner, tokens, limits.tokens_per_step)?);
    }
    let replies = greedy(&mut Engine::new(runner, limits), prompts, REPLY)?;
    Ok(Said { predictions, replies })
}
