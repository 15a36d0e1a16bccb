//! Measuring the engine: prefill and decode on given sizes, the calls of a whole job, and
//! what a type of weights costs in accuracy.

mod limit;
mod quality;
mod record;
mod requests;
mod stand_in;

pub use limit::Limit;
pub use quality::{Prediction, Quality, Replies, greedy, predict};
pub use record::Recorder;
pub use requests::{Asked, requests};
pub use stand_in::StandIn;

use crate::engine::request::{Event, Generate, Refused, Request, RequestId, SamplingParams, Task};
use crate::engine::{Engine, Runner};
use kernels::kv::BLOCK;
use std::collections::HashSet;
use std::time::Instant;

/// One measured size.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Measurement {
    /// `prefill`, `decode` or `decode shared`.
    pub phase: &'static str,
    /// Sequences at once.
    pub batch: usize,
    /// Prompt tokens of each sequence.
    pub context: usize,
    /// Tokens of a run, over all sequences.
    pub tokens: usize,
    /// What each run took.
    pub seconds: Vec<f64>,
    /// Of the median run.
    pub tokens_per_second: f64,
    /// Of the rate at which this machine's arithmetic or memory, whichever is slower, would be
    /// busy all the time; where that is known.
    pub limit_share: Option<f64>,
    /// Where the time went, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
}

/// What one kind of operation took in all runs of a measurement.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Operation {
    pub name: &'static str,
    pub calls: usize,
    pub milliseconds: f64,
}

impl Measurement {
    fn new(
        phase: &'static str,
        batch: usize,
        context: usize,
        tokens: usize,
        seconds: Vec<f64>,
    ) -> Self {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY);
        let tokens_per_second = tokens as f64 / median.max(1e-9);
        let (limit_share, operations) = (None, Vec::new());
        Self { phase, batch, context, tokens, seconds, tokens_per_second, limit_share, operations }
    }
}

/// What to decode.
#[derive(Debug, Clone, Copy)]
pub struct DecodeSize {
    /// Sequences at once.
    pub batch: usize,
    /// Tokens of each before the first that it decodes.
    pub context: usize,
    /// How many of these, the last ones, it has for itself; the others are common to all, as a document is to its
    /// candidates. All of them, where nothing is shared.
    pub own: usize,
    /// Tokens that each decodes in a run.
    pub new_tokens: usize,
}

impl DecodeSize {
    /// As [`Measurement::phase`] names it.
    pub fn phase(&self) -> &'static str {
        if self.own < self.context { "decode shared" } else { "decode" }
    }

    /// Blocks that the sequences take together when each has decoded `new_tokens`.
    fn blocks(&self, new_tokens: usize) -> usize {
        let common = (self.context - self.own) / BLOCK;
        common + self.batch * ((self.context + new_tokens).div_ceil(BLOCK) - common)
    }
}

/// Why a size could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the engine failed: {0}")]
    Engine(String),
    #[error(
        "{batch} sequences of {tokens} tokens did not decode all at once; raise --max-sequences"
    )]
    NotAtOnce { batch: usize, tokens: usize },
    #[error(
        "{batch} sequences of {tokens} tokens take {needed} blocks of keys and values at once, and there are {blocks}; \
         raise --kv-memory, or take fewer"
    )]
    NoRoom { batch: usize, tokens: usize, needed: usize, blocks: usize },
}

