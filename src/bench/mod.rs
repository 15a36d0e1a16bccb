//! Measuring the engine: prefill and decode on given sizes.

use crate::engine::request::{Event, Generate, Refused, Request, SamplingParams, Task};
use crate::engine::{Engine, Runner};

use std::time::Instant;

/// One measured size.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Measurement {
    /// `prefill` or `decode`.
    pub phase: &'static str,
    /// Sequences at once.
    pub batch: usize,
    /// Prompt tokens of each sequence.
    pub context: usize,
    /// Tokens that were timed, over all sequences.
    pub tokens: usize,
    pub seconds: f64,
    pub tokens_per_second: f64,
}

/// Why a size could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// Times the prefill of one prompt of `len` random tokens: from submission to the first token.
///
/// # Errors
/// The prompt does not fit, or the engine fails.
pub fn prefill<R: Runner>(
    engine: &mut Engine<R>,
    vocab: usize,
    len: usize,
    seed: u64,
) -> Result<Measurement, BenchError> {
    let start = Instant::now();
    engine.submit(request(random_tokens(vocab, len, seed), 1))?;
    while !engine.is_idle() {
        step(engine)?;
    }
    Ok(measurement("prefill", 1, len, len, start))
}

/// Times decoding `new_tokens` tokens of each of `batch` sequences with `context` tokens before;
/// their prefill is not counted.
///
/// # Errors
/// A prompt does not fit, or the engine fails.
pub fn decode<R: Runner>(
    engine: &mut Engine<R>,
    vocab: usize,
    (batch, context, new_tokens): (usize, usize, usize),
    seed: u64,
) -> Result<Measurement, BenchError> {
    for s in 0..batch {
        let prompt = random_tokens(vocab, context, seed + s as u64);
        engine.submit(request(prompt, new_tokens + 1))?;
    }
    // The clock starts when the last sequence has its first token.
    let (mut started, mut seen, mut tokens) = (None, std::collections::HashSet::new(), 0);
    while !engine.is_idle() {
        for event in step(engine)? {
            if let Event::Token { id, .. } = event {
                tokens += usize::from(started.is_some());
                seen.insert(id);
            }
        }
        if seen.len() == batch && started.is_none() {
            started = Some(Instant::now());
        }
    }
    Ok(measurement("decode", batch, context, tokens, started.unwrap_or_else(Instant::now)))
}

fn step<R: Runner>(engine: &mut Engine<R>) -> Result<Vec<Event>, BenchError> {
    engine.step().map_err(|e| BenchError::Engine(e.to_string()))
}

fn measurement(
    phase: &'static str,
    batch: usize,
    context: usize,
    tokens: usize,
    start: Instant,
) -> Measurement {
    let seconds = start.elapsed().as_secs_f64();
    let tokens_per_second = tokens as f64 / seconds.max(1e-9);
    Measurement { phase, batch, context, tokens, seconds, tokens_per_second }
}

fn request(prompt: Vec<u32>, max_new_tokens: usize) -> Request {
    let params = SamplingParams {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
    let generate = Generate {
        n: 1,
        max_new_tokens,
        params,
        seed: 0,
        stop_tokens: Vec::new(),
        logprobs: None,
        prompt_logprobs: false,
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
