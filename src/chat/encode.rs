//! From a conversation to what the engine is asked.

use super::{Call, ChatError, Sampling, Task};
use crate::engine::request::{self, BadLogits, Generate, Refused, Request, SamplingParams};
use crate::tokenizer::{ChatTemplate, Tokenizer, Turn};
use std::collections::HashMap;
use std::sync::Arc;

/// Encodes calls for one checkpoint.
pub struct Encoder {
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    /// Token sets of the closings seen so far.
    closings: HashMap<String, Arc<[u32]>>,
}

/// A call in tokens, with what its reply's text depends on.
pub struct Encoded {
    pub request: Request,
    /// The reply continues text of the assistant.
    pub goes_on: bool,
    pub stops: Vec<String>,
}

impl Encoder {
    pub fn new(tokenizer: Arc<Tokenizer>, template: Arc<ChatTemplate>) -> Self {
        Self { tokenizer, template, closings: HashMap::new() }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// # Errors
    /// A conversation that the template refuses.
    pub fn encode(&mut self, call: Call) -> Result<Encoded, ChatError> {
        let prompt = self.prompt(&call)?;
        let (task, stops) = match call.task {
            Task::Generate(mut sampling) => {
                let stops = std::mem::take(&mut sampling.stop);
                (request::Task::Generate(self.generate(sampling)), stops)
            }
            Task::Score { continuations, closing } => {
                (self.score(&continuations, &closing), Vec::new())
            }
        };
        let goes_on = !call.prefix.is_empty();
        Ok(Encoded { request: Request { prompt, task }, goes_on, stops })
    }

    fn prompt(&self, call: &Call) -> Result<Vec<u32>, ChatError> {
        if call.messages.is_empty() {
            return Ok(self.tokenizer.encode_raw(&call.prefix));
        }
        let turns: Vec<Turn> = call
            .messages
            .iter()
            .map(|m| Turn { role: m.role.name(), content: &m.content })
            .collect();
        let encoded = self.template.encode(&self.tokenizer, &turns, &call.prefix);
        encoded.map_err(|e| ChatError::Refused(e.to_string()))
    }

    fn generate(&self, sampling: Sampling) -> Generate {
        Generate {
            n: 1,
            max_new_tokens: sampling.max_new_tokens,
            params: SamplingParams {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                min_p: sampling.min_p,
                repetition_penalty: sampling.repetition_penalty,
                ..SamplingParams::default()
            },
            seed: sampling.seed,
            stop_tokens: self.tokenizer.stop_tokens().to_vec(),
            logprobs: None,
            prompt_logprobs: None,
            constraint: None,
        }
    }

    /// Continuations in tokens.
    pub fn score(&mut self, continuations: &[String], closing: &str) -> request::Task {
        let continuations =
            continuations.iter().map(|c| self.tokenizer.encode_continuation(c)).collect();
        let closing = (!closing.is_empty()).then(|| {
            let tokenizer = &self.tokenizer;
            let set = self.closings.entry(closing.to_owned());
            set.or_insert_with(|| tokenizer.starting_with(closing).into()).clone()
        });
        request::Task::Score { continuations, closing }
    }
}

/// The engine's refusal as a failure of the call.
pub fn refusal(refused: Refused) -> ChatError {
    let why = refused.to_string();
    match refused {
        // What fits of the prompt is what its reply leaves.
        Refused::Context { prompt, reply, limit } | Refused::Memory { prompt, reply, limit } => {
            ChatError::TooLong { tokens: prompt, limit: limit.saturating_sub(reply), why }
        }
        _ => ChatError::Refused(why),
    }
}

/// Logits that are of no use as a failure of the call. Another seed would not help, so that it is none
/// that asks for another try.
pub fn failure(why: BadLogits) -> ChatError {
    ChatError::Lost(why.to_string())
}