/// Times the prefill of a prompt of `len` random tokens, another one for each of `repeats` runs:
/// from submission to the first token.
///
/// # Errors
/// The prompt does not fit, or the engine fails.
pub fn prefill<R: Runner>(
    engine: &mut Engine<R>,
    len: usize,
    repeats: usize,
    seed: u64,
) -> Result<Measurement, BenchError> {
    let vocab = engine.runner().vocab();
    let mut seconds = Vec::new();
    for run in 0..repeats as u64 {
        let prompt = random_tokens(vocab, len, seed + run);
        let start = Instant::now();
        engine.submit(request(prompt, 1))?;
        finish(engine)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(Measurement::new("prefill", 1, len, len, seconds))
}

/// Times steps in which each sequence of the batch decodes a token; what comes before, prefill
/// included, is not counted. `begin` is called when these steps begin.
///
/// # Errors
/// The sequences do not fit all at once, or the engine fails.
pub fn decode<R: Runner>(
    engine: &mut Engine<R>,
    size: DecodeSize,
    repeats: usize,
    seed: u64,
    begin: impl FnOnce(),
) -> Result<Measurement, BenchError> {
    let staggered = size.batch + BLOCK;
    let most = staggered + size.new_tokens * repeats;
    let (batch, tokens) = (size.batch, size.context + most);
    let (needed, blocks) = (size.blocks(most), engine.stats().blocks);
    if needed > blocks {
        return Err(BenchError::NoRoom { batch, tokens, needed, blocks });
    }
    let prompts = prompts(engine.runner().vocab(), size, seed);
    // Once through the prompts, so that afterwards they come from the prefix cache and all
    // sequences begin at nearly the same time.
    for prompt in &prompts {
        engine.submit(request(prompt.clone(), 1))?;
    }
    finish(engine)?;
    let mut waiting = HashSet::new();
    for prompt in prompts {
        waiting.insert(engine.submit(request(prompt, most))?);
    }
    let ids: Vec<RequestId> = waiting.iter().copied().collect();
    for _ in 0..staggered {
        sampled(engine)?.iter().for_each(|id| _ = waiting.remove(id));
        if waiting.is_empty() {
            break;
        }
    }
    let mut seconds = Vec::new();
    begin();
    for _ in 0..repeats {
        let start = Instant::now();
        for _ in 0..size.new_tokens {
            if sampled(engine)?.len() != batch {
                return Err(BenchError::NotAtOnce { batch, tokens });
            }
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    for id in ids {
        engine.cancel(id);
    }
    Ok(Measurement::new(size.phase(), batch, size.context, batch * size.new_tokens, seconds))
}

fn prompts(vocab: usize, size: DecodeSize, seed: u64) -> Vec<Vec<u32>> {
    let common = random_tokens(vocab, size.context - size.own, seed);
    let one = |s| [&common[..], &random_tokens(vocab, size.own, seed + 1 + s)].concat();
    (0..size.batch as u64).map(one).collect()
}

/// Runs until nothing is left to do.
fn finish<R: Runner>(engine: &mut Engine<R>) -> Result<(), BenchError> {
    while !engine.is_idle() {
        step(engine)?;
    }
    Ok(())
}

/// Whose tokens a step brought.
fn sampled<R: Runner>(engine: &mut Engine<R>) -> Result<Vec<RequestId>, BenchError> {
    let events = step(engine)?;
    let tokens = events.iter().filter(|event| matches!(event, Event::Token { .. }));
    Ok(tokens.map(Event::id).collect())
}

fn step<R: Runner>(engine: &mut Engine<R>) -> Result<Vec<Event>, BenchError> {
    let events = engine.step().map_err(|e| BenchError::Engine(e.to_string()))?;
    // Logits that are no numbers end their request only, but leave nothing to measure.
    let failed = events.iter().find_map(|event| match event {
        Event::Failed { why, .. } => Some(BenchError::Engine(why.to_string())),
        _ => None,
    });
    failed.map_or(Ok(events), Err)
}

fn request(prompt: Vec<u32>, max_new_tokens: usize) -> Request {
    let params = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let generate = Generate {
        n: 1,
        max_new_tokens,
        params,
        seed: 0,
        stop_tokens: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        constraint: None,
    };
    Request { prompt, task: Task::Generate(generate) }
}

/// Reproducible token ids, different for each seed from the first token on.
fn random_tokens(vocab: usize, len: usize, seed: u64) -> Vec<u32> {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % vocab.max(1) as u64) as u32
        })
        .collect()
}
