//! Given requests, all at once: what a server does for as many clients, without the server.

use super::{BenchError, Measurement, finish, request};
use crate::engine::{Engine, Runner};
use serde::Deserialize;
use std::time::Instant;

/// A line of the file that [`super::Recorder`] writes. Calls that sample nothing have no new tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Asked {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Tokens to sample; nothing ends a reply before.
    pub new_tokens: usize,
}

/// Times all of them from the submission of the first to the end of the last. The measurement counts
/// new tokens; its context is the mean length of the prompts.
///
/// # Errors
/// A request does not fit, or the engine fails.
pub fn requests<R: Runner>(
    engine: &mut Engine<R>,
    asked: Vec<Asked>,
) -> Result<Measurement, BenchError> {
    let batch = asked.len();
    let tokens = asked.iter().map(|one| one.new_tokens).sum();
    let context = asked.iter().map(|one| one.prompt.len()).sum::<usize>() / batch.max(1);
    let start = Instant::now();
    for Asked { prompt, new_tokens } in asked {
        engine.submit(request(prompt, new_tokens))?;
    }
    finish(engine)?;
    let seconds = vec![start.elapsed().as_secs_f64()];
    Ok(Measurement::new("requests", batch, context, tokens, seconds))
}
